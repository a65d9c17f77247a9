"""What is logged and written of energy while a network is trained and tested."""

import json
from pathlib import Path

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger
from torch.utils.data import DataLoader, TensorDataset

from saformer.energy import count
from saformer.energy.settings import EnergyConfig
from saformer.energy.summary import scalars
from saformer.errors import UserError
from saformer.training.callbacks.energy import EnergyMonitor
from saformer.training.callbacks.results import ResultsWriter
from saformer.training.module import SAFormerModule

X = torch.rand(22, 1, 8, 8, generator=torch.Generator().manual_seed(0))
Y = torch.arange(22) % 10


def loader(batch_size: int = 4, x: torch.Tensor = X) -> DataLoader:
    return DataLoader(TensorDataset(x, Y[: len(x)]), batch_size=batch_size)


@pytest.fixture
def module(compose) -> SAFormerModule:
    """A small network whose neurons fire: its BatchNorms have seen the data."""
    torch.manual_seed(0)
    made = SAFormerModule(compose("model.dim=16", "model.num_heads=2", "epochs=20"), {})
    for layer in made.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.momentum = None
            layer.reset_running_stats()
    with torch.no_grad():
        made.backbone(X)
    return made


def quiet_trainer(*callbacks: Callback, **options) -> pl.Trainer:
    """A trainer on the CPU that writes and shows nothing by itself."""
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    quiet |= {"enable_model_summary": False, "accelerator": "cpu"}
    return pl.Trainer(callbacks=list(callbacks), **(quiet | options))


def fit(
    module: SAFormerModule, folder: Path, *others: Callback, epochs: int = 2, **options
) -> tuple[pl.Trainer, EnergyMonitor]:
    """Train with an EnergyMonitor on batches of four."""
    config = EnergyConfig(**{key: options.pop(key) for key in list(options) if key in CONFIG})
    monitor = EnergyMonitor(config, folder / "energy", {"model": "tiny"})
    trainer = quiet_trainer(monitor, *others, max_epochs=epochs, default_root_dir=folder, **options)
    trainer.fit(module, loader(), loader())
    return trainer, monitor


CONFIG = EnergyConfig.__dataclass_fields__


def test_a_validation_counts_the_first_samples(tmp_path, module):
    """Whole batches are counted until there are `samples`; the numbers are those of `count`."""
    trainer, monitor = fit(module, tmp_path, samples=6)
    expected = scalars(count(module.backbone, X[:8]), monitor.config)
    assert monitor.scalars == expected | {"energy/coverage": 1.0}
    assert monitor.scalars["energy/n_samples"] == 8
    assert monitor.scalars["energy/total_mJ_se"] > 0
    for name, value in expected.items():
        assert trainer.callback_metrics[name] == torch.tensor(value), name


def test_every_nth_epoch_is_counted_and_said_in_its_line(tmp_path, module):
    """Epochs that counted nothing have no energy in metrics.jsonl nor in rates.jsonl."""
    fit(module, tmp_path, ResultsWriter(tmp_path), epochs=4, every_n_epochs=2)
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert ["energy/total_mJ" in line for line in lines] == [False, True, False, True]
    rates = (tmp_path / "energy" / "rates.jsonl").read_text().splitlines()
    assert [json.loads(line)["epoch"] for line in rates] == [2, 4]


def test_rates_are_of_each_layer_and_timestep(tmp_path, module):
    """rates.jsonl holds T rates of every neuron layer; their means go to the logger."""
    logger = CSVLogger(tmp_path, name="csv")
    trainer, monitor = fit(module, tmp_path, logger=logger, epochs=1)
    rates = json.loads((tmp_path / "energy" / "rates.jsonl").read_text())["rates"]
    assert set(rates) == {name for name, m in module.backbone.named_modules() if hasattr(m, "beta")}
    assert {len(of_layer) for of_layer in rates.values()} == {4}
    trainer.save_checkpoint(tmp_path / "x.ckpt")  # flushes nothing, shows that the run is whole
    logger.save()
    header = Path(logger.log_dir, "metrics.csv").read_text().partition("\n")[0].split(",")
    assert {f"rate/{name}" for name in rates} <= set(header)
    mean = sum(rates["head_lif"]) / 4
    assert monitor.scalars["rate/mean"] > 0
    assert next(
        layer.rate for layer in monitor.table.layers if layer.name == "head_lif"
    ) == pytest.approx(mean)


def test_energy_can_be_monitored(tmp_path, module):
    """A checkpoint that keeps the least energy works, and results.json says which epoch it was."""
    keep = ModelCheckpoint(tmp_path, "least", monitor="energy/total_mJ", mode="min")
    fit(
        module, tmp_path, keep, ResultsWriter(tmp_path), epochs=3, enable_checkpointing=True,
        every_n_epochs=1,
    )  # fmt: skip
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    least = min(line["energy/total_mJ"] for line in lines)
    assert keep.best_model_score.item() == pytest.approx(least, rel=1e-6)


def test_a_test_counts_all_and_leaves_the_report(tmp_path, module):
    """The whole test set in short last batches; every file of the report is there and agrees."""
    trainer, monitor = fit(module, tmp_path, ResultsWriter(tmp_path), epochs=1)
    trainer.test(module, loader(batch_size=5), verbose=False)
    expected = scalars(count(module.backbone, X), monitor.config)
    assert monitor.scalars == pytest.approx(expected | {"energy/coverage": 1.0})
    folder = tmp_path / "energy"
    written = json.loads((folder / "energy.json").read_text())
    assert written["scalars"] == pytest.approx(expected)
    assert written["estimate"] is True and written["model"] == "tiny"
    assert written["precision"] == "32-true" and 0 <= written["accuracy"] <= 1
    results = json.loads((tmp_path / "results.json").read_text())
    assert results["energy"]["energy/total_mJ"] == pytest.approx(expected["energy/total_mJ"])
    rows = (folder / "layers.csv").read_text().splitlines()
    assert len(rows) == 1 + len(monitor.table.layers)
    assert "not measured on hardware" in (folder / "report.md").read_text()
    assert (folder / "table.tex").read_text().rstrip().endswith("\\\\")
    for name in ("energy_by_layer", "energy_by_stage", "firing_rates", "crossover"):
        assert (folder / f"{name}.png").read_bytes().startswith(b"\x89PNG"), name


@pytest.mark.slow
def test_a_compiled_backbone_is_counted_eagerly_and_stays_compiled(tmp_path, module):
    """Counted batches leave the compiled call in place and never run through it."""
    calls = []
    module.backbone.compile(backend=lambda graph, inputs: calls.append(1) or graph.forward)
    compiled = module.backbone._compiled_call_impl
    trainer = quiet_trainer(EnergyMonitor(EnergyConfig(), tmp_path, {}))
    trainer.test(module, loader(), verbose=False)
    assert module.backbone._compiled_call_impl is compiled
    assert not calls
    module.backbone(X[:2])
    assert calls


@pytest.mark.slow
def test_neurons_on_the_compile_backend_are_counted(tmp_path, compose):
    """The coverage pass runs eagerly what refuses to be compiled under a FLOP counter."""
    config = compose("model.dim=16", "model.num_heads=2", "neuron.backend=compile")
    monitor = EnergyMonitor(EnergyConfig(), tmp_path, {})
    trainer = quiet_trainer(monitor)
    trainer.test(SAFormerModule(config, {}), loader(), verbose=False)
    assert monitor.scalars["energy/coverage"] == 1


def test_counting_changes_no_number_of_the_training(tmp_path, module, compose):
    """With and without counting, the same seed gives the same losses."""
    losses = []
    for folder, callbacks in (("with", True), ("without", False)):
        pl.seed_everything(0, verbose=False)
        again = SAFormerModule(compose("model.dim=16", "model.num_heads=2", "epochs=20"), {})
        counting = [EnergyMonitor(EnergyConfig(), tmp_path / folder, {})] if callbacks else []
        trainer = quiet_trainer(*counting, max_epochs=2)
        trainer.fit(again, loader(), loader())
        losses.append([float(trainer.callback_metrics[k]) for k in ("train/loss", "val/loss")])
    assert losses[0] == losses[1]


def test_bad_activations_and_empty_sets_are_told_in_one_line(tmp_path, module):
    """NaN is reported with the layer that meets it; an empty loader counts nothing, and says so."""
    monitor = EnergyMonitor(EnergyConfig(), tmp_path, {})
    trainer = quiet_trainer(monitor)
    first = module.backbone.stem.stages[0].conv
    handle = first.register_forward_pre_hook(lambda _module, args: (args[0] * float("nan"),))
    with pytest.raises(UserError, match=r"^layer stem\.stages\.0\.conv meets NaN .*values$"):
        trainer.test(module, loader(), verbose=False)
    handle.remove()
    monitor.on_test_start(trainer, module)
    with pytest.raises(UserError, match=r"^nothing was counted"):
        monitor.on_test_epoch_end(trainer, module)
