"""Figures of spikes from the command line, and those that a run leaves by itself."""

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from firing import firing

from saformer.config.check import to_dict
from saformer.config.schema import Config
from saformer.training.module import SAFormerModule

SHORT = (
    "logger=none",
    "trainer=cpu",
    "dataset.train_subset=100",
    "epochs=1",
    "scheduler.warmup_epochs=0",
    "model.dim=16",
    "model.num_heads=2",
)
NAMES = ["rate_maps_0.png", "attention_0.png", "rasters_0.png"]


@pytest.fixture
def run(compose) -> Path:
    """A folder with the checkpoints of a network that fires, untrained; last has other weights."""
    Path("run/checkpoints").mkdir(parents=True)
    for seed, name in enumerate(("best", "last")):
        if name not in _written:
            _written[name] = _checkpoint(compose(*SHORT, "timesteps=2"), seed)
        Path("run/checkpoints", f"{name}.ckpt").write_bytes(_written[name])
    return Path("run")


_written: dict[str, bytes] = {}


def _checkpoint(config: Config, seed: int) -> bytes:
    torch.manual_seed(seed)
    module = SAFormerModule(config, to_dict(config))
    firing(module.backbone)
    saved = {"state_dict": module.state_dict(), "hyper_parameters": {"config": to_dict(config)}}
    file = io.BytesIO()
    torch.save(saved, file)
    return file.getvalue()


def folders() -> list[Path]:
    return sorted(Path("run").glob("plots-*"))


def test_the_best_checkpoint_of_a_run_is_drawn_beside_it(cli, run):
    """PNG of every figure, and PDF with whole fonts, in a folder of its own that is named."""
    code, out, err = cli("plot", "spikes", "run", "--images", "1")
    assert (code, err) == (0, "")
    (folder,) = folders()
    files = {name.replace("png", ending) for name in NAMES for ending in ("png", "pdf")}
    assert {path.name for path in folder.iterdir()} == files
    assert str(folder) in out
    for path in folder.iterdir():
        content = path.read_bytes()
        if path.suffix == ".pdf":
            assert content.startswith(b"%PDF")
            assert b"/CIDFontType2" in content and b"/Type3" not in content
        else:
            assert content.startswith(b"\x89PNG")


def test_which_checkpoint_settings_and_images_are_drawn(run, monkeypatch, tmp_path):
    """The best, else the last, or the one named, under settings; the first test images in order."""
    from saformer.commands.spikes import draw
    from saformer.spikes import figures

    seen = []
    monkeypatch.setattr(figures, "write", lambda *args, **kwargs: seen.append(args) or [])
    draw(run, [], 3, tmp_path / "out")
    draw(run / "checkpoints" / "last.ckpt", [], 3, None)
    draw(run, ["timesteps=1"], 3, None)
    (run / "checkpoints" / "best.ckpt").unlink()
    draw(run, [], 3, None)
    best, last, short, without_best = ([*args] for args in seen)
    assert best[4] == tmp_path / "out" and last[4].parent == run
    assert not torch.equal(best[0].logits, last[0].logits)
    assert torch.equal(last[0].logits, without_best[0].logits)
    assert len(short[0].layers[0].sampled) == 1 and short[3].endswith("T=1")
    assert len(best[0].layers[0].sampled) == 2 and best[3] == "saformer_tiny on digits, T=2"

    from saformer.data.readers import digits

    images, labels = digits.load()
    assert torch.allclose(best[1][:, 0] * 255, torch.from_numpy(images[-360:-357]).float())
    assert best[2] == labels[-360:-357].tolist()


@pytest.mark.parametrize(
    ("words", "answer"),
    [
        (["nowhere"], "nowhere does not exist"),
        (["empty"], "ckpt_path=empty is a folder without checkpoints/best.ckpt or"),
        (["damaged.ckpt"], "ckpt_path=damaged.ckpt cannot be read ("),
        (["run", "--images", "0"], "--images must be "),
        (["run", "--images", "361"], "--images must be 1 to 360, the size of the test set of digi"),
        (["run", "model.dim=32"], "ckpt_path=run/checkpoints/best.ckpt does not fit this model: "),
        (["run", "model.dimm=32"], "there is no setting 'model.dimm'"),
        (["run", "ablation=no_dwc"], "ablation=no_dwc cannot be chosen here"),
    ],
)
def test_what_is_wrong_is_told_in_one_line(cli, run, words, answer):
    """No traceback, exit code 2, and nothing is written."""
    Path("empty").mkdir()
    Path("damaged.ckpt").write_bytes((run / "checkpoints" / "best.ckpt").read_bytes()[:5000])
    code, _out, err = cli("plot", "spikes", *words)
    assert code == 2 and len(err.splitlines()) == 1
    assert err.startswith("error: ") and answer in err
    assert not folders()


def test_a_run_leaves_its_figures_and_its_numbers_do_not_change(cli):
    """With and without `plots`: the same metrics, results and weights, but for times."""
    one, other = Path("with"), Path("without")
    for folder, plots in ((one, "true"), (other, "false")):
        assert cli("train", *SHORT, f"plots={plots}", f"hydra.run.dir={folder}")[0] == 0
        assert (folder / "checkpoints/best.ckpt").is_file()
    assert sorted(path.name for path in Path("with/plots").iterdir()) == sorted(NAMES)
    assert not Path("without/plots").exists()
    for name in ("best.ckpt", "last.ckpt"):
        saved = [
            torch.load(run / "checkpoints" / name, weights_only=True)["state_dict"]
            for run in (one, other)
        ]
        torch.testing.assert_close(*saved, rtol=0, atol=0)
    assert (one / "metrics.jsonl").read_bytes() == (other / "metrics.jsonl").read_bytes()
    results = [json.loads((run / "results.json").read_text()) for run in (one, other)]
    for found in results:
        del found["seconds"], found["samples_per_second"], found["first_step"]
    assert results[0] == results[1] and results[0]["status"] == "done"


@pytest.mark.parametrize(("word", "draws"), [("callbacks=none", True), ("trainer=debug", False)])
def test_plots_alone_decides_unless_one_batch_is_tried(cli, word, draws):
    """A run without checkpoints has its figures, and one of `trainer=debug` has none."""
    words = (*SHORT, "energy=off", "plots=true", "hydra.run.dir=run", word)
    assert cli("train", *words)[0] == 0
    assert Path("run/plots").exists() is draws


def test_a_figure_that_cannot_be_written_costs_the_run_nothing(cli):
    """A file where the folder should be is told in the log; the results are there."""
    Path("run").mkdir()
    Path("run/plots").write_text("mine")
    code, out, _err = cli("train", *SHORT, "energy=off", "plots=true", "hydra.run.dir=run")
    assert code == 0
    assert "the figures of spikes could not be drawn: [Errno 17]" in out
    assert "Traceback" not in out and Path("run/plots").read_text() == "mine"
    assert json.loads(Path("run/results.json").read_text())["status"] == "done"


def test_low_precision_and_images_on_the_device_are_drawn(cli):
    """As the run computes: in bfloat16, and of a test set that stays on the device."""
    overrides = ("trainer.precision=bf16-mixed", "dataset.device_resident=true", "energy=off")
    overrides += ("plots=true",)
    code, out, _err = cli("train", *SHORT, *overrides, "hydra.run.dir=run")
    assert (code, "could not be drawn" in out) == (0, False)
    assert len(list(Path("run/plots").iterdir())) == 3


@pytest.mark.slow
def test_two_processes_draw_once(compose):
    """Under DDP the first process draws the first test image, though it tests every other."""
    command = [sys.executable, "-m", "saformer.cli", *SHORT, "hydra.run.dir=run"]
    done = subprocess.run(
        [*command, "trainer.devices=2", "+trainer.strategy=ddp"],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in Path("run/plots").iterdir()) == sorted(NAMES)
    assert "could not be drawn" not in done.stdout + done.stderr


@pytest.mark.slow
def test_wandb_gets_the_figures(cli, monkeypatch):
    """A run that is logged offline holds every picture."""
    monkeypatch.setenv("WANDB_MODE", "offline")
    assert (
        cli("train", *SHORT, "logger=wandb", "energy=off", "plots=true", "hydra.run.dir=run")[0]
        == 0
    )
    kept = [path.name for path in Path("run").rglob("media/images/spikes/*.png")]
    assert sorted(name.rpartition("_")[0].rpartition("_")[0] for name in kept) == sorted(
        name.removesuffix(".png") for name in NAMES
    )
