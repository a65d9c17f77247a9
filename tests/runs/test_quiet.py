"""Which lines of Lightning a run leaves out; a real Trainer in a process of its own."""

import os
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
from lightning.fabric.plugins.environments import SLURMEnvironment

from saformer.runs.quiet import LOGGED, quiet

SCRIPT = """
import logging, sys, warnings
logging.basicConfig(level=logging.INFO, format="%(message)s")  # as Hydra does before the job
import lightning.pytorch as pl
import torch
from lightning.pytorch.loggers import CSVLogger
from torch.utils.data import DataLoader, TensorDataset

if "quiet" in sys.argv:
    from saformer.runs.quiet import quiet
    quiet()

class Module(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(4, 3)
    def training_step(self, batch, batch_idx):
        warnings.warn(" ".join(("a warning", "of the user")))  # 3.13 shows this line too
        return torch.nn.functional.cross_entropy(self.layer(batch[0]), batch[1])
    def test_step(self, batch, batch_idx):
        self.log("loss", self.training_step(batch, batch_idx))
    def configure_optimizers(self):
        steps = self.trainer.estimated_stepping_batches
        return torch.optim.SGD(self.parameters(), lr=0.1)

data = DataLoader(TensorDataset(torch.randn(8, 4), torch.zeros(8, dtype=torch.long)), 4)
trainer = pl.Trainer(
    max_epochs=1, accelerator="cpu", logger=CSVLogger("logs", name="", version=""),
    enable_model_summary=False, enable_progress_bar=False,
)
trainer.fit(Module(), data)
trainer.test(Module(), data, ckpt_path="best")
"""

NOISE = (
    *LOGGED,
    "smaller than the logging interval",
    "Experiment logs directory",
    "`srun` command is available",
)
DEPRECATION = "LeafSpec"  # warned about only by torch 2.14 and later
KEPT = ("a warning of the user", "GPU available", "`max_epochs=1` reached")


@pytest.fixture
def srun(tmp_path, monkeypatch):
    """A machine with Slurm, outside of a job."""
    for name in [name for name in os.environ if name.startswith("SLURM_")]:
        monkeypatch.delenv(name)
    program = tmp_path / "bin" / "srun"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["quiet", "loud"])
def test_only_the_known_lines_are_gone(mode, srun, tmp_path):
    """With `quiet` the known lines are gone and all others come once; without it they are there."""
    Path("logs").mkdir()
    Path("logs/old.csv").write_text("")
    command = [sys.executable, "-c", SCRIPT, mode]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    printed = done.stdout + done.stderr
    for line in NOISE:
        assert (line in printed) is (mode == "loud"), line
    if mode == "quiet":
        assert DEPRECATION not in printed
    for line in KEPT:
        twice = mode == "loud" and line != KEPT[0]
        assert printed.count(line) == (2 if twice else 1), printed


@pytest.mark.parametrize("job", [None, "42"])
def test_the_srun_hint_stays_inside_a_job(job, srun, monkeypatch):
    """Inside a Slurm job the hint is right and is shown."""
    if job is not None:
        monkeypatch.setenv("SLURM_JOB_ID", job)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        quiet()
        SLURMEnvironment.detect()
    assert bool(caught) is (job is not None)
