"""The house stands as its design says: who may import whom, and how large a file may grow."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src" / "saformer"
FILES = sorted(SOURCE.rglob("*.py"))
GROUND = {
    # What every room may know: it knows none of them.
    *(
        "dotted",
        "errors",
        "escape",
        "files",
        "finite",
        "generators",
        "names",
        "plugins",
        "ranges",
        "suggest",
        "terminal",
    ),
    *("checkpoint", "checkpoint_path", "figure_style", "weights_file"),
}
SETTINGS = {"data.settings", "energy.settings", "models.settings", "models.attention.settings"}
RUN_FOLDERS = {"runs.columns", "runs.folder", "runs.identity", "runs.lock"}
MAY_IMPORT = {
    # What a room may know of the others; its own files and the ground go without saying.
    "models": set(),
    "data": set(),
    "energy": {"models.spike_ops"},
    "config": SETTINGS,
    "spikes": {"energy.axes", "energy.counter", "models"},
    "training": {"config", "create", "data", "energy", "models", "spikes"},
    "export": set(),
    "interop": {"config", "models", "training.module"},
    "runs": {"config", "data", "energy", "training"},
    "results": {"config", *RUN_FOLDERS},
}
"""The rooms without `commands` and what is on top (cli, create, classifier), which know all."""
KNOW_HYDRA = {
    "cli.py",
    "config/overrides.py",
    "config/restore.py",
    "runs/cluster.py",
    "runs/sweep.py",
}
KNOW_LIGHTNING = {
    *("runs/experiment.py", "runs/logger.py", "runs/provenance.py", "runs/quiet.py"),
    *("runs/resume.py", "data/module.py"),
}


def name_of(path: Path) -> str:
    return path.relative_to(SOURCE).as_posix()


def imports(path: Path, run_at_once: bool = False) -> Iterator[str]:
    """Modules that a file imports; with `run_at_once` those at its import alone."""
    tree = ast.parse(path.read_text())
    nodes = list(ast.walk(tree))
    if run_at_once:  # and not within functions or for type checkers
        nodes = [n for n in tree.body if isinstance(n, ast.Import | ast.ImportFrom)]
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def known(module: str, names: set[str]) -> bool:
    return any(f"{module}.".startswith(f"saformer.{name}.") for name in names)


@pytest.mark.parametrize("room", MAY_IMPORT)
def test_arrows_go_one_way(room):
    """A room imports of this project only what its place in the house lets it know."""
    allowed = {room} | GROUND | MAY_IMPORT[room]
    for path in FILES:
        if path.relative_to(SOURCE).parts[0] == room:
            strays = {
                module
                for module in imports(path)
                if module.startswith("saformer.") and not known(module, allowed)
            }
            assert not strays, f"{name_of(path)} imports {sorted(strays)}"


@pytest.mark.parametrize("name", sorted(GROUND))
def test_the_ground_knows_no_room(name):
    """A module on the ground imports of this project only others on the ground."""
    strays = {
        module
        for module in imports(SOURCE / f"{name}.py")
        if module.startswith("saformer.") and not known(module, GROUND)
    }
    assert not strays


def test_every_file_has_a_place():
    """A file is on the ground, in a room, or one of the few on top."""
    top = {"__init__", "cli", "classifier", "create"}
    found = {path.relative_to(SOURCE).parts[0].removesuffix(".py") for path in FILES}
    assert found == {*GROUND, *MAY_IMPORT, *top, "commands"}


def test_no_imports_in_a_circle():
    """What files import when they are imported themselves has no circle."""
    modules = {f"saformer.{name_of(p)[:-3].replace('/', '.')}": p for p in FILES}
    modules = {name.removesuffix(".__init__"): path for name, path in modules.items()}
    graph = {
        name: {other for other in imports(path, run_at_once=True) if other in modules} - {name}
        for name, path in modules.items()
    }
    assert len(list(TopologicalSorter(graph).static_order())) == len(modules)


def test_one_file_knows_all():
    """A training is put together in experiment.py: it alone knows the callbacks."""
    for path in FILES:
        name = name_of(path)
        if name != "runs/experiment.py" and not name.startswith("training/callbacks/"):
            callbacks = {"training.callbacks"}
            assert not any(known(module, callbacks) for module in imports(path)), name


def test_few_know_hydra_and_lightning():
    """Hydra is known to the command line, Lightning to what trains; models know neither."""
    for path in FILES:
        name, roots = name_of(path), {module.partition(".")[0] for module in imports(path)}
        assert "hydra" not in roots or name in KNOW_HYDRA, name
        lightning = name in KNOW_LIGHTNING or name.startswith("training/")
        assert not roots & {"lightning", "pytorch_lightning"} or lightning, name


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_a_file_is_one_concept(path):
    """No file is longer than about 400 lines."""
    assert len(path.read_text().splitlines()) <= 400


def test_settings_import_no_torch():
    """The command line answers at once, because what it needs for that imports no torch."""
    code = (
        "import sys, saformer.cli, saformer.config.check, saformer.results.settings;"
        "assert not {'torch', 'numpy', 'lightning', 'matplotlib'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
