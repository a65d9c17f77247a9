"""Two processes train as one: each sees its own half, and what they share is built once."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

DATA = Path(__file__).parent / "data"

# Every rank runs this file. It notes the images that its training and evaluation steps see.
SCRIPT = """
import json, os, sys
import lightning.pytorch as pl
import torch
from hydra import compose, initialize_config_dir
from saformer.config import VERSION_BASE, check, conf_dir
from saformer.data import cache
from saformer.data.module import SpikingDataModule

build = cache._build
def noted(*args):
    with open("builds", "a") as file:
        file.write(f"{os.getpid()}\\n")
    build(*args)
cache._build = noted

class Recorder(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.seen = {"train": [], "val": [], "test": [], "shares": []}

    def note(self, part, batch):
        self.seen[part] += [round(x.double().sum().item(), 6) for x in batch[0]]

    def training_step(self, batch, batch_idx):
        self.note("train", batch)
        if batch[1].ndim == 2:  # the larger share of MixUp
            self.seen["shares"].append(batch[1].amax(1).min().item())
        return self.weight * batch[0].sum()

    def validation_step(self, batch, batch_idx):
        self.note("val", batch)

    def test_step(self, batch, batch_idx):
        self.note("test", batch)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.0)

devices, *overrides = sys.argv[1:]
with initialize_config_dir(str(conf_dir()), version_base=VERSION_BASE):
    config = check(compose("train", overrides))
data = SpikingDataModule(config.dataset, config.augment, config.seed, config.timesteps)
recorder = Recorder()
trainer = pl.Trainer(
    accelerator="cpu", devices=int(devices), strategy="ddp" if devices == "2" else "auto",
    max_epochs=2, logger=False, enable_checkpointing=False, enable_progress_bar=False,
    enable_model_summary=False, num_sanity_val_steps=0,
)
trainer.fit(recorder, data)
trainer.test(recorder, data, verbose=False)
with open(f"seen-{trainer.world_size}-{trainer.global_rank}.json", "w") as file:
    json.dump({**recorder.seen, "facts": data.describe()}, file)
"""


def run(devices: int, *overrides: str) -> list[dict]:
    """What each rank saw in two epochs and a test."""
    Path("script.py").write_text(SCRIPT)
    done = subprocess.run(
        [sys.executable, "script.py", str(devices), *overrides],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(Path(f"seen-{devices}-{r}.json").read_text()) for r in range(devices)]


@pytest.mark.slow
def test_two_processes_share_the_images_and_the_cache(tmp_path, monkeypatch):
    """Of Tiny-ImageNet: one cache, every image in one rank an epoch, the same split in both."""
    monkeypatch.syspath_prepend(str(DATA))
    from pictures import write_tiny

    root = write_tiny(tmp_path / "tiny", train=7, val=4)
    overrides = [
        "dataset=tiny_imagenet",
        f"dataset.root={root}",
        f"dataset.cache_dir={tmp_path / 'cache'}",
        "dataset.num_classes=4",
        "dataset.allow_incomplete=true",
        "dataset.val_fraction=0.15",
        "dataset.batch_size=3",
        "augment=none",
    ]
    ranks = run(2, *overrides)
    assert len(Path("builds").read_text().split()) == 1
    alone = run(1, *overrides)[0]
    assert all(rank["facts"] == alone["facts"] for rank in ranks)
    sizes = {name: alone["facts"][name]["size"] for name in ("train", "val", "test")}
    assert sizes == {"train": 24, "val": 4, "test": 16}
    for name, size in sizes.items():
        epochs = 1 if name == "test" else 2
        for epoch in range(epochs):
            halves = [
                set(rank[name][epoch * size // 2 : (epoch + 1) * size // 2]) for rank in ranks
            ]
            whole = set(alone[name][epoch * size : (epoch + 1) * size])
            assert len(whole) == size
            assert halves[0] | halves[1] == whole and not halves[0] & halves[1]


@pytest.mark.slow
def test_two_processes_count_no_image_twice():
    """An odd number of images is evaluated once each, though one process has one more than the
    other."""
    overrides = ["dataset.train_subset=205", "dataset.val_fraction=0.2", "augment=none"]
    ranks, alone = run(2, *overrides), run(1, *overrides)[0]
    assert [len(rank["val"]) for rank in ranks] == [2 * 21, 2 * 20]  # two epochs
    for name in ("val", "test"):
        assert sorted(ranks[0][name] + ranks[1][name]) == sorted(alone[name])


@pytest.mark.slow
def test_two_processes_augment_each_for_itself():
    """What is drawn for a batch differs between ranks, epochs and batches."""
    ranks = run(2, "augment.mixup=1.0", "dataset.train_subset=200", "dataset.val_fraction=0.2")
    drawn = [share for rank in ranks for share in rank["shares"]]
    assert len(set(drawn)) == len(drawn) == 2 * 2 * 2  # 160 images in batches of 64, 2 epochs
