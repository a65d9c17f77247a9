"""docs/energy.md says what the program does: its example, tables, names and commands are run."""

import json
import re
import shlex
from dataclasses import fields
from pathlib import Path

import pytest
import snntorch as snn
import torch
from pages import numbers
from torch import Tensor, nn

from saformer.energy import apply, cost_model, count, preset
from saformer.energy.conventions import PRESETS, Convention
from saformer.energy.costs import FP16, FP32, INT8, INT32, Lemaire2022, MemorySimple, Yan2024Twin
from saformer.energy.fanout import fan_out
from saformer.energy.report import WORDING, latex_row, write
from saformer.energy.settings import CONVENTIONS, COSTS, EnergyConfig
from saformer.energy.summary import scalars
from saformer.energy.table import Kind, Layer, LayerTable, Values
from saformer.models.spike_ops import SpikeMatMul

PAGE = (Path(__file__).parents[2] / "docs" / "energy.md").read_text()
CODE = re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
COMMANDS = [
    line.partition("#")[0].strip()
    for block in re.findall(r"^```bash\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    for line in block.splitlines()
]
# `label   expression = value   remark`, columns two spaces or more apart
BY_HAND = re.compile(r"^(\S.*?)  +([\d(][\d .*/+()-]*) = ([\d.]+)(?:  .*)?$", re.MULTILINE)


def section(title: str) -> str:
    return PAGE.partition(f"## {title}\n")[2].partition("\n## ")[0]


def cells(text: str, first: str) -> list[list[str]]:
    """The rows of the table whose header begins with `first`, without backticks."""
    lines = text[text.index(f"| {first} |") :].partition("\n\n")[0].splitlines()
    rows = [[cell.strip().replace("`", "") for cell in line.split("|")[1:-1]] for line in lines]
    return [rows[0], *rows[2:]]


def grids() -> dict[str, Tensor]:
    """Every grid of numbers that the page draws, by the name above it."""
    found: dict[str, Tensor] = {}
    for block in re.findall(r"^```text\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL):
        for part in block.split("\n\n"):
            header, *lines = part.splitlines()
            names = re.split(r"  +", header)
            starts = [header.index(name) for name in names]
            columns = [
                [line[a:b].split() for line in lines]
                for a, b in zip(starts, [*starts[1:], None], strict=True)
            ]
            if re.fullmatch(r"[\d. \n]+", "\n".join(lines)):
                for name, rows in zip(names, columns, strict=True):
                    found[name] = torch.tensor([[float(x) for x in row] for row in rows if row])
    return found


def decimals(shown: str) -> int:
    return len(shown.partition(".")[2])


@pytest.fixture
def net() -> nn.Module:
    """The network that the page builds."""
    scope: dict = {}
    exec(CODE[1], scope)
    return scope["Net"]()


@pytest.fixture
def image() -> Tensor:
    """The image that the page draws, as a batch of one."""
    return grids()["image"][None, None]


@pytest.fixture
def table(net, image) -> LayerTable:
    return count(net, image)


def test_the_network_fires_as_drawn(net, image):
    """Its two layers of neurons give the spikes of the page, step by step, channel by channel."""
    fired: dict[str, list[Tensor]] = {"lif1": [], "lif2": []}
    for name, spikes in fired.items():
        net.get_submodule(name).register_forward_hook(
            lambda _m, _i, out, s=spikes: s.append(out[0])
        )
    with torch.no_grad():
        net(image)
    drawn = grids()
    assert set(drawn["image"].unique().tolist()) == set(torch.tensor([0.1, 0.8, 1.6]).tolist())
    for t in (0, 1):
        assert torch.equal(fired["lif1"][t][0, 0], drawn[f"lif1, t = {t + 1}"])
        for c in (0, 1):
            name = f"lif2, t = {t + 1}, channel {c + 1}"
            assert torch.equal(fired["lif2"][t][0, c], drawn[name]), name


def test_the_fan_out_map_is_the_one_drawn(net, image):
    """The map that is counted with is that of the page, once for each output channel."""
    out = net.conv2(image)
    assert torch.equal(fan_out(net.conv2, image, out).map[0], 2 * grids()["F"].double())


def expected(table: LayerTable, net: nn.Module) -> dict[str, float]:
    """What the program says for every line that the page computes by hand."""
    of = {layer.name: layer for layer in table.layers}
    conv1, conv2, head = of["conv1"], of["conv2"], of["head"]
    at = conv2.nonzero_t
    steps = []  # the operations of each step alone, from the spikes that are drawn
    for t in (1, 2):
        spikes = grids()[f"lif1, t = {t}"]
        assert spikes.sum() == at[t - 1]
        steps.append((2 * grids()["F"] * spikes).sum().item())
    assert sum(steps) == conv2.ops
    costs = {
        name: cost_model("horowitz45").cost(apply(table, preset(name))) for name in CONVENTIONS
    }
    exact = costs["exact"]
    int8 = cost_model("horowitz45_ann_int8").cost(exact.counted)
    paper = {row.name: row for row in costs["spikformer_paper"].counted.rows}
    a, b = grids()["a"], grids()["b"]
    product = product_of(a, b)
    assert product.values is Values.binary
    return {
        "conv1, MACs of a step": conv1.dense / 2,
        "conv1, with padding": conv1.dense_padded / 2,
        "conv2, SOPs at t = 1": steps[0],
        "conv2, SOPs at t = 2": steps[1],
        "conv2, MACs of a step": conv2.dense / 2,
        "conv2, with padding": conv2.dense_padded / 2,
        "conv2, rate": conv2.rate,
        "conv2, paper": paper["conv2"].acs,
        "head, SOPs": head.ops,
        "head, MACs of a step": head.dense / 2,
        "exact, pJ": exact.snn_pJ,
        "paper, pJ": costs["spikformer_paper"].snn_pJ,
        "strict, pJ": costs["strict"].snn_pJ,
        "lif, pJ, beside": exact.parts_beside["lif"],
        "state, pJ, beside": exact.parts_beside["state"],
        "ANN twin, pJ": exact.ann_pJ,
        "ANN twin in INT8, pJ": int8.ann_pJ,
        "ratio, exact": exact.ratio,
        "mean rate R": exact.rate,
        "crossover r*, exact": exact.crossover,
        "pairs that meet": product.ops,
        "spikes of a, columns of b": product.ops_left,
        "spikes of b, rows of a": product.ops_right,
        "dense": product.dense,
    }


def product_of(a: Tensor, b: Tensor) -> Layer:
    """What is counted of a @ b."""

    class Product(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc, self.lif, self.product = nn.Linear(2, 2), snn.Leaky(0.5), SpikeMatMul()

        def forward(self, x: Tensor) -> Tensor:
            self.lif(self.fc(x), self.lif.reset_mem())
            return self.product(a[None], b[None])

    table = count(Product(), torch.ones(1, 2), timesteps=1)
    return next(layer for layer in table.layers if layer.name == "product")


def test_every_line_by_hand_is_what_is_counted(table, net):
    """The arithmetic of each line is right, and its result is the program's."""
    lines = {
        label: (expression, shown)
        for label, expression, shown in BY_HAND.findall(section("An example by hand"))
    }
    counted = expected(table, net)
    assert list(lines) == list(counted)
    for label, (expression, shown) in lines.items():
        digits = decimals(shown)
        assert round(eval(expression), digits) == float(shown), label
        assert round(counted[label], digits) == float(shown), label
        if label not in ("ratio, exact", "mean rate R", "crossover r*, exact"):
            assert counted[label] == pytest.approx(float(shown), rel=1e-14), label


def test_the_conventions_of_the_example(table):
    """Operations, energies, ratio and crossover of all six conventions are those of the page."""
    header, *rows = cells(section("An example by hand"), "convention")
    assert header == ["convention", "AC", "MAC", "pJ", "ANN twin, pJ", "ratio", "r*"]
    assert [row[0] for row in rows] == list(CONVENTIONS)
    energies = []
    for name, acs, macs, spiking, twin, ratio, crossover in rows:
        cost = cost_model("horowitz45").cost(apply(table, preset(name)))
        assert (cost.counted.acs, cost.counted.macs) == (float(acs), float(macs)), name
        found = pytest.approx((cost.snn_pJ, cost.ann_pJ), rel=1e-14)
        assert (float(spiking), float(twin)) == found, name
        assert f"{cost.ratio:.3f}" == ratio
        assert (f"{cost.crossover:.3f}" if cost.crossover > 0 else "never") == crossover
        energies.append(cost.snn_pJ)
    factor = max(energies) / min(energies)
    assert f"{factor:.1f}" in numbers(PAGE)


def test_what_the_example_concludes(table):
    """LIF and membranes in percent, and who wins, follow from the same count."""
    cost = cost_model("horowitz45").cost(apply(table))
    beside = {f"{100 * pJ / cost.snn_pJ:.0f}" for pJ in cost.parts_beside.values()}
    assert beside <= numbers(section("An example by hand"))
    assert cost.crossover > 1
    int8 = cost_model("horowitz45_ann_int8").cost(apply(table))
    assert int8.crossover < 0 and int8.parts["macs"] > int8.ann_pJ


def test_the_page_compares_conventions_as_they_are():
    """Every choice of every convention in the table is the one in the code, and none is missing."""
    (_, *names), *rows = cells(section("Conventions"), "choice")
    assert names == list(CONVENTIONS)
    words = {True: "yes", False: "no"}
    shown = {re.match(r"\w+", row[0])[0]: row[1:] for row in rows}
    assert list(shown) == [field.name for field in fields(Convention) if field.name != "name"]
    for choice, values in shown.items():
        for name, value in zip(names, values, strict=True):
            chosen = getattr(PRESETS[name], choice)
            assert value == (words[chosen] if isinstance(chosen, bool) else chosen.value), choice


def test_the_cost_of_counting_is_the_measured_one():
    """The table of ratios is what the benchmark wrote."""
    results = Path(__file__).parents[2] / "benchmarks" / "results" / "amd-epyc-2-cores"
    measured = json.loads((results / "energy.json").read_text())["measured"]
    header, *rows = cells(section("What counting costs"), "tool")
    assert header[1:] == [f"{one['backend']}, batch {one['batch_size']}" for one in measured]
    assert {tool for tool, *_ in rows} == measured[0]["ratio"].keys() - {"plain"}
    for tool, *ratios in rows:
        assert ratios == [f"{one['ratio'][tool]:.2f}" for one in measured], tool


@pytest.mark.parametrize("name", CONVENTIONS)
def test_every_convention_has_an_entry(name):
    """Each convention is described under its name."""
    assert f"- **`{name}`**: " in section("Conventions")


@pytest.mark.parametrize("name", COSTS)
def test_every_hardware_model_has_an_entry(name):
    """Each hardware model is described under its name, with the node of its constants."""
    text = section("Hardware models")
    entry = text[text.index(f"**`{name}`**") :].partition("\n\n")[0]
    assert cost_model(name).technology in " ".join(entry.split())


def test_constants_are_those_of_the_code():
    """Every constant that the page gives of a hardware model is the one it computes with."""
    shown = numbers(section("Hardware models"))
    yan, lemaire, memory = Yan2024Twin(), Lemaire2022(), MemorySimple()
    for value in (
        *(value for one in (FP32, FP16, INT8, INT32) for value in (one.add, one.mul)),
        *(float(f"{one.mac:.3g}") for one in (FP32, FP16, INT8, INT32)),
        *(yan.acc, yan.sparse, yan.dense, yan.hops),
        *(memory.byte, memory.arithmetic.bits // 8),
        *(value for size, pJ in lemaire.sram[1:3] for value in (size // 1024, pJ)),
        *(100, 10, 64),
    ):
        assert {f"{value:g}", str(value)} & shown, value
    assert (yan.reuse, yan.sparsity, yan.weight_bit, yan.state) == (1, 0, 0, 0)
    assert lemaire.access(2**20) == lemaire.access(2**30) == 100
    assert cost_model("horowitz45").sram_bit == 10 / 64
    for other, ann in (("FP32", FP32), ("INT8", INT8)):
        value = ann.mac / FP32.add / 4
        assert f"{value:.{2 if value > 1 else 3}f}" in shown, other
    assert f"{FP32.mac / FP32.add:.1f}" in numbers(section("Conventions"))


def test_the_crossover_of_yans_network_is_the_one_said():
    """At five timesteps a layer on spikes breaks even at the rate that the page gives."""
    n, spikes = 4096, 1000  # the fan-in of the paper's layer
    known = {"values": Values.binary, "samples": 1, "timesteps": 5, "inputs": 5 * n}
    layer = Layer(
        **known,
        name="fc",
        kind=Kind.linear,
        nonzero=spikes,
        outputs=5 * n,
        dense=5 * n**2,
        ops=spikes * n,
        ops_by_value=spikes * n,
    )
    table = LayerTable([layer, Layer(**known, name="lif", kind=Kind.neuron)])
    found = cost_model("yan2024_twin").cost(apply(table)).crossover
    assert f"{100 * found:.1f}" in numbers(section("Hardware models"))


def test_every_metric_has_a_row(table):
    """The table of metrics names all that is logged, and nothing that is not."""
    rows = cells(section("In short"), "metric")[1:]
    named = [name for row in rows for name in row[0].split(", ")]
    # The example is one image, which has no standard error.
    logged = {*scalars(table, EnergyConfig()), "energy/total_mJ_se"}
    logged |= {"energy/coverage", "rate/<layer>"}
    assert len(named) == len(set(named)) and set(named) == logged


def test_every_file_has_a_row(tmp_path, table):
    """The table of files names all that a run leaves, and nothing else."""
    write(table, EnergyConfig(), tmp_path, {"model": "example"})
    rows = cells(section("In short"), "file")[1:]
    named = {name for row in rows for name in row[0].split(", ")}
    assert named == {path.name for path in tmp_path.iterdir()} | {"rates.jsonl"}


def test_the_wording_and_the_latex_row_are_those_of_the_report(table):
    """The sentence that goes with every number, and the columns of table.tex, are quoted."""
    assert WORDING in " ".join(section("In short").split())
    columns = latex_row(table, EnergyConfig(), {}).splitlines()[0].removeprefix("% ")
    assert f"\n{columns}\n" in section("In a paper")


def test_the_library_example_runs(net, image, capsys):
    """The lines of Python print the operations and picojoules of the example."""
    exec(CODE[0], {"model": net, "images": image})
    acs, macs, energy, *unit = capsys.readouterr().out.split()
    assert (acs, macs, unit) == ("45.0", "100.0", ["pJ", "an", "image"])
    assert float(energy) == pytest.approx(500.5)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_composes(cli, command):
    """Each command gives a configuration that passes the checks."""
    script, *words = shlex.split(command.removeprefix("python ").removeprefix("saformer-"))
    words = [
        word if "[" in word else word.split(",")[0] for word in words if not word.startswith("-")
    ]
    code, out, err = cli(script.removesuffix(".py"), *words, "--cfg", "job")
    assert (code, err) == (0, "")
    assert out


def test_defaults_are_the_ones_said(compose):
    """Counting is on under `exact`, with the samples that the page names."""
    config = compose().energy
    assert (config.enabled, config.convention, config.samples) == (True, "exact", 256)
    assert str(config.samples) in numbers(PAGE)
    assert compose("energy=off").energy.enabled is False
