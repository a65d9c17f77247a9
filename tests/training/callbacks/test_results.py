"""metrics.jsonl and results.json of real fits."""

import json

import pytest
import torch
from lightning.pytorch.callbacks import Callback

from saformer.training.callbacks.results import ResultsWriter


def lines(run_dir):
    return [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]


def test_a_line_holds_training_and_validation_of_the_same_epoch(tmp_path, fit):
    """Each line has the metrics Lightning itself had at the end of that epoch, exactly."""
    seen = []

    class Watch(Callback):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            if batch_idx == 0:
                seen.append([])
            seen[-1].append(outputs["loss"].item())

        def on_validation_end(self, trainer, pl_module):
            if not trainer.sanity_checking:
                seen[-1] = (sum(seen[-1]) / 4, trainer.callback_metrics["val/loss"].item())

    fit(tmp_path, Watch(), ResultsWriter(tmp_path))
    written = lines(tmp_path)
    assert [set(line) for line in written] == 3 * [
        {"epoch", "step", "lr", "train/loss", "val/loss", "val/top1"}
    ]
    assert [(line["epoch"], line["step"], line["lr"]) for line in written] == [
        (1, 4, 0.1),
        (2, 8, 0.05),
        (3, 12, 0.025),
    ]
    assert [line["val/loss"] for line in written] == [val for _, val in seen]
    assert [line["train/loss"] for line in written] == pytest.approx([train for train, _ in seen])


def test_epochs_without_validation_do_not_repeat_the_last_one(tmp_path, fit):
    """A validation metric stands only in the line of the epoch that measured it."""
    fit(tmp_path, ResultsWriter(tmp_path), epochs=4, check_val_every_n_epoch=2)
    assert ["val/top1" in line for line in lines(tmp_path)] == [False, True, False, True]


def test_equal_seeds_write_equal_bytes(tmp_path, fit):
    """Two runs with one seed leave identical metrics.jsonl, another seed does not."""
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        fit(tmp_path / name, ResultsWriter(tmp_path / name), seed=seed, test=False)
    a, b, c = ((tmp_path / name / "metrics.jsonl").read_bytes() for name in "abc")
    assert a == b != c


def test_results_describe_the_finished_run(tmp_path, fit):
    """results.json holds test, best and last metrics and checkpoints relative to the run."""
    trainer = fit(tmp_path, ResultsWriter(tmp_path), epochs=5)
    results = json.loads((tmp_path / "results.json").read_text())
    written = lines(tmp_path)
    assert results["status"] == "done"
    assert results["test"] == {k: v.item() for k, v in trainer.callback_metrics.items()}
    assert results["best"] == max(written, key=lambda line: line["val/top1"])
    assert results["last"] == written[-1]
    assert (results["epochs"], results["params"]) == (5, 15)
    assert results["checkpoints"] == {
        "best": "checkpoints/best.ckpt",
        "last": "checkpoints/last.ckpt",
    }
    best = torch.load(tmp_path / results["checkpoints"]["best"], weights_only=True)
    assert best["epoch"] + 1 == results["best"]["epoch"]
    assert results["seconds"] > 0 and results["samples_per_second"] > 0
    assert results["first_step"]["compile_seconds"] == 0 < results["first_step"]["seconds"]


def test_resuming_continues_the_file_without_duplicates(tmp_path, fit):
    """A resumed run has one line for each epoch, also if it was killed past its checkpoint."""
    fit(tmp_path, ResultsWriter(tmp_path), epochs=2, test=False)
    before = (tmp_path / "metrics.jsonl").read_text()
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"epoch": 3, "step": 12, "lr": 0}\n{"epoch": 4, "st')  # no checkpoint of these
    fit(tmp_path, ResultsWriter(tmp_path), epochs=4, ckpt_path=tmp_path / "checkpoints/last.ckpt")
    assert (tmp_path / "metrics.jsonl").read_text().startswith(before)
    assert [line["epoch"] for line in lines(tmp_path)] == [1, 2, 3, 4]
    assert [line["step"] for line in lines(tmp_path)] == [4, 8, 12, 16]
    results = json.loads((tmp_path / "results.json").read_text())
    assert (results["epochs"], results["last"]["epoch"]) == (4, 4)


def test_resuming_a_complete_run_changes_nothing_but_the_results(tmp_path, fit):
    """A job that is requeued after its last epoch only tests, and still writes full results."""
    fit(tmp_path, ResultsWriter(tmp_path), test=False)
    before = (tmp_path / "metrics.jsonl").read_text()
    assert not (tmp_path / "results.json").exists()
    fit(tmp_path, ResultsWriter(tmp_path), ckpt_path=tmp_path / "checkpoints/last.ckpt")
    assert (tmp_path / "metrics.jsonl").read_text() == before
    results = json.loads((tmp_path / "results.json").read_text())
    assert (results["epochs"], results["last"]["epoch"]) == (3, 3)
    assert results["checkpoints"]["best"] == "checkpoints/best.ckpt"


def test_time_adds_up_over_restarts(tmp_path, fit):
    """The seconds of a resumed run include those of its earlier starts."""
    writer = ResultsWriter(tmp_path)
    total = {"seconds": 1000.0, "train_seconds": 500.0, "samples": 10}
    writer.load_state_dict({"total": total, "lines": []})
    fit(tmp_path, writer, epochs=1, test=False)
    fit(tmp_path, ResultsWriter(tmp_path), epochs=2, ckpt_path=tmp_path / "checkpoints/last.ckpt")
    assert json.loads((tmp_path / "results.json").read_text())["seconds"] > 1000


def test_a_test_alone_leaves_the_results_of_the_run(tmp_path, fit):
    """Only a process that trained writes results.json; testing again does not replace it."""
    trainer = fit(tmp_path, ResultsWriter(tmp_path), epochs=1)
    before = (tmp_path / "results.json").read_text()
    trainer.callbacks = [ResultsWriter(tmp_path)]
    trainer.test(trainer.lightning_module, trainer.test_dataloaders, verbose=False)
    assert (tmp_path / "results.json").read_text() == before
