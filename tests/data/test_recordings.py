"""Recordings become one cache of frames; what is damaged stops the build, or is left out."""

import logging
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from event_files import (
    config,
    stream,
)

from saformer.data.cache import fingerprint
from saformer.data.events import Events
from saformer.data.recordings import Recordings, read_recordings
from saformer.data.settings import BadRecordings, EventConfig, Resize, Split, SplitBy
from saformer.errors import DataError, SettingError


def recordings(streams: list[Events], classes: int = 2) -> Recordings:
    """Recordings 0, 1, 2, ... of a set, their classes in turn; None stands for a damaged file."""

    def load(i: int) -> Events:
        if streams[i] is None:
            raise DataError(Path(f"r_{i}.aedat"), "a recording", "none", "Get it.")
        return streams[i]

    return Recordings(
        sensor=128,
        names=[f"r_{i}" for i in range(len(streams))],
        paths=[Path(f"r_{i}.aedat") for i in range(len(streams))],
        labels=np.arange(len(streams)) % classes,
        test=np.arange(len(streams)) >= len(streams) - classes,
        fingerprint=fingerprint((f"r_{i}", 1) for i in range(len(streams))),
        load=load,
    )


def settings(folder: Path, **values: object):
    return config("dvs128_gesture", folder / "files", image_size=8, **values)


def skipping() -> EventConfig:
    return EventConfig(bad_recordings=BadRecordings.skip)


def test_the_cache_is_built_once(tmp_path):
    """The second time frames come from the cache, and no recording is asked for."""
    found = recordings([stream(i, 50) for i in range(6)])
    first = read_recordings(settings(tmp_path), found, 4)
    second = read_recordings(settings(tmp_path), recordings([None] * 6), 4)
    assert first.x.shape == (6, 4, 2, 8, 8)
    assert (first.x == second.x).all() and first.facts == second.facts
    assert first.facts["num_events"] == 300 == int(first.x.sum())


@pytest.mark.parametrize(
    "change",
    [
        {"image_size": 4},
        {"events": EventConfig(split_by=SplitBy.time)},
        {"events": EventConfig(resize=Resize.bilinear)},
        {"name": "another"},
    ],
)
def test_a_changed_setting_is_another_cache(tmp_path, change):
    """Whatever shapes the frames leads to a build of its own; the number of frames does, too."""
    found = recordings([stream(i, 50) for i in range(6)])
    of = settings(tmp_path)
    before = {read_recordings(of, found, steps).facts["cache"] for steps in (4, 5)}
    for name, value in change.items():
        setattr(of, name, value)
    assert len(before | {read_recordings(of, found, 4).facts["cache"]}) == 3


def test_changed_files_are_another_cache(tmp_path):
    """Files of another size have another fingerprint, and frames of their own."""
    before = read_recordings(settings(tmp_path), recordings([stream(i, 50) for i in range(6)]), 4)
    found = recordings([stream(i, 60) for i in range(6)])
    changed = replace(found, fingerprint=fingerprint([("r", 60)]))
    after = read_recordings(settings(tmp_path), changed, 4)
    assert (int(before.x.sum()), int(after.x.sum())) == (300, 360)


def test_the_norm_needs_no_other_cache(tmp_path):
    """What becomes of the counts on the device leaves the frames as they are."""
    found = recordings([stream(i, 50) for i in range(6)])
    caches = {
        read_recordings(settings(tmp_path, events=EventConfig(norm=norm)), found, 4).facts["cache"]
        for norm in ("none", "max")
    }
    assert len(caches) == 1


def test_a_damaged_recording_stops_the_build(tmp_path):
    """By default its error comes through, and no cache is left behind."""
    streams = [stream(i, 50) for i in range(6)]
    with pytest.raises(DataError, match=re.escape("r_3.aedat: expected at least 4 events")):
        read_recordings(
            settings(tmp_path), recordings([*streams[:3], stream(0, 3), *streams[4:]]), 4
        )
    assert [path.suffix for path in (tmp_path / "cache").iterdir()] == [".lock"]


def test_a_skipped_recording_moves_no_frame(tmp_path, caplog):
    """One of a thousand is left out and listed; all others keep frames, names and classes."""
    streams = [stream(i, 20, sensor=128) for i in range(1000)]
    found = recordings([*streams[:500], None, *streams[501:]])
    with caplog.at_level(logging.WARNING):
        source = read_recordings(settings(tmp_path, events=skipping()), found, 1)
    whole = read_recordings(settings(tmp_path), recordings(streams), 1)
    kept = [i for i in range(1000) if i != 500]
    assert source.names == [f"r_{i}" for i in kept]
    assert len(source.x) == len(source.y) == 999
    assert (source.x == whole.x[kept]).all() and (source.y == whole.y[kept]).all()
    assert [source.names[i] for i in source.test] == ["r_998", "r_999"]
    assert [fault.split(":")[0] for fault in source.facts["skipped"]] == ["r_500.aedat"]
    assert "1 damaged recordings left out" in caplog.text and "r_500.aedat" in caplog.text


def test_more_than_a_few_damaged_recordings_are_not_skipped(tmp_path):
    """Two of a thousand are more than 0.1 %: the set itself is at fault."""
    streams = [stream(i, 20) for i in range(1000)]
    streams[3] = streams[700] = None
    with pytest.raises(DataError, match=r"at most 0\.1% damaged recordings, found 2 so far"):
        read_recordings(settings(tmp_path, events=skipping()), recordings(streams), 1)


def test_cut_off_counts_are_told(tmp_path, caplog):
    """Cells with more than 255 events are counted, and many of them are warned of."""
    zero = np.zeros(600, dtype=int)
    full = Events(np.arange(600), zero, zero, zero)
    with caplog.at_level(logging.WARNING):
        source = read_recordings(settings(tmp_path), recordings([full] * 4), 2)
    assert source.facts["saturated_cells"] == 8 and source.x.max() == 255
    assert "8 of 1024 cells counted more than 255 events" in caplog.text
    caplog.clear()
    large = settings(tmp_path)
    large.image_size = 64
    found = recordings([full, *(stream(i, 50) for i in range(3))])
    source = read_recordings(large, found, 2)
    assert source.facts["saturated_cells"] == 2 and caplog.text == ""  # of 65,536


def test_recordings_out_of_order_are_sorted_and_told(tmp_path, caplog):
    """Frames are those of the sorted events, and the number of such recordings is warned of."""
    events = [stream(i, 50) for i in range(4)]
    back = Events(*(getattr(events[2], name)[::-1] for name in "txyp"))
    sorted_ = read_recordings(settings(tmp_path / "a"), recordings(events), 4)
    with caplog.at_level(logging.WARNING):
        source = read_recordings(
            settings(tmp_path / "b"), recordings([*events[:2], back, events[3]]), 4
        )
    assert source.facts["unsorted"] == 1 and "1 recordings were not in order" in caplog.text
    assert (source.x == sorted_.x).all()


def test_frames_larger_than_the_sensor_are_refused(tmp_path):
    """Binning can only make frames smaller; the answer names the setting and both numbers."""
    of = settings(tmp_path)
    of.image_size = 256
    with pytest.raises(SettingError, match=r"dataset\.image_size must be at most 128.*not 256"):
        read_recordings(of, recordings([stream(0, 50)] * 4), 4)


def test_another_order_is_another_cache(tmp_path):
    """Frames are found by place: the same recordings in another order keep their own frames."""
    found = recordings([stream(i, 50 + i) for i in range(6)])
    first = read_recordings(settings(tmp_path), found, 4)
    turned = replace(
        found,
        names=found.names[::-1],
        labels=found.labels[::-1],
        fingerprint=fingerprint((name, 1) for name in found.names[::-1]),
        load=lambda i: found.load(5 - i),
    )
    second = read_recordings(settings(tmp_path), turned, 4)
    counts = {name: int(x.sum()) for name, x in zip(second.names, second.x, strict=True)}
    assert counts == {name: int(x.sum()) for name, x in zip(first.names, first.x, strict=True)}
    assert len(set(counts.values())) == 6


def test_an_impossible_split_writes_nothing(tmp_path):
    """A split that there is not is told before frames are made, which takes long."""
    of = settings(tmp_path, split=Split.tebn_first100)
    with pytest.raises(SettingError, match=r"dataset\.split must be official"):
        read_recordings(of, recordings([stream(i, 50) for i in range(6)]), 4)
    assert not Path(of.cache_dir).exists()


@pytest.mark.parametrize("setting", ["events", "cache_dir"])
def test_settings_that_recordings_need(tmp_path, setting):
    """Without rules for frames, or a place for them, the setting is named."""
    with pytest.raises(SettingError, match=rf"dataset\.{setting} must be .*, not null"):
        found = recordings([stream(i, 50) for i in range(6)])
        read_recordings(settings(tmp_path, **{setting: None}), found, 4)


def test_frames_are_not_enlarged(tmp_path):
    """More pixels than the sensor has are refused for either way of resizing."""
    of = settings(tmp_path, events=EventConfig(resize=Resize.bilinear))
    of.image_size = 200
    with pytest.raises(SettingError, match=r"dataset\.image_size must be at most 128, the side"):
        read_recordings(of, recordings([stream(i, 50) for i in range(6)]), 4)
