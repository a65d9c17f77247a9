"""The versions of Python and of packages that are promised are those that are tried."""

import argparse
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
PYPROJECT = (ROOT / "pyproject.toml").read_text()
OF_EXTRAS = (
    *("torchcodec", "optuna", "sqlalchemy", "submitit", "hydra_plugins"),
    *("onnx", "onnxruntime", "onnxscript"),
)
OF_TESTS = ("pytest", "hypothesis", "spikingjelly", "neurobench", "mkdocs")


def workflow() -> dict:
    return yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text())


def pins(path: Path) -> dict[str, str]:
    return dict(re.findall(r"^([\w-]+)==(\S+)$", path.read_text(), re.M))


def test_the_pythons_that_are_promised_are_tried():
    """The oldest and the newest Python of the classifiers bound the package and what CI runs."""
    named = re.findall(r'"Programming Language :: Python :: (3\.\d+)"', PYPROJECT)
    (oldest,) = re.findall(r'requires-python = ">=(3\.\d+)"', PYPROJECT)
    minors = [int(version.removeprefix("3.")) for version in named]
    assert minors == list(range(minors[0], minors[-1] + 1))
    assert named[0] == oldest
    assert f'target-version = "py{oldest.replace(".", "")}"' in PYPROJECT
    jobs = workflow()["jobs"]
    tested = {each["python"] for each in jobs["test"]["strategy"]["matrix"]["include"]}
    assert {named[0], named[-1]} <= tested <= set(named)
    assert jobs["minimal"]["strategy"]["matrix"]["python"] == [named[0], named[-1]]


def test_the_oldest_versions_that_are_allowed_are_tried():
    """CI pins each of them at the lower bound of pyproject.toml."""
    bounds = dict(re.findall(r'^  "([\w-]+)>=([\d.]+)', PYPROJECT, re.M))
    for package, version in pins(ROOT / ".github/oldest.txt").items():
        assert (version + ".").startswith(bounds[package] + "."), package
    assert "torch" in pins(ROOT / ".github/oldest.txt")


@pytest.mark.slow
def test_every_module_is_imported_without_the_extras():
    """What an extra or the tests bring is imported where it is used, never before."""
    script = ROOT / "scripts" / "import_all.py"
    words = [sys.executable, script, *OF_EXTRAS, *OF_TESTS]
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout.split()[0]) > 100


def test_an_argparse_that_reads_every_help_takes_hydras(cli, monkeypatch):
    """The help of Hydra's --shell-completion is no text; Python 3.14 checks what it adds."""

    def check_help(parser: argparse.ArgumentParser, action: argparse.Action) -> None:
        if action.help and "%" in action.help:  # as 3.14 does, on the Pythons before it
            action.help % vars(action)

    if sys.version_info < (3, 14):
        add = argparse._ActionsContainer.add_argument

        def add_argument(self, *args, **kwargs):
            action = add(self, *args, **kwargs)
            self._check_help(action)
            return action

        monkeypatch.setattr(argparse.ArgumentParser, "add_argument", add_argument)
        for each in (argparse._ActionsContainer, argparse.ArgumentParser):
            monkeypatch.setattr(each, "_check_help", check_help, raising=False)
        with pytest.raises(TypeError):
            argparse.ArgumentParser().add_argument("--lazy", help=object())
    code, out, err = cli("train", "--cfg", "job")
    assert (code, err) == (0, "")
    assert "timesteps: 4" in out
