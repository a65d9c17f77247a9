"""run.json, with real git repositories."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from saformer.runs.provenance import git_state, write_run_json


def git(folder, *args):
    user = ["-c", "user.name=tester", "-c", "user.email=tester@localhost"]
    subprocess.run(["git", "-C", folder, *user, *args], check=True, capture_output=True)


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A repository with a committed package; no settings of the machine or of a git hook."""
    for name in ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE"):
        monkeypatch.delenv(name, raising=False)
    package = tmp_path / "repo" / "src" / "package"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("x = 1\n")
    git(tmp_path, "init", "-q", "repo")
    git(package, "add", ".")
    git(package, "commit", "-q", "-m", "first")
    return package


def test_a_clean_checkout_has_a_commit_and_no_diff(checkout, tmp_path):
    """Committed code is named by its commit alone."""
    state = git_state(checkout, tmp_path / "git.diff")
    assert len(state.pop("commit")) == 40
    assert state == {"dirty": False, "diff": None, "untracked": []}
    assert not (tmp_path / "git.diff").exists()


def test_uncommitted_changes_are_kept(checkout, tmp_path):
    """The diff restores the changed code exactly, and new files are named."""
    (checkout / "__init__.py").write_text("x = 2  # ä\n")
    (checkout / "new ä.py").write_text("")
    state = git_state(checkout, tmp_path / "git.diff")
    assert state["dirty"] is True
    assert state["diff"] == "git.diff"
    assert state["untracked"] == ["src/package/new ä.py"]
    assert git_state(checkout)["dirty"] is True  # and without a file to keep them in
    git(checkout, "checkout", "--", ".")
    git(checkout.parents[1], "apply", tmp_path / "git.diff")
    assert (checkout / "__init__.py").read_text() == "x = 2  # ä\n"


def test_an_installed_package_is_not_taken_for_the_project_around_it(checkout, tmp_path):
    """A package in a virtual environment inside a repository does not get that one's commit."""
    installed = checkout.parents[1] / ".venv" / "package"
    installed.mkdir(parents=True)
    (installed / "__init__.py").write_text("")
    assert set(git_state(installed, tmp_path / "git.diff").values()) == {None}


def test_no_git_is_no_error(checkout, tmp_path, monkeypatch):
    """Without the git program everything about git is null."""
    monkeypatch.setenv("PATH", str(tmp_path))
    assert set(git_state(checkout, tmp_path / "git.diff").values()) == {None}


def test_every_start_adds_a_record(tmp_path, monkeypatch):
    """A resumed run keeps the record of its first start and adds one of its own."""
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    write_run_json(tmp_path, ["train.py", "lr=1"], 3, {"lr": 1}, {"note": "a"})
    first = json.loads((tmp_path / "run.json").read_text())["starts"]
    monkeypatch.setenv("SLURM_JOB_ID", "42")
    write_run_json(tmp_path, ["train.py"], 3, {"lr": 1}, {})
    both = json.loads((tmp_path / "run.json").read_text())["starts"]
    assert both[:1] == first
    assert [start["slurm"] for start in both] == [None, {"SLURM_JOB_ID": "42"}]
    record = first[0]
    assert (record["command"], record["seed"], record["config"], record["note"]) == (
        ["train.py", "lr=1"],
        3,
        {"lr": 1},
        "a",
    )
    assert record["time"].endswith("+00:00")
    assert record["versions"]["python"] == ".".join(map(str, sys.version_info[:3]))
    for name in ("torch", "snntorch", "numpy"):  # numpy chooses splits and draws augmentation
        assert record["versions"][name]
    assert record["machine"]["cpu"] and record["machine"]["cores"] >= 1
    assert record["machine"]["vectors"]
    names = {path.name for path in Path(tmp_path).iterdir()}
    assert names <= {"run.json", "git.diff", "git-2.diff"}
