"""What is tested is what results.json calls the best, whatever is kept."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from mostly_slow import mostly_slow

SHORT = (
    *("logger=none", "trainer=cpu", "energy=off", "dataset.train_subset=200"),
    *("dataset.batch_size=16", "model.dim=16", "timesteps=1", "hydra.run.dir=run"),
    *("scheduler.warmup_epochs=0", "optimizer.lr=0.02", "epochs=4"),
)
LIGHTNING = "{_target_:lightning.pytorch.callbacks.ModelCheckpoint"
CHECKPOINT = "callbacks.checkpoint"
FALLING = "+callbacks.falling={_target_:misfortunes.Falling}"
FIRST = (FALLING, f"{CHECKPOINT}.monitor=val/falling")  # whose best is the first epoch


OTHERS = [
    (*FIRST, f"+{CHECKPOINT}.save_top_k=-1", f"{CHECKPOINT}.filename='{{epoch}}'"),
    (*FIRST, f"+{CHECKPOINT}.save_top_k=3", f"{CHECKPOINT}.filename=null"),
    (*FIRST, f"+{CHECKPOINT}.save_top_k=2", f"{CHECKPOINT}.enable_version_counter=true"),
    (f"+{CHECKPOINT}.save_top_k=0",),
    (*FIRST, f"+{CHECKPOINT}.every_n_epochs=3"),
    (f"+{CHECKPOINT}.every_n_epochs=0",),
    (f"{CHECKPOINT}.monitor=train/loss", f"{CHECKPOINT}.mode=min"),
    ("~callbacks.last", *FIRST),
    ("+callbacks.last.every_n_epochs=3", f"~{CHECKPOINT}"),
    (f"+callbacks.more={LIGHTNING},monitor:val/loss,filename:more}}", *FIRST),
    (FALLING, f"~{CHECKPOINT}", f"+callbacks.more={LIGHTNING},monitor:val/falling,mode:max}}"),
    (f"~{CHECKPOINT}", f"+callbacks.more={LIGHTNING},monitor:train/loss,save_top_k:3}}"),
    ("+trainer.check_val_every_n_epoch=3",),
    ("+trainer.check_val_every_n_epoch=3", f"~{CHECKPOINT}"),
    ("callbacks=none", "+trainer.check_val_every_n_epoch=3"),
    ("callbacks=ema", *FIRST),
    ("callbacks=early_stopping", "callbacks.early_stopping.patience=1", "epochs=9", *FIRST),
]


def results() -> dict:
    return json.loads(Path("run/results.json").read_text())


def require_tested(cli) -> int:
    """The best line of the run is of the file that is named, which was tested; its epoch."""
    lines = [json.loads(line) for line in Path("run/metrics.jsonl").read_text().splitlines()]
    found = results()
    if found["checkpoints"]["best"] is None:
        assert found["best"] in (None, lines[-1])
        return len(lines)
    path = Path("run", found["checkpoints"]["best"])
    saved = torch.load(path, weights_only=True)
    tested = lines[saved["epoch"]]
    assert tested["epoch"] == saved["epoch"] + 1
    assert found["best"] == (tested if "val/top1" in tested else None)
    for old in Path("run").glob("eval-*.json"):
        old.unlink()
    code, _out, err = cli("eval", f"ckpt_path='{path}'")
    assert code == 0, err
    (again,) = Path("run").glob("eval-*.json")
    assert json.loads(again.read_text())["test/loss"] == found["test"]["test/loss"]
    return tested["epoch"]


@pytest.mark.parametrize(
    "options",
    [
        (),
        FIRST,
        (*FIRST, f"+{CHECKPOINT}.save_top_k=3", f"{CHECKPOINT}.filename='best-{{epoch}}'"),
        ("callbacks=none",),
        (f"~{CHECKPOINT}",),
        *(pytest.param(words, marks=pytest.mark.slow) for words in OTHERS),
    ],
    ids=" ".join,
)
def test_the_best_epoch_is_the_tested_one(cli, options):
    """Its line, the file that is named and the test are of the same weights."""
    code, _out, err = cli("train", *SHORT, *options)
    assert (code, err) == (0, "")
    epoch = require_tested(cli)
    assert options != FIRST or epoch == 1
    assert not [path for path in Path("run").rglob("*.ckpt") if "=" in path.name] or "more" in str(
        options
    )


def test_names_count_epochs_as_results_do(cli):
    """The third epoch is 3 in the file's name, as in its line."""
    words = (f"+{CHECKPOINT}.save_top_k=-1", f"{CHECKPOINT}.filename='{{epoch}}-of'")
    assert cli("train", *SHORT, *words)[0] == 0
    names = {path.name for path in Path("run/checkpoints").iterdir()}
    assert names == {
        "1-of.ckpt",
        "2-of.ckpt",
        "3-of.ckpt",
        "4-of.ckpt",
        "last.ckpt",
        "previous.ckpt",
    }
    assert results()["checkpoints"]["best"] == f"checkpoints/{results()['best']['epoch']}-of.ckpt"


@pytest.mark.parametrize(
    ("words", "answer"),
    [
        (
            (f"+{CHECKPOINT}.save_top_k=3",),
            f"{CHECKPOINT}.save_top_k=3 would write all of them to the same file "
            f"best.ckpt: type \"{CHECKPOINT}.filename='best-{{epoch}}'\"",
        ),
        (
            (f"+{CHECKPOINT}.save_top_k=-1", f"{CHECKPOINT}.filename='{{val/top1:.1f}}'"),
            f"{CHECKPOINT}.save_top_k=-1 would write all of them to",
        ),
        (("+callbacks.last.save_top_k=-1",), "callbacks.last.save_top_k=-1 would write all of"),
        (
            (f"{CHECKPOINT}.filename=last",),
            "callbacks.last.filename=last is also that of callbacks.checkpoint",
        ),
        (
            (f"+callbacks.second={LIGHTNING},monitor:val/loss,filename:best}}",),
            "callbacks.second.filename=best is also that of callbacks.checkpoint, which would "
            "overwrite it: type callbacks.second.filename=second",
        ),
        ((f"{CHECKPOINT}.filename=previous",), f"{CHECKPOINT}.filename=previous is the name of"),
        ((f"+{CHECKPOINT}.save_last=true",), f"{CHECKPOINT}.save_last=True would name the best"),
        (("+callbacks.last.save_last=link",), "callbacks.last.save_last=link would name"),
        (
            (f"+callbacks.second={LIGHTNING},monitor:val/loss,save_weights_only:true}}",),
            "callbacks.second.save_weights_only=True would leave out what a test and a resume need",
        ),
        ((f"+{CHECKPOINT}.save_on_exception=true",), "save_on_exception=True may save within an"),
        (
            (f"+{CHECKPOINT}.every_n_train_steps=5",),
            "every_n_train_steps=5 may save within an epoch",
        ),
        ((f"+{CHECKPOINT}.save_on_train_epoch_end=false",), "would save within an epoch: leave it"),
        (
            (f"+{CHECKPOINT}.auto_insert_metric_name=true",),
            "would put '=' into file names: leave it",
        ),
    ],
    ids=lambda words: words[0] if isinstance(words, tuple) else "",
)
def test_files_that_would_not_be_what_they_are_called(cli, words, answer):
    """They are refused in one line, before anything is written."""
    code, _out, err = cli("train", *SHORT, *words)
    assert code == 2 and answer in err and err.count("\n") == 1
    assert not Path("run/run.json").exists()


def test_another_monitor_begins_the_best_anew(cli):
    """The best by another metric is of the epochs that are left; the old one is put aside."""
    assert cli("train", *SHORT, "epochs=2")[0] == 0
    before = Path("run/checkpoints/best.ckpt").read_bytes()
    words = (f"{CHECKPOINT}.monitor=val/loss", f"{CHECKPOINT}.mode=min")
    code, out, _err = cli("train", *SHORT, "ckpt_path=run/checkpoints/last.ckpt", *words)
    assert code == 0
    assert "the best epoch by val/loss is chosen among the epochs from 3 on" in out
    assert require_tested(cli) > 2
    assert Path("run/checkpoints/best-1.ckpt").read_bytes() == before


def test_a_best_that_did_not_come_along_begins_anew(cli):
    """Not the best of an epoch that nobody has the weights of is named."""
    assert cli("train", *SHORT, *FIRST, "epochs=2")[0] == 0
    shutil.copy("run/checkpoints/last.ckpt", "alone.ckpt")
    shutil.rmtree("run")
    code, out, _err = cli("train", *SHORT, *FIRST, "ckpt_path=alone.ckpt")
    assert code == 0 and "is chosen among the epochs from 3 on" in out
    assert require_tested(cli) > 2


@pytest.mark.parametrize("folder", mostly_slow(["run", "other"]))
def test_a_best_of_later_epochs_is_not_that_of_a_checkpoint_before(cli, folder):
    """Who goes on from an earlier epoch does not test the best of the first course."""
    every = f"+callbacks.every={LIGHTNING},save_top_k:-1,filename:'{{epoch}}'"
    every += ",auto_insert_metric_name:false,save_on_train_epoch_end:true}"
    words = (*SHORT, every, f"{CHECKPOINT}.monitor=train/loss", f"{CHECKPOINT}.mode=min")
    assert cli("train", *words)[0] == 0
    best = Path("run/checkpoints/best.ckpt").read_bytes()
    assert results()["best"]["epoch"] > 1
    again = ("epochs=1", "ckpt_path=run/checkpoints/0.ckpt", f"hydra.run.dir={folder}")
    code, _out, err = cli("train", *words, *again)
    assert code == 0, err
    if folder == "run":
        assert Path("run/checkpoints/best-1.ckpt").read_bytes() == best
    found = json.loads(Path(folder, "results.json").read_text())
    assert (found["best"]["epoch"], found["checkpoints"]["best"]) == (1, None)
    assert cli("eval", "ckpt_path=run/checkpoints/0.ckpt")[0] == 0
    (result,) = Path("run").glob("eval-*.json")
    assert json.loads(result.read_text())["test/loss"] == found["test"]["test/loss"]
