"""A run that draws random numbers and writes files in every way, what it leaves, and its end."""

import json
from pathlib import Path

import torch

# Three epochs of 14 steps, with everything that draws random numbers and writes files.
SHORT = (
    "logger=none",
    "trainer=cpu",
    "dataset.train_subset=300",
    "dataset.batch_size=16",
    "dataset.val_fraction=0.25",
    "model.dim=32",
    "timesteps=2",
    "neuron.v_threshold=0.3",  # with so few steps most neurons would never fire
    "augment.mixup=0.5",
    "scheduler.warmup_epochs=0",
    "epochs=3",
    "hydra.run.dir=run",
)
TIMES = ("seconds", "samples_per_second", "first_step")


def outcome(folder: Path) -> dict:
    """What a run leaves, without times and paths."""
    run = folder / "run"
    results = json.loads((run / "results.json").read_text())
    checkpoints = [torch.load(p, weights_only=True) for p in sorted(run.rglob("*.ckpt"))]
    return {
        "metrics": (run / "metrics.jsonl").read_bytes(),
        "rates": (run / "energy" / "rates.jsonl").read_bytes(),
        "layers": (run / "energy" / "layers.csv").read_bytes(),
        "results": {name: results[name] for name in results if name not in TIMES},
        "weights": [
            {name: value.numpy().tobytes() for name, value in checkpoint["state_dict"].items()}
            for checkpoint in checkpoints
        ],
        "epochs": [checkpoint["epoch"] for checkpoint in checkpoints],
    }


def signalled(number: int, where: str, **when: int) -> str:
    """The callback that stops a run, as an override."""
    words = "".join(f",{name}:{value}" for name, value in when.items())
    return f"+callbacks.end={{_target_:misfortunes.Signal,number:{number},where:{where}{words}}}"
