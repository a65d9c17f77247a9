"""The package as a library: networks by name, trained ones from a file, counts, without Hydra."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import saformer
from saformer.config.check import to_dict
from saformer.config.files import conf_dir
from saformer.config.schema import Config
from saformer.create import build_backbone
from saformer.data.readers.digits import NUM_TEST, load
from saformer.errors import CheckpointError, SettingError
from saformer.models.attention.settings import AttentionName
from saformer.models.settings import DWCPlace

SHORT = (
    *("logger=none", "trainer=cpu", "dataset.train_subset=200", "hydra.run.dir=run"),
    *("epochs=2", "scheduler.warmup_epochs=0", "callbacks=default", "energy=exact"),
)
INPUTS = {"saformer_tiny": (1, 8), "qkformer_4_384": (3, 32), "sdt_2_256_events": (2, 128)}


@pytest.fixture(scope="module")
def short_run(shared_run) -> Path:
    """Folder of a short run on digits."""
    return shared_run(*SHORT)


@pytest.fixture
def checkpoint(short_run) -> str:
    """Best checkpoint of a copy of that run."""
    shutil.copytree(short_run / "run", "run")
    return "run/checkpoints/best.ckpt"


def test_importing_the_package_imports_nothing_heavy():
    """`import saformer` loads neither torch nor Hydra, and making a network no Lightning."""
    code = (
        "import sys, saformer; loaded = set(sys.modules); "
        "assert not loaded & {'torch', 'hydra', 'lightning', 'numpy'}, loaded; "
        "saformer.create_model('saformer_tiny'); saformer.load; saformer.energy.count; "
        "assert not {'lightning', 'pytorch_lightning', 'wandb'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_every_preset_is_listed():
    """`list_models` has every file of conf/model, and patterns choose among them."""
    assert saformer.list_models() == sorted(p.stem for p in (conf_dir() / "model").glob("*.yaml"))
    assert saformer.list_models("qkformer_*_384") == ["qkformer_10_384", "qkformer_4_384"]
    assert saformer.list_models("vit*") == []


@pytest.mark.parametrize("name", INPUTS)
def test_a_preset_takes_the_input_it_is_for(name):
    """Without more words a network takes the images or frames of its preset."""
    channels, side = INPUTS[name]
    model = saformer.create_model(name, num_classes=7, timesteps=2).eval()
    frames = (2,) if channels == 2 else ()
    with torch.no_grad():
        assert model(torch.rand(1, *frames, channels, side, side)).shape == (2, 1, 7)


def test_a_network_is_that_of_the_command_line(backbone):
    """The same words make the same network with the same weights, here and there."""
    words = {"attention": "ssa", "depth": 2, "model.dwc.place": DWCPlace.none, "neuron.tau": 1.5}
    torch.manual_seed(0)
    model = saformer.create_model("saformer_2_256", num_classes=100, **words)
    there = backbone(
        *("dataset=cifar100", "augment=none", "model=saformer_2_256", "attention=ssa"),
        *("model.depth=2", "model.dwc.place=none", "neuron.tau=1.5"),
    )
    state = there.state_dict()
    assert model.state_dict().keys() == state.keys()
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())


def test_groups_and_other_sizes():
    """Ablations, rate coding and other input sizes are one word each."""
    without = saformer.create_model("saformer_2_256", ablation="no_dwc")
    assert not any("dwc" in name for name, _ in without.named_parameters())
    rate = saformer.create_model("saformer_tiny", encoding="rate", timesteps=3).eval()
    assert rate(torch.rand(2, 1, 8, 8)).shape == (3, 2, 10)
    large = saformer.create_model("saformer_2_256", image_size=64, in_channels=1, patch_size=8)
    assert large.eval()(torch.rand(1, 1, 64, 64)).shape == (4, 1, 10)
    plain = saformer.create_model(
        "saformer_tiny",
        attention=AttentionName.identity,
        **{"model.dwc": {"place": DWCPlace.none}},
    )
    assert plain.blocks[0].attn is None


@pytest.mark.parametrize(
    ("arguments", "answer"),
    [
        ({"name": "saformer_4_385"}, "there is no model 'saformer_4_385'. Did you mean"),
        ({"name": "vit"}, "there is no model 'vit'. saformer.list_models() lists all."),
        ({"dept": 2}, "create_model has no setting 'dept'. Did you mean 'depth'?"),
        ({"tau": 2.0}, "create_model has no setting 'tau'. Did you mean 'neuron.tau'?"),
        ({"neuron.tu": 2.0}, "there is no setting 'neuron.tu'. Did you mean 'neuron.tau'?"),
        ({"attention": "sssa"}, "attention has no option 'sssa'. Did you mean 'ssa'?"),
        ({"depth": 0}, "model.depth must be at least 1, not 0"),
        ({"depth": "two"}, "model.depth=two"),
        ({"image_size": 0}, "dataset.image_size must be"),
        ({"in_channels": 0}, "dataset.in_channels must be"),
        ({"dataset.num_classes": 7}, "has no setting 'dataset.num_classes': for the input"),
        ({"attention": "a,b"}, "attention has no option 'a,b'"),
        ({"image_size": 9}, "dataset.image_size must be divisible by model.patch_size=2, not 9"),
        ({"num_classes": 0}, "dataset.num_classes must be"),
        ({"timesteps": 0}, "timesteps must be at least 1, not 0"),
    ],
)
def test_a_wrong_word_is_answered(arguments, answer):
    """What create_model cannot do is a SettingError that names the word and the nearest one."""
    with pytest.raises(SettingError) as caught:
        saformer.create_model(**{"name": "saformer_tiny", **arguments})
    assert answer in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_checkpoint_is_a_classifier(checkpoint):
    """`load` classifies bytes and floats as the run's own test did, from the one file alone."""
    alone = Path("alone.ckpt")
    alone.write_bytes(Path(checkpoint).read_bytes())
    classifier = saformer.load(alone)
    assert not classifier.training
    images, labels = load()
    x = torch.from_numpy(images[-NUM_TEST:])[:, None]
    with torch.no_grad():
        logits, floats = classifier(x), classifier(x.float() / 255)
    assert torch.equal(logits, floats)
    with torch.no_grad():
        assert torch.equal(logits, classifier(x.double() / 255))
        assert classifier.to(torch.bfloat16)(x).dtype is torch.bfloat16
    right = (logits.argmax(1).numpy() == labels[-NUM_TEST:]).mean()
    results = json.loads(Path("run/results.json").read_text())
    assert right == pytest.approx(results["test"]["test/top1"], abs=1e-6)


def test_a_classifier_is_counted_as_in_its_run(checkpoint):
    """`energy.count` of a loaded classifier over the test set has the operations of its run."""
    classifier = saformer.load(checkpoint)
    x = torch.from_numpy(load()[0][-NUM_TEST:])[:, None]
    counted = saformer.energy.apply(saformer.energy.count(classifier, x))
    results = json.loads(Path("run/results.json").read_text())
    per_image = counted.acs / 1e9
    assert per_image == pytest.approx(results["energy"]["energy/sop_G"])


def save(config: Config, path: Path) -> None:
    """A checkpoint of an untrained network."""
    weights = {f"backbone.{k}": v for k, v in build_backbone(config).state_dict().items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save({"state_dict": weights, "hyper_parameters": {"config": to_dict(config)}}, path)


def test_a_classifier_of_events(compose):
    """Frames of counts are scaled as in training; another number of frames is refused."""
    save(compose("experiment=digits_events", "timesteps=2"), Path("events.ckpt"))
    classifier = saformer.load("events.ckpt")
    frames = torch.randint(0, 5, (2, 2, 2, 16, 16))
    assert classifier(frames).shape == (2, 10)
    assert torch.equal(classifier(frames), classifier(frames.float()))
    with pytest.raises(ValueError, match="event counts must be finite"):
        classifier(frames / torch.zeros_like(frames))
    with pytest.raises(ValueError, match="3 frames were given to a model of T=2"):
        classifier(torch.zeros(2, 3, 2, 16, 16))
    with pytest.raises(ValueError, match=r"\[B, T, 2, 16, 16\], not \[2, 2, 16, 16\]"):
        classifier(frames[0])
    for size in ((2, 2, 2, 32, 32), (16, 16), (16,)):
        with pytest.raises(ValueError, match=r"\[B, T, 2, 16, 16\], not"):
            classifier(torch.zeros(size))


@pytest.mark.parametrize(
    ("x", "answer"),
    [
        (torch.zeros(2, 3, 8, 8), r"\[B, 1, 8, 8\], not \[2, 3, 8, 8\]"),
        (torch.zeros(8, 8), r"\[B, 1, 8, 8\], not \[8, 8\]"),
        (torch.full((1, 1, 8, 8), 255.0), r"not torch.float32 in 255..255"),
        (torch.full((1, 1, 8, 8), -1.0), r"bytes \(uint8\) or floats in 0..1"),
        (torch.full((1, 1, 8, 8), torch.nan), r"bytes \(uint8\) or floats in 0..1"),
        (torch.full((1, 1, 8, 8), 1000), r"not torch.int64 in 1e\+03"),
    ],
)
def test_wrong_images_are_told(checkpoint, x, answer):
    """Images of another shape, or floats that are not in 0..1, are a ValueError that says so."""
    with pytest.raises(ValueError, match=answer):
        saformer.load(checkpoint)(x)


def test_what_is_no_checkpoint(tmp_path):
    """A path that is missing, or another file, is a CheckpointError that names it."""
    with pytest.raises(CheckpointError, match=r"^none.ckpt does not exist"):
        saformer.load("none.ckpt")
    Path("text.ckpt").write_text("hello")
    with pytest.raises(CheckpointError, match=r"^text.ckpt cannot be read"):
        saformer.load("text.ckpt")


@pytest.mark.slow
def test_the_example_trains_counts_and_draws():
    """examples/library.py learns the digits in a plain loop; it prints and draws what docs show."""
    root = Path(__file__).parents[1]
    done = subprocess.run(
        [sys.executable, root / "examples" / "library.py", "figures"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    shown = (root / "docs" / "library.md").read_text()
    lines = done.stdout.splitlines()
    for line, least in zip(lines, (0.93, 0.8), strict=False):
        assert re.sub(r"\d", "0", line) in re.sub(r"\d", "0", shown)
        assert float(re.search(r"accuracy ([\d.]+)%", line)[1]) >= 100 * least
    assert Path("figures/attention_0.png").stat().st_size > 10_000
    assert lines[3] == "figures/attention_0.png"


def test_the_pages_say_what_is_so(compose):
    """The Python of docs/library.md and README runs as it stands."""
    config = compose("dataset=cifar10", "augment=none", "model=saformer_2_256")
    save(config, Path("outputs/NAME/RUN/checkpoints/best.ckpt"))
    root = Path(__file__).parents[1]
    pages = [(root / "docs" / "library.md").read_text(), (root / "README.md").read_text()]
    blocks = [b for page in pages for b in re.findall(r"```python\n(.*?)```", page, re.DOTALL)]
    scope = {"images": torch.rand(2, 3, 32, 32)}
    for block in blocks:
        exec(block, scope)
    assert scope["logits"].shape == (4, 2, 100)
    assert scope["counted"].dense > 1e8
