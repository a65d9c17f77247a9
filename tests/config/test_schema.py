"""Every option of every group composes, and the schema is what the files say."""

import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from omegaconf import OmegaConf

from saformer.config.check import setting_names, to_dict
from saformer.config.files import conf_dir
from saformer.config.schema import Config, defaults
from saformer.dotted import leaves

GROUPS = [
    (path.parent.name, path.stem)
    for path in sorted(conf_dir().glob("*/*.yaml"))
    if path.parent.name not in ("hydra", "local", "paper")  # paper: tables, not settings
]
ROOT = Path(__file__).parents[2]


# Other everyday tests build every model and experiment.
OPTIONS = [
    pytest.param(*one, marks=[pytest.mark.slow] if one[0] in ("model", "experiment") else [])
    for one in GROUPS
]


@pytest.mark.parametrize(("group", "option"), OPTIONS, ids=lambda value: value)
def test_every_option_composes(compose, group, option):
    """Each file of conf/ gives a configuration that passes the checks."""
    # The default dataset, digits, forbids the flips that most of these files have.
    lifted = ["dataset.flippable=true"] if group == "augment" else []
    if option in ("events", "gesture"):
        lifted.append("dataset=digits_events")
    config = compose(f"{group}={option}", *lifted)
    assert isinstance(config, Config)


@pytest.mark.parametrize("ablation", [option for group, option in GROUPS if group == "ablation"])
def test_every_ablation_changes_the_model_and_nothing_else(compose, ablation):
    """An ablation differs from the default in model or attention, unless it names the default.

    Only rate coding leaves pixels as they are, since they are its probabilities."""
    default, changed = to_dict(compose()), to_dict(compose(f"ablation={ablation}"))
    differing = {key for key in default if default[key] != changed[key]}
    data = {"dataset"} if ablation == "rate_coding" else set()
    assert data <= differing <= {"model", "attention"} | data
    assert bool(differing) == (ablation not in ("none", "sasa_qk_tokens"))


def test_every_setting_of_the_schema_stands_in_the_files(compose):
    """`--cfg job` shows every setting: no field hides behind a default of the schema."""
    shown = compose_raw()
    absent = object()
    missing = [n for n in setting_names() if OmegaConf.select(shown, n, default=absent) is absent]
    assert missing == []


def compose_raw():
    from hydra import compose, initialize_config_dir

    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        return compose("train", ["ckpt_path=x"])


def test_a_configuration_survives_its_plain_form(compose):
    """What a checkpoint keeps is plain data and gives back the same configuration."""
    from saformer.config.check import check

    config = compose("neuron=plif", "ablation=dwc_mlp")
    plain = to_dict(config)
    assert check(OmegaConf.create(plain)) == config
    assert plain["model"]["dwc"]["place"] == "mlp"


def test_the_command_line_imports_no_torch():
    """Help and errors must be instant: entry points and schema do not load torch."""
    code = (
        "import sys, saformer.cli; "
        "sys.exit(any(m in sys.modules for m in ('torch', 'lightning', 'wandb')))"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_models_know_nothing_of_training(tmp_path):
    """Arrows go one way: models import neither data, Hydra, Lightning nor wandb."""
    code = (
        "import sys, saformer.models.transformer; "
        "bad = ('hydra', 'omegaconf', 'lightning', 'wandb', 'saformer.data', 'saformer.config'); "
        "sys.exit(any(m in sys.modules for m in bad))"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_help_and_completion_answer(cli):
    """--help names the groups, --cfg job the settings."""
    code, out, _err = cli("train", "--help")
    assert code == 0
    assert "ablation: attention_off, dwc_mlp" in out
    code, out, _err = cli("train", "--cfg", "job")
    assert code == 0
    assert "timesteps: 4" in out


def test_completion_of_an_option(tmp_path):
    """Tab completion offers the options of a group."""
    import os

    env = {**os.environ, "COMP_LINE": "train.py dataset=", "COMP_POINT": "17"}
    done = subprocess.run(
        [sys.executable, ROOT / "train.py", "-sc", "query=bash"],
        capture_output=True,
        text=True,
        env=env,
        cwd=tmp_path,
    )
    options = sorted(path.stem for path in (conf_dir() / "dataset").glob("*.yaml"))
    assert {"cifar10", "digits"} < set(options)
    assert sorted(done.stdout.split()) == [f"dataset={option}" for option in options]


def test_a_default_has_one_place():
    """A file of conf/ that inherits from no other says only what differs from its dataclass."""
    usual = leaves(defaults())
    for group in ("attention", "augment", "dataset", "energy", "model", "neuron", "optimizer"):
        for path in (ROOT / "conf" / group).glob("*.yaml"):
            node = yaml.safe_load(path.read_text())
            if "defaults" not in node:
                repeated = [
                    name
                    for name, value in leaves({group: node}).items()
                    if name in usual and usual[name] == value
                ]
                assert not repeated, f"{path.name}: {repeated}"
