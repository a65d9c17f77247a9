"""The benchmarks run, write what they promise, and compare what is equal."""

import json
import re
import sys
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from mostly_slow import mostly_slow
from torch import nn

from benchmarks import lif, report, scaling_figure, train_step
from benchmarks.networks import NETWORKS, Case, StockLoop
from benchmarks.trainee import MIB, Trainee, free_mib, measure_peak, status
from saformer.models.neuron import MultiStepLeaky, build_neuron
from saformer.models.settings import Backend, NeuronConfig

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "speed.md").read_text()
SMALL = ["model.dim=32", "model.depth=1", "model.num_heads=2"]
EAGER = [name for name in NETWORKS if "compile" not in name]


@pytest.fixture
def benchmark(monkeypatch, tmp_path, capsys):
    """Run a benchmark's command, its results in a folder of the test; returns output and folder."""

    def call(name: str, *words: str) -> tuple[str, Path]:
        monkeypatch.setattr(report, "RESULTS", tmp_path / "results")
        monkeypatch.setattr(train_step, "SETTINGS", SMALL)
        monkeypatch.setattr(sys, "argv", [f"{name}.py", *words])
        threads = torch.get_num_threads()
        import_module(f"benchmarks.{name}").main()
        torch.set_num_threads(threads)
        (folder,) = (tmp_path / "results").iterdir()
        return capsys.readouterr().out, folder

    return call


def result(folder: Path, name: str) -> dict:
    """A result, after a look at what all of them hold."""
    record = json.loads((folder / f"{name}.json").read_text())
    assert record["command"].startswith("python -m benchmarks.")
    assert record["machine"]["cores"] and "host" not in record["machine"]
    assert record["versions"]["torch"] == torch.__version__.partition("+")[0]
    assert re.fullmatch(r"[0-9a-f]{40}", record["commit"])
    return record


def small(**changes) -> Case:
    return replace(Case(timesteps=2, batch=2, threads=1, settings=SMALL), **changes)


@pytest.mark.slow
def test_a_training_step_is_compared(benchmark):
    """`train_step` gives time, samples/s, memory and ratios of every network, on the same terms."""
    words = ("--timesteps", "2", "--batch", "2", "--rounds", "3", "--threads", "1")
    out, folder = benchmark("train_step", *words, "--networks", "ours", "identity")
    measured = result(folder, "train_step")["measured"]
    assert list(measured) == ["ours", "identity"]
    for name, one in measured.items():
        assert NETWORKS[name].label in out
        assert len(one["all_s"]) == 3 and one["median_s"] == sorted(one["all_s"])[1]
        assert one["samples_per_s"] == 2 / one["median_s"]
        assert one["peak_MiB"] > 0
    assert measured["ours"]["time_over_ours"] == 1
    assert measured["ours"]["peak_MiB"] > measured["identity"]["peak_MiB"]


@pytest.mark.slow
def test_growth_is_measured_and_drawn(benchmark, monkeypatch):
    """`--scaling` goes through T and batch sizes and leaves a figure."""
    monkeypatch.setattr(train_step, "TIMESTEPS", (1, 2))
    monkeypatch.setattr(train_step, "BATCHES", (1, 2))
    words = ("--scaling", "--rounds", "1", "--threads", "1", "--input", "events")
    _, folder = benchmark("train_step", *words, "--networks", "ours", "sj")
    cells = result(folder, "train_step_events_scaling")["cells"]
    assert [(cell["timesteps"], cell["batch"]) for cell in cells] == [
        *((1, 1), (2, 1), (1, 2), (2, 2))
    ]
    assert all(one["median_s"] > 0 for cell in cells for one in cell["networks"].values())
    assert {path.suffix for path in folder.iterdir()} == {".json", ".png", ".pdf"}


def test_what_would_not_fit_is_skipped_and_said(monkeypatch):
    """A network whose memory grows past what is free is not run, and its row says why."""
    monkeypatch.setattr(train_step, "TIMESTEPS", (1, 4))
    monkeypatch.setattr(train_step, "BATCHES", (8,))
    monkeypatch.setattr(train_step, "free_mib", lambda: 4096.0)
    ran = []

    def compare(names, case, rounds):
        ran.append((case.timesteps, list(names)))
        peaks = {"ours": 800.0, "sj": 1000.0}
        return {name: {"skipped": "not timed here", "peak_MiB": peaks[name]} for name in names}

    monkeypatch.setattr(train_step, "compare", compare)
    cells = train_step.scale(["ours", "sj"], small(), 1)
    assert ran == [(1, ["ours", "sj"]), (4, ["ours"])]
    skipped = cells[1]["networks"]["sj"]["skipped"]
    assert skipped == "skipped: needs about 4 GiB, 4 GiB are free"


def test_expected_memory_grows_with_timesteps_and_batch():
    """Twice T and four times the batch need eight times the memory."""
    assert train_step.expected_mib(10, small(), small(timesteps=4, batch=8)) == 80


def test_the_ratio_is_the_median_of_the_rounds():
    """A round in which the machine was busy changes both times and not the ratio."""
    assert train_step.median_ratio([2, 20, 6], [1, 10, 2]) == 2


@pytest.mark.parametrize("events", [False, True], ids=["images", "events"])
@pytest.mark.parametrize("name", mostly_slow(EAGER, 3))
def test_every_network_trains(name, events):
    """Each maps a batch to logits of every timestep, and a step changes its weights."""
    trainee = Trainee(name, small(events=events))
    steps = 1 if name == "vit" else 2
    assert trainee.module(trainee.x).shape == (steps, 2, 10)
    trainee.between()
    before = [parameter.clone() for parameter in trainee.module.parameters()]
    assert trainee.step() > 0
    assert any(
        not torch.equal(a, b) for a, b in zip(before, trainee.module.parameters(), strict=True)
    )
    trainee.step()  # a peer that keeps its state would fail at the second


def test_the_peer_has_our_weights_but_for_biases():
    """SpikingJelly's Spikformer has as many parameters as ours, except that it has no biases."""
    case = Case(timesteps=4, batch=1)
    ours, theirs = (NETWORKS[name].build(case).module for name in ("ours", "sj"))
    biases = [
        layer.bias.numel()
        for layer in ours.modules()
        if isinstance(layer, nn.Conv2d) and layer.bias is not None
    ]
    count = sum(p.numel() for p in theirs.parameters())
    assert count == sum(p.numel() for p in ours.parameters()) - sum(biases)
    assert f"{sum(biases):,} of {count / 1e6:.1f} M parameters" in PAGE


def test_the_loop_is_our_neuron():
    """Stock snn.Leaky in the loop gives the spikes and the gradient of our neuron."""
    torch.manual_seed(0)
    neuron = build_neuron(NeuronConfig(tau=3.0), v_threshold=0.5)
    loop = StockLoop(neuron)
    x = (torch.randn(8, 1000) + 0.6).requires_grad_()
    gradient = torch.randn(8, 1000)
    spikes = [layer(x) for layer in (neuron, loop)]
    assert 0.1 < spikes[0].mean() < 0.9
    assert torch.equal(*spikes)
    grads = [torch.autograd.grad(spike, x, gradient)[0] for spike in spikes]
    torch.testing.assert_close(*grads)


def test_no_neuron_is_left_in_the_floor():
    """The floor has our layers without a single neuron; the loop has a stock one for each."""
    ours, floor, loop = (NETWORKS[name].build(small()) for name in ("ours", "identity", "snn-loop"))
    neurons = sum(isinstance(part, MultiStepLeaky) for part in ours.module.modules())
    assert neurons > 10
    assert not any(isinstance(part, MultiStepLeaky) for part in floor.module.modules())
    assert sum(isinstance(part, StockLoop) for part in loop.module.modules()) == neurons


def test_backends_are_those_of_the_labels():
    """`ours` runs on torch and `ours-compile` on compile, on whatever machine."""
    for name, backend in (("ours", Backend.torch), ("ours-compile", Backend.compile)):
        module = NETWORKS[name].build(small()).module
        found = {part.backend for part in module.modules() if isinstance(part, MultiStepLeaky)}
        assert found == {backend}


@pytest.mark.slow
def test_peak_memory_is_that_of_the_activations():
    """Four times the batch takes about four times the memory; weights are not in it."""
    one, four = (measure_peak("identity", small(batch=batch)) for batch in (8, 32))
    assert 3 < four["peak_MiB"] / one["peak_MiB"] < 5
    # The largest tensor of all, once: [T * B, D/8, 32, 32] of the stem in fp32.
    assert one["peak_MiB"] > 2 * 8 * 4 * 32 * 32 * 4 / MIB


def test_memory_that_was_freed_counts_as_free():
    """What smaller cases of --scaling have freed does not stand in the way of larger ones."""
    blocks = [torch.ones(2**14) for _ in range(4000)]  # of 64 KiB, which come from the heap
    blocks = blocks[::50]  # these few lie between what is freed
    before = status("VmRSS") / 1024
    free_mib()
    assert status("VmRSS") / 1024 < before - 150
    assert len(blocks) == 80


@pytest.mark.parametrize(
    ("facts", "kind"),
    [
        (
            {"cpu": "AMD EPYC", "vectors": "AVX2", "cores": 2, "accelerators": []},
            "amd-epyc-avx2-2-cores",
        ),
        ({"cpu": "AMD EPYC", "cores": 2, "accelerators": []}, "amd-epyc-2-cores"),
        (
            {"cpu": "x", "cores": 16, "accelerators": ["NVIDIA H100 80GB HBM3"]},
            "nvidia-h100-80gb-hbm3",
        ),
        ({"cpu": "x", "cores": 16, "accelerators": ["NVIDIA A100"] * 8}, "8-nvidia-a100"),
    ],
)
def test_results_lie_by_kind_of_machine(facts, kind):
    """The folder of results says what machine they are of."""
    assert report.machine_kind(facts) == kind


@pytest.mark.parametrize("on_cpu", [False, True])
def test_what_the_processor_did_lies_under_its_name(monkeypatch, tmp_path, on_cpu):
    """Results of the processor alone do not bear the name of the GPU that is there too."""
    facts = {"host": "x", "cpu": "AMD EPYC", "cores": 2, "accelerators": ["NVIDIA A100"]}
    monkeypatch.setattr(report, "RESULTS", tmp_path)
    monkeypatch.setattr(report, "machine", lambda: facts)
    report.save("data", {}, on_cpu=on_cpu)
    (path,) = tmp_path.rglob("data.json")
    assert path.parent.name == ("amd-epyc-2-cores" if on_cpu else "nvidia-a100")
    assert path.parent.name == report.machine_kind(json.loads(path.read_text())["machine"])


def test_one_layer_is_measured_on_the_device_of_the_others(benchmark, monkeypatch):
    """`lif` gives every layer, and the floor, tensors where the other benchmarks have theirs."""
    seen = []
    monkeypatch.setattr(lif, "device", lambda: torch.device("meta"))
    monkeypatch.setattr(lif, "seconds", lambda layer, *tensors: seen.extend(tensors) or 1.0)
    monkeypatch.setattr(lif, "copy_seconds", lambda *tensors: seen.extend(tensors) or 1.0)
    benchmark("lif", "--shape", "2", "3", "--rounds", "1", "--malloc", "default")
    assert seen and all(x.is_meta for x in seen)
    for layer in (lif.stock_loop().args[0], lif.ours(Backend.torch).__self__):
        assert layer.beta.is_meta


def test_the_clock_waits_for_the_gpu(monkeypatch):
    """The time of a layer ends when the device is done with it, not when it is queued."""
    waited = []
    monkeypatch.setattr(torch.cuda, "synchronize", waited.append)
    x = SimpleNamespace(is_cuda=True, device="cuda:0")
    assert lif.copy_seconds(x, SimpleNamespace(copy_=lambda _: None)) > 0
    assert waited == ["cuda:0"] * 2


def test_the_results_kept_lie_where_their_machine_says():
    """Every result in benchmarks/results/ lies in the folder of its machine."""
    kept = list((ROOT / "benchmarks" / "results").rglob("*.json"))
    assert len(kept) > 5
    for path in kept:
        assert path.parent.name == report.machine_kind(json.loads(path.read_text())["machine"])


def test_the_figure_leaves_out_what_was_skipped(tmp_path, monkeypatch):
    """A point that was not measured is not drawn; every other is, at its T and its value."""
    drawn = []
    keep = scaling_figure.style.save
    monkeypatch.setattr(
        scaling_figure.style, "save", lambda fig, *words: drawn.append(fig) or keep(fig, *words)
    )
    ours = {"median_s": 0.2, "peak_MiB": 64.0}
    cells = [
        {"timesteps": 1, "batch": 2, "networks": {"ours": ours, "sj": ours}},
        {"timesteps": 2, "batch": 2, "networks": {"ours": ours, "sj": {"skipped": "too large"}}},
    ]
    files = scaling_figure.draw(cells, tmp_path, "growth")
    assert [path.name for path in files] == ["growth.png", "growth.pdf"]
    time, memory = drawn[0].axes
    assert [list(line.get_xdata()) for line in time.lines] == [[1, 2], [1]]
    assert list(time.lines[0].get_ydata()) == [100, 50]
    assert list(memory.lines[0].get_ydata()) == [32, 16]


def test_the_page_knows_every_row():
    """docs/speed.md says what each row of the table is, under its label."""
    table = PAGE.partition("| row |")[2].partition("\n\n")[0]
    rows = re.findall(r"^\| ([^|]*) \|", table, re.MULTILINE)
    assert rows == [entry.label for entry in NETWORKS.values()]


def test_the_commands_of_the_pages_are_known():
    """Each benchmark that README and docs name as a command is there."""
    pages = [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]
    named = {n for p in pages for n in re.findall(r"python -m benchmarks\.(\w+)", p.read_text())}
    assert len(named) >= 9
    for name in named:
        assert (ROOT / "benchmarks" / f"{name}.py").exists(), name


def test_the_profiles_of_the_page_compose(cli):
    """Each profile that docs/speed.md names is of a training that composes."""
    trainings = r"^python -m benchmarks\.step_profile([^#\n]*)"
    commands = re.findall(trainings, PAGE, re.MULTILINE)
    assert commands
    for words in commands:
        code, out, err = cli("train", *words.split(), "--cfg", "job")
        assert (code, err) == (0, "") and out


LIF = ("--shape", "2", "1", "2", "4", "4", "--threads", "1", "--malloc", "default")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "words", "file"),
    [
        ("startup", (), "startup"),
        ("data", ("--images", "64", "--batch", "32"), "data"),
        ("energy", ("--batch-sizes", "1"), "energy"),
        ("lif", LIF, "lif_default_malloc"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_small_benchmark_runs(benchmark, name, words, file):
    """It runs at the smallest size and writes its results."""
    out, folder = benchmark(name, *words, "--rounds", "1")
    assert "┃" in out and f"{file}.json" in out
    assert result(folder, file)["rounds"] == 1


@pytest.mark.parametrize("file", ["train_step", "train_step_events"])
def test_the_page_shows_what_was_measured(file):
    """The tables of training steps in docs/speed.md are the stored results, to the digit shown."""
    (path,) = (ROOT / "benchmarks" / "results").glob(f"*/{file}.json")
    measured = json.loads(path.read_text())["measured"]
    for name, one in measured.items():
        cells = [f"{1e3 * one['median_s']:.0f}"]
        cells += [f"{one[f'time_over_{reference}']:.2f}" for reference in train_step.REFERENCES]
        cells += [f"{one['peak_MiB']:.0f}", f"{one['peak_MiB'] / measured['sj']['peak_MiB']:.2f}"]
        assert f"| {' | '.join([NETWORKS[name].label, *cells])} |" in PAGE


def test_the_operations_are_those_measured():
    """The table of kinds of operations in docs/speed.md is the stored result."""
    (path,) = (ROOT / "benchmarks" / "results").glob("*/operations.json")
    for name, ms in json.loads(path.read_text())["ms"].items():
        kinds = PAGE.partition("| | convolutions, products")[2].partition(" | all |")[0]
        shown = [ms.get(kind, 0.0) for kind in f"convolutions, products{kinds}".split(" | ")]
        cells = [f"{one:.0f}" for one in (*shown, sum(ms.values()))]
        assert f"| {' | '.join([NETWORKS[name].label, *cells])} |" in PAGE


def test_the_growth_is_that_measured():
    """The table of growth over T and batch in docs/speed.md is the stored result, and its rows are
    those in which both were measured."""
    (path,) = (ROOT / "benchmarks" / "results").glob("*/train_step_scaling.json")
    shown = PAGE.partition("| T | batch |")[2].partition("\n\n")[0].splitlines()[2:]
    rows = []
    for cell in json.loads(path.read_text())["cells"]:
        ours, sj = cell["networks"]["ours"], cell["networks"]["sj"]
        if "median_s" in ours and "median_s" in sj:
            times = [f"{1e3 * one['median_s']:.0f}" for one in (ours, sj)]
            peaks = [f"{one['peak_MiB']:.0f}" for one in (ours, sj)]
            over = f"{sj['time_over_ours']:.2f}", f"{ours['peak_MiB'] / sj['peak_MiB']:.2f}"
            cells = [cell["timesteps"], cell["batch"], *times, over[0], *peaks, over[1]]
            rows.append(f"| {' | '.join(map(str, cells))} |")
    assert sorted(shown) == sorted(rows) and len(rows) > 5
