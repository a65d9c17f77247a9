"""The cluster page is held against the program: its commands, its launcher, its computed table."""

import re
import shlex
import shutil
from pathlib import Path

import pytest
from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from torch import nn

from benchmarks.expected_time import macs
from saformer.config.files import conf_dir
from saformer.config.overrides import VERSION_BASE

PAGE = (Path(__file__).parents[1] / "docs/cluster.md").read_text()
MACS_PER_SECOND = 7.2e12  # of one GPU, as docs/reproduce.md has it


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


COMMANDS = sorted(
    {
        line.partition("#")[0].partition("train.py")[2].strip()
        for block in blocks("bash")
        for line in block.splitlines()
        if "train.py" in line
    }
)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_composes(cli, command):
    """Each command of the page is a configuration that passes the checks."""
    words = [word for word in shlex.split(command) if word != "-m"]
    # One value of each axis; hydra/launcher and hydra/sweeper are composed as well.
    code, out, err = cli("train", *[re.sub(r",.*", "", word) for word in words], "--cfg", "job")
    assert (code, err) == (0, "") and out


def test_a_cluster_of_ones_own_is_a_file(tmp_path):
    """The launcher file that the page shows changes what it names and leaves the rest."""
    (ours,) = [block for block in blocks("yaml") if "launcher" in block]
    shutil.copytree(conf_dir(), tmp_path / "conf")
    (tmp_path / "conf/launcher/ours.yaml").write_text(ours)
    launchers = []
    with initialize_config_dir(str(tmp_path / "conf"), version_base=VERSION_BASE):
        for name in ("slurm", "ours"):
            config = hydra_compose("train", [f"launcher={name}"], return_hydra_config=True)
            launchers.append(dict(config.hydra.launcher))
    changed = {name for name, value in launchers[0].items() if launchers[1][name] != value}
    assert changed == {"partition", "account"}
    assert launchers[1]["partition"] == "gpu" and launchers[1]["signal_delay_s"] == 120


@pytest.mark.slow
def test_the_computed_table_follows_from_its_formula(compose, backbone):
    """Parameters, BatchNorms, time of a step and what is left of eight GPUs, recomputed."""
    rows = re.findall(r"^\| `(\w+)`, (\d+) images \|(.*)\|$", PAGE, re.MULTILINE)
    assert len(rows) == 4
    for name, images, cells in rows:
        config = compose(f"experiment={name}")
        network = backbone(f"experiment={name}")
        params = sum(p.numel() for p in network.parameters())
        norms = sum(isinstance(module, nn.BatchNorm2d) for module in network.modules())
        t = 3 * macs(config) * int(images) / MACS_PER_SECOND
        expected = [f"{params / 1e6:.1f}", str(norms), f"{1000 * t:.0f}"]
        for bandwidth, latency in ((200e9, 30e-6), (20e9, 30e-6), (11e9, 60e-6)):
            beside = 2 * 7 / 8 * 4 * params / bandwidth + 2 * norms * latency
            expected.append(f"{100 * t / (t + beside):.0f} %")
        assert [cell.strip() for cell in cells.split("|")] == expected
        assert config.dataset.batch_size == int(images)
