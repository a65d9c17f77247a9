"""AEDAT files give the events that were written, as to SpikingJelly, or say what is wrong."""

import struct
import tempfile
from pathlib import Path

import numpy as np
import pytest
from event_files import HEADER, packet, stream, write_aedat31
from hypothesis import given
from hypothesis import strategies as st
from spikingjelly.datasets.cifar10_dvs import _load_origin_data
from spikingjelly.datasets.utils import load_aedat_v3

from saformer.data.events import Events
from saformer.data.readers.aedat2 import check_aedat2, read_aedat2, write_aedat2
from saformer.data.readers.aedat31 import read_aedat31
from saformer.errors import DataError

SPAN = 2**32 - 1


def assert_same(a: Events, b: Events) -> None:
    for name in "txyp":
        assert np.array_equal(getattr(a, name), getattr(b, name)), name
    assert a.t.dtype == np.int64


def assert_theirs(events: Events, theirs: dict) -> None:
    for name in "txyp":
        assert np.array_equal(getattr(events, name), theirs[name]), name


@given(seed=st.integers(0, 2**32), count=st.integers(1, 50))
def test_aedat2_comes_back(seed, count):
    """What is written as AEDAT 2.0 is read again, with 32-bit times, and by SpikingJelly too."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.aedat"
        events = stream(seed, count, end=SPAN)
        write_aedat2(path, events)
        check_aedat2(path)
        assert_same(read_aedat2(path), events)
        assert_theirs(events, _load_origin_data(path))


@pytest.mark.parametrize(
    "header", [b"#!AER-DAT2.0\n", b"#!AER-DAT2.0\r\n# created\r\n#\r\n", b"# no version\n"]
)
def test_aedat2_bits_are_pinned(tmp_path, header):
    """Address 0x0302 at 258 us is the pixel x=124, y=126 getting brighter, after any header."""
    path = tmp_path / "a.aedat"
    path.write_bytes(header + bytes.fromhex("00000302 00000102 00007fff 00000103"))
    events = read_aedat2(path)
    assert events.t.tolist() == [258, 259]
    assert (events.x.tolist(), events.y.tolist(), events.p.tolist()) == ([124, 0], [126, 0], [1, 0])


AEDAT2 = b"#!AER-DAT2.0\r\n"


@pytest.mark.parametrize("read", [read_aedat2, check_aedat2])
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (AEDAT2 + bytes(1999 * 8 + 4), "found 4 bytes left after 1999 whole events"),
        (AEDAT2, "expected events of 8 bytes after the header, found no event"),
        (AEDAT2[:-2], "expected events of 8 bytes after the header, found no event"),
        (b"", "expected an AEDAT 2.0 file, found an empty file"),
        (b"<!DOCTYPE html><html>", "expected an AEDAT 2.0 file, found 21 bytes that begin b'<!DOC"),
        (HEADER + bytes(16), "bytes that begin b'#!AER-DAT3.1"),
        (bytes(16), "expected an AEDAT 2.0 file, found 16 bytes that begin b'\\x00"),
        (None, "expected a readable file, found No such file or directory"),
    ],
)
def test_other_than_aedat2_is_told(tmp_path, read, content, message):
    """Reading and checking give one answer in one line, with the file and the numbers."""
    path = tmp_path / "cifar10_cat_3.aedat"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError) as error:
        read(path)
    assert str(error.value).startswith(f"{path}: ") and message in str(error.value)
    assert "\n" not in str(error.value)


@given(
    seed=st.integers(0, 2**32),
    count=st.integers(0, 60),
    end=st.sampled_from([1_000_000, 2**31, 2**34]),
    size=st.integers(1, 20),
)
def test_aedat31_comes_back(seed, count, end, size):
    """Polarity events of all packets come in order, past the overflow of their 31-bit times."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.aedat"
        events = stream(seed, count, end=end, sensor=2**15)
        write_aedat31(path, events, size)
        assert_same(read_aedat31(path), events)
        assert_theirs(events, load_aedat_v3(path))


def test_aedat31_drops_what_is_not_valid(tmp_path):
    """Events marked as not valid are left out, and so are packets of other types."""
    path, events = tmp_path / "a.aedat", stream(0, 50)
    invalid = np.arange(50) % 3 == 1
    write_aedat31(path, events, 7, invalid)
    with path.open("ab") as file:
        file.write(packet(0, bytes(24)) + packet(3, bytes(range(1, 81))))
    kept = [getattr(events, name)[~invalid] for name in "txyp"]
    assert_same(read_aedat31(path), Events(*kept))


def test_aedat31_bits_are_pinned(tmp_path):
    """Bit 0 is valid, 1 polarity, 2-16 y and 17-31 x; an overflow adds 2^31 microseconds."""
    path = tmp_path / "a.aedat"
    path.write_bytes(HEADER + packet(1, struct.pack("<II", 5 << 17 | 9 << 2 | 1 << 1 | 1, 7), 2))
    events = read_aedat31(path)
    found = [getattr(events, name).tolist() for name in "txyp"]
    assert found == [[2**32 + 7], [5], [9], [1]]


def test_aedat31_cut_off_anywhere_is_told(tmp_path):
    """A file that ends between packets gives the events of whole ones; anywhere else, an error."""
    path, events = tmp_path / "a.aedat", stream(0, 10)
    write_aedat31(path, events, 5)
    data = path.read_bytes()
    special = len(HEADER) + 28 + 16
    whole = {len(HEADER): 0, special: 0, special + 68: 5, special + 136: 10}
    assert len(data) == max(whole)
    for size in range(len(data) + 1):
        path.write_bytes(data[:size])
        if size in whole:
            assert len(read_aedat31(path)) == whole[size]
            continue
        with pytest.raises(DataError) as error:
            read_aedat31(path)
        assert str(error.value).startswith(f"{path}: expected ")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (HEADER + packet(1, bytes(80))[:-3], "expected 80 bytes at byte {}, found 77, the end of"),
        (HEADER + bytes(20), "expected 28 bytes at byte {}, found 20, the end of the file"),
        (HEADER + bytes(28), "the head of a packet, found 0 events of 0 bytes and type 0 at byte"),
        (b"", "expected an AEDAT 3.1 file, found an empty file"),
        (b"<html>", "expected an AEDAT 3.1 file, found 6 bytes that begin b'<html>'"),
        (HEADER[:20], "expected an AEDAT 3.1 file, found 20 bytes that begin b'#!AER-DAT3.1"),
        (AEDAT2 + bytes(16), "expected an AEDAT 3.1 file, found 30 bytes that begin b'#!AER-DAT2"),
        (None, "expected a readable file, found No such file or directory"),
    ],
)
def test_other_than_aedat31_is_told(tmp_path, content, message):
    """The answer is one line that names the file, the place in it, and the numbers."""
    path = tmp_path / "user01_led.aedat"
    if content is not None:
        path.write_bytes(content)
    start = len(HEADER) + (28 if "80 bytes" in message else 0)
    with pytest.raises(DataError) as error:
        read_aedat31(path)
    assert str(error.value).startswith(f"{path}: ") and message.format(start) in str(error.value)
    assert "\n" not in str(error.value)
