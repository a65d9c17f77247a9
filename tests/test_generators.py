"""Counting, reporting and drawing move no generator; an evaluation has draws of its own."""

import json
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from resumable import SHORT
from torch import Tensor, nn

from saformer.energy.counter import Counter, count, coverage
from saformer.export.check import compare, look
from saformer.generators import apart, begin
from saformer.models.neuron import MultiStepLeaky
from saformer.spikes.record import record
from saformer.training.diagnose import first_nonfinite

RATE = (*SHORT, "ablation=rate_coding")


def drawn() -> tuple[float, float, float]:
    """The next number of each generator."""
    return random.random(), np.random.rand(), torch.rand(()).item()


class Noisy(nn.Module):
    """A network that draws from all global generators: images [B, 4] to [T, B, 3]."""

    timesteps = 2

    def __init__(self) -> None:
        super().__init__()
        self.neuron = MultiStepLeaky(beta=0.5, threshold=0.3)
        self.head = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.bernoulli(torch.full((2, *x.shape), 0.5)) * random.random() * np.random.rand()
        return self.head(self.neuron(x + 1))


def counted(network: nn.Module, x: Tensor) -> None:
    counter = Counter(network)
    with torch.no_grad(), apart(), counter.counting(len(x)):
        network(x)
    coverage(network, x, counter.table())


@pytest.mark.parametrize(
    "look_at",
    [
        count,
        counted,
        record,
        first_nonfinite,
        lambda network, x: compare(network, network, x),
        look,
    ],
    ids=["count", "coverage", "record", "first_nonfinite", "compare", "look"],
)
def test_looking_at_a_network_moves_no_generator(look_at):
    """Whoever runs a network to look at it leaves all generators as they were."""
    network, x = Noisy().eval(), torch.rand(5, 4)
    begin(1)
    wanted = drawn()
    begin(1)
    look_at(network, x)
    assert drawn() == wanted


def test_a_recording_draws_alike():
    """The same network and images give the same figures, whatever was drawn before."""
    network, x = Noisy().eval(), torch.rand(5, 4)
    assert torch.equal(record(network, x).logits, record(network, x).logits)


def test_keys_are_streams_of_their_own():
    """Numbers follow the key alone, and what was drawn apart leaves no trace."""
    begin(3)
    wanted, streams = drawn(), []
    for key in ((3, "val", 0), (3, "test", 0), (3, "test", 1), (4, "test", 0), (3, 0, 1)):
        begin(3)
        with pytest.raises(KeyError), apart(*key):
            streams.append(drawn())
            raise KeyError
        assert drawn() == wanted
        with apart(*key):
            assert drawn() == streams[-1]
    assert len({*streams, wanted}) == 6


def losses(folder: str) -> list[tuple[float, float]]:
    lines = map(json.loads, Path(folder, "metrics.jsonl").read_text().splitlines())
    return [(line["train/loss"], line["val/loss"]) for line in lines]


@pytest.mark.slow
def test_counting_and_validation_change_no_training(cli):
    """Random spikes of training are the same whether energy is counted or not, and however often
    is validated; those of each validation are the same."""
    options = {
        "off": ("energy=off",),
        "exact": ("energy=exact",),
        "often": ("energy=off", "+trainer.val_check_interval=5"),  # of 15 steps
    }
    for folder, words in options.items():
        assert cli("train", *RATE, "callbacks=none", *words, f"hydra.run.dir={folder}")[0] == 0
    for folder in options:
        assert losses(folder) == losses("off")
        assert final_loss(folder) == final_loss("off")


def final_loss(folder: str) -> float:
    return json.loads(Path(folder, "results.json").read_text())["test"]["test/loss"]


@pytest.mark.slow
def test_a_later_test_is_the_test_of_the_training(cli):
    """With random spikes too, `saformer-eval` and `saformer-energy` of the tested checkpoint give
    the loss and the energy that the training gave; another seed gives others."""
    assert cli("train", *RATE)[0] == 0
    wanted, path = final_loss("run"), "ckpt_path=run/checkpoints/best.ckpt"
    for seed, same in (("seed=0", True), ("seed=7", False)):
        assert cli("eval", path, seed)[0] == 0
        (written,) = Path("run").glob("eval-*.json")
        assert (json.loads(written.read_text())["test/loss"] == wanted) is same
        written.unlink()
    assert cli("energy", path)[0] == 0
    (report,) = Path("run").glob("energy-*/layers.csv")
    assert report.read_bytes() == Path("run/energy/layers.csv").read_bytes()
