"""AEDAT 3.1 as cAER wrote it, the format of DVS128 Gesture.

The file has header lines up to `#!END-HEADER`, then packets. A packet has a head of 28 bytes, with
the type and number of its events, and then the events. All numbers are little-endian. We read only
packets of polarity events. Such an event is a word with valid bit, polarity, y and x, and a word
with the lower 31 bits of the time in microseconds.

https://docs.inivation.com/software/software-advanced-usage/file-formats/aedat-3.1.html
"""

import struct
from pathlib import Path

import numpy as np

from saformer.data.events import Events
from saformer.errors import DataError

VERSION = b"#!AER-DAT3.1"
END = b"#!END-HEADER\r\n"
POLARITY = 1
EVENT = 8  # bytes of a polarity event
PACKET = struct.Struct("<hh6i")
"""Type, source, bytes of an event, place of its time, overflows, capacity, number, number valid."""
FIX = "Get the file again: it was not written or copied to its end."


def read_aedat31(path: Path) -> Events:
    """Read the valid polarity events of a file.

    Raises:
        DataError: The file cannot be read, is not AEDAT 3.1, or is truncated.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataError(path, "a readable file", str(error.strerror), "Check it.") from None
    end = data.find(END)
    if not data.startswith(VERSION) or end < 0:
        found = f"{len(data)} bytes that begin {data[:16]!r}" if data else "an empty file"
        raise DataError(path, "an AEDAT 3.1 file", found, "Get the file again.")
    words, overflows = [], []
    start = end + len(END)
    while start < len(data):
        _need(path, data, start, PACKET.size)
        kind, _, size, _, overflow, capacity, _, _ = PACKET.unpack_from(data, start)
        if size <= 0 or capacity < 0 or (kind == POLARITY and size != EVENT):
            found = f"{capacity} events of {size} bytes and type {kind} at byte {start}"
            raise DataError(path, "the head of a packet", found, "Get the file again.")
        start += PACKET.size
        _need(path, data, start, size * capacity)
        if kind == POLARITY:
            words.append(np.frombuffer(data, "<u4", 2 * capacity, start))
            overflows.append(overflow)
        start += size * capacity
    event = np.concatenate([np.empty(0, "<u4"), *words]).reshape(-1, 2)
    high = np.repeat(np.array(overflows, dtype=np.int64) << 31, [len(part) // 2 for part in words])
    valid = (event[:, 0] & 1).astype(bool)
    if not valid.all():
        event, high = event[valid], high[valid]
    place = event[:, 0]
    return Events(
        t=high | event[:, 1],
        x=(place >> 17).astype(np.int16),
        y=(place >> 2 & 0x7FFF).astype(np.int16),
        p=(place >> 1 & 1).astype(np.uint8),
    )


def _need(path: Path, data: bytes, start: int, size: int) -> None:
    """Refuse a file that ends before byte `start + size`."""
    if start + size > len(data):
        found = f"{len(data) - start}, the end of the file"
        raise DataError(path, f"{size} bytes at byte {start}", found, FIX)
