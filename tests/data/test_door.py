"""What a reader gives is believed only if it fits itself and the settings."""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from saformer.data.door import check_source
from saformer.data.events import Events
from saformer.data.image_files import ImageFiles
from saformer.data.recordings import Recordings, read_recordings
from saformer.data.settings import DatasetConfig, EventConfig, Resize, Split
from saformer.data.source import Source
from saformer.errors import DataError, SettingError

T = 4


def config(**changes) -> DatasetConfig:
    values = {"name": "own", "reader": "mine", "num_classes": 3, "in_channels": 1}
    values |= {"image_size": 12, "mean": [0.5], "std": [0.5]}
    return DatasetConfig(**values | changes)


def images() -> Source:
    """Nine grey images of 12x12, three of each class; the last three are tested on."""
    return Source(
        x=torch.randint(0, 256, (9, 1, 12, 12), dtype=torch.uint8),
        y=torch.arange(9) % 3,
        train=np.arange(6),
        test=np.arange(6, 9),
        names=[f"{i}.png" for i in range(9)],
    )


def frames() -> Source:
    """The same as clips of floats."""
    return replace(images(), x=torch.rand(9, T, 2, 12, 12))


ints = np.array
WRONG = {
    "no source": (lambda s: (s.x, s.y), "a saformer.data.source.Source, found tuple"),
    "an array": (lambda s: replace(s, x=s.x.numpy()), "x as a tensor or ImageFiles, found uint8 ["),
    "no channels": (lambda s: replace(s, x=s.x[:, 0]), "x [N, C, H, W] or [N, T, 2, H, W], found"),
    "8x12": (lambda s: replace(s, x=s.x[:, :, :8]), "12x12 pixels, found 8x12"),
    "12x8": (lambda s: replace(s, x=s.x[..., :8]), "12x12 pixels, found 12x8"),
    "more labels": (
        lambda s: replace(s, y=torch.arange(10) % 3),
        "one class number for each of 9 items, found [10]",
    ),
    "fewer labels": (lambda s: replace(s, y=s.y[:8]), "one class number for each of 9 items"),
    "a column of labels": (lambda s: replace(s, y=s.y[:, None]), "one class number for each of 9"),
    "short labels": (lambda s: replace(s, y=s.y.int()), "y as a tensor of int64, found torch.int3"),
    "a list of labels": (lambda s: replace(s, y=s.y.tolist()), "y as a tensor of int64, found lis"),
    "label -100": (
        lambda s: replace(s, y=torch.where(s.y > 0, s.y, -100)),
        "class numbers 0 to 2, found -100 for item 0 (3 are below 0)",
    ),
    "nothing": (
        lambda s: replace(s, x=s.x[:0], y=s.y[:0], names=None),
        "items, found none",
    ),
    "a mask": (
        lambda s: replace(s, test=np.arange(9) > 5),
        "test as int64 [n], found bool [9]. Give np.array(numbers, dtype=np.int64), for a mask np.",
    ),
    "a list of items": (lambda s: replace(s, train=[0, 1, 2]), "train as int64 [n], found list"),
    "no test": (lambda s: replace(s, test=ints([], dtype=int)), "items in test, found none"),
    "an item too far": (
        lambda s: replace(s, test=ints([7, 8, 9])),
        "item numbers 0 to 8 in test, found 9 (1 are outside)",
    ),
    "an item from the end": (
        lambda s: replace(s, test=ints([-1, -2])),
        "item numbers 0 to 8 in test, found -1 (2 are outside)",
    ),
    "twice": (
        lambda s: replace(s, train=ints([0, 1, 2, 2])),
        "every item once in train, found 2 again (1 come more than once)",
    ),
    "tested on training": (
        lambda s: replace(s, test=s.train),
        "test items that are not trained on, found 6 of 6 test items in train, the first item 0",
    ),
    "some of it": (
        lambda s: replace(s, test=ints([8, 5])),
        "test items that are not trained on, found 1 of 2 test items in train, the first item 5",
    ),
    "by name": (
        lambda s: replace(s, names=[*s.names[:7], "0.png", "1.png"]),
        "a unique name for each item, found items 0 and 7 both named '0.png' (2 names are",
    ),
    "fewer names": (lambda s: replace(s, names=s.names[1:]), "9 names, found 8"),
    "paths as names": (
        lambda s: replace(s, names=[Path(name) for name in s.names]),
        "names as a list of str, or None, found list. Give str(name).",
    ),
    "facts of another kind": (
        lambda s: replace(s, facts={"root": Path("x")}),
        "facts that JSON can hold, found Object of type PosixPath is not JSON serializable",
    ),
    "facts in our place": (
        lambda s: replace(s, facts={"test": {"size": 1}}),
        "facts as a dictionary without dataset, split, digest_of, train, val, test, epochs, found",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_a_reader_that_contradicts_itself(case):
    """One line says which reader, what was expected, what was found and how often, and the fix."""
    change, answer = WRONG[case]
    with pytest.raises(DataError) as error:
        check_source(change(images()), config(), T)
    line = str(error.value)
    assert line.startswith(f"dataset.reader=mine: expected {answer}") and "\n" not in line


def test_a_shipped_reader_is_named_by_its_dataset():
    """Files of the user's may make a shipped reader's data wrong, too."""
    with pytest.raises(DataError, match=r"^dataset=digits: expected test items that are not"):
        source = images()
        check_source(replace(source, test=source.train), config(name="digits", reader=None), T)


def test_a_class_that_is_not_there():
    """A label of K or more is answered with the K that it takes."""
    with pytest.raises(SettingError, match=r"^dataset.num_classes must be at least 3 for own, not"):
        check_source(images(), config(num_classes=2), T)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), 1e300])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_frames_that_are_not_finite(value, dtype):
    """A value that is no number as float32 is refused: behind spikes nobody would see it."""
    settings = config(in_channels=2, events=EventConfig())
    x = torch.rand(9, T, 2, 12, 12, dtype=torch.float64)
    x[4, 3, 1, 5, 5] = x[7, 3, 1, 5, 5] = value
    with pytest.raises(DataError) as error:
        check_source(replace(images(), x=x.to(dtype)), settings, T)
    answer = (
        "expected finite values in x, found NaN or infinite ones in 2 of 9 items, the first ite"
    )
    assert str(error.value).startswith(f"dataset.reader=mine: {answer}m 4. Repair")


def test_frames_of_another_kind():
    """Frames have the T that was asked for; those that the device resizes may be of any side."""
    settings = config(in_channels=2, events=EventConfig())
    with pytest.raises(DataError, match=r"expected 8 frames \(timesteps\), found 4\. Cut record"):
        check_source(frames(), settings, 8)
    check_source(frames(), settings, T)
    wide = replace(frames(), x=torch.rand(9, T, 2, 18, 24))
    resized = replace(settings, events=EventConfig(resize=Resize.bilinear))
    check_source(wide, resized, T)
    with pytest.raises(DataError, match=r"expected 12x12 pixels, found 18x24"):
        check_source(wide, settings, T)


def test_what_is_as_it_should_be_passes(tmp_path):
    """Equal images in both sets pass, as published sets have them; facts become plain values."""
    source = images()
    source.x[8] = source.x[0]
    found = check_source(replace(source, names=None, facts={"share": np.float64(0.5)}), config(), T)
    assert found.x is source.x and type(found.facts["share"]) is float
    files = ImageFiles(tmp_path, np.array([b"%d.png" % i for i in range(9)]), 12, 1.0)
    check_source(replace(source, x=files), config(in_channels=3), T)


def test_what_tells_an_item():
    """Its name, else its file, else its bytes: never its place alone."""
    named = images()
    bare = replace(named, names=None)
    files = ImageFiles(Path(), np.array([b"a/0.png", b"b/0.png"]), 12, 1.0)
    in_files = Source(files, torch.tensor([0, 1]), np.array([0]), np.array([1]))
    assert (named.identify(3), named.digest_of) == ("3.png", "class and name")
    assert (in_files.identify(1), in_files.digest_of) == ("b/0.png", "class and name")
    moved = replace(bare, x=bare.x.flip(0))
    assert bare.digest_of == "class and bytes"
    assert bare.identify(3) == moved.identify(5) != moved.identify(3)
    turned = replace(bare, x=bare.x.contiguous(memory_format=torch.channels_last))
    assert turned.identify(3) == bare.identify(3)


def recordings(tmp_path: Path, **changes) -> Recordings:
    """Twenty recordings of two classes that send one event a millisecond."""
    t = np.arange(50) * 1000
    values = {
        "sensor": 12,
        "names": [f"{i}.aedat" for i in range(20)],
        "paths": [tmp_path / f"{i}.aedat" for i in range(20)],
        "labels": np.arange(20) % 2,
        "test": None,
        "fingerprint": "x",
        "load": lambda i: Events(t, t % 12, t % 12, t % 2),
    }
    return Recordings(**values | changes)


INDEX = {
    "names": ([f"{i // 2}" for i in range(20)], "a unique name for each item, found items 0 "),
    "paths": ([Path("x")], "20 paths, found 1"),
    "labels": (np.arange(21) % 2, "one class number for each of 20 items, found [21]"),
    "labels of -1": (np.arange(20) - 1, "class numbers 0 to 2, found -1 for item 0 (1 are below"),
    "labels as list": ([0] * 20, "labels as int64 [N], found list"),
    "test": (np.array([3, 4]), "test as bool [20], found int64 [2]"),
}  # fmt: skip


@pytest.mark.parametrize("case", INDEX)
def test_an_index_that_contradicts_itself(tmp_path, case):
    """It is refused before frames are made of it, and a longer list is not cut off."""
    value, answer = INDEX[case]
    settings = config(
        in_channels=2,
        events=EventConfig(),
        split=Split.stratified_seeded,
        cache_dir=str(tmp_path / "cache"),
    )
    wrong = recordings(tmp_path, **{case.partition(" ")[0]: value})
    with pytest.raises(DataError) as error:
        read_recordings(settings, wrong, T)
    assert str(error.value).startswith(f"dataset.reader=mine: expected {answer}")
    assert not (tmp_path / "cache").exists()
    assert len(read_recordings(settings, recordings(tmp_path), T).y) == 20


READER = """
import numpy as np
import torch
from saformer.data.readers import digits
from dataclasses import replace

def read(config, timesteps):
    source = digits.read(config, timesteps)
    CHANGE
    return source
"""


@pytest.mark.parametrize(
    ("change", "answer"),
    [
        (
            "source = replace(source, test=source.train)",
            "expected test items that are not trained on, found 1437 of 1437 test items in train, "
            "the first item 0. Leave them out of train: a test item must not be a training "
            "item.",
        ),
        (
            "source.y[7] = -100",
            "expected class numbers 0 to 9, found -100 for item 7 (1 are below 0). "
            "Leave out items without a class.",
        ),
    ],
)
def test_an_own_reader_on_the_command_line(cli, tmp_path, monkeypatch, change, answer):
    """The answer is one line, exit code 2, and there is no folder of a run."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "mine", raising=False)
    (tmp_path / "mine.py").write_text(READER.replace("CHANGE", change))
    code, _out, err = cli("train", "dataset.reader=mine", "logger=none")
    assert (code, err) == (2, f"error: dataset.reader=mine: {answer}\n")
    assert not any(Path("outputs").iterdir())
