"""Bring a dataset to the disk: look at what exists, then download, verify and unpack the rest.

Files of the user are never changed. An archive is first unpacked into a temporary folder, which is
renamed when it is complete. So a folder with the final name is always complete, even after a crash.
"""

import os
import shutil
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from filelock import FileLock, Timeout
from rich.filesize import decimal

from saformer.data.archives import Distribution, Part, find_archive, look
from saformer.data.download import CHUNK, bar, download, verify
from saformer.errors import DataError
from saformer.escape import plain, say


def fetch(name: str, distribution: Distribution, root: Path, mirror: str = "") -> bool:
    """Bring a dataset to the disk and print each step.

    Args:
        name: The dataset, for messages.
        distribution: How the dataset is published.
        root: Folder to put it into.
        mirror: Address of a folder that also holds the archives; it is tried first.

    Returns:
        Whether the dataset is complete, so that the user has nothing to do by hand.

    Raises:
        DataError: A file of the user is not the published one, no address gives the archive, or
            the folder cannot be written to.
    """
    if not any(part.archive for part in distribution.parts):
        whole = all(look(part, root, distribution.places).whole for part in distribution.parts)
        there = distribution.parts and whole
        print(
            f"{plain(str(root))}: is there"
            if there
            else distribution.by_hand.format(root=plain(str(root)))
        )
        return whole
    again = f"saformer-data fetch {name}"
    try:
        # Check all existing files before the first download.
        waiting = [
            part for part in distribution.parts if not _is_there(part, distribution, root, again)
        ]
        if not waiting:
            return True
        root.mkdir(parents=True, exist_ok=True)
        with FileLock(root / ".fetch.lock", timeout=0):
            return all(_bring(part, distribution, root, mirror, again) for part in waiting)
    except Timeout:
        raise DataError(root, "no other fetch at work there", "one", "Wait for its end.") from None
    except OSError as error:
        reason = error.strerror or str(error)
        fix = "Make room or permit writing there, or set data_dir to another folder."
        raise DataError(error.filename or root, "a place to write to", reason, fix) from error


def _bring(part: Part, distribution: Distribution, root: Path, mirror: str, again: str) -> bool:
    """Download and unpack one part, or print how the user does it by hand."""
    path = find_archive(part, root)
    if path is None:
        urls = [f"{mirror.rstrip('/')}/{part.archive}"] if mirror else []
        urls += part.urls
        if not urls:
            print(distribution.by_hand.format(root=plain(str(root))))
            return False
        path = root / part.archive
        by_browser = f"get it from {distribution.page} with a browser and put it there"
        download(path, part, urls, f"Check the network and run {again} again, or {by_browser}.")
    if part.folder:
        _unpack(path, part.folder, root)
    return True


def _is_there(part: Part, distribution: Distribution, root: Path, again: str) -> bool:
    """Whether a part is already complete; a part that is damaged or mixed up raises a DataError."""
    found, archive = look(part, root, distribution.places), find_archive(part, root)
    where = found.folder if len(distribution.places) > 1 else found.folder / part.folder
    if found.whole and (part.folder or archive is None):
        say(f"{where}: whole, {found.count} of {found.expected} files")
        return True
    target = root / part.folder
    if part.folder and os.path.isdir(target) and any(target.iterdir()):
        expected = f"{found.expected} files of {part.archive}"
        fix = f"It was not changed: move it away and run {again} to unpack it again."
        raise DataError(target, expected, f"{found.count}", fix)
    if archive is None:
        return False
    verify(archive, part, f"It was left as it is: move it away and run {again} again.")
    say(f"{archive}: {decimal(archive.stat().st_size)}, MD5 as published")
    return not part.folder


def _unpack(path: Path, folder: str, root: Path) -> None:
    """Unpack an archive into a temporary folder, and move `folder` into place when it is complete.

    Raises:
        DataError: The archive holds no such folder, or a file whose path lies outside of it.
    """
    beside = f".unpacking-{folder}-"
    for left in root.glob(f"{beside}*"):  # left by a fetch that was killed
        shutil.rmtree(left)
    part = Path(tempfile.mkdtemp(prefix=beside, dir=root))
    count = 0
    try:
        with bar(f"{path.name}: unpacking") as advance:
            for name, stream in _files_in(path):
                inside = Path(name)
                if inside.anchor or ".." in inside.parts:
                    raise DataError(path, "files below its own folder", name, "Do not use it.")
                target = part / inside
                target.parent.mkdir(parents=True, exist_ok=True)
                with stream, target.open("wb") as file:
                    while data := stream.read(CHUNK):
                        file.write(data)
                        advance(len(data))
                count += 1
        if not (part / folder).is_dir():
            found = ", ".join(sorted(entry.name for entry in part.iterdir())[:5]) or "nothing"
            raise DataError(path, f"a folder {folder} in it", found, "Unpack it by hand.")
        os.replace(part / folder, root / folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    say(f"{root / folder}: {count} files unpacked")


def _files_in(path: Path) -> Iterator[tuple[str, IO[bytes]]]:
    """Name and contents of each file in a zip or tar archive; links and devices are refused."""
    if path.suffix == ".zip":
        with zipfile.ZipFile(path) as archive:
            for item in archive.infolist():
                if not item.is_dir():
                    yield item.filename, archive.open(item)
        return
    with tarfile.open(path) as tape:
        for member in tape:
            stream = tape.extractfile(member) if member.isfile() else None
            if stream is not None:
                yield member.name, stream
            elif not member.isdir():
                expected = "files and folders in it"
                raise DataError(
                    path, expected, f"{member.name}, a link or device", "Do not use it."
                )
