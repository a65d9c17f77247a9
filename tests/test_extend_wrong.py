"""What can be wrong with parts of one's own, and what is answered."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hydra import initialize_config_dir

from saformer.config.check import check, to_dict
from saformer.config.files import conf_dir, options
from saformer.config.overrides import VERSION_BASE
from saformer.create import create_model
from saformer.data.readers import read
from saformer.energy.costs import cost_model
from saformer.errors import SettingError
from saformer.models.neuron import MultiStepLeaky, build_neuron
from saformer.models.settings import NeuronConfig
from saformer.models.transformer import SAFormer
from saformer.plugins import locate
from saformer.runs.identity import defining

BRANCH = "a subclass of AttentionBranch (with build and attend) or of nn.Module"
WRONG = [
    ("mind.Rows", "x=mind.Rows: no module 'mind' was found. Did you mean 'mine'? There is no "),
    ("mine.Rowz", "x=mine.Rowz: {here}/mine.py has no 'Rowz'. Did you mean 'Rows'?"),
    ("mine", "x must be a type, not mine"),
    ("os.system", "x must be a type, not os.system"),
    ("a/b", "x must be a dotted name like module.Class, not a/b"),
    (".mine", "x must be a dotted name like module.Class, not .mine"),
    ("venv.__main__", "x must have no part that begins with _, not venv.__main__"),
    ("mine._Rows", "x must have no part that begins with _, not mine._Rows"),
    ("a\n.b", "x must be a dotted name like module.Class, not 'a\\n.b'"),
    ("json.decoderz.X", "x=json.decoderz.X: the package json has no 'decoderz'"),
]


@pytest.fixture
def here(tmp_path, monkeypatch) -> Iterator[Path]:
    """An empty folder for options and a module `mine`, which is forgotten."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield tmp_path
    sys.modules.pop("mine", None)
    cost_model.cache_clear()


@pytest.mark.parametrize(("dotted", "answer"), WRONG, ids=[dotted for dotted, _ in WRONG])
def test_a_wrong_name(here, dotted, answer):
    """One line says what was looked for, where, and what is near."""
    (here / "mine.py").write_text("class Rows:\n    pass\n")
    with pytest.raises(SettingError) as error:
        locate("x", dotted, lambda found: isinstance(found, type), "a type")
    line = str(error.value)
    assert line.startswith(answer.format(here=here)) and "\n" not in line


def test_a_file_of_ones_own_replaces_no_library(here):
    """What is installed is found first."""
    (here / "zipapp.py").write_text("create_archive = None\n")
    assert callable(locate("x", "zipapp.create_archive", callable, "a function"))


BROKEN = {
    "import nowhere\n": "line 1: ModuleNotFoundError: No module named 'nowhere'",
    "\n\nx = 1 / 0\n": "line 3: ZeroDivisionError: division by zero",
    "x = (\n": "SyntaxError: '(' was never closed (mine.py, line 1)",
    "import sys\nsys.exit(0)\n": "line 2: SystemExit: 0",
    "raise KeyboardInterrupt\n": "line 1: KeyboardInterrupt",
}


@pytest.mark.parametrize(
    "source", BROKEN, ids=["import", "raises", "syntax", "exits", "interrupts"]
)
def test_a_module_that_cannot_be_imported(here, source):
    """The line of the file and the error stand in the message."""
    (here / "mine.py").write_text(source)
    with pytest.raises(SettingError) as error:
        locate("x", "mine.Rows", lambda found: True, "anything")
    line = str(error.value)
    assert line.startswith("x=mine.Rows cannot be imported: ") and line.endswith(BROKEN[source])


def test_nothing_is_called_before_its_kind_is_known(here, compose):
    """A name out of a strange checkpoint leads to no call: not in a setting of any kind."""
    (here / "mine.py").write_text(
        "from pathlib import Path\n\n\ndef trap(*args, **kwargs):\n    Path('called').touch()\n"
    )
    named = (
        ["attention.name=custom", "attention.branch=mine.trap"],
        ["neuron.layer=mine.trap"],
    )
    for words in named:
        config = compose(*words)
        with pytest.raises(SettingError, match=r"not mine\.trap"):
            SAFormer(
                *(config.model, config.attention, config.neuron),
                in_channels=1, image_size=8, num_classes=10, timesteps=2,
            )  # fmt: skip
    with pytest.raises(SettingError, match=r"not mine\.trap"):
        cost_model("mine.trap")
    for reader in ("mine", "mine.trap", "os"):
        with pytest.raises(SettingError, match="a function read"):
            read(compose(f"dataset.reader={reader}").dataset, 2)
    assert not Path("called").exists()


@pytest.mark.parametrize(
    ("words", "answer"),
    [
        (
            ["attention.name=custom"],
            "attention.branch must be module.Class with attention.name=custom, not null",
        ),
        (
            ["attention.branch=mine.Rows"],
            "attention.branch must stay null with attention.name=sasa, which does not read it, "
            "not mine.Rows",
        ),
        (
            ["+neuron.options.alpha=0.5"],
            "neuron.options must stay {} with neuron.layer=null, which does not read it, "
            "not {'alpha': 0.5}",
        ),
        (
            ["attention.options.axis=1"],
            "attention.options.axis is not set here: type +attention.options.axis=VALUE to add an "
            "argument of attention.branch",
        ),
        (["dataset.name=digit"], "dataset.name has no reader 'digit'. Did you mean 'digits'?"),
    ],
)
def test_settings_that_do_not_fit(cli, words, answer):
    """Names and options without each other, on the command line."""
    code, _out, err = cli("train", *words, "logger=none")
    assert code == 2 and err.startswith(f"error: {answer}")


def test_a_plain_module_as_attention(here, backbone):
    """Any nn.Module serves, where no DWC is wanted of it."""
    (here / "mine.py").write_text(
        "from torch import nn\n\n\nclass Half(nn.Module):\n"
        "    def __init__(self, spec, factor):\n"
        "        super().__init__()\n        self.factor = factor\n\n"
        "    def forward(self, x):\n        return self.factor * x\n"
    )
    words = ["attention.name=custom", "attention.branch=mine.Half"]
    rule = "model.dwc.place must be none or mlp with attention.branch=mine.Half, which is no Atten"
    with pytest.raises(SettingError, match=rule):
        backbone(*words)
    words.append("model.dwc.place=none")
    with pytest.raises(SettingError, match=r"attention\.options: Half needs a value for 'factor'"):
        backbone(*words)
    model = backbone(*words, "+attention.options.factor=0.5")
    assert model.blocks[0].attn.factor == 0.5 and model(torch.randn(2, 1, 8, 8)).shape[2] == 10


def test_a_neuron_of_our_own_kind(here):
    """A subclass of MultiStepLeaky is given every setting, and its own options."""
    (here / "mine.py").write_text(
        "from saformer.models.neuron import MultiStepLeaky\n\n\nclass Late(MultiStepLeaky):\n"
        "    def __init__(self, *args, steps, **kwargs):\n"
        "        super().__init__(*args, **kwargs)\n        self.steps = steps\n\n"
        "    def forward(self, x):\n        y = super().forward(x)\n"
        "        return y.roll(self.steps, 0)\n"
    )
    config = NeuronConfig(tau=3.0, layer="mine.Late", options={"steps": 1})
    late, usual = build_neuron(config), build_neuron(NeuronConfig(tau=3.0))
    x = 4 * torch.rand(4, 5)
    assert isinstance(late, MultiStepLeaky) and late.decay_input
    assert torch.equal(late(x), usual(x).roll(1, 0)) and late(x).any()
    with pytest.raises(SettingError, match=r"neuron.options.step: Late has no such .* 'steps'\?"):
        build_neuron(NeuronConfig(layer="mine.Late", options={"step": 1}))


def test_a_class_that_does_not_take_what_it_is_given(here):
    """One line says what is missing from the signature, for attentions and neurons."""
    (here / "short.py").write_text(
        "import snntorch as snn\nfrom saformer.models.attention.branch import AttentionBranch\n\n"
        "class Branch(AttentionBranch):\n    def build(self, dim): ...\n"
        "    def attend(self, x): return x, x\n\n"
        "class Neuron(snn.Leaky):\n    def __init__(self, beta, threshold):\n"
        "        super().__init__(beta, threshold)\n"
    )
    with pytest.raises(SettingError, match=r"neuron: Neuron.__init__ does not take learn_beta"):
        build_neuron(NeuronConfig(layer="short.Neuron", decay_input=False))
    for branch, lacks in (("short.Branch", "Branch.build"), ("torch.nn.ReLU", "ReLU.__init__")):
        words = {"attention.name": "custom", "attention.branch": branch}
        if branch != "short.Branch":
            words["model.dwc.place"] = "none"
        with pytest.raises(SettingError, match=f"attention: {lacks} does not take"):
            create_model("saformer_tiny", **words)


def test_a_hardware_model_with_a_name_that_is_taken(here):
    """Two models of one name could not be told apart in a report."""
    (here / "mine.py").write_text(
        "from saformer.energy.costs import Horowitz45\n\nSAME = Horowitz45(name='horowitz45')\n"
        "OTHER = Horowitz45(name='other')\n"
    )
    assert cost_model("mine.OTHER").name == "other"
    rule = "energy.costs must give mine.SAME a name of its own, not horowitz45"
    with pytest.raises(SettingError, match=rule):
        cost_model("mine.SAME")


def test_an_option_in_both_places(here, cli):
    """The package's is taken, and a line says that the other is not."""
    (here / "conf" / "neuron").mkdir(parents=True)
    (here / "conf" / "neuron" / "lif.yaml").write_text("tau: 17.0\n")
    (here / "conf" / "neuron" / "slow.yaml").write_text("defaults: [lif]\n\ntau: 5.0\n")
    assert options("neuron")["lif"] == conf_dir() / "neuron" / "lif.yaml"
    done = subprocess.run(
        [sys.executable, "-m", "saformer.cli", "neuron=slow", "--cfg", "job"],
        capture_output=True,
        text=True,
    )
    unread = "conf/neuron/lif.yaml is not read: the package has an option of that name\n"
    assert done.stderr == unread and "tau: 5.0" in done.stdout
    code, out, _err = cli("train", "--cfg", "job")
    assert code == 0 and "tau: 2.0" in out


def test_the_clone_is_no_folder_of_ones_own(monkeypatch):
    """Where conf/ is the package's own, nothing is looked up twice."""
    from hydra import compose as composed
    from hydra.core.global_hydra import GlobalHydra

    monkeypatch.chdir(conf_dir().parent)
    with initialize_config_dir(str(conf_dir()), version_base=VERSION_BASE):
        composed("train")
        found = GlobalHydra.instance().config_loader().get_search_path().get_path()
    assert [one.provider for one in found] == ["hydra", "main", "schema"]


def test_a_run_that_is_older_than_these_settings(compose):
    """Settings of a checkpoint or a run folder without them are the same experiment."""
    config = to_dict(compose())
    older = json.loads(json.dumps(config))
    for group, names in (
        ("attention", ("branch", "options")),
        ("neuron", ("layer", "options")),
        ("dataset", ("reader",)),
    ):
        for name in names:
            del older[group][name]
    from omegaconf import OmegaConf

    assert to_dict(check(OmegaConf.create(older))) == config
    assert defining(older) == defining(config)
