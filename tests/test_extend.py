"""The examples of docs/extend.md, run from a folder outside the package."""

import csv
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import snntorch as snn
import torch
from forked import finish
from PIL import Image

from saformer.data.events import Events
from saformer.data.readers import read
from saformer.data.readers.aedat2 import write_aedat2
from saformer.energy import apply, count
from saformer.energy.costs import cost_model
from saformer.errors import DataError, SettingError
from saformer.models.neuron import build_neuron
from saformer.models.settings import NeuronConfig
from saformer.results.rows import compose_rows
from saformer.results.settings import read_table, table_path
from saformer.runs.identity import defining

PAGE = (Path(__file__).parents[1] / "docs" / "extend.md").read_text()
FILES = re.findall(r"^`([\w/]+\.(?:py|yaml))`\n\n```(?:python|yaml)\n(.*?)^```$", PAGE, re.M | re.S)
COMMANDS = re.findall(r"^saformer-.*$", "".join(re.findall(r"```bash\n(.*?)```", PAGE, re.S)), re.M)
TINY = [
    *("trainer=cpu", "logger=none", "epochs=1", "scheduler.warmup_epochs=0", "timesteps=2"),
    *("callbacks=none", "plots=false"),
]
FEW = "dataset.train_subset=100"  # of the digits


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> Path:
    """A folder with every file of the page, and small data for its datasets."""
    folder = tmp_path_factory.mktemp("outside")
    for name, content in FILES:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    draw = np.random.default_rng(0)
    for part, each in (("train", 12), ("test", 3)):
        for shade, name in ((0, "dark"), (128, "light")):
            place = folder / "data" / "photos" / part / name
            place.mkdir(parents=True)
            for i in range(each):
                pixels = draw.integers(shade, shade + 128, (20, 24, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(place / f"{i}.png")
    for name in ("left", "right"):
        place = folder / "data" / "movements" / name
        place.mkdir(parents=True)
        for i in range(15):
            x, y, p = (draw.integers(0, high, 200) for high in (128, 128, 2))
            write_aedat2(place / f"{i}.aedat", Events(np.arange(200) * 50, x, y, p))
    return folder


@pytest.fixture
def outside(written, monkeypatch) -> Iterator[Path]:
    """Work in that folder, and forget its modules afterwards."""
    monkeypatch.chdir(written)
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path])
    before = set(sys.modules)
    yield written
    for name in set(sys.modules) - before:
        if str(written) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]
    cost_model.cache_clear()


def test_the_page_has_whole_files_and_a_command_for_each_kind():
    """Five kinds, datasets twice: a module and an option, but a table is an option alone."""
    names = [name for name, _ in FILES]
    groups = [name.split("/")[1] for name in names if name.startswith("conf/")]
    assert groups == ["dataset", "dataset", "attention", "neuron", "energy", "paper"]
    assert len(names) - len(groups) == 5
    words = [word for line in COMMANDS for word in re.split(r"[ =]", line)]
    assert all(Path(name).stem in words for name in names if name.startswith("conf/"))


# ---- the examples, read and built ----


def test_a_folder_of_images(outside, compose):
    """Images come scaled, with classes by folder, and the test set is the folder `test`."""
    config = compose("dataset=photos", "augment=none")
    source = read(config.dataset, config.timesteps)
    assert source.x.shape == (30, 3, 16, 16) and source.x.dtype == torch.uint8
    assert len(source.train) == 24 and len(source.test) == 6
    assert [source.names[i].split("/")[:2] for i in source.test[::3]] == [
        ["test", "dark"],
        ["test", "light"],
    ]
    light = torch.stack([image.float().mean() for image in source.x]) > 127
    assert source.y.tolist() == light.long().tolist()


def test_a_damaged_image_is_named(outside, compose):
    """The reader of the page answers a file that is no image in one line."""
    config = compose("dataset=photos", "augment=none")
    broken = outside / "data/photos/train/dark/0.png"
    whole = broken.read_bytes()
    broken.write_bytes(b"not an image")
    try:
        with pytest.raises(DataError, match=r"dark/0\.png: expected an image, found 12 bytes"):
            read(config.dataset, config.timesteps)
    finally:
        broken.write_bytes(whole)


def test_a_folder_of_aedat_files(outside, compose):
    """Every event is in a frame, and a tenth of each class is tested on."""
    config = compose("dataset=movements", "augment=events", "timesteps=4")
    source = read(config.dataset, config.timesteps)
    assert source.x.shape == (30, 4, 2, 32, 32)
    assert source.x.flatten(1).sum(1, dtype=torch.int64).tolist() == [200] * 30
    assert len(source.test) == 3 and set(source.y[source.test].tolist()) == {0, 1}
    assert source.names[0] == "left/0.aedat"


def test_an_attention(outside, backbone):
    """Its parameters learn, its option is read, and its operations are counted by their markers."""
    torch.manual_seed(0)
    for axis, shape in ((-1, (4, 1)), (-2, (1, 4))):
        model = backbone("attention=row_gate", f"attention.options.axis={axis}", "timesteps=2")
        masks = []
        model.blocks[0].attn.mask.register_forward_hook(lambda m, a, y, to=masks: to.append(y))
        x = torch.randn(4, 1, 8, 8)
        assert model(x).shape == (2, 4, 10)
        assert masks[0].shape == (2, 4, 64, *shape)
    model(x).sum().backward()
    assert all(p.grad is not None for p in model.parameters())
    found = {layer.name: layer.kind.value for layer in count(model, x).layers}
    kinds = {"meet": "mask", "count": "sum", "gate": "mask", "mask": "neuron"}
    assert {name: found[f"blocks.0.attn.{name}"] for name in kinds} == kinds


def test_a_neuron(outside, backbone, compose):
    """It is snnTorch's own, step by step, in every place, and keeps nothing between calls."""
    layer = build_neuron(compose("neuron=synaptic").neuron, v_threshold=0.7)
    stock = snn.Synaptic(alpha=0.5, beta=0.5, threshold=0.7, reset_mechanism="zero")
    x = torch.randn(4, 3, 5, generator=torch.Generator().manual_seed(0)) * 2
    syn, mem = torch.zeros(3, 5), torch.zeros(3, 5)
    expected = []
    for step in x:
        spike, syn, mem = stock(step, syn, mem)
        expected.append(spike)
    assert torch.equal(layer(x), torch.stack(expected)) and layer(x).any()
    assert torch.equal(layer(x), layer(x)) and layer.mem.numel() == layer.syn.numel() == 0
    assert layer(torch.full((1, 1), 0.7)).all()  # at the threshold: neuron.fire=ge

    model = backbone("neuron=synaptic", "timesteps=2")
    kinds = {type(part) for part in model.modules() if isinstance(part, snn.SpikingNeuron)}
    assert [kind.__name__ for kind in kinds] == ["Synaptic"]
    images = torch.randn(4, 1, 8, 8)
    model(images).sum().backward()
    assert all(p.grad is not None for p in model.parameters())
    neurons = [layer.name for layer in count(model, images).layers if layer.kind.value == "neuron"]
    assert len(neurons) == sum(isinstance(part, snn.SpikingNeuron) for part in model.modules())


def test_a_neuron_trains_as_bits_and_as_floats(outside, backbone, compose):
    """What the memory settings do for our own neuron does no harm to another: equal gradients."""
    x = torch.randn(4, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    found = []
    for words in (["memory.spikes=float"], ["memory.spikes=bit", "memory.recompute=neurons"]):
        memory = compose(*words).memory
        model = backbone("neuron=synaptic", "timesteps=2", memory=memory).train()
        model(x).square().sum().backward()
        found.append([p.grad for p in model.parameters()])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other)
    assert any(grad.abs().sum() > 0 for grad in found[0])


def test_a_hardware_model(outside, compose, backbone):
    """It prices by its equations, under its own name, and the settings check its name first."""
    assert compose("energy=chip").energy.costs == ["horowitz45", "chip.Chip"]
    counted = apply(count(backbone("timesteps=2"), torch.randn(4, 1, 8, 8)))
    cost = cost_model("chip.Chip").cost(counted)
    assert (cost.name, cost.technology) == ("chip_made_up", "none, made up")
    rows = counted.rows
    updates = sum(row.inputs for row in rows if row.kind.value == "neuron")
    assert cost.parts["macs"] == pytest.approx(5 * sum(row.macs for row in rows))
    assert cost.parts["updates"] == pytest.approx(2 * updates)
    assert cost.ann_pJ == pytest.approx(5 * sum(row.dense for row in rows))


def test_a_table(outside):
    """Its rows are what their overrides say, by the name of the file alone."""
    rows = compose_rows("gates", read_table(table_path("gates")), [])
    assert [row.label for row in rows] == ["SASA", "rows", "columns"]
    assert [row.config["attention"]["options"] for row in rows] == [{}, {"axis": -1}, {"axis": -2}]
    # Two rows that differ in an option alone are two experiments.
    assert defining(rows[1].config) != defining(rows[2].config)


@pytest.mark.slow
def test_every_command_finds_the_options(outside, cli):
    """Help, lists and tab completion name them beside the package's."""
    _code, out, _err = cli("train", "--help")
    assert "attention: dwconv, identity, pooling, qkca, qkta, random, row_gate, sasa" in out
    _code, out, _err = cli("data", "list")
    assert "photos" in out and "fashion_mnist" in out
    code, _out, err = cli("train", "neuron=synaptc")
    assert code == 2 and err.startswith(
        "error: neuron has no option 'synaptc'. Did you mean 'synaptic'? Options: if, lif,"
    )
    code, _out, err = cli("table", "gate")
    assert code == 2 and err.startswith("error: there is no table 'gate'. Did you mean 'gates'?")


# ---- the commands, as they stand in the page ----


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_of_the_page(outside, command):
    """It runs from the folder, with a tiny training, and its results name what was added."""
    name, *words = command.split()
    folder = outside / "runs" / re.sub(r"\W+", "-", command)
    entry = name.removeprefix("saformer-")
    if entry == "train":
        words += [*TINY, *([] if "dataset=" in command else [FEW])]
        words += [f"hydra.run.dir={folder}"]
    elif entry == "table":
        table = outside / "conf" / "paper" / "gates.yaml"
        table.write_text(table.read_text().replace("[0, 1, 2]", "[0]"))  # three trainings, not nine
        words += [*TINY, FEW, f"--outputs={folder}", f"--out={folder}"]
    # As the installed command does: without the current folder in front of what is installed.
    log = outside / f"{folder.name}.log"
    code = finish(outside, *words, command=entry, log=log.name)
    printed = log.read_text()
    assert code == 0, printed[-2000:]
    if entry == "train":
        added = words[0].partition("=")[2]
        assert "test/top1" in json.loads((folder / "results.json").read_text())["test"]
        report = json.loads((folder / "energy" / "energy.json").read_text())
        run = report["config"]
        named = {
            "photos": run["dataset"]["reader"] == "image_folder",
            "movements": run["dataset"]["reader"] == "aedat_folder",
            "row_gate": "blocks.0.attn.meet" in {row["layer"] for row in report["layers"]},
            "synaptic": run["neuron"]["layer"] == "synaptic.Synaptic",
            "chip": "chip_made_up" in {cost["model"] for cost in report["costs"]},
        }
        assert named[added]
    elif entry == "table":
        lines = list(csv.DictReader((folder / "gates.csv").open()))
        assert [line["row"] for line in lines] == ["SASA", "rows", "columns"]
        assert all(line["seeds"] == "0" for line in lines)
    else:
        assert words[1] in printed


@pytest.mark.slow
def test_a_checkpoint_needs_the_module_again(outside, cli, monkeypatch, tmp_path):
    """It is evaluated where the module is, by who names it; elsewhere one line tells of it."""
    folder = outside / "runs" / "kept"
    words = ["attention=row_gate", *TINY, FEW, "callbacks=default", f"hydra.run.dir={folder}"]
    assert cli("train", *words)[0] == 0
    path = folder / "checkpoints" / "best.ckpt"
    assert cli("eval", f"ckpt_path={path}", "attention=row_gate")[0] == 0
    code, _out, err = cli("eval", f"ckpt_path={path}")
    fix = "type attention.branch=row_gate.RowGate "
    assert code == 2 and "wants to import row_gate.RowGate (attention.branch)" in err and fix in err
    named = fix.split()[1]
    assert cli("eval", f"ckpt_path={path}", named)[0] == 0
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [one for one in sys.path if one != str(outside)])
    monkeypatch.delitem(sys.modules, "row_gate")
    code, _out, err = cli("eval", f"ckpt_path={path}", named)
    assert code == 2 and err.startswith(
        "error: attention.branch=row_gate.RowGate: no module 'row_gate' was found."
    )


def test_options_that_a_class_does_not_take(outside, compose, backbone):
    """Unknown ones are named with the nearest, missing ones by name, and so is one not to be."""
    with pytest.raises(SettingError) as error:
        backbone("attention=row_gate", "+attention.options.axs=1")
    assert str(error.value) == (
        "attention.options.axs: RowGate has no such argument. Did you mean 'axis'?"
    )
    synaptic = NeuronConfig(layer="synaptic.Synaptic", decay_input=False)
    with pytest.raises(SettingError, match=r"neuron\.options: Synaptic needs a value for 'alpha'"):
        build_neuron(synaptic)
    with pytest.raises(SettingError, match=r"neuron\.options\.beta: Synaptic has no such argument"):
        build_neuron(NeuronConfig(**vars(synaptic) | {"options": {"alpha": 0.1, "beta": 0.1}}))
    rule = "neuron.decay_input must be false with neuron.layer=synaptic.Synaptic, which is no Multi"
    with pytest.raises(SettingError, match=rule):
        build_neuron(NeuronConfig(layer="synaptic.Synaptic", options={"alpha": 0.1}))
