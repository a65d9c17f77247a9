"""The average of the weights: warmed up, with the statistics of BatchNorm, and never before it is
there."""

import json
from pathlib import Path

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.callbacks import Callback
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from saformer.training.callbacks.checkpoint import RunCheckpoint
from saformer.training.callbacks.ema import WeightAverage

STEPS = 4  # of an epoch


class Net(pl.LightningModule):
    """Notes the weights that it trains and those that are validated."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.layer = nn.BatchNorm1d(3), nn.Linear(3, 1)
        self.trained: list[torch.Tensor] = []
        self.validated: list[torch.Tensor] = []
        self.statistics: list[torch.Tensor] = []

    def forward(self, x):
        return self.layer(self.norm(x))

    def training_step(self, batch, batch_idx):
        return (self(batch[0]) - batch[1]).square().mean()

    def on_train_batch_end(self, outputs, batch, batch_idx):
        self.trained.append(self.layer.weight.detach().clone())
        self.statistics.append(self.norm.running_var.clone())

    def validation_step(self, batch, batch_idx):
        self.validated.append(self.layer.weight.detach().clone())
        self.log("val/loss", (self(batch[0]) - batch[1]).square().mean())

    def test_step(self, batch, batch_idx):
        pass

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def fit(folder: Path, *callbacks: Callback, epochs: int = 3, **options):
    pl.seed_everything(0, verbose=False)
    x = torch.randn(8 * STEPS, 3)
    data = DataLoader(TensorDataset(x, x[:, :1]), batch_size=8)
    net = Net()
    trainer = pl.Trainer(
        callbacks=list(callbacks), max_epochs=epochs, accelerator="cpu", logger=False,
        enable_progress_bar=False, enable_model_summary=False, num_sanity_val_steps=0,
        enable_checkpointing=any(isinstance(one, RunCheckpoint) for one in callbacks),
        default_root_dir=folder,
    )  # fmt: skip
    trainer.fit(net, data, DataLoader(TensorDataset(x, x[:, :1]), batch_size=32), **options)
    return net


def averages(weights: list[torch.Tensor], decay: float) -> list[torch.Tensor]:
    """The average after each of these."""
    found = [weights[0]]
    for updates, one in enumerate(weights[1:], 1):
        kept = min(decay, (1 + updates) / (10 + updates))
        found.append(kept * found[-1] + (1 - kept) * one)
    return found


@pytest.mark.parametrize("decay", [0.999, 0.3])
def test_the_decay_warms_up(tmp_path, decay):
    """The average keeps (1 + n) / (10 + n) of itself after n updates, and never more than decay."""
    net = fit(tmp_path, WeightAverage(decay=decay))
    expected = averages(net.trained, decay)
    for epoch, validated in enumerate(net.validated, 1):
        torch.testing.assert_close(validated, expected[epoch * STEPS - 1])
    torch.testing.assert_close(net.layer.weight.detach(), expected[-1])


def test_statistics_are_copied(tmp_path):
    """Running statistics are an average already: the newest go with the average."""
    best = RunCheckpoint(dirpath=tmp_path, filename="last")
    net = fit(tmp_path, WeightAverage(), best)
    kept = torch.load(tmp_path / "last.ckpt", weights_only=True)
    assert torch.equal(kept["state_dict"]["norm.running_var"], net.statistics[-1])
    assert kept["state_dict"]["norm.num_batches_tracked"] == 3 * STEPS


LATE = [{"update_starting_at_step": 2 * STEPS}, {"update_starting_at_epoch": 2}]


@pytest.mark.parametrize("start", LATE, ids=lambda start: next(iter(start)))
def test_before_its_start_there_is_no_average(tmp_path, start):
    """Until then the weights are validated, saved and tested as trained; then it begins."""
    best = RunCheckpoint(dirpath=tmp_path, filename="last", enable_version_counter=False)
    net = fit(tmp_path, WeightAverage(**start), best, epochs=2)
    for epoch, validated in enumerate(net.validated, 1):
        assert torch.equal(validated, net.trained[epoch * STEPS - 1])
    assert torch.equal(net.layer.weight, net.trained[-1])
    kept = torch.load(tmp_path / "last.ckpt", weights_only=True)
    assert torch.equal(kept["state_dict"]["layer.weight"], net.trained[-1])
    whole = fit(tmp_path, WeightAverage(**start), epochs=4)
    expected = averages(whole.trained[2 * STEPS :], 0.999)
    torch.testing.assert_close(whole.validated[2], expected[STEPS - 1])
    torch.testing.assert_close(whole.validated[3], expected[-1])
    resumed = fit(
        tmp_path, WeightAverage(**start), epochs=4,
        ckpt_path=tmp_path / "last.ckpt", weights_only=True,
    )  # fmt: skip
    assert torch.equal(resumed.layer.weight, whole.layer.weight)


def test_it_goes_on_exactly_once_begun(tmp_path):
    """Weights and average of a resumed training are those of one that never stopped."""
    last = RunCheckpoint(dirpath=tmp_path, filename="last", enable_version_counter=False)
    fit(tmp_path, WeightAverage(), last, epochs=2)
    resumed = fit(
        tmp_path, WeightAverage(), epochs=4, ckpt_path=tmp_path / "last.ckpt", weights_only=True
    )
    whole = fit(tmp_path, WeightAverage(), epochs=4)
    assert torch.equal(resumed.layer.weight, whole.layer.weight)
    assert torch.equal(resumed.trained[-1], whole.trained[-1])


@pytest.mark.parametrize(
    ("word", "answer"),
    [
        ("callbacks.ema.decay=1.5", "callbacks.ema.decay must be 0 to 1, not 1.5"),
        (
            "+callbacks.ema.update_every_n_steps=0",
            "callbacks.ema.update_every_n_steps must be at least 1, not 0",
        ),
        ("+callbacks.ema.dekay=1", "dekay"),
    ],
)
def test_a_wrong_setting_is_told_in_one_line(cli, word, answer):
    """Before the training, with the setting and what it may be."""
    code, _out, err = cli("train", "callbacks=ema", "logger=none", word)
    assert code == 2 and answer in err and err.count("\n") == 1
    assert not list(Path().rglob("metrics.jsonl"))


@pytest.mark.slow
def test_the_shipped_option_is_no_worse_than_the_default_run(cli, default_run):
    """callbacks=ema, as it is, tests within a point of the run without it, or above."""
    words = ("logger=none", "energy.enabled=false", "hydra.run.dir=ema")
    assert cli("train", "callbacks=ema", *words)[0] == 0
    default, ema = (
        json.loads((run / "results.json").read_text())["test"]["test/top1"]
        for run in (default_run, Path("ema"))
    )
    assert ema > default - 0.01, (ema, default)
