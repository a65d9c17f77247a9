"""Train, resume and reconfigure from the command line, on real images."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from mostly_slow import mostly_slow
from short_run import SHORT, lines, results

CONSTANT = ("scheduler=constant", "augment.mixup=0.4")
"""Settings under which an epoch does not depend on how many follow."""


def test_a_run_leaves_everything_about_itself(train):
    """After training, the run's folder holds config, provenance, metrics, results, checkpoints."""
    code, _out, err = train("run")
    assert (code, err) == (0, "")
    assert [line["epoch"] for line in lines("run")] == [1, 2]
    assert {"train/loss", "val/loss", "val/top1", "lr"} <= lines("run")[0].keys()
    assert results("run")["status"] == "done"
    assert 0 <= results("run")["test"]["test/top1"] <= 1
    assert json.loads(Path("run/run.json").read_text())["starts"][0]["seed"] == 0
    for name in (".hydra/config.yaml", "checkpoints/best.ckpt", "checkpoints/last.ckpt"):
        assert Path("run", name).is_file()


def test_the_same_seed_gives_the_same_metrics(train):
    """Two runs with one seed write the same bytes; another seed does not."""
    for run, seed in (("a", 3), ("b", 3), ("c", 4)):
        assert train(run, f"seed={seed}", "augment.mixup=0.4", "model.dim=16")[0] == 0
    a, b, c = (Path(run, "metrics.jsonl").read_bytes() for run in "abc")
    assert a == b
    assert a != c


def test_a_resumed_run_ends_as_one_never_stopped(train, trained):
    """Two epochs and two more from last.ckpt are the same four epochs, to the last digit."""
    shutil.copytree(trained(*CONSTANT, "epochs=4"), "whole")
    shutil.copytree(trained(*CONSTANT), "first")
    resume = "ckpt_path=first/checkpoints/last.ckpt"
    assert train("second", "epochs=4", *CONSTANT, resume)[0] == 0
    assert lines("first") == lines("whole")[:2]
    for name in ("test", "best", "last"):
        assert results("second")[name] == results("whole")[name]
    assert Path("second/metrics.jsonl").read_bytes() == Path("whole/metrics.jsonl").read_bytes()
    assert results("second")["checkpoints"]["best"] == "checkpoints/best.ckpt"


def test_the_same_folder_goes_on(train, trained):
    """Starting again in a run's folder goes on from its last checkpoint and overwrites nothing."""
    shutil.copytree(trained(*CONSTANT, "epochs=4"), "whole")
    shutil.copytree(trained(*CONSTANT), "run")
    code, out, _err = train("run", "epochs=4", *CONSTANT)
    assert code == 0
    assert "resuming from" in out
    assert Path("run/metrics.jsonl").read_bytes() == Path("whole/metrics.jsonl").read_bytes()
    assert len(json.loads(Path("run/run.json").read_text())["starts"]) == 2


def test_a_folder_of_another_run_is_left_alone(train, trained):
    """A run is never written over by one that does not continue it."""
    assert train("a", "callbacks=none")[0] == 0
    before = Path("a/metrics.jsonl").read_bytes()
    code, out, err = train("a", "callbacks=none")
    assert (code, err) == (0, "") and "run a is finished: its results are kept" in out
    code, _out, err = train("a", "callbacks=none", "optimizer.lr=0.5")
    assert code == 2 and err.count("\n") == 1
    assert "a holds another run, with optimizer.lr=" in err and "choose another folder" in err
    shutil.copytree(trained(), "b")
    code, _out, err = train("a", "ckpt_path=b/checkpoints/last.ckpt")
    assert code == 2
    assert "holds another run than ckpt_path=b/checkpoints/last.ckpt: choose another folder" in err
    assert Path("a/metrics.jsonl").read_bytes() == before


def test_a_run_without_checkpoints_writes_none(train):
    """callbacks=none keeps no checkpoint, Lightning's own neither, and the run has its results."""
    assert train("run", "callbacks=none")[0] == 0
    assert not list(Path("run").rglob("*.ckpt"))
    assert results("run")["checkpoints"] == {"best": None, "last": None}


@pytest.mark.slow
def test_a_locale_without_unicode_ends_no_run(tmp_path):
    """With LC_ALL=C a training writes its report in UTF-8, and its tables print."""
    plain = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    words = (*SHORT, "epochs=1", "hydra.run.dir=run")
    for script, rest in (("train", words), ("energy", ("ckpt_path=run/checkpoints/best.ckpt",))):
        done = subprocess.run(
            [sys.executable, "-c", f"from saformer import cli; cli.{script}()", *rest],
            cwd=tmp_path,
            env=os.environ | plain,
            capture_output=True,
        )
        assert (done.returncode, done.stderr) == (0, b""), done.stderr.decode()
    assert "µJ" in (tmp_path / "run/energy/report.md").read_text(encoding="utf-8")


def test_of_two_checkpoints_with_a_monitor_the_first_is_the_best(train):
    """What is tested is what results.json calls the best epoch, and the objective is of."""
    second = "{_target_:lightning.pytorch.callbacks.ModelCheckpoint,monitor:train/loss}"
    assert train("run", f"+callbacks.flat={second}", "model.dim=16", "timesteps=1")[0] == 0
    assert results("run")["checkpoints"]["best"].endswith("best.ckpt")
    best = max(lines("run"), key=lambda line: (line["val/top1"], line["epoch"]))
    assert results("run")["best"]["epoch"] == best["epoch"]


@pytest.mark.parametrize(
    ("override", "answer"),
    [
        ("timesteps=2", "timesteps=4, this run has timesteps=2: type timesteps=4"),
        ("model.dim=32", "model.dim=64, this run has model.dim=32: type model.dim=64"),
        (
            "model=saformer_2_256",
            "model=saformer_tiny, this run has model=saformer_2_256: type model=saformer_tiny",
        ),
    ],
)
def test_resuming_another_model_is_refused(run, train, override, answer):
    """A checkpoint of another model is refused by the first setting that differs."""
    path = "run/checkpoints/last.ckpt"
    code, _out, err = train("again", f"ckpt_path={path}", override)
    assert err == (
        f"error: ckpt_path={path} was trained with {answer}, or start without ckpt_path\n"
    )
    assert code == 2


def test_a_loss_that_turns_nan_stops_the_run(train):
    """NaN ends the run with epoch, step and layer, and the checkpoint before it stays good."""
    code, _out, err = train(
        "run",
        "epochs=3",
        "scheduler=constant",
        "scheduler.interval=epoch",
        "scheduler.warmup_epochs=1",
        "scheduler.warmup_lr=1e-4",
        "optimizer.lr=1e36",
    )
    assert code == 1
    assert err.count("\n") == 1
    assert err.startswith(
        "error: training stopped in epoch 2, step 3: layer stem.stages.0.bn gave "
    )
    weights = torch.load("run/checkpoints/last.ckpt", weights_only=True)["state_dict"]
    assert all(torch.isfinite(value).all() for value in weights.values())


def test_a_full_disk_is_told_in_one_line(train):
    """A disk that fills up during the run ends it with one line."""
    Path("run").mkdir()
    Path("run/results.json.part").symlink_to("/dev/full")
    code, _out, err = train("run")
    assert code == 2
    assert err.replace(f"{Path.cwd()}/", "") == (
        "error: cannot write run/results.json: No space left on device. Make room, "
        "or choose another folder (for a training: hydra.run.dir=...)\n"
    )


def test_outputs_that_cannot_be_written(train):
    """A folder for outputs that cannot be made is told in one line."""
    Path("file").touch()
    code, _out, err = train("file/run")
    assert code == 2
    assert err == (
        "error: cannot write file/run: Not a directory. Make room, "
        "or choose another folder (for a training: hydra.run.dir=...)\n"
    )


def test_too_little_room_is_told_before_the_training(train, monkeypatch):
    """A run whose checkpoints would not fit does not start, and says what it needs and has."""
    usage = shutil.disk_usage(".")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=2**20))
    code, _out, err = train("run")
    assert code == 2
    assert err.count("\n") == 1
    assert " has 1 MiB free, this run needs about 2" in err
    assert not Path("run/checkpoints").exists()


@pytest.mark.parametrize("able", [False, True])
def test_a_cpu_without_bf16_is_warned_of(train, monkeypatch, able):
    """Where bf16 must be emulated it is many times slower: one line says so before training."""
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": able})
    short = ("epochs=1", "dataset.train_subset=100", "energy=off", "callbacks=none")
    code, out, err = train("run", "trainer.precision=bf16-mixed", *short)
    assert code == 0, err
    assert ("this CPU has no bf16 arithmetic" in out) is not able


def test_missing_data_is_told_in_one_line(train, monkeypatch):
    """A dataset that is not there is answered with where it was looked for and how to get it."""
    from saformer.data.readers import fashion_mnist

    monkeypatch.setattr(fashion_mnist, "DEBIAN", Path("/nonexistent"))
    code, _out, err = train("run", "dataset=fashion_mnist", "augment=fashion", "data_dir=here")
    assert code == 2
    assert err.count("\n") == 1
    assert err.startswith("error: here/fashion_mnist: expected the Fashion-MNIST file train-images")
    assert "saformer-data fetch fashion_mnist, or apt-get install dataset-fashion-mnist" in err
    assert not Path("run/run.json").exists()


def test_damaged_data_is_told_in_one_line(train):
    """A damaged dataset file is named, with what was expected."""
    raw = Path("data/fashion_mnist/FashionMNIST/raw")
    raw.mkdir(parents=True)
    (raw / "train-images-idx3-ubyte").write_text("<html>not found</html>")
    code, _out, err = train("run", "dataset=fashion_mnist")
    assert code == 2
    assert err.count("\n") == 1
    assert err.startswith("error: ") and "train-images-idx3-ubyte" in err


def test_a_run_without_validation_ends_well(train):
    """Validation switched off: the last epoch is tested, and no objective is made up."""
    code, out, err = train("run", "+trainer.limit_val_batches=0")
    assert (code, err) == (0, "")
    assert "the tested epoch was not validated" in out
    assert results("run")["best"] is None and 0 <= results("run")["test"]["test/top1"] <= 1


def test_a_run_without_a_test_says_so(train):
    """Test switched off: one line says that there is no result."""
    code, _, err = train("run", "+trainer.limit_test_batches=0")
    assert (code, err.count("\n")) == (2, 1)
    assert err.startswith("error: no test batch ran")


def test_several_values_run_one_after_the_other(cli):
    """-m makes one run for each value, each in a folder of its own."""
    code, _out, err = cli("train", *SHORT, "-m", "hydra.sweep.dir=sweep", "timesteps=1,2")
    assert (code, err) == (0, "")
    for job, timesteps in (("0", 1), ("1", 2)):
        start = json.loads(Path("sweep", job, "run.json").read_text())["starts"][0]
        assert start["config"]["timesteps"] == timesteps
        assert results(f"sweep/{job}")["status"] == "done"


@pytest.mark.parametrize(
    "overrides",
    mostly_slow(
        [
            ("callbacks=ema",),
            ("callbacks=early_stopping",),
            ("callbacks=none",),
            ("trainer=debug",),
            ("loss.tet=true",),
            ("augment=cifar", "augment.cutmix=1.0", "dataset.flippable=true"),
            ("scheduler.interval=epoch",),
            ("trainer.gradient_clip_val=1.0", "trainer.accumulate_grad_batches=2"),
            ("trainer.precision=bf16-mixed",),
            ("logger=csv",),
            ("neuron=plif", "neuron.surrogate.name=atan"),
        ],
        3,
    ),
    ids=" ".join,
)
def test_options_train_and_test(train, overrides):
    """Each option trains, validates and tests without a word on stderr."""
    code, _out, err = train("run", "model.dim=16", *overrides)
    assert (code, err) == (0, "")


@pytest.mark.slow
def test_a_compiled_backbone_keeps_its_checkpoint_names(train, cli):
    """compile=true trains, and its checkpoint loads into a model that is not compiled.

    The time that compiling took is told, and stands in results.json.
    """
    code, out, _ = train("run", "compile=true", "epochs=1")
    assert code == 0
    first = json.loads(Path("run/results.json").read_text())["first_step"]
    assert 0 < first["compile_seconds"] < first["seconds"]
    assert f"of which torch.compile took {first['compile_seconds']:.1f} s" in out
    assert cli("eval", "ckpt_path=run/checkpoints/best.ckpt")[0] == 0


@pytest.mark.slow
def test_what_is_compiled_is_kept_for_the_next_run(tmp_path):
    """It goes to the user's cache, and a second process finds all of it there."""
    env = {**os.environ, "XDG_CACHE_HOME": str(tmp_path / "cache")}
    env.pop("TORCHINDUCTOR_CACHE_DIR")
    short = ("epochs=1", "dataset.train_subset=100", "neuron.backend=compile", "callbacks=none")
    command = [sys.executable, "-m", "saformer.cli", *SHORT, *short, "energy=off", "plots=false"]
    kept = []
    for run in ("a", "b"):
        subprocess.run([*command, f"hydra.run.dir={run}"], env=env, check=True, capture_output=True)
        kept.append(sorted(tmp_path.glob("cache/saformer/inductor/**/*.so")))
    assert kept[0] and kept[1] == kept[0]
