"""Every test runs in a folder of its own, with one thread, no wandb server and a clean Hydra."""

import copy
import functools
import logging
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import pytest
from filelock import FileLock
from undrawn import undrawn

collect_ignore = []
if find_spec("spikingjelly") is None:  # it wants Python 3.11; these compare with it
    collect_ignore += [
        *("benchmarks/test_benchmarks.py", "commands/test_interop_command.py"),
        *("data/test_aedat.py", "data/test_events.py", "energy/test_oracles.py"),
        *("interop/test_interop_equality.py", "interop/test_interop_names.py"),
        *("models/test_neuron.py", "models/test_surrogate.py"),
    ]
if version("torch").startswith("2.6."):  # writes models that onnxruntime refuses
    collect_ignore += ["export/test_export_onnx.py"]
COMPILED = os.path.join(tempfile.gettempdir(), "saformer-tests-inductor")
pytest_plugins = ["cpu_limit"]
os.environ.setdefault("OMP_NUM_THREADS", "1")  # tests run in parallel; threads would fight


@pytest.fixture(autouse=True)
def clean_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Temporary working folder, no network for wandb, Hydra's global state cleared."""
    from hydra.core.global_hydra import GlobalHydra

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WANDB_MODE", "disabled")
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", COMPILED)
    # As in a terminal; a shell starts what it runs in the background with Ctrl-C ignored.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    root = logging.getLogger()
    writers = list(root.handlers)
    yield
    # Hydra's handler writes to the output that a test captured, which is closed now.
    root.handlers[:] = [handler for handler in root.handlers if handler in writers]
    GlobalHydra.instance().clear()
    sys.modules.pop("mine", None)  # tests write modules of that name, each another one
    for number, handler in handlers.items():  # a command that was interrupted leaves deaf
        signal.signal(number, handler)


@pytest.fixture(scope="session", autouse=True)
def composed_once() -> Iterator[None]:
    """Let Hydra compose a command's words once.

    It does so twice, first for `hydra.mode` alone, which none of our files sets. That takes a tenth
    of a second, in which most of these commands are answered.
    """
    from hydra._internal.hydra import Hydra

    real = Hydra.get_mode

    def get_mode(hydra: Hydra, *args, **options):
        return real(hydra, *args, **options) if "hydra.mode" in str(sys.argv) else None

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Hydra, "get_mode", get_mode)
        yield


@pytest.fixture
def cli(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable:
    """Call an entry point as the command line would; returns (exit code, stdout, stderr).

    Figures are drawn for `plots=true` alone.
    """

    def call(command: str, *args: str) -> tuple[int, str, str]:
        import saformer.cli
        from saformer.runs.cluster import run_id

        run_id.cache_clear()  # a command is a process of its own, with a run folder of its own
        monkeypatch.setattr(sys, "argv", [f"{command}.py", *undrawn(command, args)])
        code = 0
        try:
            commands = {"eval": "evaluate"}
            getattr(saformer.cli, commands.get(command, command))()
        except SystemExit as stop:
            code = stop.code if isinstance(stop.code, int) else 1
        out, err = capsys.readouterr()
        return code, out, err

    return call


@pytest.fixture(scope="module")
def shared_run(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Train once, in a folder that the tests of a module copy from; returns the folder."""

    def call(*words: str, folder: Path | None = None) -> Path:
        import saformer.cli

        folder = folder or tmp_path_factory.mktemp("shared")
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(folder)
            patch.setattr(sys, "argv", ["train.py", *undrawn("train", words)])
            saformer.cli.train()
        return folder

    return call


@pytest.fixture(scope="session")
def default_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of `python train.py` as it is, trained once for all workers.

    What it prints is in the file `printed` there.
    """
    place = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        place = place.parent  # where all of them have theirs
    folder, script = place / "default", Path(__file__).parents[1] / "train.py"
    with FileLock(place / "default.lock"):
        if not folder.exists():
            words = [sys.executable, script, f"hydra.run.dir={folder}", "logger=none"]
            done = subprocess.run(words, capture_output=True, text=True, cwd=place)
            assert done.returncode == 0, done.stderr
            (folder / "printed").write_text(done.stdout)
    return folder


@functools.cache
def composed(*overrides: str):
    """The checked configuration under overrides, which Hydra takes a tenth of a second for."""
    from saformer.config.check import check
    from saformer.config.overrides import compose

    return check(compose(list(overrides)))


@pytest.fixture
def compose() -> Callable:
    """Compose the training configuration under overrides and check it."""
    from saformer.config.files import own_conf_dir

    def call(*overrides: str):
        # Options of one's own may be others in the next test.
        compose = composed.__wrapped__ if own_conf_dir() else composed
        return copy.deepcopy(compose(*overrides))

    return call


@pytest.fixture
def backbone(compose: Callable) -> Callable:
    """Build the backbone of a configuration, in which fields may be changed, with seed 0."""
    import torch

    from saformer.create import build_backbone

    def call(*overrides: str, **changed):
        config = compose(*overrides)
        torch.manual_seed(0)
        return build_backbone(replace(config, **changed))

    return call


@pytest.fixture
def unweighted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Networks have weights of zero: to draw them takes most of the time of a large one."""
    from torch import nn

    for draw in ("kaiming_uniform_", "trunc_normal_"):
        monkeypatch.setattr(nn.init, draw, lambda weight, *_args, **_kwargs: nn.init.zeros_(weight))
