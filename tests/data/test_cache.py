"""A cache is whole or not there, whatever stops its builder and however many want it."""

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from saformer.data.cache import (
    build_once,
    cache_folder,
    is_built,
    new_array,
    open_array,
    read_meta,
)
from saformer.errors import DataError

KEY = {"dataset": "toy", "timesteps": 4}
SHAPE = (50, 1000)
CACHES = Path("data/cache")

# Builds the toy cache a row at a time; the second argument says what happens half way.
BUILDER = """
import os, signal, sys, time
from pathlib import Path
from saformer.data.cache import build_once, new_array

def build(folder):
    Path(sys.argv[1]).open("a").write("built\\n")
    array = new_array(folder / "x.npy", (50, 1000))
    for i in range(50):
        array[i] = i
        if i == 25 and sys.argv[2] == "kill":
            array.flush()
            os.kill(os.getpid(), signal.SIGKILL)
        if sys.argv[2] == "slow":
            time.sleep(0.01)
    array.flush()
    return {}

key = {"dataset": "toy", "timesteps": 4}
print(build_once(Path("data/cache"), "toy", key, 50_000, build))
"""


def start(how: str) -> subprocess.Popen:
    """A process that wants the cache."""
    return subprocess.Popen(
        [sys.executable, "-c", BUILDER, "log", how], stdout=subprocess.PIPE, text=True
    )


def build(folder: Path) -> dict:
    array = new_array(folder / "x.npy", SHAPE)
    array[:] = np.arange(SHAPE[0], dtype=np.uint8)[:, None]
    array.flush()
    return {"rows": SHAPE[0]}


def never(folder: Path) -> dict:
    raise AssertionError("built again")


def make(key: dict = KEY, builder=build, num_bytes: int = 50_000, name: str = "toy") -> Path:
    return build_once(CACHES, name, key, num_bytes, builder)


def holds(folder: Path) -> bool:
    """Whether the toy cache is there with all its values."""
    array = open_array(folder / "x.npy")
    return is_built(folder) and np.array_equal(array[:, 7], np.arange(SHAPE[0]))


def listed() -> list[str]:
    """Names in the folder of caches, but for locks."""
    return sorted(path.name for path in CACHES.iterdir() if path.suffix != ".lock")


def test_built_once_and_found_again():
    """The second call finds what the first built; meta.json has key, sizes and facts."""
    folder = make()
    assert make(builder=never) == folder == cache_folder(CACHES, "toy", KEY)
    assert holds(folder) and listed() == [folder.name]
    size = (folder / "x.npy").stat().st_size
    assert read_meta(folder) == {"key": KEY, "files": {"x.npy": size}, "rows": 50}
    assert oct(folder.stat().st_mode)[-3:] == "755"


def test_a_killed_build_is_built_again():
    """SIGKILL half way leaves nothing under the name; the next build cleans up and is whole."""
    killed = start("kill")
    assert killed.wait() == -signal.SIGKILL
    (left,) = listed()
    assert left.startswith(".toy-")
    folder = make()
    assert holds(folder) and listed() == [folder.name]


def test_four_at_once():
    """Of four processes that want it at once one builds, and all get the whole cache."""
    processes = [start("slow") for _ in range(4)]
    folders = {process.communicate()[0] for process in processes}
    assert [process.returncode for process in processes] == [0] * 4
    assert Path("log").read_text() == "built\n"
    (folder,) = folders
    assert holds(Path(folder.strip())) and listed() == [Path(folder.strip()).name]


def test_who_waits_goes_on_after_a_kill():
    """When the builder is killed, a process that waits for it builds instead."""
    first = start("slow")
    while not Path("log").exists():
        assert first.poll() is None
    second = start("build")
    first.send_signal(signal.SIGKILL)
    folder = Path(second.communicate()[0].strip())
    first.wait()
    assert second.returncode == 0 and holds(folder) and listed() == [folder.name]
    assert Path("log").read_text() == "built\n" * 2


DAMAGES = {
    "cut off": lambda folder: os.truncate(folder / "x.npy", 1000),
    "gone": lambda folder: (folder / "x.npy").unlink(),
    "no meta": lambda folder: (folder / "meta.json").unlink(),
    "meta cut off": lambda folder: os.truncate(folder / "meta.json", 10),
    "meta of another kind": lambda folder: (folder / "meta.json").write_text("[]"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_cache_is_built_again(damage):
    """What is cut off or missing is seen by its size, and built again."""
    folder = make()
    DAMAGES[damage](folder)
    assert not is_built(folder)
    assert make() == folder
    assert holds(folder) and listed() == [folder.name]


@settings(max_examples=50)
@given(st.dictionaries(st.text(), st.integers() | st.text() | st.none(), min_size=1), st.data())
def test_a_changed_setting_is_another_cache(key, data):
    """Any changed, added or removed value changes the folder; the order of settings does not."""
    folder = cache_folder(Path(), "toy", key)
    assert cache_folder(Path(), "toy", dict(reversed(key.items()))) == folder
    name = data.draw(st.sampled_from(sorted(key)))
    without = {other: value for other, value in key.items() if other != name}
    assert cache_folder(Path(), "toy", without) != folder
    assert cache_folder(Path(), "toy", {**key, name: [key[name]]}) != folder


def test_two_datasets_in_one_root():
    """Caches of two datasets and of two settings lie side by side, and leave other files alone."""
    CACHES.mkdir(parents=True)
    foreign = {
        CACHES / "notes.txt": "mine",
        CACHES / ".toy.swp": "too",
        CACHES / "toy-old": "three",
    }
    for path, text in foreign.items():
        path.write_text(text)
    other = {"dataset": "other", "timesteps": 4}
    at_work = CACHES / f".{cache_folder(CACHES, 'other', {**other, 'timesteps': 8}).name}-x"
    at_work.mkdir()  # of a process that builds a third one
    folders = {make(), make({**KEY, "timesteps": 8}), make(other, name="other")}
    assert len(folders) == 3 and all(map(holds, folders))
    DAMAGES["cut off"](make(builder=never))
    make()
    assert all(map(holds, folders))
    assert all(path.read_text() == text for path, text in foreign.items())
    assert at_work.is_dir() and len(listed()) == 7


@pytest.mark.parametrize(
    "error", [ValueError("ours"), KeyboardInterrupt(), DataError("x", "a", "b", "c")], ids=repr
)
def test_a_build_that_fails_leaves_nothing(error):
    """What a builder raises comes through as it is, and the next build starts clean."""

    def fails(folder: Path) -> dict:
        build(folder)
        raise error

    with pytest.raises(type(error)) as raised:
        make(builder=fails)
    assert raised.value is error
    assert listed() == []
    assert holds(make())


def test_a_missing_source_is_not_the_caches_fault(tmp_path):
    """An error of reading what the cache is built of is never told as one of writing it."""

    def reads(folder: Path) -> dict:
        return {"text": (tmp_path / "source.txt").read_text()}

    with pytest.raises(FileNotFoundError, match=r"source\.txt"):
        make(builder=reads)
    assert listed() == []


CANNOT = (
    "data/cache: expected a folder to write a cache to, found {}. Make room or permit writing "
    "there, or set dataset.cache_dir to another folder."
)


def full_write(folder: Path) -> dict:
    """What a write on a full disk raises; without a name, as write() has none."""
    build(folder)
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def full_save(folder: Path) -> dict:
    """numpy.save where only the beginning of a file finds room; its error has no number."""
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
    try:
        np.save(folder / "labels.npy", np.zeros(100_000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    return {}


@pytest.mark.parametrize("builder", [full_write, full_save])
def test_a_full_disk_in_the_middle(builder):
    """A disk that fills up while it is built is told in one line, and the room is given back."""
    with pytest.raises(DataError) as error:
        make(builder=builder)
    assert "expected a folder to write a cache to, found " in str(error.value)
    assert str(error.value).endswith("or set dataset.cache_dir to another folder.")
    assert listed() == []


def test_no_room_for_an_array(monkeypatch):
    """An array takes its room when it is made: a full disk is an error then, not a crash later."""
    if not hasattr(os, "posix_fallocate"):
        pytest.skip("this system has no way to take room")

    def full(*_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(DataError) as error:
        make()
    assert str(error.value) == CANNOT.format("No space left on device")
    assert listed() == []


def test_an_array_has_its_room_on_disk(tmp_path):
    """The blocks of a new array are there before anything is written into it, and no more."""
    array = new_array(tmp_path / "x.npy", (1000, 1000))
    stat = (tmp_path / "x.npy").stat()
    assert stat.st_blocks * 512 >= 1_000_000
    assert stat.st_size == array.offset + 1_000_000


def test_too_little_room_is_told_before(monkeypatch):
    """Where it will not fit, nothing is begun; both numbers are said. What is damaged counts."""
    folder = make()
    DAMAGES["cut off"](folder)
    usage = shutil.disk_usage(CACHES)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=3 * 2**20))
    with pytest.raises(DataError) as error:
        make(builder=never, num_bytes=5 * 2**20)
    assert str(error.value) == (
        "data/cache: expected 5 MiB free for the cache, found 3 MiB. Make room, or set "
        "dataset.cache_dir to another folder."
    )
    assert listed() == []  # so that its room was free
    assert holds(make(num_bytes=3 * 2**20))  # just enough is enough


def test_what_is_read_can_be_written_to_and_stays_as_it_is():
    """An array of a cache is no read-only one, of which torch warns; the file never changes."""
    folder = make()
    open_array(folder / "x.npy")[:] = 7
    assert holds(folder)


def test_a_file_in_the_way():
    """Where no folder can be, the message names it and the system's reason."""
    Path("data").write_text("a file")
    with pytest.raises(DataError) as error:
        make()
    assert str(error.value) == CANNOT.format("Not a directory")
    assert Path("data").read_text() == "a file"


@pytest.fixture
def nobody(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A folder that all may look into, and a user who is not root, whom nothing is forbidden."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o777)
    monkeypatch.chdir(folder)
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)
    yield
    os.seteuid(user)
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o777)
    shutil.rmtree(folder)


@pytest.mark.skipif(not hasattr(os, "seteuid"), reason="the rights of this system differ")
def test_a_read_only_folder(nobody):
    """A whole cache serves where nothing may be written, lock included; a new one is refused."""
    folder = make()
    (CACHES / f"{folder.name}.lock").unlink()
    CACHES.chmod(0o555)
    assert holds(make(builder=never))
    assert [path.name for path in CACHES.iterdir()] == [folder.name]
    with pytest.raises(DataError) as error:
        make({**KEY, "timesteps": 8}, never)
    assert str(error.value) == CANNOT.format("Permission denied")


def test_meta_is_written_last(monkeypatch):
    """A build whose facts cannot be written leaves no cache that looks whole."""
    with pytest.raises(TypeError):
        make(builder=lambda folder: build(folder) | {"bad": object()})
    assert listed() == []
    assert json.loads((make() / "meta.json").read_text())["rows"] == 50
