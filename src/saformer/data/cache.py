"""Arrays that are built from the user's files once, and found again by what made them.

A cache is a folder `<name>-<key>` of arrays and a `meta.json`. It is built in a temporary folder
beside it, under a lock, and renamed when whole, so that whatever stops a build, and however many
start it at once, there is either a whole cache or none. The key is a digest of everything that
shapes the content: a changed setting never meets an old cache.
"""

import errno
import hashlib
import json
import logging
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock, Timeout
from numpy.typing import NDArray

from saformer.data.settings import DatasetConfig
from saformer.errors import DataError, require

log = logging.getLogger(__name__)

META = "meta.json"
FORMAT = 1  # raise it when builders write something else for the same key
NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}

Facts = dict[str, Any]


def fingerprint(sizes: Iterable[tuple[str, int]]) -> str:
    """Digest of items by name, size and order, since what is made of them is found by its place."""
    text = "\n".join(f"{name} {size}" for name, size in sizes)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def cache_dir_of(config: DatasetConfig) -> Path:
    """The folder of all caches of a dataset that has one.

    Raises:
        SettingError: There is none.
    """
    rule = f"be a folder, since {config.name} is read from a cache"
    require(config.cache_dir is not None, "dataset.cache_dir", rule, "null")
    return Path(config.cache_dir or "")


def cache_folder(cache_dir: Path, name: str, key: Facts) -> Path:
    """The folder of a cache, whether it is built or not.

    Args:
        cache_dir: Folder of all caches.
        name: Beginning of the folder's name, for people.
        key: Everything that shapes the content, as plain values.
    """
    text = json.dumps({"format": FORMAT, **key}, sort_keys=True)
    return cache_dir / f"{name}-{hashlib.sha256(text.encode()).hexdigest()[:16]}"


def is_built(folder: Path) -> bool:
    """Whether the cache is whole: every file is there with the size it was written with."""
    try:
        files = json.loads((folder / META).read_text(encoding="utf-8"))["files"]
        return all((folder / name).stat().st_size == size for name, size in files.items())
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False


def read_meta(folder: Path) -> Facts:
    """What a whole cache says of itself: its key and what its builder found."""
    meta: Facts = json.loads((folder / META).read_text(encoding="utf-8"))
    return meta


def build_once(
    cache_dir: Path, name: str, key: Facts, num_bytes: int, build: Callable[[Path], Facts]
) -> Path:
    """Find a cache, or build it while others that want it wait.

    Args:
        cache_dir: Folder of all caches; made if it is not there.
        name: Beginning of the folder's name, for people.
        key: Everything that shapes the content, as plain values.
        num_bytes: Room that it takes, to tell early that there is not enough.
        build: Writes its files into the folder it is given; returns facts for `meta.json`.

    Returns:
        The folder.

    Raises:
        DataError: The cache cannot be written where it should lie. What `build` raises otherwise
            comes through, and leaves nothing behind.
    """
    folder = cache_folder(cache_dir, name, key)
    if is_built(folder):  # before the lock, so that a cache on a read-only disk serves
        return folder
    with _told(cache_dir):
        cache_dir.mkdir(parents=True, exist_ok=True)
        lock = FileLock(f"{folder}.lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            log.warning("%s: another process builds the cache; waiting for it", name)
            lock.acquire()
    try:
        if not is_built(folder):  # else somebody built it while we waited
            _build(folder, key, num_bytes, build)
    finally:
        lock.release()
    return folder


def _build(folder: Path, key: Facts, num_bytes: int, build: Callable[[Path], Facts]) -> None:
    """Build under the lock."""
    cache_dir = folder.parent
    with _told(cache_dir):
        for left in cache_dir.glob(f".{folder.name}-*"):  # of a build that was killed
            shutil.rmtree(left)
        if folder.exists():  # damaged: `is_built` said no
            shutil.rmtree(folder)
        free = shutil.disk_usage(cache_dir).free
        if free < num_bytes:
            needed, there = (f"{size / 2**20:.0f} MiB" for size in (num_bytes, free))
            fix = "Make room, or set dataset.cache_dir to another folder."
            raise DataError(cache_dir, f"{needed} free for the cache", there, fix)
        part = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=cache_dir))
    try:
        try:
            facts = build(part)
        except OSError as error:
            if not _is_about_writing(error, part):  # then it is about a file that is read
                raise
            raise _cannot_write(cache_dir, error) from error
        with _told(cache_dir):
            files = {path.name: path.stat().st_size for path in sorted(part.iterdir())}
            meta = {"key": key, "files": files, **facts}
            (part / META).write_text(json.dumps(meta, indent=2) + "\n", encoding="utf-8")
            for path in part.iterdir():
                _flush(path)
            part.chmod(0o755)  # mkdtemp keeps others out, but a cache may be shared
            os.replace(part, folder)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise


@contextmanager
def _told(cache_dir: Path) -> Iterator[None]:
    """Turn what the system refuses into one line about the folder."""
    try:
        yield
    except OSError as error:
        raise _cannot_write(cache_dir, error) from error


def _cannot_write(cache_dir: Path, error: OSError) -> DataError:
    reason = error.strerror or str(error)
    fix = "Make room or permit writing there, or set dataset.cache_dir to another folder."
    return DataError(cache_dir, "a folder to write a cache to", reason, fix)


def _is_about_writing(error: OSError, part: Path) -> bool:
    """Whether a builder failed at its own files, by number, by name, or by numpy's words."""
    return (
        error.errno in NO_ROOM
        or Path(str(error.filename)).is_relative_to(part)
        or " requested and " in str(error)  # of ndarray.tofile, and so of numpy.save
    )


def _flush(path: Path) -> None:
    """Bring a file to the disk, so that a crash after the rename cannot leave a hole in it."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


def new_array(path: Path, shape: tuple[int, ...]) -> np.memmap[Any, np.dtype[np.uint8]]:
    """A uint8 array on disk, to be filled; flush it when done.

    Raises:
        OSError: There is no room for it.
    """
    array = np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=shape)
    assert isinstance(array, np.memmap)
    # Take the room now: to write where the disk is full kills a process that maps the file.
    if hasattr(os, "posix_fallocate"):  # not on macOS
        with path.open("r+b") as file:
            try:
                os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
            except OSError as error:
                if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL):  # not on all file systems
                    raise
    return array


def open_array(path: Path) -> NDArray[Any]:
    """An array on disk, read as it is used; processes that read it share the memory."""
    # Copy-on-write and not read-only, because torch warns of arrays that it could not write to.
    array: NDArray[Any] = np.load(path, mmap_mode="c", allow_pickle=False)
    return array
