"""A loss that is infinite or NaN stops the training before it reaches the weights."""

import os
import subprocess
import sys
from pathlib import Path

import lightning.pytorch as pl
import pytest
import torch
from torch import nn

from saformer.config import to_dict
from saformer.diagnose import first_nonfinite
from saformer.errors import TrainingStopped
from saformer.module import SAFormerModule

PATIENCE = 300.0  # seconds, for machines with other work

# Both ranks run this file. The second batch of rank 1 is NaN, also its labels: spikes are not.
SCRIPT = """
import lightning.pytorch as pl
import torch
from hydra import compose, initialize_config_dir
from saformer.config import VERSION_BASE, check, conf_dir, to_dict
from saformer.errors import TrainingStopped
from saformer.module import SAFormerModule

with initialize_config_dir(str(conf_dir()), version_base=VERSION_BASE):
    config = check(compose("train", ["model.dim=16", "timesteps=1"]))

class Data(pl.LightningDataModule):
    def train_dataloader(self):
        batches = [[torch.rand(4, 1, 8, 8), torch.rand(4, 10)] for _ in range(3)]
        if self.trainer.global_rank == 1:
            for part in batches[1]:
                part.fill_(float("nan"))
        return torch.utils.data.DataLoader(batches, None)

module = SAFormerModule(config, to_dict(config))
trainer = pl.Trainer(
    accelerator="cpu", devices=2, strategy="ddp", max_epochs=1, logger=False,
    enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
    use_distributed_sampler=False,
)
try:
    trainer.fit(module, Data())
except TrainingStopped as error:
    with open(f"said-{trainer.global_rank}", "w") as file:
        file.write(str(error))
"""


@pytest.fixture
def small(compose):
    """A small network in its module."""
    config = compose("model.dim=16", "timesteps=1")
    return SAFormerModule(config, to_dict(config))


def batches(bad, count=6):
    """Batches of images and soft labels, some of them NaN."""
    made = [(torch.rand(4, 1, 8, 8), torch.rand(4, 10)) for _ in range(count)]
    for part in (part for i in bad for part in made[i]):
        part.fill_(float("nan"))
    return torch.utils.data.DataLoader(made, None)


def fit(module, loader, accumulate):
    trainer = pl.Trainer(
        accelerator="cpu",
        max_epochs=1,
        accumulate_grad_batches=accumulate,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(module, loader)


@pytest.mark.parametrize("bad", [2, 3])
@pytest.mark.filterwarnings(
    "ignore:.*:UserWarning", "ignore::lightning.pytorch.utilities.warnings.PossibleUserWarning"
)
def test_no_loss_is_missed_where_gradients_are_accumulated(small, bad):
    """Whichever batch of a step is bad, the step is not taken, and that batch is looked into."""
    steps = []
    small.on_train_batch_end = lambda *_: steps.append(
        [parameter.detach().clone() for parameter in small.parameters()]
    )
    with pytest.raises(TrainingStopped, match=r"nan in epoch 1, step 1: the input batch is not"):
        fit(small, batches([bad]), accumulate=2)
    assert all(torch.isfinite(weight).all() for weight in small.parameters())
    assert all(map(torch.equal, steps[1], small.parameters()))  # those after the first step


def test_no_one_waits_for_the_loss_before_the_backward_pass(small, monkeypatch):
    """The training step itself does not look at the loss, for which it would wait for a GPU."""
    monkeypatch.setattr(small, "log", lambda *_, **__: None)
    bad = torch.full((4, 10), float("nan"))
    assert torch.isnan(small.training_step((torch.rand(4, 1, 8, 8), bad), 0))


def test_looking_for_the_cause_leaves_no_trace(small):
    """No statistics of BatchNorm move, and the network goes on training."""
    small.train()
    before = {name: value.clone() for name, value in small.state_dict().items()}
    assert "the loss itself" in first_nonfinite(small.backbone, torch.rand(4, 1, 8, 8))
    after = small.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], value) for name, value in before.items())
    assert all(module.training for module in small.modules())


def test_looking_for_the_cause_needs_no_other_rank(monkeypatch):
    """Only the rank with the bad loss looks: SyncBatchNorm normalises by its own batch."""
    net = nn.Sequential(nn.SyncBatchNorm(3), nn.Threshold(0.0, float("inf")))
    plain = nn.BatchNorm2d(3)
    x, seen = torch.rand(4, 3, 5, 5), []
    net[0].register_forward_hook(lambda _module, _args, out: seen.append(out))
    # A rank of two: before it would talk to the other, SyncBatchNorm asks for a GPU.
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda *_: 2)
    assert first_nonfinite(net, x) == "layer 1 gave the first value that is not finite"
    assert torch.equal(seen[0], plain(x))
    assert net[0].num_batches_tracked == 0


@pytest.mark.slow
def test_two_processes_stop_together():
    """Both stop at the bad loss of one, before that step, and say what it found."""
    Path("script.py").write_text(SCRIPT)
    done = subprocess.run(
        [sys.executable, "script.py"],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert done.returncode == 0, done.stderr
    said = [Path(f"said-{rank}").read_text() for rank in range(2)]
    assert said[0] == said[1]
    assert said[0].startswith("the loss became nan in epoch 1, step 1: the input batch is not")
