"""What is installed from the wheel works without the clone."""

import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest
import yaml

import saformer

ROOT = Path(__file__).parents[1]
SHORT = (
    *("dataset.train_subset=100", "epochs=2", "scheduler.warmup_epochs=0"),
    *("logger=none", "trainer=cpu"),
)


def run(*words: str | Path, cwd: Path) -> str:
    """Stdout of a command that succeeds."""
    done = subprocess.run(words, capture_output=True, text=True, cwd=cwd)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "build", "--wheel", "--outdir", folder, ROOT, cwd=folder)
    (wheel,) = folder.glob("saformer-*.whl")
    return wheel


def test_the_citation_has_the_version():
    """CITATION.cff names the version that is installed."""
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == saformer.__version__


@pytest.mark.slow
def test_the_wheel_holds_what_the_program_needs(wheel):
    """Beside the code: configs, digits with their licence, and the type marker; no tests."""
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    assert {
        "saformer/conf/train.yaml",
        "saformer/conf/dataset/digits.yaml",
        "saformer/data/assets/digits.npz",
        "saformer/data/assets/digits.LICENSE.md",
        "saformer/py.typed",
    } <= names
    assert all(name.startswith(("saformer/", "saformer-")) for name in names)


@pytest.mark.slow
def test_the_wheel_works_from_another_folder(wheel, tmp_path):
    """In an environment that has the wheel alone, a run is trained, evaluated and tabled."""
    env = tmp_path / "env"
    run(sys.executable, "-m", "venv", "--without-pip", env, cwd=tmp_path)
    python = env / "bin" / "python"
    pip = (sys.executable, "-m", "pip", "--python", python, "install", "--quiet")
    run(*pip, "--no-deps", "--no-index", wheel, cwd=tmp_path)
    # What the wheel depends on is lent by the environment of the tests. The path to the clone that
    # stands there in a .pth file does not come along: such files are read in one's own folder.
    ask = "import sysconfig; print(sysconfig.get_path('purelib'))"
    own = Path(run(python, "-c", ask, cwd=tmp_path).strip())
    (own / "lent.pth").write_text(sysconfig.get_path("purelib") + "\n")
    where = run(python, "-c", "import saformer; print(saformer.__file__)", cwd=tmp_path)
    assert Path(where.strip()).is_relative_to(env)

    folder = tmp_path / "elsewhere"
    folder.mkdir()
    train, evaluate, table = (env / "bin" / f"saformer-{x}" for x in ("train", "eval", "table"))
    assert "test acc" in run(train, *SHORT, "hydra.run.dir=outputs/mine/0", cwd=folder)
    checkpoint = "ckpt_path=outputs/mine/0/checkpoints/best.ckpt"
    assert "test acc" in run(evaluate, checkpoint, cwd=folder)
    (folder / "mine.yaml").write_text(
        "title: Mine\nseeds: [0]\ncolumns: [test_top1, params]\nrows: [{label: mine}]\n"
    )
    shown = run(table, "mine.yaml", *SHORT, cwd=folder)
    assert "mine" in shown and "missing" not in shown
