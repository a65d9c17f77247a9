"""Every fault that the files of an event dataset can have is told in one line.

The two tables say how a fault comes about and what is said of it.
"""

import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
from event_files import (
    CLIP,
    clips_of,
    config,
    stream,
    write_aedat31,
    write_cifar10_dvs,
    write_gesture,
)
from event_files import HEADER as AEDAT31_HEADER

from saformer.data import readers
from saformer.data.events import Events
from saformer.data.readers import cifar10_dvs, dvs128_gesture
from saformer.data.readers.aedat2 import HEADER as AEDAT2_HEADER
from saformer.data.readers.aedat2 import write_aedat2
from saformer.data.settings import BadRecordings, EventConfig, Split
from saformer.errors import DataError

PER_CLASS = 10
EVENTS = 2000
WHOLE = len(AEDAT2_HEADER) + 8 * EVENTS  # bytes
BIRD = "bird/cifar10_bird_1.aedat"
USER = "DvsGesture/user02_led.aedat"
TABLE = "DvsGesture/user02_led_labels.csv"
HTML = b"<!DOCTYPE html><html><body>Just a moment...</body></html>"
UNPACK = "Unpack bird.zip again (or run: saformer-data fetch cifar10_dvs)"
ALLOW = ", or set dataset.allow_incomplete=true to use what is there."


def removed(path: str):
    def fault(root: Path) -> None:
        place = root / path
        shutil.rmtree(place) if place.is_dir() else place.unlink()

    return fault


def written(path: str, content: bytes | str):
    def fault(root: Path) -> None:
        (root / path).write_bytes(content if isinstance(content, bytes) else content.encode())

    return fault


def shortened(path: str, end: int):
    """The file up to byte `end`, which may be counted from its end."""

    def fault(root: Path) -> None:
        (root / path).write_bytes((root / path).read_bytes()[:end])

    return fault


def recorded(path: str, events: Events):
    """Other events in the place of a recording."""

    def fault(root: Path) -> None:
        (write_aedat2 if path == BIRD else write_aedat31)(root / path, events)

    return fault


def zipped(root: Path) -> None:
    """The archive of the birds beside them, as it is published."""
    (root / "download").mkdir()
    with zipfile.ZipFile(root / "download" / "bird.zip", "w") as archive:
        for path in sorted((root / "bird").iterdir()):
            archive.write(path, f"bird/{path.name}")


def only_zipped(root: Path) -> None:
    zipped(root)
    for name in cifar10_dvs.CLASSES:
        shutil.rmtree(root / name)


def cut_beside_zip(root: Path) -> None:
    zipped(root)
    shortened(BIRD, -80)(root)


def only_archive(root: Path) -> None:
    shutil.rmtree(root / "DvsGesture")
    (root / "DvsGesture.tar.gz").write_bytes(b"")


def far_right() -> Events:
    events = stream(2, 4000, 0, CLIP * 13)
    events.x[np.flatnonzero(events.t >= 500)[17]] = 200
    return events


CIFAR10_DVS = {
    "root missing": (
        removed(""),
        "cifar10_dvs: expected folders airplane to truck with 10 recordings each, found no such "
        "folder. Run: saformer-data fetch cifar10_dvs, or set dataset.root to where they are.",
    ),
    "archives not unpacked": (only_zipped, "found 1 zip archives, not unpacked. Run: saformer-d"),
    "class folder missing": (
        removed("bird"),
        "bird: expected 10 recordings of class bird, found 0 (the first missing: "
        f"cifar10_bird_0.aedat). {UNPACK}{ALLOW}",
    ),
    "incomplete extraction": (
        removed(BIRD),
        "bird: expected 10 recordings of class bird, found 9 (the first missing: "
        f"cifar10_bird_1.aedat). {UNPACK}{ALLOW}",
    ),
    "truncated within an event": (
        shortened(BIRD, -4),
        f"{BIRD}: expected events of 8 bytes after the header, found 4 bytes left after 1999 whole "
        "events. Get the file again",
    ),
    "truncated between events": (
        shortened(BIRD, len(AEDAT2_HEADER) + 8),
        f"{BIRD}: expected about {WHOLE} bytes, the median of its class, found "
        f"{len(AEDAT2_HEADER) + 8} bytes. {UNPACK}{ALLOW}",
    ),
    "truncated between events, beside its archive": (
        cut_beside_zip,
        f"{BIRD}: expected {WHOLE} bytes as in bird.zip, found {WHOLE - 80} bytes. {UNPACK}{ALLOW}",
    ),
    "truncated after the header": (
        shortened(BIRD, len(AEDAT2_HEADER)),
        f"{BIRD}: expected events of 8 bytes after the header, found no event.",
    ),
    "empty file": (written(BIRD, b""), f"{BIRD}: expected an AEDAT 2.0 file, found an empty file."),
    "HTML page": (
        written(BIRD, HTML),
        f"{BIRD}: expected an AEDAT 2.0 file, found 57 bytes that begin b'<!DOCTYPE html><'.",
    ),
    "another format": (
        written(BIRD, AEDAT31_HEADER + bytes(160)),
        f"{BIRD}: expected an AEDAT 2.0 file, found ",
    ),
    "fewer events than frames": (
        recorded(BIRD, stream(0, 30)),
        f"{BIRD}: expected at least 32 events, found 30.",
    ),
    "no duration": (
        recorded(BIRD, stream(0, EVENTS, 5, 6)),
        f"{BIRD}: expected a duration above 0 and below 60 s, found 0.0 s.",
    ),
    "too long": (
        recorded(BIRD, stream(0, EVENTS, end=200_000_000)),
        f"{BIRD}: expected a duration above 0 and below 60 s, found 19",
    ),
}
GESTURE = {
    "root missing": (
        removed(""),
        "dvs128_gesture: expected DvsGesture with trials_to_train.txt and trials_to_test.txt and "
        "the recordings that they list, found no such folder. Unpack DvsGesture.tar.gz again "
        "(saformer-data fetch dvs128_gesture says how to get it), or set dataset.root to its "
        "folder.",
    ),
    "archive not unpacked": (only_archive, "found DvsGesture.tar.gz, not unpacked. Unpack"),
    "recording missing": (
        removed(USER),
        "DvsGesture: expected the 2 recordings in trials_to_train.txt, found 1 (the first missing: "
        "user02_led.aedat). Unpack DvsGesture.tar.gz again",
    ),
    "table missing": (removed(TABLE), f"{TABLE}: expected a readable file, found No such file"),
    "list missing": (
        removed("DvsGesture/trials_to_test.txt"),
        "trials_to_test.txt: expected a readable file, found No such file",
    ),
    "list of another kind": (
        written("DvsGesture/trials_to_train.txt", HTML),
        "DvsGesture: expected the 1 recordings in trials_to_train.txt, found 0 (the first missing",
    ),
    "fewer clips than the split expects": (
        written(TABLE, "class,startTime_usec,endTime_usec\n1,500,9000\n"),
        "trials_to_train.txt: expected 24 clips, found 13 in the tables of 2 recordings.",
    ),
    "table of another kind": (
        written(TABLE, HTML * 2 + b"\n" + HTML),
        f"{TABLE}: expected rows of class 1 to 11, start and end in microseconds, found '<!DOCTYPE",
    ),
    "class out of range": (
        written(TABLE, "class,startTime_usec,endTime_usec\n12,500,9000\n"),
        f"{TABLE}: expected rows of class 1 to 11, start and end in microseconds, found "
        "'12,500,9000'.",
    ),
    "end before start": (
        written(TABLE, "class,startTime_usec,endTime_usec\n1,9000,500\n"),
        "found '1,9000,500'.",
    ),
    "truncated within a packet": (
        shortened(USER, -3),
        f"{USER}: expected 800 bytes at byte ",
    ),
    "truncated between packets": (
        shortened(USER, len(AEDAT31_HEADER) + 28 + 16 + 828),
        f"{USER}: expected at least 32 events, found 0.",
    ),
    "empty file": (written(USER, b""), f"{USER}: expected an AEDAT 3.1 file, found an empty file."),
    "HTML page": (
        written(USER, HTML),
        f"{USER}: expected an AEDAT 3.1 file, found 57 bytes that begin b'<!DOCTYPE html><'.",
    ),
    "x out of range": (
        recorded(USER, far_right()),
        f"{USER}: expected x from 0 to 127, found x=200 in event 17 (wrong address mask?).",
    ),
}
ALL = [
    *(
        pytest.param("cifar10_dvs", *row, id=f"CIFAR10-DVS {key}")
        for key, row in CIFAR10_DVS.items()
    ),
    *(pytest.param("dvs128_gesture", *row, id=f"Gesture {key}") for key, row in GESTURE.items()),
]


@pytest.fixture
def roots(tmp_path, monkeypatch):
    """A whole set of each kind."""
    monkeypatch.setattr(cifar10_dvs, "PER_CLASS", PER_CLASS)
    clips = dict(zip(dvs128_gesture.TRIALS, map(clips_of, (2, 1)), strict=True))
    monkeypatch.setattr(dvs128_gesture, "TRIALS", clips)
    return {name: tmp_path / name for name in ("cifar10_dvs", "dvs128_gesture")}


def read_set(name: str, root: Path, **values: object):
    split = Split.peer_last10 if name == "cifar10_dvs" else Split.official
    return readers.read(config(name, root, split=split, **values), 32)


def write_set(name: str, root: Path) -> None:
    if name == "cifar10_dvs":
        write_cifar10_dvs(root, PER_CLASS, EVENTS)
    else:
        write_gesture(root, 2, 1)


@pytest.mark.parametrize(("name", "fault", "message"), ALL)
def test_a_fault_is_told(roots, name, fault, message):
    """Each fault gives a line of its own: what was looked at, expected and found, and the fix."""
    write_set(name, roots[name])
    fault(roots[name])
    with pytest.raises(DataError) as error:
        read_set(name, roots[name])
    assert message in str(error.value)
    assert "\n" not in str(error.value) and str(error.value).endswith(".")


@pytest.mark.parametrize("name", ["cifar10_dvs", "dvs128_gesture"])
def test_no_fault_no_error(roots, name):
    """The same files without a fault are read."""
    write_set(name, roots[name])
    assert read_set(name, roots[name]).facts["skipped"] == []


def test_archives_that_agree_or_are_damaged_do_no_harm(roots):
    """Files as in their archive pass, and an archive that was cut off says nothing of them."""
    root = roots["cifar10_dvs"]
    write_set("cifar10_dvs", root)
    zipped(root)
    (root / "download" / "cat.zip").write_bytes(b"PK")
    assert len(read_set("cifar10_dvs", root).x) == 10 * PER_CLASS


def test_what_was_cut_between_events_can_be_used(roots):
    """dataset.allow_incomplete=true, as the error says, takes such a recording as it is."""
    root = roots["cifar10_dvs"]
    write_set("cifar10_dvs", root)
    cut_beside_zip(root)
    whole, cut = EVENTS, EVENTS - 10
    source = read_set("cifar10_dvs", root, allow_incomplete=True)
    counts = {name: int(x.sum()) for name, x in zip(source.names, source.x, strict=True)}
    assert (counts["cifar10_bird_1"], counts["cifar10_bird_2"]) == (cut, whole)


def test_a_damaged_file_can_be_skipped(roots, monkeypatch):
    """What the index finds is left out and listed as what the reader finds is."""
    monkeypatch.setattr("saformer.data.recordings.MAX_SKIPPED", 0.2)
    root = roots["cifar10_dvs"]
    write_set("cifar10_dvs", root)
    shortened(BIRD, len(AEDAT2_HEADER) + 8)(root)
    write_aedat2(root / "cat" / "cifar10_cat_0.aedat", stream(0, 30))
    source = read_set("cifar10_dvs", root, events=EventConfig(bad_recordings=BadRecordings.skip))
    assert len(source.x) == 10 * PER_CLASS - 2
    # The last of ten by name is tested on, with or without the ones left out.
    assert [source.names[i] for i in source.test] == [f"cifar10_{c}_9" for c in cifar10_dvs.CLASSES]
    assert [Path(fault.split(":")[0]).stem for fault in source.facts["skipped"]] == [
        "cifar10_bird_1",
        "cifar10_cat_0",
    ]


def test_a_fault_ends_a_run_with_one_line(roots, cli):
    """On the command line a fault is one line and exit code 2, without a traceback."""
    code, _, err = cli("train", "dataset=cifar10_dvs", f"dataset.root={roots['cifar10_dvs']}")
    assert code == 2 and "Traceback" not in err
    assert "expected folders airplane to truck with 10 recordings each" in err
