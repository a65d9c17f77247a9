"""A loss or a gradient that is infinite or NaN stops the training before it reaches the weights."""

import os
import subprocess
import sys
from pathlib import Path

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.plugins.precision import MixedPrecision
from mostly_slow import mostly_slow
from torch import nn
from torch.nn.utils import get_total_norm

from saformer.config.check import to_dict
from saformer.errors import TrainingStopped
from saformer.training.diagnose import first_nonfinite
from saformer.training.module import SAFormerModule

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*:UserWarning", "ignore::lightning.pytorch.utilities.warnings.PossibleUserWarning"
)
PATIENCE = 300.0  # seconds, for machines with other work

ZERO = torch.tensor([0])

# Both ranks run this file. The second batch of rank 1 is NaN, and so are its labels if asked for.
SCRIPT = """
import lightning.pytorch as pl
import torch
from hydra import compose, initialize_config_dir
from saformer.config.overrides import VERSION_BASE
from saformer.config.check import check, to_dict
from saformer.config.files import conf_dir
from saformer.errors import TrainingStopped
from saformer.training.module import SAFormerModule

with initialize_config_dir(str(conf_dir()), version_base=VERSION_BASE):
    config = check(compose("train", ["model.dim=16", "timesteps=1"]))

LABELS = LABELS_TOO

class Data(pl.LightningDataModule):
    def train_dataloader(self):
        batches = [[torch.rand(4, 1, 8, 8), torch.rand(4, 10)] for _ in range(3)]
        if self.trainer.global_rank == 1:
            for part in batches[1] if LABELS else batches[1][:1]:
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


def batches(bad, count=6, labels=True):
    """Batches of images and soft labels, some of them NaN."""
    made = [(torch.rand(4, 1, 8, 8), torch.rand(4, 10)) for _ in range(count)]
    for i in bad:
        if labels:
            made[i][1].fill_(float("nan"))
        made[i][0][1, 0, 3, 3] = float("nan")
    return torch.utils.data.DataLoader(made, None)


def fit(module, loader, accumulate=1, **options):
    trainer = pl.Trainer(
        **options,
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


OPTIONS = [
    (f"attention={name}", f"model.residual={residual}", *more)
    for name, *more in (
        *(("sasa",), ("ssa",), ("sdsa",), ("sdsa_erode",), ("qkta",), ("qkca",), ("random",)),
        *((name, "model.dwc.place=none") for name in ("dwconv", "pooling", "identity")),
    )
    for residual in ("membrane", "sew")
]
OPTIONS += [("attention=sasa", f"attention.operator={name}") for name in ("max", "mean", "sum")]
OPTIONS += [
    (f"neuron.surrogate.name={name}", f"neuron.backend={backend}", f"neuron.reset={reset}")
    for name in ("sigmoid", "atan", "fast_sigmoid", "triangular")
    for backend, reset in (("torch", "hard"), ("torch", "soft"), ("loop", "hard"))
]


@pytest.mark.parametrize("options", mostly_slow(OPTIONS, 3), ids=" ".join)
def test_nan_behind_spikes_is_in_the_gradient(backbone, options):
    """One NaN in a layer leaves the loss finite, whatever mixes tokens, and no gradient before."""
    network, x = backbone("model.dim=16", "timesteps=2", *options), torch.rand(4, 1, 8, 8)
    network.train()
    first, *_ = (module for module in network.modules() if isinstance(module, nn.Conv2d))
    first.register_forward_hook(lambda _module, _args, out: out.index_fill(0, ZERO, torch.nan))
    loss = nn.functional.cross_entropy(network(x).mean(0), torch.arange(4))
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isnan(get_total_norm([p.grad for p in first.parameters()]))


def test_an_input_behind_spikes_is_named(small):
    """One NaN pixel stops the training, though logits and loss stay finite, and is found."""
    with pytest.raises(TrainingStopped) as stopped:
        fit(small, batches([2], labels=False))
    assert str(stopped.value).startswith(
        "training stopped in epoch 1, step 2: the input batch is not finite. "
    )
    assert all(torch.isfinite(weight).all() for weight in small.parameters())


def test_a_layer_behind_spikes_is_named(small):
    """So is a layer that gives NaN, by the loop over its steps."""
    small.backbone.stem.stages[0].conv.register_forward_hook(
        lambda _module, _args, out: out * torch.nan if small.global_step == 2 else None
    )
    with pytest.raises(TrainingStopped, match=r"step 2: layer stem.stages.0.conv gave the first"):
        fit(small, batches([]))


def test_a_gradient_is_named(small):
    """Where all is finite but a gradient, the first of the backward pass to go bad is named."""
    bad = small.backbone.get_parameter("stem.stages.0.conv.weight")
    bad.register_hook(lambda grad: grad * torch.inf if small.global_step == 2 else None)
    with pytest.raises(TrainingStopped) as stopped:
        fit(small, batches([]))
    assert str(stopped.value).startswith(
        "the gradient became inf in epoch 1, step 2: from backbone.stem.stages.0.conv.weight "
        "backwards, though the loss is finite. "
    )
    assert all(torch.isfinite(weight).all() for weight in small.parameters())


@pytest.mark.parametrize(("scale", "stopped"), [(1.5, False), (0.75, True)])
def test_a_scaler_may_overflow_until_its_scale_is_one(small, scale, stopped):
    """It skips the step and scales by less; by less than one it is not what overflows."""
    scaler = torch.amp.GradScaler("cpu", init_scale=scale)
    plugin = MixedPrecision("16-mixed", "cpu", scaler)
    bad = small.backbone.get_parameter("head.weight")
    bad.register_hook(lambda grad: grad * torch.inf if small.global_step == 2 else None)
    if stopped:
        with pytest.raises(TrainingStopped, match=r"from backbone.head.weight backwards"):
            fit(small, batches([]), plugins=plugin)
    else:
        fit(small, batches([]), plugins=plugin)
        assert scaler.get_scale() == scale / 2
    assert all(torch.isfinite(weight).all() for weight in small.parameters())


@pytest.mark.parametrize("stage", ["validate", "test"])
def test_no_accuracy_is_of_nan(small, stage):
    """Behind neurons an image that is NaN has logits like any other."""
    trainer = pl.Trainer(accelerator="cpu", logger=False, enable_progress_bar=False)
    with torch.no_grad():
        assert torch.isfinite(small.eval()(torch.full((1, 1, 8, 8), torch.nan))).all()
    hard = [(x, y.argmax(1)) for x, y in batches([1], labels=False).dataset]
    with pytest.raises(TrainingStopped, match=r"stopped.*: the input batch is not finite"):
        getattr(trainer, stage)(small, torch.utils.data.DataLoader(hard, None))
    small.backbone.head.weight.data[0, 0] = torch.inf
    with pytest.raises(TrainingStopped, match=r"backbone.head.weight became infinite or NaN"):
        getattr(trainer, stage)(small, torch.utils.data.DataLoader(hard[:1], None))


def test_no_one_waits_for_the_loss_before_the_backward_pass(small, monkeypatch):
    """The training step itself does not look at the loss, for which it would wait for a GPU."""
    monkeypatch.setattr(small, "log", lambda *_, **__: None)
    bad = torch.full((4, 10), float("nan"))
    assert torch.isnan(small.training_step((torch.rand(4, 1, 8, 8), bad), 0))


def test_looking_for_the_cause_leaves_no_trace(small):
    """No statistics of BatchNorm move, and the network goes on training."""
    small.train()
    before = {name: value.clone() for name, value in small.state_dict().items()}
    assert first_nonfinite(small.backbone, torch.rand(4, 1, 8, 8)) == ""
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
@pytest.mark.parametrize(
    ("labels", "word"), [(True, "the loss became nan"), (False, "training stopped")]
)
def test_two_processes_stop_together(labels, word):
    """Both stop at the bad batch of one, before that step, and say what it found."""
    Path("script.py").write_text(SCRIPT.replace("LABELS_TOO", str(labels)))
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
    assert said[0].startswith(f"{word} in epoch 1, step 1: the input batch is not")
