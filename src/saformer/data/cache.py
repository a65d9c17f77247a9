"""Build arrays from the user's files once, and find them again by the settings that made them.

A cache is a folder `<name>-<key>` of arrays and a `meta.json`. A process builds it in a temporary
folder under a lock, and renames the folder when it is complete. So a cache is either complete or
absent, even if a build is killed or several processes start it at once. The key is a digest of all
settings that determine the content, so a run with changed settings never uses an old cache.
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
FORMAT = 1  # increase it when builders write other content for the same key
NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}

Facts = dict[str, Any]


def fingerprint(sizes: Iterable[tuple[str, int]]) -> str:
    """Hash items by name, size and order; the order matters because caches are read by position."""
    text = "\n".join(f"{name} {size}" for name, size in sizes)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def cache_dir_of(config: DatasetConfig) -> Path:
    """The folder of all caches of a dataset.

    Raises:
        SettingError: `dataset.cache_dir` is not set.
    """
    rule = f"be a folder, since {config.name} is read from a cache"
    require(config.cache_dir is not None, "dataset.cache_dir", rule, "null")
    return Path(config.cache_dir or "")


def cache_folder(cache_dir: Path, name: str, key: Facts) -> Path:
    """The folder of a cache; it need not exist.

    Args:
        cache_dir: Folder of all caches.
        name: Beginning of the folder's name, for people.
        key: All values that determine the content, as plain values.
    """
    text = json.dumps({"format": FORMAT, **key}, sort_keys=True)
    return cache_dir / f"{name}-{hashlib.sha256(text.encode()).hexdigest()[:16]}"


def is_built(folder: Path) -> bool:
    """Whether the cache is complete: every file exists with the size that `meta.json` records."""
    try:
        files = json.loads((folder / META).read_text(encoding="utf-8"))["files"]
        return all((folder / name).stat().st_size == size for name, size in files.items())
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False


def read_meta(folder: Path) -> Facts:
    """Read the `meta.json` of a complete cache: its key, its files and the builder's facts."""
    meta: Facts = json.loads((folder / META).read_text(encoding="utf-8"))
    return meta


def build_once(
    cache_dir: Path, name: str, key: Facts, num_bytes: int, build: Callable[[Path], Facts]
) -> Path:
    """Find a cache or build it; other processes that need the same cache wait for the build.

    Args:
        cache_dir: Folder of all caches; created if it does not exist.
        name: Beginning of the folder's name, for people.
        key: All values that determine the content, as plain values.
        num_bytes: Size of the cache, so that a full disk is reported before the build.
        build: Writes its files into the given folder and returns facts for `meta.json`.

    Returns:
        The folder of the cache.

    Raises:
        DataError: The cache cannot be written to its folder. Other errors of `build` pass through
            unchanged, and no partial cache remains.
    """
    folder = cache_folder(cache_dir, name, key)
    if is_built(folder):  # before we take the lock, so that a cache on a read-only disk works
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
        if not is_built(folder):  # another process may have built it while we waited
            _build(folder, key, num_bytes, build)
    finally:
        lock.release()
    return folder


def _build(folder: Path, key: Facts, num_bytes: int, build: Callable[[Path], Facts]) -> None:
    """Build a cache; the caller holds the lock."""
    cache_dir = folder.parent
    with _told(cache_dir):
        for left in cache_dir.glob(f".{folder.name}-*"):  # left by a build that was killed
            shutil.rmtree(left)
        if folder.exists():  # it is damaged, because `is_built` is false
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
            if not _is_about_writing(error, part):  # the builder could not read a source file
                raise
            raise _cannot_write(cache_dir, error) from error
        with _told(cache_dir):
            files = {path.name: path.stat().st_size for path in sorted(part.iterdir())}
            meta = {"key": key, "files": files, **facts}
            (part / META).write_text(json.dumps(meta, indent=2) + "\n", encoding="utf-8")
            for path in part.iterdir():
                _flush(path)
            part.chmod(0o755)  # mkdtemp denies other users access, but a cache may be shared
            os.replace(part, folder)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise


@contextmanager
def _told(cache_dir: Path) -> Iterator[None]:
    """Turn an OSError into a DataError with one line about the cache folder."""
    try:
        yield
    except OSError as error:
        raise _cannot_write(cache_dir, error) from error


def _cannot_write(cache_dir: Path, error: OSError) -> DataError:
    reason = error.strerror or str(error)
    fix = "Make room or permit writing there, or set dataset.cache_dir to another folder."
    return DataError(cache_dir, "a folder to write a cache to", reason, fix)


def _is_about_writing(error: OSError, part: Path) -> bool:
    """Whether a builder failed to write its own files, by error number, file name or message."""
    return (
        error.errno in NO_ROOM
        or Path(str(error.filename)).is_relative_to(part)
        or " requested and " in str(error)  # message of ndarray.tofile, which numpy.save calls
    )


def _flush(path: Path) -> None:
    """Write a file to the disk, so that a crash after the rename cannot leave it incomplete."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


def new_array(path: Path, shape: tuple[int, ...]) -> np.memmap[Any, np.dtype[np.uint8]]:
    """Create a uint8 array on the disk; the caller fills it and then flushes it.

    Raises:
        OSError: The disk is full.
    """
    array = np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=shape)
    assert isinstance(array, np.memmap)
    # Allocate the disk space now: writing to a mapped file on a full disk kills the process.
    if hasattr(os, "posix_fallocate"):  # not on macOS
        with path.open("r+b") as file:
            try:
                os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
            except OSError as error:
                # Some file systems do not support it.
                if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL):
                    raise
    return array


def open_array(path: Path) -> NDArray[Any]:
    """Map an array on the disk; its pages are read when used, and processes share the memory."""
    # Copy-on-write instead of read-only, because torch warns about arrays that are not writable.
    array: NDArray[Any] = np.load(path, mmap_mode="c", allow_pickle=False)
    return array
