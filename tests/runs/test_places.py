"""Places are those of the machine, and `~` is the home folder of who types it."""

import json
from pathlib import Path

import pytest
import yaml

from saformer.config.check import check, to_dict
from saformer.config.overrides import at_home, compose
from saformer.config.restore import restore

LOCAL = "# @package _global_\n"


@pytest.fixture
def saved() -> dict:
    """Settings of a training on the machine where data lie in /a."""
    return to_dict(check(compose(["dataset=cifar10_dvs", "data_dir=/a"])))


@pytest.fixture
def places(saved):
    """Where an evaluation here looks: (data_dir, root, cache_dir)."""

    def call(local: str = "", *typed: str) -> tuple[str, str, str]:
        file = Path("conf/local/default.yaml")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(LOCAL + local)
        config = check(restore(saved, compose([*typed], "eval"), [*typed]))
        return config.data_dir, config.dataset.root, config.dataset.cache_dir

    return call


def test_places_of_an_evaluation(places):
    """What is typed comes before conf/local, this before conf/; no place is a checkpoint's."""
    usual = ("data", "data/cifar10_dvs", "data/cache")
    assert places() == places("seed: 3\n") == usual
    assert places("data_dir: /b\n") == ("/b", "/b/cifar10_dvs", "/b/cache")
    assert places("data_dir: data\n") == ("data", "data/cifar10_dvs", "data/cache")
    assert places("data_dir: /b\n", "data_dir=/c") == ("/c", "/c/cifar10_dvs", "/c/cache")
    assert places("data_dir: /b\n", "dataset.root=/d") == ("/b", "/d", "/b/cache")
    assert places("dataset:\n  cache_dir: /fast\n") == ("data", "data/cifar10_dvs", "/fast")
    assert places("", "data_dir=/${c}".replace("$", "\\$"))[1] == "/${c}/cifar10_dvs"


def test_a_dataset_without_a_place_gets_none():
    """A cache folder of the machine is none of a dataset that has no cache."""
    Path("conf/local").mkdir(parents=True)
    before = to_dict(check(compose(["dataset=cifar10"])))
    Path("conf/local/default.yaml").write_text(f"{LOCAL}dataset:\n  cache_dir: /fast\n")
    config = check(restore(before, compose([], "eval"), []))
    assert config.dataset.cache_dir is None


def test_the_home_folder_in_files(places, monkeypatch):
    """A `~` in a file is the home folder, for a training and an evaluation."""
    monkeypatch.setenv("HOME", "/home/me")
    here = ("/home/me/d", "/home/me/d/cifar10_dvs", "/home/me/d/cache")
    assert places("data_dir: ~/d\n") == here
    config = check(compose(["dataset=cifar10_dvs"]))
    assert (config.data_dir, config.dataset.root, config.dataset.cache_dir) == here
    local = "dataset:\n  root: ~/x\n  cache_dir: ~/y\n"
    assert places(local) == ("data", "/home/me/x", "/home/me/y")


@pytest.mark.parametrize(
    ("word", "meant"),
    [
        ("data_dir=~/d", "data_dir=/home/me/d"),
        ('dataset.root="~/d"', 'dataset.root="/home/me/d"'),
        ("hydra.run.dir=~", "hydra.run.dir=/home/me"),
        ("--out=~/d", "--out=/home/me/d"),
        ("~logger", "~logger"),
        ("~logger=none", "~logger=none"),
        ("name=a~b", "name=a~b"),
    ],
)
def test_the_home_folder_as_it_is_typed(monkeypatch, word, meant):
    """A shell leaves `~` behind a dot or a quote as it is, and Hydra makes an error of it."""
    monkeypatch.setenv("HOME", "/home/me")
    assert at_home(word) == meant


def test_no_folder_of_that_name(cli, tmp_path, monkeypatch):
    """A training and a table take `~` wherever a place is typed."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    short = ("dataset.train_subset=20", "dataset.val_fraction=0.5", "epochs=1", "logger=none")
    short += ("scheduler.warmup_epochs=0", "callbacks=none", "energy=off", "trainer=cpu")
    assert cli("train", *short, "hydra.run.dir=~/run", "dataset.root=~/x")[0] == 0
    run = json.loads((tmp_path / "home" / "run" / "run.json").read_text())
    assert run["starts"][0]["config"]["dataset"]["root"] == str(tmp_path / "home" / "x")
    row = {"title": "One", "seeds": [0], "columns": ["test_top1"], "rows": [{"label": "it"}]}
    Path("one.yaml").write_text(yaml.safe_dump(row))
    assert cli("table", "one.yaml", "--outputs=~", "--out=~/tables")[0] == 0
    assert (tmp_path / "home" / "tables").is_dir() and not Path("~").exists()
