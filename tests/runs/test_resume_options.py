"""Whatever a run trains with, it goes on exactly: half of it and the rest are the whole."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from resumable import SHORT, outcome, signalled

ROOT = Path(__file__).parents[2]

SCALER = (
    "~trainer.precision",
    "+trainer.plugins={_target_:lightning.pytorch.plugins.precision.MixedPrecision,"
    "precision:16-mixed,device:cpu,"
    "scaler:{_target_:torch.amp.GradScaler,device:cpu,init_scale:8.0,growth_interval:4}}",
)
NOISE = "+callbacks.noise={_target_:misfortunes.Noise}"


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        ("scheduler.interval=epoch", "scheduler.cooldown_epochs=1"),
        ("trainer.accumulate_grad_batches=4", "trainer.gradient_clip_val=0.5"),
        ("+trainer.check_val_every_n_epoch=2", "epochs=4"),
        ("+trainer.val_check_interval=0.5",),
        ("energy.every_n_epochs=2", "neuron=plif"),
        ("augment=cifar", "dataset.flippable=true", "augment.cutmix=1.0"),
        ("dataset.num_workers=2",),
        ("callbacks=ema", "callbacks.ema.decay=0.9"),
        SCALER,
        (NOISE,),
        ("+trainer.val_check_interval=0.5", "ablation=rate_coding"),
    ],
    ids=lambda options: options[-1].partition("=")[0].strip("+~"),
)
def test_an_option_goes_on_exactly(cli, tmp_path, monkeypatch, options):
    """Stopped in the middle of the second epoch and started again: the same bytes."""
    for folder in ("whole", "stopped"):
        (tmp_path / folder).mkdir()
    monkeypatch.chdir(tmp_path / "whole")
    assert cli("train", *SHORT, *options)[0] == 0
    monkeypatch.chdir(tmp_path / "stopped")
    end = signalled(signal.SIGTERM, "on_train_batch_start", epoch=1, batch=6)
    assert cli("train", *SHORT, *options, end)[0] == 143
    code, out, _err = cli("train", *SHORT, *options)
    assert code == 0
    assert "resuming from run/checkpoints/last.ckpt after epoch 1\n" in out
    assert outcome(Path()) == outcome(tmp_path / "whole")


@pytest.mark.slow
def test_the_average_of_the_weights_is_tested(cli):
    """callbacks=ema: the test after the training and a later one are of the same weights."""
    options = ("callbacks=ema", "callbacks.ema.decay=0.9", "energy.enabled=false")
    assert cli("train", *SHORT, *options)[0] == 0
    assert cli("eval", "ckpt_path=run/checkpoints/best.ckpt")[0] == 0
    (later,) = Path("run").glob("eval-*.json")
    tested = json.loads(Path("run/results.json").read_text())["test"]
    assert tested["test/loss"] == json.loads(later.read_text())["test/loss"]


@pytest.mark.slow
def test_the_loss_scale_goes_on(cli):
    """What the scaler has learned is in the checkpoint; without it the scale would begin anew."""
    end = signalled(signal.SIGTERM, "on_train_batch_start", epoch=1, batch=6)
    assert cli("train", *SHORT, *SCALER, end)[0] == 143
    scaler = torch.load("run/checkpoints/last.ckpt", weights_only=True)["MixedPrecision"]
    assert scaler["scale"] > 8.0 and scaler["_growth_tracker"] > 0


@pytest.mark.slow
def test_a_test_draws_alike_after_a_stop(cli, tmp_path, monkeypatch):
    """Stopped in the midst of the test and tested again: the same random spikes."""
    for folder in ("whole", "stopped"):
        (tmp_path / folder).mkdir()
    monkeypatch.chdir(tmp_path / "whole")
    assert cli("train", *SHORT, "ablation=rate_coding")[0] == 0
    monkeypatch.chdir(tmp_path / "stopped")
    end = "+callbacks.end={_target_:misfortunes.Signal,number:15,where:on_test_batch_end,epoch:3}"
    assert cli("train", *SHORT, "ablation=rate_coding", end)[0] == 143
    assert cli("train", *SHORT, "ablation=rate_coding")[0] == 0
    assert outcome(Path()) == outcome(tmp_path / "whole")


@pytest.mark.slow
def test_a_training_that_was_stopped_early_stays_stopped(cli, tmp_path, monkeypatch):
    """Killed in its test, it is tested again, and not trained for one epoch more."""
    options = ("callbacks=early_stopping", "callbacks.early_stopping.patience=1", "epochs=9")
    for folder in ("whole", "stopped"):
        (tmp_path / folder).mkdir()
    monkeypatch.chdir(tmp_path / "whole")
    assert cli("train", *SHORT, *options)[0] == 0
    epochs = json.loads(Path("run/results.json").read_text())["epochs"]
    assert epochs < 9
    monkeypatch.chdir(tmp_path / "stopped")
    end = signalled(signal.SIGTERM, "on_test_start", epoch=epochs)
    assert cli("train", *SHORT, *options, end)[0] == 143
    assert cli("train", *SHORT, *options)[0] == 0
    assert outcome(Path()) == outcome(tmp_path / "whole")


@pytest.mark.slow
def test_a_run_from_another_checkpoint_goes_on_with_its_own(cli):
    """ckpt_path is where it begins; the same command again goes on with what it did since, and
    when it is done it is done."""
    assert cli("train", *SHORT, "hydra.run.dir=first")[0] == 0
    command = ("train", *SHORT, "epochs=5", "scheduler=constant", "scheduler.warmup_epochs=0")
    command += ("ckpt_path=first/checkpoints/last.ckpt",)
    end = signalled(signal.SIGTERM, "on_train_batch_start", epoch=3, batch=6)
    assert cli(*command, end)[0] == 143
    assert not Path("run/checkpoints/last.ckpt").exists()
    end = signalled(signal.SIGTERM, "on_train_batch_start", epoch=4, batch=6)
    assert cli(*command, end)[0] == 143
    code, out, _err = cli(*command)
    assert code == 0
    assert "resuming from run/checkpoints/last.ckpt after epoch 4" in out
    code, out, _err = cli(*command)
    assert (code, out) == (0, "run run is finished: its results are kept\n")
    assert len(Path("run/metrics.jsonl").read_text().splitlines()) == 5


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=["Ctrl-C", "SIGTERM"]
)
def test_a_signal_to_all_processes_of_a_run_is_told_in_one_line(tmp_path, number, code):
    """A terminal and Slurm send it to the loader's workers too; their end is no error."""
    train = [sys.executable, str(ROOT / "train.py"), *SHORT, "dataset.num_workers=2", "epochs=99"]
    with (tmp_path / "out").open("wb") as out, (tmp_path / "err").open("wb") as err:
        process = subprocess.Popen(train, stdout=out, stderr=err, start_new_session=True)
        while b"epoch 2/" not in (tmp_path / "out").read_bytes():
            assert process.poll() is None, (tmp_path / "err").read_text()
            time.sleep(0.05)
        os.killpg(process.pid, number)
        assert process.wait(60) == code
    word = "interrupted" if number == signal.SIGINT else "stopped by SIGTERM"
    assert (tmp_path / "err").read_text() == f"error: {word}\n"
