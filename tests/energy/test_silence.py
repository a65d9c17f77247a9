"""A network that is silent is called silent, and one that works is not."""

import json
from pathlib import Path

import pytest

from saformer.energy.silence import silence

SHORT = (
    *("logger=none", "trainer=cpu", "dataset.train_subset=200", "dataset.batch_size=64"),
    *("model.dim=16", "model.num_heads=2", "timesteps=2", "epochs=1", "hydra.run.dir=run"),
    "scheduler.warmup_epochs=0",
)
DEAD = "100 % of neurons fired on"
SAME = "the logits are the same for every"


@pytest.mark.parametrize(
    ("dead", "same", "words"),
    [
        (0.1, False, []),
        (0.9499, False, []),
        (0.9837, False, ["98.3 % of neurons fired on no test image"]),
        (0.9999, False, ["99.9 % of neurons fired on no test image"]),
        (None, True, ["the logits are the same for every test image"]),
    ],
)
def test_the_words(dead, same, words):
    """A sentence for each thing that is wrong, whose share is never rounded up to all."""
    counted = {} if dead is None else {"neurons/dead_frac": dead, "energy/n_samples": 360.0}
    assert silence(counted, same, "test") == words


def test_a_validation_says_how_many_it_counted():
    """It counts a part of the images, and of the others nothing is known."""
    counted = {"neurons/dead_frac": 1.0, "energy/n_samples": 64.0}
    assert silence(counted, False, "validation") == [f"{DEAD} none of 64 validation images"]


def test_a_silent_run_says_so_everywhere(cli):
    """Epoch line, log, results.json, report and evaluation; metrics.jsonl holds numbers alone."""
    code, out, err = cli("train", *SHORT, "neuron.v_threshold=1000", "energy.every_n_epochs=1")
    assert (code, err) == (0, "")
    epoch, *_, energy, test = (line for line in out.splitlines() if DEAD in line)
    assert epoch.startswith("epoch 1/1  ") and epoch.endswith(f"  {SAME} validation image")
    assert f"{DEAD} none of 20 validation images" in epoch
    words = [f"{DEAD} no test image", f"{SAME} test image"]
    assert f"estimated), {words[0]}, but {words[1]}   run/" in energy and "ANN" not in energy
    assert f"%, but {words[0]}, but {words[1]}   run/" in test
    assert json.loads(Path("run/results.json").read_text())["silence"] == words
    report = Path("run/energy/report.md").read_text()
    for one in words:
        assert f"\n**{one[0].upper()}{one[1:]}.**\n" in report
    assert SAME not in Path("run/metrics.jsonl").read_text()
    _code, out, _err = cli("eval", "ckpt_path=run/checkpoints/best.ckpt")
    assert f"%, but {words[1]}   " in out
    (result,) = Path("run").glob("eval-*.json")
    assert json.loads(result.read_text())["silence"] == words[1:]


def test_a_run_that_works_says_nothing(cli):
    """No word of it where neurons fire."""
    code, out, err = cli("train", *SHORT, "neuron.v_threshold=0.2", "energy.every_n_epochs=1")
    assert (code, err) == (0, "")
    assert "fired on" not in out and SAME not in out and "of its FP32 ANN" in out
    assert json.loads(Path("run/results.json").read_text())["silence"] == []
    assert "fired on no" not in Path("run/energy/report.md").read_text()
