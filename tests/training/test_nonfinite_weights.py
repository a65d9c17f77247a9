"""Weights, statistics and moments that are not finite are neither written nor read."""

from pathlib import Path

import pytest
import torch
from mostly_slow import mostly_slow

import saformer
from saformer.checkpoint import load_checkpoint
from saformer.errors import CheckpointError

SHORT = (
    *("logger=none", "trainer=cpu", "energy=off", "dataset.train_subset=200"),
    *("dataset.batch_size=16", "model.dim=16", "timesteps=1", "hydra.run.dir=run"),
    *("scheduler.warmup_epochs=0", "epochs=2"),
)
# A good epoch, and then steps that are far too large.
WILD = (
    *("optimizer.lr=100", "scheduler=constant", "scheduler.interval=epoch"),
    *("scheduler.warmup_epochs=1", "scheduler.warmup_lr=1e-4"),
)


@pytest.fixture(scope="module")
def trained(shared_run) -> Path:
    """A checkpoint of two epochs, with the moments of its optimizer."""
    return shared_run(*SHORT) / "run" / "checkpoints" / "last.ckpt"


@pytest.mark.parametrize("every", mostly_slow([1, 3]))
@pytest.mark.parametrize("ema", [(), ("callbacks=ema",)], ids=["", "ema"])
def test_a_learning_rate_of_100_ends_in_one_line(cli, ema, every):
    """Whatever was saved of the run is finite, however seldom it is validated."""
    words = (*WILD, "epochs=9", f"+trainer.check_val_every_n_epoch={every}", *ema)
    code, _out, err = cli("train", *SHORT, *words)
    assert code == 1 and err.count("\n") == 1, err
    assert err.startswith("error: ") and "The last good checkpoint is kept" in err
    saved = list(Path("run").rglob("*.ckpt"))
    assert saved and all(map(load_checkpoint, saved))
    assert not Path("run/results.json").exists()


@pytest.mark.parametrize("name", ["stem.stages.0.bn.running_var", "head.weight"])
@pytest.mark.parametrize("options", [("callbacks=none",), ("+trainer.limit_val_batches=0",)])
def test_no_epoch_ends_with_values_that_are_not_finite(cli, name, options):
    """Not where nothing is saved or validated: what goes bad in the last step is not tested."""
    bad = f"+callbacks.bad={{_target_:misfortunes.Spoil,name:{name},epoch:1}}"
    code, _out, err = cli("train", *SHORT, *options, bad)
    assert code == 1
    assert f"backbone.{name} became infinite or NaN" in err and err.count("\n") == 1
    assert not Path("run/results.json").exists()
    assert all(map(load_checkpoint, Path("run").rglob("*.ckpt")))


def spoilt(path: Path, key: str) -> str:
    """A copy with a value that is not finite."""
    checkpoint = torch.load(path, weights_only=True)
    if key == "optimizer_states":
        checkpoint[key][0]["state"][0]["exp_avg_sq"].view(-1)[0] = torch.inf
    else:
        checkpoint["state_dict"][f"backbone.{key}"].view(-1)[0] = torch.nan
    torch.save(checkpoint, "bad.ckpt")
    return "bad.ckpt"


@pytest.mark.parametrize("key", ["head.bias", "stem.stages.0.bn.running_mean", "optimizer_states"])
@pytest.mark.parametrize(
    "command", [("eval", "ckpt_path="), ("energy", "ckpt_path="), ("export", "")]
)
def test_a_checkpoint_that_went_bad_is_refused(cli, trained, command, key):
    """Every command that reads one says so in one line, and what holds the first of them."""
    name, prefix = command
    path = spoilt(trained, key)
    code, _out, err = cli(name, f"{prefix}{path}", *(["out"] if name == "export" else []))
    assert code == 2 and err.count("\n") == 1
    shown = "optimizer_states.0.state.0.exp_avg_sq" if key.startswith("opt") else f"backbone.{key}"
    assert (
        f"{path} holds values that are not finite ({shown}): it was written by a training that "
        "went bad; use an earlier one\n"
    ) in err


def test_the_library_refuses_it_too(cli, trained):
    """So do `saformer.load` and a start that names it."""
    path = spoilt(trained, "head.bias")
    with pytest.raises(CheckpointError, match="not finite"):
        saformer.load(path)
    code, _out, err = cli("train", *SHORT, "epochs=3", f"ckpt_path={path}")
    assert code == 2 and "not finite" in err and err.count("\n") == 1


def test_an_average_is_looked_at_beside_the_weights(trained):
    """A checkpoint of an average holds the weights as trained too, under the same names."""
    checkpoint = torch.load(trained, weights_only=True)
    weights = {name: value.clone() for name, value in checkpoint["state_dict"].items()}
    weights["backbone.head.bias"][0] = torch.nan
    torch.save(checkpoint | {"current_model_state": weights}, "bad.ckpt")
    with pytest.raises(CheckpointError, match=r"\(current_model_state.backbone.head.bias\)"):
        load_checkpoint("bad.ckpt")
