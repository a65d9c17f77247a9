"""BatchNorm's running statistics are those of the network from the first batch on."""

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.callbacks import Callback
from torch import nn
from torch.utils.data import DataLoader

from saformer.training.callbacks.norms import RECENT, FreshStatistics

BATCHES = 5


class Net(pl.LightningModule):
    """BatchNorms that are called once for a batch, three times, never, and frozen."""

    def __init__(self) -> None:
        super().__init__()
        self.once, self.often, self.never, self.frozen = (nn.BatchNorm1d(3) for _ in range(4))
        self.frozen.eval()
        self.layer = nn.Linear(3, 1)

    def forward(self, x):
        y = self.once(x)
        for step in range(3):
            y = y + self.often(x * (step + 1))
        return self.layer(y + self.frozen(x))

    def train(self, mode: bool = True):
        super().train(mode)
        self.frozen.eval()
        return self

    def training_step(self, batch, batch_idx):
        return self(batch).square().mean()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def images(batches: int = BATCHES) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return 2 + 0.1 * torch.randn(8 * batches, 3, generator=generator)


def fit(module: pl.LightningModule, *callbacks: Callback, batches: int = BATCHES, **options):
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    quiet |= {"enable_model_summary": False, "accelerator": "cpu", "max_epochs": 1}
    trainer = pl.Trainer(callbacks=list(callbacks), **(quiet | options))
    trainer.fit(module, DataLoader(images(batches), batch_size=8))
    return module


def made() -> Net:
    torch.manual_seed(0)
    return Net()


@pytest.mark.parametrize("batches", [1, 2, BATCHES])
def test_the_first_batches_count_by_their_place(batches):
    """The first is all there is, the n-th counts 32 / (n + 31); nothing is left of 0 and 1."""
    net = fit(made(), FreshStatistics(), batches=batches)
    mean, variance = torch.zeros(3), torch.ones(3)
    for number, x in enumerate(images(batches).split(8)):
        mean = mean.lerp(x.mean(0), 32 / (number + 32))
        variance = variance.lerp(x.var(0), 32 / (number + 32))
    torch.testing.assert_close(net.once.running_mean, mean)
    torch.testing.assert_close(net.once.running_var, variance)
    assert net.once.num_batches_tracked == batches and net.once.momentum == 0.1


def test_calls_in_a_loop_over_time_count_together():
    """A layer called three times for a batch has the average that PyTorch makes of them."""
    net = fit(made(), FreshStatistics(), batches=1)
    weights = torch.tensor([0.81, 0.9, 1.0]) / 2.71
    x = images(1)
    means = torch.stack([(x * (step + 1)).mean(0) for step in range(3)])
    torch.testing.assert_close(net.often.running_mean, weights @ means)


@pytest.mark.parametrize("name", ["never", "frozen"])
def test_a_layer_that_sees_no_batch_stays_as_it_is(name):
    """Mean 0 and variance 1 stay where no batch came by."""
    norm = getattr(fit(made(), FreshStatistics()), name)
    assert torch.equal(norm.running_mean, torch.zeros(3))
    assert torch.equal(norm.running_var, torch.ones(3))


def test_training_is_the_same():
    """Weights move by the statistics of each batch, which nothing here changes."""
    plain, ours = fit(made()), fit(made(), FreshStatistics())
    for name, parameter in plain.named_parameters():
        assert torch.equal(parameter, ours.get_parameter(name)), name


@pytest.mark.parametrize("count", [1, 0], ids=["counted", "not counted"])
def test_statistics_that_were_brought_are_kept(count):
    """A pretrained network, also from before PyTorch counted batches, goes on as in PyTorch."""
    nets = made(), made()
    for net in nets:
        for norm in (net.once, net.often):
            norm.running_var.fill_(0.5)
            norm.num_batches_tracked.fill_(count)
    plain, ours = fit(nets[0]), fit(nets[1], FreshStatistics())
    assert torch.equal(plain.once.running_var, ours.once.running_var)
    assert torch.equal(plain.often.running_mean, ours.often.running_mean)


def test_then_it_is_pytorchs_own_average():
    """From the batch on that would count less than `momentum` the statistics move as PyTorch's."""
    first, window = FreshStatistics(), round(RECENT / 0.1) - RECENT
    net, plain = fit(made(), first, batches=window), made()
    plain.load_state_dict(net.state_dict())
    fit(net, first)
    fit(plain)
    assert torch.equal(plain.once.running_var, net.once.running_var)
    assert torch.equal(plain.often.running_mean, net.often.running_mean)


def test_a_batch_that_fails_leaves_what_was_there():
    """Interrupted within a batch, the statistics are those before it."""

    class Stop(Callback):
        def on_before_zero_grad(self, trainer, pl_module, optimizer):
            if trainer.global_step == 2:
                raise ArithmeticError

    net = made()
    with pytest.raises(ArithmeticError):
        fit(net, FreshStatistics(), Stop())
    expected = fit(made(), FreshStatistics(), batches=2)
    assert torch.equal(net.once.running_var, expected.once.running_var)


@pytest.mark.slow
def test_a_compiled_network_is_compiled_once(compose, tmp_path):
    """Batches that count differently share one graph."""
    from saformer.training.module import SAFormerModule

    graphs = []
    for callbacks in ([], [FreshStatistics()]):
        graphs.append(0)

        def compiler(graph, inputs):
            graphs[-1] += 1
            return graph.forward

        torch._dynamo.reset()
        torch.manual_seed(0)
        module = SAFormerModule(compose("model.dim=16", "model.num_heads=2", "timesteps=1"), {})
        module.backbone.compile(backend=compiler)
        x = torch.rand(16, 1, 8, 8)
        data = DataLoader(list(zip(x, torch.arange(16) % 10, strict=True)), batch_size=4)
        pl.Trainer(
            callbacks=callbacks, max_epochs=1, logger=False, enable_checkpointing=False,
            enable_progress_bar=False, enable_model_summary=False, accelerator="cpu",
        ).fit(module, data)  # fmt: skip
    assert graphs[0] == graphs[1] > 0


@pytest.mark.slow
def test_a_short_run_is_no_coin_toss(cli):
    """The default run evaluates after 42 steps what it has learned; before, it was at chance."""
    import json
    from pathlib import Path

    words = ("logger=none", "callbacks=none", "energy.enabled=false", "hydra.run.dir=run")
    cut = "+callbacks.end={_target_:misfortunes.Stop,epoch:1,batch:0}"
    code, _out, err = cli("train", *words, cut)
    assert (code, err) == (0, "")
    lines = [json.loads(line) for line in Path("run/metrics.jsonl").read_text().splitlines()]
    assert lines[1]["val/top1"] > 0.4
