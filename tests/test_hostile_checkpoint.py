"""A checkpoint of a stranger can do nothing: what it says is data, no place and no command."""

import copy
import math
import os
import stat
import sys
import zipfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from datetime import date
from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch
from watched import watched

import saformer
from saformer.checkpoint import load_checkpoint, load_weights, saved_config
from saformer.classifier import Classifier, load
from saformer.config.check import check
from saformer.config.overrides import compose
from saformer.config.restore import restore
from saformer.dotted import OF_MACHINE
from saformer.errors import CheckpointError, SettingError, UserError

SHORT = (
    *("epochs=1", "dataset.train_subset=60", "dataset.val_fraction=0.5", "logger=none"),
    *("scheduler.warmup_epochs=0", "energy=off", "trainer=cpu", "timesteps=1", "model.depth=1"),
)
QUICK = ("+trainer.limit_test_batches=1", "trainer=cpu")
SECRET = "what only the environment knows"


@pytest.fixture(scope="module")
def honest(shared_run) -> Path:
    """The last checkpoint of a small training."""
    return shared_run(*SHORT, "hydra.run.dir=run") / "run" / "checkpoints" / "last.ckpt"


@pytest.fixture
def victim(tmp_path, monkeypatch) -> Path:
    """A place that nobody names but a stranger, and a folder to work in, with a module."""
    place = tmp_path / "victim"
    place.mkdir()
    (place / "key").write_text("private")
    work = tmp_path / "work"
    work.mkdir()
    (work / "trap.py").write_text("open('sprung', 'w').close()\nread = Trap = lambda c, t: None\n")
    monkeypatch.chdir(work)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setenv("SECRET", SECRET)
    monkeypatch.setenv("XDG_CACHE_HOME", str(work / "cache"))
    return place


def replaced(config: dict[str, Any], settings: dict[str, Any]) -> dict[str, Any]:
    """Stored settings with others in the place of some."""
    config = copy.deepcopy(config)
    for name, value in settings.items():
        node, (*parents, last) = config, name.split(".")
        for parent in parents:
            node = node.setdefault(parent, {})
        node[last] = value
    return config


@pytest.fixture
def hostile(honest, victim) -> Callable[..., Path]:
    """An honest checkpoint with stored settings replaced by others; beside nothing else."""
    content = torch.load(honest, weights_only=True)

    def call(settings: dict[str, Any] | None = None, change: Callable | None = None) -> Path:
        made = copy.copy(content)
        config = replaced(content["hyper_parameters"]["config"], settings or {})
        made["hyper_parameters"] = {"config": config}
        if change is not None:
            made = copy.deepcopy(made)
            change(made)
        torch.save(made, "hostile.ckpt")
        return Path("hostile.ckpt").absolute()

    return call


# ---- what a checkpoint names ----

NAMES = ("venv.__main__", "antigravity", "this", "os.system", "trap", "trap.Trap", "unittest")


@pytest.mark.parametrize(
    ("settings", "typed"),
    [
        ({"dataset.reader": "trap"}, "dataset.reader=trap"),
        ({"neuron.layer": "trap.Trap"}, "neuron.layer=trap.Trap"),
        (
            {"attention.branch": "trap.Trap", "attention.name": "custom"},
            "attention.branch=trap.Trap",
        ),
        ({"energy.costs": ["horowitz45", "trap.Trap"]}, "energy.costs=[horowitz45,trap.Trap]"),
    ],
)
def test_nothing_is_imported_that_a_checkpoint_names(cli, hostile, settings, typed):
    """One line says what it wants and what to type; then it is imported, as its user says."""
    path = hostile(settings)
    for command in ("eval", "energy"):
        code, _out, err = cli(command, f"ckpt_path={path}", *QUICK)
        assert code == 2 and err.startswith("error: the checkpoint wants to import trap"), err
        assert f"type {typed} " in err and err.count("\n") == 1
    with pytest.raises(SettingError, match=r"trust=\['trap"):
        saformer.load(path)
    assert cli("export", str(path), "out")[0] == 2 and not Path("out").exists()
    assert not Path("sprung").exists()
    cli("energy", f"ckpt_path={path}", typed, *QUICK)
    assert Path("sprung").exists()  # the user's own word
    sys.modules.pop("trap", None)


def test_a_trusted_class_is_loaded(hostile):
    """`load` imports what its caller names, and no more."""
    Path("mine.py").write_text(
        "from saformer.models.neuron import MultiStepLeaky\n\n\n"
        "class Mine(MultiStepLeaky):\n    pass\n"
    )
    path = hostile({"neuron.layer": "mine.Mine"})
    with pytest.raises(SettingError, match=r"if you trust it, type neuron\.layer=mine\.Mine "):
        load(path, trust=["mine"])
    kinds = {type(part).__name__ for part in load(path, trust=["mine.Mine"]).modules()}
    assert "Mine" in kinds and "MultiStepLeaky" not in kinds
    sys.modules.pop("mine", None)


def test_a_reader_of_the_package_needs_no_word(cli, hostile):
    """A dataset under another name, read by what is shipped."""
    assert cli("eval", f"ckpt_path={hostile({'dataset.reader': 'digits'})}", *QUICK)[0] == 0


# ---- interpolations ----


def test_the_environment_is_not_read(cli, hostile):
    """An interpolation in a stored setting is refused, and lands in no file and on no terminal."""
    path = hostile({"name": "${oc.env:SECRET}"})
    for command in ("eval", "energy"):
        code, out, err = cli(command, f"ckpt_path={path}", *QUICK)
        assert code == 2 and err.count("\n") == 1
        assert "the checkpoint has name='${oc.env:SECRET}', which no run writes" in err
        assert SECRET not in out + err
    with pytest.raises(CheckpointError, match="which no run writes"):
        load(path)


def test_a_folder_that_is_called_like_one_works(cli, hostile, monkeypatch):
    """The data of a run may lie in a folder named ${...}: it is a name, here and there."""
    path = hostile({"data_dir": "/${oc.env:SECRET}", "dataset.root": "/${x}"})
    assert cli("eval", f"ckpt_path={path}", r"data_dir=/\${x}", *QUICK)[0] == 0
    text = next(Path().glob("eval-*.json")).read_text()
    assert '"data_dir": "/${x}"' in text and SECRET not in text
    Path("${oc.env:SECRET}").mkdir()
    monkeypatch.chdir("${oc.env:SECRET}")
    code, _out, err = cli("eval", f"ckpt_path={path}", *QUICK)
    assert code == 2 and "cannot work in a folder with ${ in its name" in err
    assert SECRET not in err


# ---- places, workers, sizes ----


def test_places_and_workers_are_of_this_machine(hostile, victim):
    """Whatever a checkpoint says, data are read and cached where this machine has them."""
    settings = {"dataset.root": str(victim), "dataset.cache_dir": str(victim)}
    settings |= {"data_dir": str(victim), "dataset.num_workers": 3000, "neuron.backend": "loop"}
    settings |= {"dataset.name": "digits_events", "dataset.device_resident": True}
    saved = saved_config(load_checkpoint(hostile(settings)))
    config = check(restore(saved, compose([], "eval"), []))
    data = config.dataset
    assert (data.root, data.cache_dir) == ("data/digits_events", "data/cache")
    assert (data.num_workers, data.device_resident, config.data_dir) == (0, False, "data")
    assert (config.callbacks, config.logger) == ({}, {})
    settings |= {"dataset.name": "unknown_here"}
    saved = saved_config(load_checkpoint(hostile(settings)))
    data = check(restore(saved, compose([], "eval"), [])).dataset
    assert (data.root, data.cache_dir, data.num_workers) == (None, None, 0)


def test_what_to_type_where_data_are_elsewhere(cli, hostile):
    """Data that lie where they were trained are found by one word, which the answer names."""
    there = {"dataset.name": "cifar10", "dataset.root": "/far/cifar10"}
    code, _out, err = cli("eval", f"ckpt_path={hostile(there)}", *QUICK)
    assert code == 2 and err.startswith("error: data/cifar10: expected ")
    fix = "It was trained with dataset.root=/far/cifar10: type this if the files are there"
    assert err.endswith(f"{fix}\n")
    there |= {"dataset.name": "mine", "dataset.reader": "cifar10"}
    code, _out, err = cli("eval", f"ckpt_path={hostile(there)}", *QUICK)
    assert (code, err) == (
        2,
        "error: the folder of mine is not known: type dataset=OPTION, or dataset.root=FOLDER. "
        "It was trained with dataset.root=/far/cifar10\n",
    )


@pytest.mark.parametrize("name", ["unknown_here", "digits_events"])
def test_a_checkpoint_makes_no_recordings_where_it_is_evaluated(cli, hostile, victim, name):
    """A reader that simulates its data does so in a place that this machine names alone."""
    here = {"dataset.name": name, "dataset.reader": "digits_events", "dataset.root": None}
    events = {"split_by": "number", "resize": "bin", "norm": "none", "bad_recordings": "error"}
    path = hostile(here | {"dataset.events": events})
    code, _out, err = cli("eval", f"ckpt_path={path}", f"data_dir={victim / 'no'}/x", *QUICK)
    assert code == 2 and err.count("\n") == 1
    assert not Path(name).exists() and not list(Path().glob("*.lock"))


def test_settings_of_another_program_here_are_not_ours(hostile):
    """`load` in the folder of a program whose own conf/local has other settings."""
    Path("conf/local").mkdir(parents=True)
    Path("conf/local/default.yaml").write_text("# @package _global_\ntheirs: {lr: 1}\n")
    assert load(hostile()).timesteps == 1


@pytest.mark.parametrize("name", ["../../x", "/x", "..", ".x", "", "a\\b", "a/b"])
def test_a_dataset_is_called_by_a_name(hostile, name):
    """A name is one part of a path, since folders are called by it."""
    with pytest.raises(SettingError, match=r"dataset\.name must be one printable name and no path"):
        load(hostile({"dataset.name": name}))


# ---- the best checkpoint, which the state of a callback names ----


def naming(path: str, extra: Callable[[dict], None] = lambda state: None) -> Callable[[dict], None]:
    """Make every state of a checkpoint callback name a file."""

    def change(content: dict) -> None:
        for key, state in content["callbacks"].items():
            if "Checkpoint" in key:
                state |= {"best_model_path": path, "kth_best_model_path": path}
                state |= {"last_model_path": path, "best_k_models": {path: torch.tensor(0.5)}}
                extra(state)

    return change


def test_no_file_is_copied_that_a_checkpoint_names(cli, hostile, victim):
    """Going on takes no file but from beside the checkpoint, and only a checkpoint."""
    key = victim / "key"
    key.chmod(0o600)
    forged = ["epochs=2", *SHORT[1:]]
    for number, file in enumerate((str(key), "key", "../victim/key")):
        Path("key").unlink(missing_ok=True)
        if number == 1:
            Path("key").symlink_to(key)  # beside, and no checkpoint
        path = hostile(change=naming(file))
        with watched([Path.cwd()], victim) as found:
            code, out, err = cli("train", *forged, f"ckpt_path={path}", f"hydra.run.dir=r{number}")
        assert code == 0, err
        opened = [one for one in found if str(victim) in one]
        assert opened == [] or number == 1, opened
        assert {one.name for one in Path(f"r{number}").rglob("*")} & {"key"} == set()
        assert "the best epoch by val/top1 is chosen among the epochs from 2 on" in out
    assert key.read_text() == "private" and stat.S_IMODE(key.stat().st_mode) == 0o600


def test_the_best_beside_a_checkpoint_keeps_its_mode(cli, honest, victim):
    """It comes along as private as it is."""
    Path("before").mkdir()
    for name in ("last.ckpt", "best.ckpt"):
        content = torch.load(honest.with_name(name), weights_only=True)
        for state in content["callbacks"].values():
            if state.get("monitor") == "val/top1":  # which no epoch reaches again
                state |= {"best_model_score": torch.tensor(2.0)}
        torch.save(content, f"before/{name}")
        Path("before", name).chmod(0o600)
    words = ("epochs=2", *SHORT[1:], "ckpt_path=before/last.ckpt", "hydra.run.dir=on")
    assert cli("train", *words)[0] == 0
    kept = Path("on/checkpoints/best.ckpt")
    assert kept.read_bytes() == Path("before/best.ckpt").read_bytes()
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600


def test_no_file_is_deleted_that_a_checkpoint_names(cli, hostile, victim):
    """Nor by the callbacks of Lightning, which delete what their state calls the worst."""
    lightning = "{_target_: lightning.pytorch.callbacks.ModelCheckpoint, monitor: val/loss}"
    words = ("epochs=2", *SHORT[1:], f"+callbacks.second={lightning}", "hydra.run.dir=on")
    inside = Path("on/checkpoints").absolute()
    inside.mkdir(parents=True)
    for file in (f"{inside}/../../../victim/key", f"memory://{victim}/key", str(victim / "key")):
        key = (
            "ModelCheckpoint{'monitor': 'val/loss', 'mode': 'min', 'every_n_train_steps': 0, "
            "'every_n_epochs': 1, 'train_time_interval': None}"
        )

        def change(content: dict, file: str = file, key: str = key) -> None:
            content["callbacks"][key] = {"monitor": "val/loss", "best_model_score": None}
            naming(file, lambda state: state.update(dirpath=str(inside)))(content)
            content["callbacks"][key]["best_k_models"] = {file: torch.tensor(1e9)}
            content["callbacks"][key] |= {"kth_value": torch.tensor(1e9), "current_score": None}

        path = hostile(change=change)
        assert cli("train", *words, f"ckpt_path={path}")[0] == 0
        assert (victim / "key").read_text() == "private"
        Path("on").rename(f"done-{file.count('/')}")
        inside.mkdir(parents=True)


# ---- the file itself ----


def test_a_bomb_is_not_unpacked(cli, honest, victim):
    """An archive that says it is larger than the file is refused before it is read through."""
    for name, packed in (("packed", zipfile.ZIP_DEFLATED), ("told twice", zipfile.ZIP_STORED)):
        path = Path(f"{name}.ckpt")
        with zipfile.ZipFile(path, "w", packed) as archive:
            archive.writestr("archive/data.pkl", b"0" * 10**8 if name == "packed" else b"0" * 9999)
            member = archive.getinfo("archive/data.pkl")
            for number in range(3 if name == "told twice" else 0):  # members that lie on each other
                again = copy.copy(member)
                again.filename = f"archive/data/{number}"
                archive.filelist.append(again)
        for argument in (path, Path("weights.pth")):
            path.replace(argument) if argument != path else None
            path = argument
        with pytest.raises(CheckpointError, match="it would unpack to"):
            load_checkpoint(path)
        code, _out, err = cli("import_checkpoint", str(path), "out.ckpt")
        assert code == 2 and "cannot be read" in err


def test_a_pipe_is_not_waited_for(cli, victim):
    """What is no regular file is refused at once."""
    os.mkfifo("pipe.ckpt")
    for place in ("pipe.ckpt", "/dev/zero"):
        for command in ("eval", "energy", "train"):
            code, _out, err = cli(command, f"ckpt_path={place}", "logger=none")
            assert code == 2 and "it is not a regular file" in err
        code, _out, err = cli("import_checkpoint", place, "out.ckpt")
        assert code == 2 and f"{place} is no regular file" in err


@pytest.mark.parametrize("kind", ["repeated", "deep", "endless"])
def test_values_that_the_file_does_not_hold(hostile, kind):
    """A tensor of one number told a million million times, and lists of themselves."""

    def change(content: dict) -> None:
        if kind == "repeated":
            name = next(iter(content["state_dict"]))
            content["state_dict"][name] = torch.zeros(1).expand(10**6, 10**6)
        part: list = []
        if kind == "deep":
            for _ in range(60):
                part = [part, part]
        if kind == "endless":
            part.append(part)
        content["optimizer_states"] = part

    with pytest.raises(CheckpointError, match=r"without its values|lists within lists"):
        load_checkpoint(hostile(change=change))


# ---- every stored setting ----


def leaves(node: dict[str, Any], prefix: str = "") -> Iterator[str]:
    for key, value in node.items():
        yield f"{prefix}{key}"
        if isinstance(value, dict):
            yield from leaves(value, f"{prefix}{key}.")


def values(victim: Path) -> dict[str, list[Any]]:
    """What each stored setting is replaced by."""
    return {
        "path": [str(victim / "key"), str(victim), f"../{victim.name}", f"file://{victim}"],
        "interpolation": ["${oc.env:SECRET}", "a\\${oc.env:SECRET}", "${hydra:runtime.cwd}", "???"],
        "number": [10**9, 10**30, -(10**9), 1e300, math.nan, math.inf],
        "type": [None, True, [], {}, [[]], {"_target_": "os.system"}, "text", "\x1b[2J\n", [None]],
        "name": [*NAMES, list(NAMES)],
    }


def attack(cli, path: Path, victim: Path, commands: tuple[str, ...]) -> list[str]:
    """Everything that is done with a checkpoint; what it did that it must not."""
    with watched([Path.cwd()], victim) as found:
        for command in commands:
            if command == "load":
                try:
                    load(path)
                except UserError as error:
                    assert SECRET not in str(error) and "\n" not in str(error)
                continue
            _code, out, err = cli(command, f"ckpt_path={path}", *QUICK)
            assert SECRET not in out + err
    for file in Path().rglob("*.json"):
        assert SECRET not in file.read_text()
    return found


def test_stored_settings_that_name_something_do_nothing(cli, hostile, victim):
    """Evaluated, with paths and modules where a run has places and names."""
    attack(cli, hostile({"dataset.name": "unknown"}), victim, ("eval",))  # imports what is late
    attack(cli, hostile(), victim, ("eval",))
    kinds = values(victim)
    for value in (kinds["path"][0], 10**9, ["os.system"]):
        machine = dict.fromkeys(OF_MACHINE, value) | {"trainer": {"_target_": value}}
        machine["trainer"] |= {"precision": value, "strategy": value, "default_root_dir": value}
        assert attack(cli, hostile(machine), victim, ("eval",)) == [], value
    for name in ("name", "dataset.name", "dataset.reader", "neuron.layer", "energy.costs"):
        path = hostile({name: ["trap.Trap"] if name == "energy.costs" else "trap.Trap"})
        assert attack(cli, path, victim, ("eval",)) == [], name
    assert not Path("sprung").exists()


@pytest.mark.slow
def test_every_stored_setting_does_nothing(honest, victim):
    """A network is built with a hostile value in the place of each in turn, another for each."""
    content = load_checkpoint(honest)
    every = [value for kind in values(victim).values() for value in kind]
    composed = compose([], "eval")
    stored = content["hyper_parameters"]["config"]
    Classifier(check(restore(stored, composed, [])))
    for number, name in enumerate(leaves(stored)):
        value = every[number * 7 % len(every)]
        changed = {"config": replaced(stored, {name: value})}
        with watched([Path.cwd()], victim) as found, suppress(UserError):
            saved = saved_config(content | {"hyper_parameters": changed})
            made = Classifier(check(restore(saved, composed, [])))
            load_weights("x", content, made)
        assert found == [], (name, value)


def todays(names: Iterable[str], parts: int) -> list[str]:
    """One of several parts of the names; over days every name has its turn."""
    shuffled = sorted(names)
    Random(parts).shuffle(shuffled)
    return shuffled[date.today().toordinal() % parts :: parts]


@pytest.mark.slow
def test_every_stored_setting_with_every_value_does_nothing(honest, victim):
    """As far as settings are read: every hostile value in the place of a third of them, each day
    another third."""
    content = load_checkpoint(honest)
    composed = compose([], "eval")
    stored = content["hyper_parameters"]["config"]
    check(restore(stored, composed, []))
    with watched([Path.cwd()], victim) as found:
        for name in todays(leaves(stored), 3):
            for value in (value for kind in values(victim).values() for value in kind):
                changed = {"config": replaced(stored, {name: value})}
                with suppress(UserError):
                    saved = saved_config(content | {"hyper_parameters": changed})
                    check(restore(saved, composed, []))
                assert found == [], (name, value)
    assert not Path("sprung").exists()


@pytest.mark.slow
def test_every_stored_setting_does_nothing_in_the_commands(cli, hostile, victim):
    """Loaded and counted, with a path or a name in the place of half of them, each day others."""
    for warm in ({}, {"dataset.name": "unknown"}):
        attack(cli, hostile(warm), victim, ("load", "energy"))  # imports what is late
    kinds = values(victim)
    every = [*kinds["path"], *kinds["name"], *kinds["interpolation"]]
    stored = load_checkpoint(hostile())["hyper_parameters"]["config"]
    for number, name in enumerate(todays(leaves(stored), 2)):
        value = every[number * 5 % len(every)]
        assert attack(cli, hostile({name: value}), victim, ("load", "energy")) == [], (name, value)
    assert not Path("sprung").exists()
