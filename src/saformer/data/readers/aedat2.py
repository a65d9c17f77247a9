"""AEDAT 2.0 as jAER wrote it for a DVS128, the format of CIFAR10-DVS.

Header lines that begin with '#', then one event every 8 bytes: address and time in microseconds,
both big-endian uint32. Bit 0 of the address is set when the pixel got darker; bits 1-7 and 8-14 are
the pixel's position in the camera's own axes. We turn these axes as SpikingJelly does, so that
pictures are upright; readers that do not turn them give other frames.
"""

import os
from pathlib import Path

import numpy as np

from saformer.data.events import Events
from saformer.errors import DataError

SENSOR = 128
EVENT = 8  # bytes
VERSION = b"#!AER-DAT2"
HEADER = VERSION + b".0\r\n# address and time of each event: int32, big-endian, microseconds\r\n"
FIX = "Get the file again: it was not written or copied to its end."


def read_aedat2(path: Path) -> Events:
    """Read all events of a file.

    Raises:
        DataError: The file cannot be read, is not AEDAT 2.0, holds no event, or is truncated.
    """
    data = _body(path, read=True)
    event = np.frombuffer(data, np.uint8)
    # Only the last two bytes of an address are used. Position and polarity in them count in the
    # opposite direction to ours, so all bits are inverted first.
    high, low = ~event[2::EVENT], ~event[3::EVENT]
    return Events(
        t=np.frombuffer(data, ">u4")[1::2].astype(np.int64),
        x=high & (SENSOR - 1),
        y=low >> 1,
        p=low & 1,
    )


def check_aedat2(path: Path) -> None:
    """Raise the errors of `read_aedat2`, but look only at the header and the size of the file."""
    _body(path, read=False)


def _body(path: Path, read: bool) -> bytes:
    """Check header and size, and return the bytes after the header (no bytes without `read`)."""
    try:
        with path.open("rb") as file:
            begin = file.peek(16)[:16]
            while file.peek(1)[:1] == b"#":
                file.readline()
            start, size = file.tell(), os.fstat(file.fileno()).st_size
            data = file.read() if read else b""
    except OSError as error:
        raise DataError(path, "a readable file", str(error.strerror), "Check it.") from None
    if start == 0 or (begin.startswith(b"#!AER-DAT") and not begin.startswith(VERSION)):
        found = f"{size} bytes that begin {begin!r}" if size else "an empty file"
        raise DataError(path, "an AEDAT 2.0 file", found, "Get the file again.")
    count, left = divmod(size - start, EVENT)
    if left or not count:
        found = f"{left} bytes left after {count} whole events" if left else "no event"
        raise DataError(path, f"events of {EVENT} bytes after the header", found, FIX)
    return data


def write_aedat2(path: Path, events: Events) -> None:
    """Write events of a 128x128 sensor in the format that `read_aedat2` reads.

    Args:
        path: File to write.
        events: Times from 0 to 2^32 - 1.
    """
    x, y, p = (values.astype(np.uint32) for values in (events.x, events.y, events.p))
    words = np.empty((len(events), 2), dtype=">u4")
    words[:, 0] = (SENSOR - 1 - x) << 8 | (SENSOR - 1 - y) << 1 | (1 - p)
    words[:, 1] = events.t
    path.write_bytes(HEADER + words.tobytes())
