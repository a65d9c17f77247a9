"""A run that was stopped goes on in its folder by itself, from what is whole there."""

import json
import signal
import subprocess
from pathlib import Path

import pytest
import torch
from resumable import SHORT, outcome, signalled

from saformer.checkpoint import load_checkpoint
from saformer.errors import CheckpointError
from saformer.files import write_whole
from saformer.runs.resume import put_aside, start_point


@pytest.fixture(scope="module")
def whole(shared_run) -> Path:
    """Folder of a run that nothing happened to."""
    return shared_run(*SHORT)


def copy(folder: Path) -> Path:
    """A run of the same content, to be spoilt, in this folder."""
    subprocess.run(["cp", "-r", str(folder / "run"), "run"], check=True)
    return Path("run")


@pytest.mark.parametrize(
    ("number", "code", "word", "when"),
    [
        pytest.param(
            *(signal.SIGINT, 130, "interrupted"),
            {"where": "on_train_batch_end", "epoch": 1, "batch": 5},
            id="training",
        ),
        pytest.param(
            *(signal.SIGTERM, 143, "stopped by SIGTERM"),
            {"where": "on_validation_end", "epoch": 2},
            id="validation",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            *(signal.SIGTERM, 143, "stopped by SIGTERM"),
            {"where": "on_fit_end", "epoch": 3},
            id="between",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            *(signal.SIGINT, 130, "interrupted"),
            {"where": "on_test_start", "epoch": 3},
            id="test",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_a_signal_leaves_a_run_that_goes_on(cli, whole, number, code, word, when):
    """Ctrl-C and SIGTERM: their exit codes, one line, and the same end after a second start."""
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    stopped, out, err = cli("train", *SHORT, signalled(number, **when))
    assert "to resume, start again with hydra.run.dir=run\n" in out
    assert (stopped, err) == (code, f"error: {word}\n")
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before
    assert not Path("run/results.json").exists()
    resumed, out, _err = cli("train", *SHORT)
    epoch = min(when["epoch"], 3)
    assert resumed == 0
    assert f"resuming from run/checkpoints/last.ckpt after epoch {epoch}\n" in out
    assert outcome(Path()) == outcome(whole)
    assert len(json.loads(Path("run/run.json").read_text())["starts"]) == 2


@pytest.mark.slow
def test_a_run_stopped_in_its_first_epoch_starts_again(cli, whole):
    """Without a checkpoint the run begins anew in its folder; old metrics are put aside."""
    Path("run/energy").mkdir(parents=True)
    Path("run/metrics.jsonl").write_text("old\n")
    Path("run/energy/rates.jsonl").write_text("old\n")
    code, out, _err = cli("train", *SHORT)
    assert code == 0
    assert "run was stopped before its first checkpoint: starting again\n" in out
    assert outcome(Path()) == outcome(whole)
    assert Path("run/metrics-1.jsonl").read_text() == "old\n"
    assert Path("run/energy/rates-1.jsonl").read_text() == "old\n"


def half(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def zeros(path: Path) -> None:
    """What a power failure can leave: the right size and nothing in it, from some place on."""
    content, start = path.read_bytes(), path.stat().st_size // 2
    path.write_bytes(content[:start] + bytes(4096) + content[start + 4096 :])


def nan(path: Path) -> None:
    """What versions that looked at the loss alone left."""
    checkpoint = torch.load(path, weights_only=True)
    checkpoint["optimizer_states"][0]["state"][0]["exp_avg"].fill_(float("nan"))
    torch.save(checkpoint, path)


@pytest.mark.slow
@pytest.mark.parametrize("spoil", [half, zeros, nan])
def test_a_damaged_last_checkpoint_gives_way_to_the_one_before(cli, whole, spoil):
    """One line says so, the epoch after it is trained again, and its old metrics drop out."""
    run = copy(whole)
    (run / "results.json").unlink()
    spoil(run / "checkpoints" / "last.ckpt")
    code, out, _err = cli("train", *SHORT)
    assert code == 0
    assert (
        "run/checkpoints/last.ckpt cannot be used: resuming from run/checkpoints/previous.ckpt "
        "after epoch 2\n"
    ) in out
    (run / "checkpoints" / "last-1.ckpt").unlink()  # the damaged one was put aside
    assert outcome(Path()) == outcome(whole)


def test_a_folder_whose_checkpoints_are_all_damaged_is_left_alone(cli, whole):
    """It is answered in one line; nothing in it is changed."""
    run = copy(whole)
    (run / "results.json").unlink()
    for path in run.glob("checkpoints/*"):
        half(path)
    before = {path: path.read_bytes() for path in run.glob("[!.]*/*")}
    code, _out, err = cli("train", *SHORT)
    assert code == 2
    assert err == (
        "error: run/checkpoints/last.ckpt and run/checkpoints/previous.ckpt and "
        "run/checkpoints/best.ckpt cannot be used, and there is no other checkpoint to resume "
        "from: choose another folder with hydra.run.dir=...\n"
    )
    assert {path: path.read_bytes() for path in run.glob("[!.]*/*")} == before


def test_a_damaged_best_checkpoint_is_not_tested(cli, whole):
    """Its weights would give a result that nobody could tell from a right one."""
    run = copy(whole)
    (run / "results.json").unlink()
    zeros(run / "checkpoints" / "best.ckpt")
    code, _out, err = cli("train", *SHORT)
    assert code == 2
    assert "best.ckpt cannot be read (wrong checksum of " in err and err.count("\n") == 1
    assert not (run / "results.json").exists()


def test_a_finished_run_is_not_trained_again(cli, whole):
    """Started again it says that it is done, and nothing is changed."""
    run = copy(whole)
    before = {path: path.read_bytes() for path in run.glob("[!.]*") if path.suffix == ".json"}
    code, out, err = cli("train", *SHORT)
    assert (code, err) == (0, "")
    assert out == "run run is finished: its results are kept\n"
    assert {path: path.read_bytes() for path in before} == before


@pytest.mark.slow
def test_a_finished_run_goes_on_to_more_epochs(cli, whole):
    """With a checkpoint named; the results so far are put aside."""
    run = copy(whole)
    before = (run / "results.json").read_bytes()
    more = ("epochs=4", "ckpt_path=run/checkpoints/last.ckpt")
    code, _out, _err = cli("train", *SHORT, *more)
    assert code == 0
    assert json.loads((run / "results.json").read_text())["epochs"] == 4
    assert (run / "results-1.json").read_bytes() == before
    assert len((run / "metrics.jsonl").read_text().splitlines()) == 4


def test_a_checkpoint_of_half_an_epoch_is_for_evaluation_only(cli):
    """Going on from it could not be exact, which is told in one line."""
    middle = "+callbacks.often={_target_:lightning.pytorch.callbacks.ModelCheckpoint"
    middle += ",every_n_train_steps:5,filename:middle,enable_version_counter:false}"
    end = signalled(signal.SIGTERM, "on_train_batch_end", epoch=0, batch=7)
    assert cli("train", *SHORT, middle, end)[0] == 143
    path = "run/checkpoints/middle.ckpt"
    code, _out, err = cli("train", *SHORT, "hydra.run.dir=other", f"ckpt_path={path}")
    assert code == 2
    assert err == (
        f"error: ckpt_path={path} does not hold the whole state of a training at the end of an "
        "epoch: use last.ckpt of its run\n"
    )
    assert cli("eval", f"ckpt_path={path}", "energy.enabled=false")[0] == 0


def test_what_would_be_written_over_is_put_aside():
    """Under a name that is free; empty files are not kept."""
    run = Path("run")
    run.mkdir()
    for content in ("first", "second"):
        (run / "metrics.jsonl").write_text(content)
        put_aside(run, resumed="elsewhere/last.ckpt")
        assert (run / "metrics.jsonl").exists()
        put_aside(run, resumed=None)
    (run / "metrics.jsonl").touch()
    put_aside(run, resumed=None)
    assert (run / "metrics-1.jsonl").read_text() == "first"
    assert (run / "metrics-2.jsonl").read_text() == "second"
    assert len(list(run.glob("metrics-*"))) == 2


def test_a_file_that_cannot_be_written_leaves_the_old_one():
    """The part is removed, the error names the file."""
    path = Path("file")
    write_whole(path, "old", replaced=Path("before"))
    write_whole(path, "new", replaced=Path("before"))
    assert (path.read_text(), Path("before").read_text()) == ("new", "old")
    Path("file.part").symlink_to("/dev/full")
    with pytest.raises(OSError, match="file") as caught:
        write_whole(path, "newer", replaced=Path("before"))
    assert caught.value.filename == "file"
    assert (path.read_text(), Path("before").read_text()) == ("new", "old")
    assert not Path("file.part").is_symlink()


def test_a_checkpoint_of_another_program_is_not_gone_on_from(tmp_path):
    """In the place of last.ckpt it counts as damaged."""
    (tmp_path / "checkpoints").mkdir()
    torch.save({"weights": torch.zeros(3)}, tmp_path / "checkpoints" / "last.ckpt")
    with pytest.raises(CheckpointError, match=r"last.ckpt cannot be used, and there is no other"):
        start_point(tmp_path, None, seed=0)


def test_checksums_are_compared(whole):
    """torch alone reads a checkpoint with a hole in it."""
    run = copy(whole)
    path = run / "checkpoints" / "best.ckpt"
    zeros(path)
    torch.load(path, weights_only=True)
    with pytest.raises(CheckpointError, match="wrong checksum"):
        load_checkpoint(path)
