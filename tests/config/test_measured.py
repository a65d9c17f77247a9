"""A metric that will not be measured is refused before the training."""

import json
from pathlib import Path

import pytest

from saformer.config.measured import logged, require_measured
from saformer.energy.settings import OF_COSTS, SCALARS
from saformer.errors import SettingError

SHORT = ("logger=none", "trainer=cpu", "dataset.train_subset=100", "epochs=1", "timesteps=1")
SHORT += ("model.dim=16", "model.num_heads=2", "scheduler.warmup_epochs=0", "hydra.run.dir=run")


def test_what_a_run_measures_is_what_is_known(cli, compose):
    """Names that settings may watch are those that metrics.jsonl has, all of them and no other."""
    words = (*SHORT, "callbacks=none")
    assert cli("train", *words)[0] == 0
    (line,) = map(json.loads, Path("run/metrics.jsonl").read_text().splitlines())
    known = {*logged(compose(*words)), *SCALARS, *OF_COSTS}
    assert {name for name in line if "/" in name} == known


STOP = "callbacks=early_stopping"
AT_END = "+callbacks.early_stopping.check_on_train_epoch_end"
EVERY_2 = "+trainer.check_val_every_n_epoch=2"
OTHER = ("dataset.num_classes=5", "objective=[val/top5]")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ("objective=[energy/total_J]",),
            "objective must be one of energy/total_mJ, energy/total_mJ_se, energy/mac_mJ, "
            "energy/ac_mJ, energy/sop_G, energy/strict_mJ, energy/paper_mJ, energy/lif_mJ, "
            "energy/ann_fp32_mJ, energy/ann_int8_mJ, energy/ratio_ann, energy/n_samples, "
            "energy/coverage, energy/twin_ratio, energy/lemaire_uJ, not energy/total_J. "
            "Did you mean 'energy/total_mJ'?",
        ),
        (
            ("objective=[rate/x]",),
            "objective must be one of rate/mean, rate/weighted, not rate/x",
        ),
        (
            ("callbacks.checkpoint.monitor=neurons/dead",),
            "callbacks.checkpoint.monitor must be one of neurons/dead_frac, "
            "neurons/saturated_frac, not neurons/dead. Did you mean 'neurons/dead_frac'?",
        ),
        (
            OTHER,
            "objective must be a metric: train/loss, val/loss, val/top1, energy/*, rate/*, "
            "neurons/*, not val/top5",
        ),
        (
            ("objective=[energy/twin_ratio]", "energy.costs=[horowitz45]"),
            "objective=energy/twin_ratio needs yan2024_twin among energy.costs",
        ),
        (
            ("objective=[energy/total_mJ_se]", "energy.samples=1", "dataset.eval_batch_size=1"),
            "objective=energy/total_mJ_se needs two images: type energy.samples=2",
        ),
        (
            ("callbacks.checkpoint.monitor=val/loss",),
            "callbacks.checkpoint.mode must be min for callbacks.checkpoint.monitor=val/loss, "
            "not max",
        ),
        (
            (STOP, "callbacks.early_stopping.monitor=energy/total_mJ"),
            "callbacks.early_stopping.mode must be min for "
            "callbacks.early_stopping.monitor=energy/total_mJ, not max",
        ),
        (
            (STOP, EVERY_2, f"{AT_END}=true"),
            f"{AT_END[1:]} must be false for val/top1 with trainer.check_val_every_n_epoch=2, "
            "not true",
        ),
        (
            (STOP, "+trainer.limit_val_batches=0"),
            "trainer.limit_val_batches must not be 0 with callbacks.early_stopping, "
            "which monitors val/top1, not 0",
        ),
        (
            (
                *(STOP, EVERY_2, "callbacks.early_stopping.monitor=train/loss"),
                "callbacks.early_stopping.mode=min",
            ),
            f"{AT_END[1:]} must be true for train/loss, not false",
        ),
    ],
)
def test_refused(compose, words, said):
    """Each way in which a metric is not there, or is looked at the wrong way, is told in a line."""
    with pytest.raises(SettingError) as refused:
        require_measured(compose(*words))
    assert str(refused.value) == said


@pytest.mark.parametrize(
    "words",
    [
        (STOP, EVERY_2),
        (STOP, "callbacks.early_stopping.monitor=train/loss", "callbacks.early_stopping.mode=min"),
        ("callbacks.checkpoint.monitor=rate/mean",),
        ("objective=[energy/twin_ratio,val/top5,neurons/dead_frac]",),
        # A callback of one's own may log what we know nothing of.
        ("objective=[energy/mine]", "+callbacks.mine._target_=mine.Mine"),
        ("objective=[loss]", "+callbacks.mine._target_=mine.Mine"),
    ],
)
def test_taken(compose, words):
    """What is measured, and what a callback of one's own may measure, can be watched."""
    require_measured(compose(*words))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ("sweep=optuna", "objective=[val/top1,energy/total_mJ]"),
            "hydra.sweeper.direction must have 2 values, as many as "
            "objective=[val/top1,energy/total_mJ], not [maximize]",
        ),
        (
            ("sweep=optuna", "objective=[val/loss]"),
            "hydra.sweeper.direction must be minimize for objective=val/loss, not maximize",
        ),
        (
            ("sweep=accuracy_energy", "hydra.sweeper.direction=[minimize,minimize]"),
            "hydra.sweeper.direction must be maximize for objective=val/top1, not minimize",
        ),
    ],
)
def test_a_search_in_the_wrong_direction(cli, words, said):
    """A study that could take no result, or would look for the worst, is not begun."""
    code, _out, err = cli("train", "-m", *words, "logger=none")
    assert (code, err) == (2, f"error: {said}\n")
    assert not list(Path().rglob("*.db"))
