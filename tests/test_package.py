"""What is installed from the wheel works without the clone."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.slow
def test_the_wheel_brings_configs_and_digits(tmp_path):
    """The wheel holds configs, digits and type marker, and its command line answers from them."""
    done = subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--outdir", tmp_path, ROOT],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (wheel,) = tmp_path.glob("saformer-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        archive.extractall(tmp_path / "site")
    assert {
        "saformer/conf/train.yaml",
        "saformer/conf/dataset/digits.yaml",
        "saformer/data/assets/digits.npz",
        "saformer/data/assets/digits.LICENSE.md",
        "saformer/py.typed",
    } <= names
    # The path in front of all others keeps the clone out: what answers is the unpacked wheel.
    code = (
        f"import sys; sys.path.insert(0, {str(tmp_path / 'site')!r}); "
        "import saformer.config; print(saformer.config.conf_dir()); "
        "from saformer.cli import train; sys.argv = ['saformer-train', '--cfg', 'job']; train()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(str(tmp_path / "site" / "saformer" / "conf"))
    assert "timesteps: 4" in done.stdout
