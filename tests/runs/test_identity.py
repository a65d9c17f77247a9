"""Which settings make two runs the same experiment."""

import json
from pathlib import Path

import pytest

from saformer.config.check import to_dict
from saformer.runs.identity import defining, differences

OLD = json.loads((Path(__file__).parent / "data" / "run_before_the_rooms.json").read_text())


def now(compose, *words: str) -> dict:
    return defining(json.loads(json.dumps(to_dict(compose(*words)))), OLD["effective_batch"])


def test_a_moved_class_orphans_no_run(compose):
    """A run.json from before the modules moved is still of the row that its words make."""
    before = defining(OLD["config"], OLD["effective_batch"])
    target = OLD["config"]["callbacks"]["checkpoint"]["_target_"]
    assert target == "saformer.callbacks.checkpoint.RunCheckpoint"
    assert differences(now(compose, *OLD["words"]), before) == {}


def test_what_is_drawn_is_no_other_run(compose):
    """With and without figures a run is of the row of one that is older than the setting."""
    before = defining(OLD["config"], OLD["effective_batch"])
    assert "plots" not in OLD["config"]
    for plots in ("true", "false"):
        assert differences(now(compose, *OLD["words"], f"plots={plots}"), before) == {}


@pytest.mark.parametrize(
    "words",
    [
        ("callbacks=ema",),
        ("callbacks.last._target_=saformer.training.callbacks.ema.WeightAverage",),
        ("callbacks.last._target_=lightning.pytorch.callbacks.ModelCheckpoint",),
    ],
)
def test_another_class_is_another_run(compose, words):
    """Only the place of a class of ours is free, not which class it is."""
    before = defining(OLD["config"], OLD["effective_batch"])
    assert differences(now(compose, *OLD["words"], *words), before)


def test_classes_within_lists_have_no_place_either(compose):
    """A callback that is given others in a list is the same wherever ours stand."""
    nodes = [
        {"callbacks": {"own": {"_target_": "mine.Of", "parts": [{"_target_": f"saformer.{at}.X"}]}}}
        for at in ("callbacks", "training.callbacks")
    ]
    one, other = (defining(node, 1) for node in nodes)
    assert differences(one, other) == {}
    elsewhere = {"callbacks": {"own": {"_target_": "other.Of"}}}
    assert differences(defining(nodes[0], 1), defining(elsewhere, 1))
