"""A disk that fills up, or that cannot be written, costs a run one line and at most an epoch."""

import resource
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from misfortunes import make_read_only, make_writable
from resumable import SHORT

from saformer.checkpoint import load_checkpoint

QUICK = (*SHORT, "energy.enabled=false")
ADVICE = "Make room, or choose another folder (for a training: hydra.run.dir=...)\n"


@pytest.fixture
def disk() -> Iterator[Path | None]:
    """A disk of 40 MB for the run, where this user may mount one; else files get a limit."""
    folder, limits = Path("run").absolute(), resource.getrlimit(resource.RLIMIT_FSIZE)
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=40m", "tmpfs", str(folder)]
    mounted = subprocess.run(mount, capture_output=True).returncode == 0
    yield folder if mounted else None
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    if mounted:
        subprocess.run(["umount", "-l", folder], check=True)  # a log is still open


@pytest.mark.parametrize(
    ("left", "files"),
    [
        pytest.param(0, ["metrics.jsonl"], marks=pytest.mark.slow),
        (2**16, ["checkpoints/last.ckpt", "checkpoints/best.ckpt"]),
    ],
)
def test_a_full_disk_keeps_the_last_good_checkpoint(cli, disk, left, files):
    """One line names the file; the checkpoint of the first epoch is whole, and no part is left.

    Which checkpoint is the first that does not fit lies with the accuracy: only a better one makes
    a new best.
    """
    place = f",disk:{disk}" if disk else ""
    full = f"+callbacks.full={{_target_:misfortunes.FullDisk,left:{left}{place}}}"
    code, _out, err = cli("train", *QUICK, full)
    assert code == 2
    reason = "No space left on device" if disk else "File too large"
    assert err in [
        f"error: cannot write {path}: {reason}. {ADVICE}"
        for file in files
        for path in (Path("run", file), Path("run", file).absolute())
    ]
    assert load_checkpoint("run/checkpoints/last.ckpt")["epoch"] == 0
    assert not list(Path("run").rglob("*.part"))


@pytest.fixture
def read_only() -> Iterator[None]:
    """Takes back in the end that the folder `run` is read-only."""
    yield
    make_writable(Path("run").absolute())


def test_a_folder_that_becomes_read_only_keeps_the_last_good_checkpoint(cli, read_only):
    """One line at the next write; started again there, one line at once, and nothing is changed."""
    end = f"+callbacks.end={{_target_:misfortunes.ReadOnly,folder:{Path('run').absolute()}}}"
    code, _out, err = cli("train", *QUICK, end)
    assert code == 2
    assert err.startswith("error: cannot write ") and err.endswith(ADVICE) and err.count("\n") == 1
    assert load_checkpoint("run/checkpoints/last.ckpt")["epoch"] == 0
    before = {path: path.read_bytes() for path in Path("run").rglob("*.*") if path.is_file()}
    code, _out, err = cli("train", *QUICK)
    assert code == 2
    assert err.startswith("error: cannot write ") and err.endswith(ADVICE) and err.count("\n") == 1
    assert {path: path.read_bytes() for path in before} == before


def test_a_folder_for_outputs_that_is_read_only_is_told_at_once(cli, read_only):
    """Before anything is trained."""
    Path("run").mkdir()
    make_read_only(Path("run").absolute())
    code, out, err = cli("train", *QUICK, "hydra.run.dir=run/new")
    assert (code, out) == (2, "")
    assert err.startswith("error: cannot write ") and err.endswith(ADVICE) and err.count("\n") == 1
