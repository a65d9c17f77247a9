"""What was typed is what trains, on a start that goes on too; what cannot change is refused."""

import copy
import json
from dataclasses import fields
from pathlib import Path

import pytest
import torch
from mostly_slow import mostly_slow
from resumable import SHORT, signalled

from saformer.checkpoint import DATA_SETTINGS, RUN_SETTINGS, load_checkpoint, require_resumable
from saformer.config.check import to_dict
from saformer.config.schema import Interval, OptimizerConfig, SchedulerConfig
from saformer.dotted import leaves
from saformer.errors import CheckpointError
from saformer.runs.folder import find
from saformer.training.schedule import lr_at

QUICK = (*SHORT, "energy.enabled=false", "augment.mixup=0")
IMAGES = 225  # that QUICK trains on

CHANGES = {
    "optimizer": (
        *("optimizer.lr=1e-4", "optimizer.weight_decay=0.5"),
        *("optimizer.betas=[0.8,0.99]", "optimizer.eps=1e-6"),
    ),
    "schedule": (
        *("scheduler.warmup_epochs=3", "scheduler.warmup_lr=1e-4", "scheduler.min_lr=1e-3"),
        "scheduler.cooldown_epochs=1",
    ),
    "constant": ("scheduler=constant",),
    "interval": ("scheduler.interval=epoch",),
    "accumulation": ("trainer.accumulate_grad_batches=3",),
    "batch": ("dataset.batch_size=50",),
}
"""What is typed for the rest of a run that was begun without."""


@pytest.fixture(scope="module")
def begun(shared_run) -> Path:
    """The checkpoint of two epochs."""
    folder = shared_run(*QUICK, "epochs=2")
    return folder / "run" / "checkpoints" / "last.ckpt"


@pytest.mark.parametrize("typed", mostly_slow(CHANGES.values(), 3), ids=CHANGES)
def test_what_is_typed_trains_the_epochs_that_are_left(cli, compose, begun, typed):
    """Learning rate, decay and all else of the optimizer are those of the start that goes on, and
    the place in the schedule is in epochs."""
    words = (*QUICK, "epochs=5", *typed)
    assert cli("train", *words, f"ckpt_path={begun}")[0] == 0
    config = compose(*words)
    optim, schedule = config.optimizer, config.scheduler
    batches = -(-IMAGES // config.dataset.batch_size)
    steps = -(-batches // config.trainer["accumulate_grad_batches"])
    share = 0 if schedule.interval is Interval.epoch else (steps - 1) / steps
    lines = [json.loads(line) for line in Path("run/metrics.jsonl").read_text().splitlines()]
    for line in lines[2:]:
        right = lr_at(line["epoch"] - 1 + share, optim.lr, config.epochs, schedule)
        assert line["lr"] == pytest.approx(right, rel=1e-12)
    decays = []
    for group in load_checkpoint("run/checkpoints/last.ckpt")["optimizer_states"][0][
        "param_groups"
    ]:
        assert (list(group["betas"]), group["eps"]) == (optim.betas, optim.eps)
        assert group["initial_lr"] == optim.lr
        decays.append(group["weight_decay"])
    assert decays == [optim.weight_decay, 0.0]


def test_every_setting_that_a_checkpoint_also_holds_is_looked_at(begun):
    """What the optimizer's state and the schedule could bring back stands in the test above."""
    (state,) = load_checkpoint(begun)["optimizer_states"]
    typed = {word.partition("=")[0] for words in CHANGES.values() for word in words}
    kept = {one.name for one in fields(OptimizerConfig)} & state["param_groups"][0].keys()
    assert kept == {"lr", "weight_decay", "betas", "eps"}
    assert {f"optimizer.{name}" for name in kept} <= typed
    named = {f"scheduler.{one.name}" for one in fields(SchedulerConfig)} - {"scheduler.name"}
    assert named <= typed and "scheduler" in typed
    assert load_checkpoint(begun)["lr_schedulers"] == [{}]


def test_what_cannot_change_is_refused_by_its_name(compose):
    """Every setting of the network, of what its data look like, and the seed."""
    saved = to_dict(compose("dataset=digits_events", "timesteps=4"))
    looked_at = 0
    for name in leaves(saved):
        group, _, rest = name.partition(".")
        of_data = group == "dataset" and rest.partition(".")[0] in DATA_SETTINGS
        if not (group in RUN_SETTINGS or of_data):
            continue
        now = copy.deepcopy(saved)
        *path, last = name.split(".")
        node = now
        for step in path:
            node = node[step]
        free = node[last] == {}  # options of a class of one's own
        node[last] = {"another": 1} if free else ["another"]
        name += ".another" if free else ""
        if name in ("neuron.backend", "dataset.events.bad_recordings"):  # change no result
            require_resumable("last.ckpt", saved, now)
            continue
        shown = {"model.name": "model", "dataset.name": "dataset"}.get(name, name)
        with pytest.raises(CheckpointError, match=f"was trained with {shown}=.*: type {shown}="):
            require_resumable("last.ckpt", saved, now)
        looked_at += 1
    assert looked_at > 40


def test_more_patience_goes_on(cli):
    """A training that was stopped early goes on when it is given more patience, and stops by it."""
    early = ("callbacks=early_stopping", "+callbacks.early_stopping.min_delta=1", "epochs=9")
    assert cli("train", *QUICK, *early, "callbacks.early_stopping.patience=1")[0] == 0
    assert len(Path("run/metrics.jsonl").read_text().splitlines()) == 2
    more = ("callbacks.early_stopping.patience=3", "hydra.run.dir=more")
    assert cli("train", *QUICK, *early, *more, "ckpt_path=run/checkpoints/last.ckpt")[0] == 0
    assert len(Path("more/metrics.jsonl").read_text().splitlines()) == 4


def test_an_average_is_not_taken_for_the_weights(cli):
    """Without the average that a training had, its checkpoint is refused, and nothing written."""
    average = ("callbacks=ema", "callbacks.ema.decay=0.9", "epochs=1")
    assert cli("train", *QUICK, *average)[0] == 0
    code, _out, err = cli(
        "train", *QUICK, "ckpt_path=run/checkpoints/last.ckpt", "hydra.run.dir=other"
    )
    assert code == 2
    assert err == (
        "error: ckpt_path=run/checkpoints/last.ckpt was trained with an average of the weights: "
        "type callbacks=ema, or start without ckpt_path\n"
    )
    assert not Path("other/run.json").exists()


@pytest.mark.parametrize(
    "who",
    [
        "{_target_:misfortunes.Stop,epoch:1,batch:3}",
        "{_target_:lightning.pytorch.callbacks.Timer,duration:{milliseconds:1}}",
        "{_target_:misfortunes.Stop,epoch:1,validation:true}",
    ],
    ids=["callback", "timer", "validation"],
)
def test_a_run_ends_with_a_whole_epoch(cli, who):
    """Whoever stops a training within an epoch, the epoch comes to its end before."""
    words = (*QUICK, "+trainer.val_check_interval=0.5", f"+callbacks.who={who}")
    assert cli("train", *words)[0] == 0
    ended = 1 if "Timer" in who else 2
    steps = [json.loads(line)["step"] for line in Path("run/metrics.jsonl").open()]
    assert steps == [15, 30][:ended]
    assert torch.load("run/checkpoints/last.ckpt", weights_only=True)["global_step"] == 15 * ended


def test_a_validation_within_an_epoch_is_not_told_as_its_result(cli):
    """Validated at 12 of 15 batches and at the end: metrics and the best are those of the end."""
    assert cli("train", *QUICK, "hydra.run.dir=once")[0] == 0
    assert cli("train", *QUICK, "+trainer.val_check_interval=0.4")[0] == 0
    once, often = (Path(name, "metrics.jsonl").read_bytes() for name in ("once", "run"))
    assert once == often
    best = [json.loads(Path(name, "results.json").read_text())["best"] for name in ("once", "run")]
    assert best[0] == best[1]


def test_a_run_of_another_seed_is_left_alone(cli):
    """Cut off, done, or named by ckpt_path: another seed does not go on from it."""
    end = signalled(2, "on_train_batch_start", epoch=1, batch=6)
    assert cli("train", *QUICK, "seed=1", end)[0] == 130
    before = {path: path.read_bytes() for path in Path("run").rglob("*") if path.is_file()}
    other = (
        "error: run holds a run with seed=1, and this one has seed=2: choose another folder with "
        "hydra.run.dir=...\n"
    )
    for words in ((), ("ckpt_path=run/checkpoints/last.ckpt", "epochs=4")):
        code, _out, err = cli("train", *QUICK, "seed=2", *words)
        assert (code, err) == (2, other)
    code, _out, err = cli(
        "train", *QUICK, "seed=2", "ckpt_path=run/checkpoints/last.ckpt", "hydra.run.dir=new"
    )
    assert code == 2
    assert err == (
        "error: ckpt_path=run/checkpoints/last.ckpt was trained with seed=1, this run has seed=2: "
        "type seed=1, or start without ckpt_path\n"
    )
    assert {path: path.read_bytes() for path in before} == before
    assert cli("train", *QUICK, "seed=1")[0] == 0
    assert cli("train", *QUICK, "seed=2", "epochs=4")[1:] == ("", other)


def test_a_run_of_two_seeds_is_in_no_table():
    """Older versions let a run go on with another seed; tables leave it out and say so."""
    Path("run").mkdir()
    starts = [
        {
            "time": "2026-01-01T00:00:00+00:00",
            "config": {"seed": seed, "timesteps": 4},
            "git": {"commit": None, "dirty": None},
        }
        for seed in (1, 2)
    ]
    Path("run/run.json").write_text(json.dumps({"starts": starts}))
    runs, remarks = find(Path())
    assert (runs, remarks) == (
        [],
        ["not counted: run was started with seed=1 and resumed with seed=2"],
    )
