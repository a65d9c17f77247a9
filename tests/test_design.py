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
MAY_IMPORT = {
    # What a room may know of the others; its own files and the ground go without saying.
    "models": {"plugins"},
    "data": {"plugins"},
    "energy": {"plugins", "files", "finite", "generators", "models.spike_ops"},
    "results": {"config", "files", "lock", "style"},
    "spikes": {"style", "energy.counter", "energy.fold", "generators", "models"},
    "export": {
        *("classifier", "config", "data", "files", "generators", "models"),
        *("provenance", "words"),
    },
    "interop": {"config", "finite", "models", "module", "overrides", "weights_file", "words"},
    "callbacks": {
        *("checkpoint", "config", "data", "energy", "files", "generators", "models", "plugins"),
        *("provenance", "spikes"),
    },
}
COMMANDS = {
    # Files of these rooms that are a command line of their own, and what they need for it.
    "data/commands.py": {"config", "overrides", "words"},
    "results/commands.py": {"config", "overrides", "words"},
    "results/plots/commands.py": {"config", "spikes", "words"},
    "spikes/__init__.py": {"checkpoint", "config", "experiment", "overrides"},
}
KNOW_HYDRA = {"cli.py", "config.py", "overrides.py", "sweep.py", "cluster.py"}
KNOW_LIGHTNING = {
    "experiment.py",
    "module.py",
    "logger.py",
    "noise.py",
    "provenance.py",
    "resume.py",
    "targets.py",
}
KNOW_LIGHTNING |= {"data/module.py"}


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
    everywhere = {room, "errors", "escape", "names", "ranges", "suggest"}
    for path in FILES:
        if path.relative_to(SOURCE).parts[0] != room:
            continue
        allowed = everywhere | MAY_IMPORT[room] | COMMANDS.get(name_of(path), set())
        strays = {
            module
            for module in imports(path)
            if module.startswith("saformer.") and not known(module, allowed)
        }
        # `from saformer import style` names the package, and then what it wants of it.
        assert not strays, f"{name_of(path)} imports {sorted(strays)}"


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
        if name != "experiment.py" and not name.startswith("callbacks/"):
            assert not any(known(module, {"callbacks"}) for module in imports(path)), name


def test_few_know_hydra_and_lightning():
    """Hydra is known to the command line, Lightning to what trains; models know neither."""
    for path in FILES:
        name, roots = name_of(path), {module.partition(".")[0] for module in imports(path)}
        assert "hydra" not in roots or name in KNOW_HYDRA, name
        lightning = name in KNOW_LIGHTNING or name.startswith("callbacks/")
        assert not roots & {"lightning", "pytorch_lightning"} or lightning, name


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_a_file_is_one_concept(path):
    """No file is longer than about 400 lines."""
    assert len(path.read_text().splitlines()) <= 400


def test_settings_import_no_torch():
    """The command line answers at once, because what it needs for that imports no torch."""
    code = (
        "import sys, saformer.cli, saformer.config, saformer.results.settings, saformer.overrides;"
        "assert not {'torch', 'numpy', 'lightning', 'matplotlib'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
