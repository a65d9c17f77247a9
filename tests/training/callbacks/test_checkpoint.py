"""Which epoch is the best of a run."""

import json
from pathlib import Path

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.callbacks import Callback

from saformer.training.callbacks.checkpoint import RunCheckpoint, as_good
from saformer.training.callbacks.results import ResultsWriter

NAN = float("nan")


class Score(Callback):
    """Logs what each epoch is said to have reached."""

    def __init__(self, scores: list[float]) -> None:
        self.scores = scores

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if not trainer.sanity_checking:
            pl_module.log("val/score", torch.tensor(self.scores[trainer.current_epoch]))


@pytest.mark.parametrize(
    ("mode", "scores", "best"),
    [
        ("max", [0.1, 0.1, 0.1], 3),
        ("max", [0.1, 0.5, 0.2, 0.5, 0.4], 4),
        ("min", [0.1, 0.1, 0.2], 2),
        ("max", [NAN, 0.2, 0.1], 2),
        ("min", [NAN, 0.2, 0.1, NAN], 3),
        ("max", [0.2, NAN, 0.1], 1),
        ("max", [NAN, NAN], 2),
    ],
)
def test_of_equal_epochs_the_later_is_best(tmp_path, fit, mode, scores, best):
    """In the checkpoint and in results.json; what is no number is worse than any."""
    keep = {"dirpath": tmp_path / "best", "enable_version_counter": False}
    kept = RunCheckpoint(filename="best", monitor="val/score", mode=mode, **keep)
    fit(tmp_path, Score(scores), ResultsWriter(tmp_path), epochs=len(scores), best=kept)
    assert torch.load(kept.best_model_path, weights_only=True)["epoch"] + 1 == best
    assert json.loads(Path(tmp_path, "results.json").read_text())["best"]["epoch"] == best


def test_no_number_is_as_good_as_any_other_that_is_none():
    """NaN takes the place of NaN and of nothing else."""
    for mode in ("max", "min"):
        assert as_good(NAN, NAN, mode) and as_good(0.0, NAN, mode)
        assert not as_good(NAN, 0.0, mode)
