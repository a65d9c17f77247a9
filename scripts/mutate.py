"""Find what the tests do not notice: change one operator or constant of a module, run its tests.

    python -m scripts.mutate src/saformer/models/*.py --sample 5 --seed 0 --json changes.json
    python -m scripts.mutate src/saformer/runs/lock.py --tests tests/runs/test_lock.py

Each change is made in a copy of the repository in a temporary folder, and never in yours. The tests
are the everyday ones of the files of the module's room that name the module, or of all files that
name it, or of its room; `--tests` names others. A change that no test notices is a survivor: a test
lacks an assertion, the code is redundant, or the change makes no difference. Types, decorators,
messages of errors, what is printed and f-strings are not changed.
"""

import argparse
import ast
import contextlib
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

# What the tests import and is not changed: imported once, and every run of the tests is a fork.
PRELOADED = "pytest hypothesis numpy torch torchvision.transforms.v2 torchmetrics snntorch"
PRELOADED += " lightning.pytorch hydra matplotlib.pyplot"
PAIRS = (
    *((ast.Lt, ast.LtE), (ast.Gt, ast.GtE), (ast.Eq, ast.NotEq), (ast.Is, ast.IsNot)),
    *((ast.In, ast.NotIn), (ast.And, ast.Or), (ast.Add, ast.Sub), (ast.Mult, ast.Div)),
    *((ast.BitAnd, ast.BitOr),),
)
SWAPS: dict[type[ast.AST], type[ast.AST]] = {**dict(PAIRS), **{b: a for a, b in PAIRS}}
SWAPS |= {ast.FloorDiv: ast.Mult, ast.Mod: ast.FloorDiv, ast.Pow: ast.Mult}
KEPT = {"annotation", "returns", "decorator_list", "stacklevel", "strict"}  # fields, arguments
KEPT |= {"cast", "isinstance", "print", "rank_zero_info", "rank_zero_warn", "warn"}  # and calls


@dataclass(frozen=True)
class Change:
    """A place in a syntax tree, `parent.field` or its item `index`, and what to put there."""

    parent: ast.AST
    field: str
    index: int | None
    new: ast.AST
    line: int

    def swap(self, new: ast.AST) -> ast.AST:
        """Put a node in the place and return the one that was there."""
        old = getattr(self.parent, self.field)
        if self.index is None:
            setattr(self.parent, self.field, new)
            return old
        old[self.index], former = new, old[self.index]
        return former

    def text(self) -> str:
        """What surrounds the place, on one line."""
        node = self.parent
        if isinstance(getattr(node, "body", None), list):  # a whole block says too much
            node = getattr(node, self.field)
            node = node if self.index is None else node[self.index]
        return " ".join(ast.unparse(node).split())


def replacements(node: ast.AST) -> Iterator[ast.AST]:
    """What a node may become."""
    if type(node) in SWAPS:
        yield SWAPS[type(node)]()
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not | ast.USub):
        yield node.operand
    elif isinstance(node, ast.Constant) and isinstance(node.value, bool):
        yield ast.Constant(not node.value)
    elif isinstance(node, ast.Constant) and isinstance(node.value, int | float):
        yield ast.Constant(node.value + 1)


def is_kept(node: ast.AST) -> bool:
    """Whether a change within a node says nothing about the tests."""
    match node:
        case ast.Raise() | ast.JoinedStr() | ast.If(test=ast.Name(id="TYPE_CHECKING")):
            return True
        case ast.Call(func=ast.Name(id=name) | ast.Attribute(attr=name)) | ast.keyword(arg=name):
            return name in KEPT
    return False


def changes(node: ast.AST, line: int = 1) -> Iterator[Change]:
    """Every change of one place below a node."""
    if is_kept(node):
        return
    line = getattr(node, "lineno", line)
    for field, value in ast.iter_fields(node):
        if field in KEPT:
            continue
        for index, child in enumerate(value) if isinstance(value, list) else [(None, value)]:
            if isinstance(child, ast.AST):
                news = list(replacements(child))
                if isinstance(node, ast.If) and field == "test" and is_kept(node.body[0]):
                    news.append(ast.Constant(False))  # the guard is gone
                at = getattr(child, "lineno", line)
                yield from (Change(node, field, index, new, at) for new in news)
                yield from changes(child, line)


def tests_of(module: Path, root: Path) -> list[str]:
    """The test files that name a module, or else all of its room."""
    parts = module.with_suffix("").parts[1:]
    room, name = ".".join(parts[:-1]), parts[-1]
    names = re.compile(rf"\b{re.escape(room)}(\.{name}\b| import .*\b{name}\b)")
    every = sorted(root.glob("tests/**/test_*.py"))
    naming = [path for path in every if names.search(path.read_text())]
    of_room = [path for path in every if parts[1] in path.parts]
    found = [path for path in naming if path in of_room] or naming or of_room
    return [str(path) for path in sorted(found, key=lambda path: name not in path.stem)]


def run(root: Path, tests: list[str], timeout: float) -> int | None:
    """Run tests in a fork; returns its exit code, or None if that took too long."""
    if (pid := os.fork()) == 0:
        os.setsid()
        os.chdir(root)
        for number in (1, 2):
            os.dup2(os.open(f"log{number}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
        os.environ["PYTHONPATH"] = str(root / "src")  # for the processes that tests start
        sys.path[:0] = [str(root / "src"), str(root)]
        import pytest

        options = ["-x", "-m", "not slow and not slurm", f"--basetemp={root / 'basetemp'}"]
        os._exit(int(pytest.main([*options, *tests])))
    end, done = time.monotonic() + timeout, 0
    while not done and time.monotonic() < end:
        time.sleep(0.02)
        done, status = os.waitpid(pid, os.WNOHANG)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)  # it, or what it left behind
    if done:
        return os.waitstatus_to_exitcode(status)
    os.waitpid(pid, 0)
    return None


def mutate(module: Path, root: Path, tests: list[str], sample: int, seed: int) -> Iterator[dict]:
    """Change a module `sample` times, in one place at a time, and see what its tests say."""
    target = root / module
    tree = ast.parse(source := target.read_text())
    sys.dont_write_bytecode, start = False, time.monotonic()
    if (code := run(root, tests, 600)) != 0:
        log = (root / "log1").read_text()
        raise SystemExit(f"{module}: its tests fail without a change ({code}):\n{log}")
    took = time.monotonic() - start
    print(f"{module}: {took:.1f} s for {' '.join(tests)}", flush=True)
    # A cached module is known by its size and second, which two changes may share.
    sys.dont_write_bytecode = True
    shutil.rmtree(target.parent / "__pycache__", ignore_errors=True)
    drawn = list(changes(tree))
    random.Random(f"{seed}:{module}").shuffle(drawn)
    for change in drawn[:sample]:
        before, old, after = change.text(), change.swap(change.new), change.text()
        target.write_text(ast.unparse(tree))
        change.swap(old)
        verdict = {None: "timeout", 0: "survived"}.get(run(root, tests, 10 + 4 * took), "killed")
        print(f"  {verdict:8} {module}:{change.line}: {before}  ->  {after}", flush=True)
        place = {"module": str(module), "line": change.line}
        yield {**place, "before": before, "after": after, "verdict": verdict, "tests": tests}
    target.write_text(source)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("modules", nargs="+", type=Path, help="files below src/saformer")
    parser.add_argument("--tests", nargs="+", help="instead of those that name the module")
    parser.add_argument("--sample", type=int, default=5, help="changes per module")
    parser.add_argument("--seed", type=int, default=0, help="which changes are drawn")
    parser.add_argument("--json", type=Path, help="file for all changes and what became of them")
    args = parser.parse_args()
    os.environ.update(OMP_NUM_THREADS="1", PYTHONDONTWRITEBYTECODE="1")
    for name in PRELOADED.split():
        __import__(name)
    hypothesis = sys.modules["hypothesis"]
    phases = [hypothesis.Phase.explicit, hypothesis.Phase.generate]  # the least example is no news
    hypothesis.settings.register_profile("mutate", derandomize=True, phases=phases)
    hypothesis.settings.load_profile("mutate")
    found: list[dict] = []
    with tempfile.TemporaryDirectory() as folder:
        files = subprocess.check_output(["git", "ls-files"], text=True).splitlines()
        for path in (Path(folder, name) for name in files):
            path.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(path.relative_to(folder), path)
        for module in args.modules:
            tests = args.tests or tests_of(module, Path())
            found += mutate(module, Path(folder), tests, args.sample, args.seed)
    if args.json:
        args.json.write_text(json.dumps(found, indent=1))
    print(len(found), "changes, not noticed:", sum(e["verdict"] == "survived" for e in found))


if __name__ == "__main__":
    main()
