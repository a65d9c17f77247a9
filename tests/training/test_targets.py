"""What a YAML file or a word may make of `_target_`: objects of the kind that was asked for."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import Logger
from mostly_slow import mostly_slow
from omegaconf import OmegaConf

from saformer.config.files import options
from saformer.errors import SettingError
from saformer.training.targets import A_PART, build

QUICK = ("dataset.train_subset=100", "model.dim=16", "timesteps=1", "epochs=1", "energy=off")
QUICK = (*QUICK, "scheduler.warmup_epochs=0", "trainer=cpu", "hydra.run.dir=run")
STARTS = {
    *("os.exec", "os.fork", "os.forkpty", "os.posix_spawn", "os.spawn", "os.system"),
    *("socket.connect", "subprocess.Popen", "urllib.Request", "webbrowser.open"),
}
CHANGES = {"os.chmod", "os.remove", "os.rename", "os.rmdir", "os.symlink"}
HARM: dict[str, dict[str, Any]] = {
    # A name, and arguments by which a call of it would be seen.
    "os._exit": {"status": 3},
    "os.system": {"command": "touch harm"},
    "builtins.exec": {},
    "builtins.open": {"file": "harm", "mode": "w"},
    "io.FileIO": {"file": "harm", "mode": "w"},
    "pathlib.Path.touch": {"self": "harm"},
    "shutil.copy": {"src": "/etc/passwd", "dst": "harm"},
    "subprocess.Popen": {"args": ["touch", "harm"]},
    "importlib.import_module": {"name": "antigravity"},
    "antigravity.fly": {},
    "functools.partial": {},
    "torch.load": {"f": "bomb.ckpt", "weights_only": False},
    "torch.save": {"obj": 1, "f": "harm"},
    "torch.hub.load": {"repo_or_dir": ".", "model": "x", "source": "local"},
    "torch.distributed.FileStore": {"file_name": "harm", "world_size": 1},
    "lightning.pytorch.callbacks.model_checkpoint.shutil.copy": {"src": "/etc/passwd", "dst": "x"},
    "lightning.pytorch.cli.LightningCLI": {},
    "lightning.pytorch.callbacks.Callback.__init__": {"self": 0},
    "lightning.pytorch.callbacks": {},  # a module
    "saformer.config.overrides.log": {},  # an instance
    "saformer.runs.cluster._slurm": {},
    "saformer.runs.provenance._git": {},
    "saformer.runs.logger._PatientLogger": {},
    "venv.__main__": {},
    "hydra.utils.instantiate": {"config": {}},
}
ASKED = {
    # Where a node can stand, and what is asked for there.
    "callbacks.x": (Callback, "a subclass of Lightning's Callback"),
    "logger": (Logger, "a subclass of Lightning's Logger"),
    "trainer": (pl.Trainer, "a subclass of Lightning's Trainer"),
}


class Watch:
    """What this process starts, opens for writing or changes while it is watched."""

    def __init__(self) -> None:
        self.seen: list[tuple] = []
        self.on = False
        sys.addaudithook(self.look)  # stays for ever, so it is quiet when it is not asked

    def look(self, event: str, args: tuple) -> None:
        if not self.on:
            return
        writes = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
        written = event == "open" and isinstance(args[2], int) and args[2] & writes
        if event in STARTS | CHANGES or event.startswith("shutil.") or written:
            self.seen.append((event, *args))


@pytest.fixture(scope="module")
def recorder() -> Watch:
    return Watch()


@pytest.fixture
def watch(recorder) -> Iterator[Watch]:
    recorder.seen.clear()
    recorder.on = True
    yield recorder
    recorder.on = False


@pytest.fixture
def here(tmp_path, monkeypatch) -> Iterator[Path]:
    """An empty folder for modules and options of one's own, which are forgotten."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield tmp_path
    sys.modules.pop("mine", None)


@pytest.mark.parametrize("dotted", HARM)
def test_a_name_of_another_kind_is_not_called(watch, dotted):
    """In each setting and within its arguments one line names the setting, the name and the kind,
    and nothing is started, written or imported."""
    node = {"_target_": dotted, **HARM[dotted]}
    loaded = set(sys.modules)
    for setting, (kind, expected) in ASKED.items():
        with pytest.raises(SettingError) as error:
            build(setting, node, kind)
        line = str(error.value)
        assert line.startswith(f"{setting}._target_ must ") and line.endswith(f"not {dotted}")
        assert expected in line or "no part that begins with _" in line
    for setting, value in {
        "trainer.plugins._target_": node,
        "trainer.plugins[1]._target_": ["x", node],
        "trainer.plugins.a.b._target_": {"a": {"b": node}},
    }.items():
        outer = {"_target_": "lightning.pytorch.Trainer", "plugins": value}
        with pytest.raises(SettingError) as error:
            build("trainer", outer, pl.Trainer)
        line = str(error.value)
        assert line.startswith(f"{setting} must ") and line.endswith(f", not {dotted}")
        assert A_PART in line or "no part that begins with _" in line
    assert watch.seen == []
    new = {module.partition(".")[0] for module in set(sys.modules) - loaded}
    assert new <= {"lightning"}  # to look into it
    assert not os.listdir()


CALLS = {
    # Each of the issue, as it is typed, and where.
    "callbacks.x": "{_target_:shutil.copy,src:/etc/hostname,dst:harm}",
    "callbacks.y": "{_target_:saformer.runs.provenance._git,folder:.}",
    "logger": "{_target_:builtins.open,file:harm,mode:w}",
    "trainer": "{_target_:saformer.runs.cluster._slurm}",
    "trainer.profiler": "{_target_:torch.load,f:bomb.ckpt,weights_only:false}",
    "trainer.plugins": "[{_target_:os._exit,status:0}]",
}


@pytest.mark.parametrize("by_file", mostly_slow([False, True]), ids=["word", "file"])
@pytest.mark.parametrize("setting", CALLS)
def test_a_training_calls_nothing_that_is_named(cli, here, watch, setting, by_file):
    """A word and an experiment file are answered in one line before anything is done."""
    node = CALLS[setting]
    target = f"{setting}._target_"
    words = [f"++{setting}={node}", *([f"~{setting}.kind"] * (setting == "logger"))]
    if by_file:
        value = OmegaConf.create(f"x: {node.replace(':', ': ')}".replace(",", ", ")).x
        config = OmegaConf.create()
        OmegaConf.update(config, setting, value)
        text = "# @package _global_\n" + OmegaConf.to_yaml(config)
        Path("conf/experiment").mkdir(parents=True)
        Path("conf/experiment/strange.yaml").write_text(text)
        words = ["experiment=strange"]
    if setting != "logger":
        words.append("logger=none")
    if setting == "trainer.plugins":
        target = "trainer.plugins[0]._target_"
    watch.seen.clear()
    code, _out, err = cli("train", *QUICK, *words)
    assert (code, err.count("\n")) == (2, 1), err
    assert err.startswith(f"error: {target} must "), err
    run = os.path.abspath("run")
    elsewhere = [one for one in watch.seen if not os.path.abspath(str(one[1])).startswith(run)]
    assert elsewhere == []
    assert not {"harm", ".git"} & set(os.listdir())


@pytest.mark.parametrize(
    ("words", "answer"),
    [
        (["~trainer._target_"], "trainer must name a class with _target_, not {'accelerator': "),
        (
            ["+callbacks.last._partial_=true"],
            "callbacks.last._partial_ must be left out: of such keys _target_ alone is read",
        ),
        (["+callbacks.last.typo=1"], "RunCheckpoint has no argument 'typo'"),
        (
            ["+trainer.profiler={_target_:lightning.pytorch.profilers.SimpleProfiler,typo:1}"],
            "SimpleProfiler has no argument 'typo'",
        ),
        (
            ["callbacks.last._target_=lightning.pytorch.callbacks.ModelCheckpont"],
            "callbacks.last._target_=lightning.pytorch.callbacks.ModelCheckpont: ",
        ),
        (["callbacks.last._target_=3"], "callbacks.last._target_ must be a dotted name"),
    ],
)
def test_a_node_that_is_wrong(cli, words, answer):
    """One line says what, for a name with a typo, a wrong argument, and keys of Hydra's."""
    code, _out, err = cli("train", *QUICK, "logger=none", *words)
    assert (code, err.count("\n")) == (2, 1)
    assert err.startswith(f"error: {answer}")


GROUPS = ("callbacks", "trainer", "debug")


@pytest.mark.parametrize(
    "words", [f"{group}={name}" for group in GROUPS for name in options(group)]
)
def test_every_option_of_ours_builds(compose, words):
    """Callbacks and trainers of conf/ are of the kinds that are asked for."""
    config = compose(words)
    built = [build(f"callbacks.{name}", node, Callback) for name, node in config.callbacks.items()]
    if words == "trainer=gpu" and not torch.cuda.is_available():
        with pytest.raises(SettingError, match="Type trainer=auto"):
            build("trainer", config.trainer, pl.Trainer)
        return
    trainer = build("trainer", config.trainer, pl.Trainer, logger=False, callbacks=built)
    assert set(built) <= set(trainer.callbacks)


def test_what_arguments_of_a_trainer_may_be(compose):
    """Strategies, plugins, profilers and what these need are built, in lists too."""
    plugins = "lightning.pytorch.plugins"
    config = compose(
        "trainer=cpu",
        "+trainer.strategy={_target_:lightning.pytorch.strategies.DDPStrategy,"
        "timeout:{_target_:datetime.timedelta,minutes:5}}",
        f"+trainer.plugins=[{{_target_:{plugins}.environments.LightningEnvironment}},"
        f"{{_target_:{plugins}.io.TorchCheckpointIO}}]",
        "+trainer.profiler={_target_:lightning.pytorch.profilers.SimpleProfiler}",
    )
    trainer = build("trainer", config.trainer, pl.Trainer, logger=False)
    assert trainer.strategy._timeout.total_seconds() == 300
    assert isinstance(trainer.profiler, pl.profilers.SimpleProfiler)
    config = compose(
        "~trainer.precision",
        f"+trainer.plugins={{_target_:{plugins}.MixedPrecision,precision:16-mixed,device:cpu,"
        "scaler:{_target_:torch.amp.GradScaler,device:cpu,init_scale:8.0}}",
    )
    trainer = build("trainer", config.trainer, pl.Trainer, logger=False, accelerator="cpu")
    assert trainer.precision_plugin.scaler.get_scale() == 8


def test_a_callback_and_a_logger_of_ones_own(cli, here):
    """Classes in the current folder serve; plain arguments come as they are written."""
    (here / "mine.py").write_text(
        "import json\nfrom pathlib import Path\n\n"
        "from lightning.pytorch import Callback, Trainer\n"
        "from lightning.pytorch.loggers import CSVLogger\n\n\n"
        "class Note(Callback):\n"
        "    def __init__(self, words):\n        self.words = words\n\n"
        "    def on_train_end(self, trainer, pl_module):\n"
        "        seen = [self.words, type(trainer).__name__]\n"
        "        Path('note.json').write_text(json.dumps(seen))\n\n\n"
        "class Mine(Trainer):\n    pass\n\n\n"
        "class Table(CSVLogger):\n    pass\n"
    )
    code, _out, err = cli(
        *("train", *QUICK, "callbacks=none", "trainer._target_=mine.Mine"),
        "+callbacks.note={_target_:mine.Note,words:{a:[1,{b:x}]}}",
        *("logger=none", "~logger.kind", "+logger._target_=mine.Table", "+logger.save_dir=table"),
    )
    assert (code, err) == (0, "")
    assert Path("note.json").read_text() == '[{"a": [1, {"b": "x"}]}, "Mine"]'
    assert list(Path("table").rglob("metrics.csv"))
