"""Download one file from one of several addresses, and verify its size and MD5.

The data go into `<name>.part`, so that a later call can resume. The file gets its final name when
its MD5 is right. A file with a wrong MD5 is renamed, not removed.
"""

import hashlib
import http.client
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

from rich.console import Console
from rich.filesize import decimal
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from saformer.data.archives import Part
from saformer.errors import DataError
from saformer.escape import say

TIMEOUT = 30  # seconds without an answer, or without data
CHUNK = 2**18  # bytes
MAGIC = {".gz": b"\x1f\x8b", ".zip": b"PK"}  # first bytes of a file by its suffix


class Refused(Exception):
    """An address did not give the file; the message says why."""


def verify(path: Path, part: Part, fix: str) -> None:
    """Raise a `DataError` unless a file is the published one."""
    md5 = md5_of(path)
    if md5 != part.md5:
        expected = f"MD5 {part.md5}" + (f" and {part.size} bytes" if part.size else "")
        with path.open("rb") as file:
            page = " (a web page)" if _is_markup(file.read(100)) else ""
        raise DataError(path, expected, f"{md5} and {path.stat().st_size} bytes{page}", fix)


def md5_of(path: Path) -> str:
    """MD5 of a file."""
    digest = hashlib.md5(usedforsecurity=False)
    with path.open("rb") as file, bar(f"{path.name}: MD5", path.stat().st_size) as advance:
        while data := file.read(CHUNK):
            digest.update(data)
            advance(len(data))
    return digest.hexdigest()


def download(path: Path, part: Part, urls: list[str], fix: str) -> None:
    """Receive a file from the first address that gives it."""
    partial = path.with_name(f"{path.name}.part")
    reason = ""
    for url in urls:
        say(f"{path.name}: from {url}")
        try:
            _receive_right(url, partial, part)
        except Refused as refused:
            reason = str(refused)
            if partial.exists():
                reason += f"; {decimal(partial.stat().st_size)} are kept in {partial.name}"
            say(f"  {reason}")
            continue
        if os.path.exists(path):  # the user has put the file there during the download
            verify(
                path, part, f"It was left as it is. {partial.name} beside it is whole: rename that."
            )
            partial.unlink()
            return
        os.replace(partial, path)
        print(f"  {decimal(path.stat().st_size)}, MD5 as published")
        return
    found = f"none from {len(urls)} address{'es' * (len(urls) > 1)} (the last: {reason})"
    raise DataError(path, "a download", found, fix)


def _receive_right(url: str, partial: Path, part: Part) -> None:
    """Receive a file and check its MD5; an interrupted earlier download is continued."""
    while True:
        went_on = partial.exists()
        _receive_all(url, partial, part)
        md5 = md5_of(partial)
        if md5 == part.md5:
            return
        aside = partial.with_name(f"{part.archive}.{md5[:8]}")
        os.replace(partial, aside)
        if not went_on:  # after a resume, only the earlier piece may be wrong: try from the start
            raise Refused(f"a file with MD5 {md5}, not {part.md5}; kept as {aside.name}")


def _receive_all(url: str, partial: Path, part: Part) -> None:
    """Request the missing bytes until the file is complete; give up when no more bytes arrive."""
    have = -1
    while stopped := _receive(url, partial, part):
        before, have = have, partial.stat().st_size
        if have == before:
            raise Refused(stopped)


def _receive(url: str, partial: Path, part: Part) -> str:
    """Request the missing bytes once; return why the transfer stopped early, or an empty string."""
    have = partial.stat().st_size if partial.exists() else 0
    if have and have == part.size:
        return ""
    headers = {"User-Agent": "saformer-data"} | ({"Range": f"bytes={have}-"} if have else {})
    try:
        response = urlopen(Request(url, headers=headers), timeout=TIMEOUT)
    except HTTPError as error:
        if error.code == 416 and have >= (part.size or 1):  # we already have the whole file
            return ""
        raise Refused(f"HTTP {error.code} {error.reason}") from None
    except (OSError, ValueError, http.client.HTTPException) as error:
        raise Refused(f"no connection ({_reason(error)})") from None
    with response:
        start = _first_byte(response, have)
        length = response.headers.get("Content-Length")
        total = part.size if length is None else start + int(length)
        data, stopped = _read(response)
        if not data and start == 0:
            raise Refused(stopped or "an empty file")
        if start == 0:
            _check_beginning(data, total, part)
        skip = have - start  # bytes that we have, if the server sends the file from its start
        with partial.open("ab") as file, bar(part.archive, total, start) as advance:
            while data:
                file.write(data[skip:])
                skip = max(0, skip - len(data))
                advance(len(data))
                data, stopped = _read(response)
    cut = total is not None and partial.stat().st_size < total
    return stopped or ("the connection ended" if cut else "")


def _first_byte(response: Any, have: int) -> int:
    """Offset in the file at which an answer begins: the start, or the start of the missing part."""
    status = response.status
    if status in (None, 200):  # file:// addresses have no status
        return 0
    if status == 206 and response.headers.get("Content-Range", "").startswith(f"bytes {have}-"):
        return have
    challenge = ", a challenge for bots; a browser gets through" if status == 202 else ""
    raise Refused(f"HTTP {status} in place of the file{challenge}")


def _check_beginning(data: bytes, total: int | None, part: Part) -> None:
    """Refuse data that cannot be the archive, before they are written."""
    if _is_markup(data):
        raise Refused("a web page in place of the file")
    if total is not None and part.size is not None and total != part.size:
        raise Refused(f"a file of {total} bytes, not {part.size}")
    magic = MAGIC.get(Path(part.archive).suffix, b"")
    if not data.startswith(magic[: len(data)]):
        raise Refused(f"a file that begins {data[:8]!r}, not {magic!r}")


def _is_markup(data: bytes) -> bool:
    return data.lstrip()[:1] == b"<"


def _read(response: Any) -> tuple[bytes, str]:
    """Read data, empty at the end of the file, and the reason if the connection broke."""
    try:
        return response.read1(CHUNK), ""
    except (OSError, http.client.HTTPException) as error:
        return b"", f"the connection broke ({_reason(error)})"


def _reason(error: Exception) -> str:
    """Why a connection failed, as the operating system describes it."""
    cause = error.reason if isinstance(error, URLError) else error
    if isinstance(cause, TimeoutError):
        return f"no answer for {TIMEOUT} s"
    return getattr(cause, "strerror", None) or str(cause) or type(cause).__name__


@contextmanager
def bar(what: str, total: int | None = None, done: int = 0) -> Iterator[Callable[[int], None]]:
    """Show a progress bar of bytes on a terminal; yields a function that adds bytes to it."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    console = Console()
    off = not console.is_terminal  # a bar would leave a blank line in a log file
    with Progress(*columns, console=console, transient=True, disable=off) as progress:
        task = progress.add_task(what, total=total, completed=done)
        yield lambda count: progress.advance(task, count)
