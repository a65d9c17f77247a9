"""DVS128 Gesture in the official layout: clips, class numbers and split by the tables and lists."""

import numpy as np
import pytest
from event_files import CLIP, OVERLAP, clips_of, config, stream, write_gesture

from saformer.data import readers
from saformer.data.events import Events, to_frames
from saformer.data.readers import dvs128_gesture
from saformer.data.readers.aedat31 import read_aedat31
from saformer.data.settings import SplitBy
from saformer.errors import DataError

TRAIN, TEST = 3, 1
CLASSES = [*range(8), *range(7, 11)]  # of one person: the eighth gesture is made twice


@pytest.fixture
def root(tmp_path, monkeypatch):
    """A set of three people for training and one for testing."""
    clips = dict(zip(dvs128_gesture.TRIALS, map(clips_of, (TRAIN, TEST)), strict=True))
    monkeypatch.setattr(dvs128_gesture, "TRIALS", clips)
    root = tmp_path / "dvs128_gesture"
    write_gesture(root, TRAIN, TEST)
    return root


def test_the_class_is_the_tables_less_one(root):
    """All eleven classes are numbered as in the tables, from 0, not by names sorted as strings."""
    found = dvs128_gesture.index(config("dvs128_gesture", root))
    assert found.labels.tolist() == CLASSES * (TRAIN + TEST)
    assert len(dvs128_gesture.CLASSES) == 11
    assert dvs128_gesture.CLASSES[10] == "other_gestures"


def test_the_split_is_that_of_the_lists(root):
    """The people of trials_to_test.txt are tested on, and no one else."""
    source = readers.read(config("dvs128_gesture", root), 4)
    assert [source.names[i] for i in source.test] == [f"user04_led_{row}" for row in range(12)]
    assert len(source.train) == clips_of(TRAIN) and set(source.names[i][:6] for i in source.train)
    assert not {"user04"} & {source.names[i][:6] for i in source.train}


def test_a_clip_is_its_row_of_the_table(root):
    """Frames count events from the start of a row to before its end, overlap or not."""
    source = readers.read(config("dvs128_gesture", root), 4)
    events = stream(2, 4000, 0, CLIP * 13)
    for row in range(12):
        inside = (events.t >= CLIP * row + 500) & (events.t < CLIP * (row + 1) + OVERLAP)
        clip = Events(*(getattr(events, name)[inside] for name in "txyp"))
        expected, _ = to_frames(clip, 4, SplitBy.number, 128, 32)
        assert (source.x[12 + row].numpy() == expected).all()


def test_the_ends_of_a_clip_are_exact(root):
    """An event at the start belongs to the clip, one at the end does not."""
    found = dvs128_gesture.index(config("dvs128_gesture", root))
    path = root / "DvsGesture" / "user01_led_labels.csv"
    t = read_aedat31(root / "DvsGesture" / "user01_led.aedat").t
    path.write_text(f"class,startTime_usec,endTime_usec\n1,{t[100]},{t[900]}\n")
    found = dvs128_gesture.index(config("dvs128_gesture", root, allow_incomplete=True))
    clip = found.load(0)
    assert clip.t.tolist() == t[(t >= t[100]) & (t < t[900])].tolist()
    assert clip.t[0] == t[100] and clip.t[-1] < t[900]


def test_the_index_reads_no_recording(root):
    """Lists and tables are enough to know every clip; the recordings may be anything."""
    before = dvs128_gesture.index(config("dvs128_gesture", root))
    for path in (root / "DvsGesture").glob("*.aedat"):
        path.write_bytes(bytes(path.stat().st_size))
    after = dvs128_gesture.index(config("dvs128_gesture", root))
    assert (before.names, before.fingerprint) == (after.names, after.fingerprint)


def test_a_recording_is_read_once(root, monkeypatch):
    """The twelve clips of a recording share one reading of it."""
    reads = []

    def counted(path):
        reads.append(path.stem)
        return read_aedat31(path)

    monkeypatch.setattr(dvs128_gesture, "read_aedat31", counted)
    readers.read(config("dvs128_gesture", root), 4)
    assert reads == ["user01_led", "user02_led", "user03_led", "user04_led"]


def test_a_moved_clip_is_another_source(root):
    """The fingerprint, and with it the cache, follows the tables."""
    of = config("dvs128_gesture", root)
    before = dvs128_gesture.index(of).fingerprint
    path = root / "DvsGesture" / "user01_led_labels.csv"
    path.write_text(path.read_text().replace("1,500,", "1,501,"))
    assert dvs128_gesture.index(of).fingerprint != before


@pytest.mark.parametrize(("row", "fits"), [("1,0,600", True), ("1,600,600", False)])
def test_a_clip_may_begin_with_the_recording(root, row, fits):
    """A clip from 0 on is one; a clip that ends where it begins is refused."""
    path = root / "DvsGesture" / "user01_led_labels.csv"
    path.write_text(path.read_text().replace("1,500,", f"{row}\n1,500,", 1))
    of = config("dvs128_gesture", root, allow_incomplete=True)
    if fits:
        assert len(dvs128_gesture.index(of).names) == 4 * len(CLASSES) + 1
    else:
        with pytest.raises(DataError, match=f"start and end in microseconds, found '{row}'"):
            dvs128_gesture.index(of)


def test_what_is_there_can_be_used(root):
    """Without a recording the rest is an incomplete set, in the order of the lists."""
    (root / "DvsGesture" / "user02_led.aedat").unlink()
    found = dvs128_gesture.index(config("dvs128_gesture", root, allow_incomplete=True))
    assert found.labels.tolist() == CLASSES * 3
    assert np.flatnonzero(found.test).tolist() == list(range(24, 36))


def test_the_folder_itself_can_be_the_root(root):
    """dataset.root may name the folder that the archive unpacks to, or the one above."""
    above = dvs128_gesture.index(config("dvs128_gesture", root))
    itself = dvs128_gesture.index(config("dvs128_gesture", root / "DvsGesture"))
    assert above.fingerprint == itself.fingerprint
