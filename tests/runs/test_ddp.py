"""Two processes train as one: each sees its own half, and what they share is built once."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from saformer.training.schedule import lr_at

ROOT = Path(__file__).parents[2]
DATA = ROOT / "tests/data"
PATIENCE = 300.0  # seconds, for machines with other work
TORCHRUN = (sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2")
TRAINER = ("trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2")
SHORT = (
    *(*TRAINER, "logger=none", "energy=off", "plots=false"),
    *("dataset.train_subset=100", "model.dim=16", "timesteps=1", "epochs=3"),
)

# Every rank runs this file. It notes the images that its training and evaluation steps see.
SCRIPT = """
import json, os, sys
import lightning.pytorch as pl
import torch
from hydra import compose, initialize_config_dir
from saformer.config.overrides import VERSION_BASE
from saformer.config.check import check
from saformer.config.files import conf_dir
from saformer.data import cache
from saformer.data.module import SpikingDataModule

build = cache._build
def noted(*args):
    with open("builds", "a") as file:
        file.write(f"{os.getpid()}\\n")
    build(*args)
cache._build = noted

class Recorder(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.seen = {"train": [], "val": [], "test": [], "shares": []}

    def note(self, part, batch):
        self.seen[part] += [round(x.double().sum().item(), 6) for x in batch[0]]

    def training_step(self, batch, batch_idx):
        self.note("train", batch)
        if batch[1].ndim == 2:  # the larger share of MixUp
            self.seen["shares"].append(batch[1].amax(1).min().item())
        return self.weight * batch[0].sum()

    def validation_step(self, batch, batch_idx):
        self.note("val", batch)

    def test_step(self, batch, batch_idx):
        self.note("test", batch)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.0)

devices, *overrides = sys.argv[1:]
with initialize_config_dir(str(conf_dir()), version_base=VERSION_BASE):
    config = check(compose("train", overrides))
data = SpikingDataModule(config.dataset, config.augment, config.seed, config.timesteps)
recorder = Recorder()
trainer = pl.Trainer(
    accelerator="cpu", devices=int(devices), strategy="ddp" if devices == "2" else "auto",
    max_epochs=2, logger=False, enable_checkpointing=False, enable_progress_bar=False,
    enable_model_summary=False, num_sanity_val_steps=0,
)
trainer.fit(recorder, data)
trainer.test(recorder, data, verbose=False)
with open(f"seen-{trainer.world_size}-{trainer.global_rank}.json", "w") as file:
    json.dump({**recorder.seen, "facts": data.describe()}, file)
"""


# Every rank runs this file. It notes what an evaluation says of the first images of the test set,
# and what the validation of a training says of as many.
EVALUATION = """
import json, sys
from dataclasses import replace
from pathlib import Path
import lightning.pytorch as pl
import torch
from hydra import compose, initialize_config_dir
from saformer.training.callbacks.energy import EnergyMonitor
from saformer.config.overrides import VERSION_BASE
from saformer.config.check import check, to_dict
from saformer.config.files import conf_dir
from saformer.data import module as data_module
from saformer.training.module import SAFormerModule
from saformer.runs.quiet import quiet
from lively import lively

devices, *sizes = map(int, sys.argv[1:])
quiet()
words = ["dataset.eval_batch_size=4", "dataset.train_subset=100", "energy.samples=1000"]
with initialize_config_dir(str(conf_dir()), version_base=VERSION_BASE):
    config = check(compose("train", words))
read = data_module.read
noted = {}

def trainer(monitor):
    return pl.Trainer(
        accelerator="cpu", devices=devices, strategy="ddp" if devices > 1 else "auto",
        max_epochs=1, logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, num_sanity_val_steps=0, callbacks=[monitor],
    )

def exact(monitor):
    layers = []
    for layer in monitor.table.layers:
        fields = dict(vars(layer), kind=layer.kind.name, values=layer.values.name)
        fields["operands"] = [values.name for values in layer.operands]
        fields["ops_of_sample"] = sorted(layer.ops_of_sample.tolist())
        for name in ("nonzero_t", "spikes_of_neuron"):
            fields[name] = fields[name].tolist()
        layers.append(fields)
    return layers

for size in sizes:
    def few(*args):
        source = read(*args)
        return replace(source, test=source.test[:size])
    data_module.read = few
    data = data_module.SpikingDataModule(config.dataset, config.augment, 0, config.timesteps)
    pl.seed_everything(0, verbose=False)
    module = SAFormerModule(config, to_dict(config))
    lively(module.backbone)
    monitor = EnergyMonitor(config.energy, Path("energy"), {})
    (scores,) = trainer(monitor).test(module, data, verbose=False)
    noted[str(size)] = dict(scores=scores, scalars=monitor.scalars, counts=exact(monitor))

data.setup()
data._sets["val"] = data._sets["test"]
if devices > 1:
    monitor = EnergyMonitor(config.energy, Path("energy"), {})
    training = trainer(monitor)
    training.fit(module, data)
    scores = {name: float(value) for name, value in training.callback_metrics.items()}
    if training.is_global_zero:
        torch.save(module.state_dict(), "weights.pt")
else:
    module.load_state_dict(torch.load("weights.pt", weights_only=True))
    (scores,) = trainer(monitor := EnergyMonitor(config.energy, Path("energy"), {})).validate(
        module, data, verbose=False)
scores = {name: value for name, value in scores.items() if name.startswith("val/")}
noted["validation"] = dict(scores=scores, scalars=monitor.scalars, counts=exact(monitor))
with open(f"noted-{devices}-{training.global_rank if devices > 1 else 0}.json", "w") as file:
    json.dump(noted, file)
"""


def start(script: str, *words: str) -> None:
    """Run a script in a process of its own, which starts the others."""
    Path("script.py").write_text(script)
    helpers = ROOT / "tests" / "helpers"
    done = subprocess.run(
        [sys.executable, "script.py", *words],
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(helpers)},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert done.returncode == 0, done.stderr


def run(devices: int, *overrides: str) -> list[dict]:
    """What each rank saw in two epochs and a test."""
    start(SCRIPT, str(devices), *overrides)
    return [json.loads(Path(f"seen-{devices}-{r}.json").read_text()) for r in range(devices)]


@pytest.mark.slow
def test_two_processes_share_the_images_and_the_cache(tmp_path, monkeypatch):
    """Of Tiny-ImageNet: one cache, every image in one rank an epoch, the same split in both."""
    monkeypatch.syspath_prepend(str(DATA))
    from pictures import write_tiny

    root = write_tiny(tmp_path / "tiny", train=7, val=4)
    overrides = [
        "dataset=tiny_imagenet",
        f"dataset.root={root}",
        f"dataset.cache_dir={tmp_path / 'cache'}",
        "dataset.num_classes=4",
        "dataset.allow_incomplete=true",
        "dataset.val_fraction=0.15",
        "dataset.batch_size=3",
        "augment=none",
    ]
    ranks = run(2, *overrides)
    assert len(Path("builds").read_text().split()) == 1
    alone = run(1, *overrides)[0]
    assert all(rank["facts"] == alone["facts"] for rank in ranks)
    sizes = {name: alone["facts"][name]["size"] for name in ("train", "val", "test")}
    assert sizes == {"train": 24, "val": 4, "test": 16}
    for name, size in sizes.items():
        epochs = 1 if name == "test" else 2
        for epoch in range(epochs):
            halves = [
                set(rank[name][epoch * size // 2 : (epoch + 1) * size // 2]) for rank in ranks
            ]
            whole = set(alone[name][epoch * size : (epoch + 1) * size])
            assert len(whole) == size
            assert halves[0] | halves[1] == whole and not halves[0] & halves[1]


@pytest.mark.slow
def test_two_processes_count_no_image_twice():
    """An odd number of images is evaluated once each, though one process has one more than the
    other."""
    overrides = ["dataset.train_subset=205", "dataset.val_fraction=0.2", "augment=none"]
    ranks, alone = run(2, *overrides), run(1, *overrides)[0]
    assert [len(rank["val"]) for rank in ranks] == [2 * 21, 2 * 20]  # two epochs
    for name in ("val", "test"):
        assert sorted(ranks[0][name] + ranks[1][name]) == sorted(alone[name])


@pytest.mark.slow
def test_two_processes_augment_each_for_itself():
    """What is drawn for a batch differs between ranks, epochs and batches."""
    ranks = run(2, "augment.mixup=1.0", "dataset.train_subset=200", "dataset.val_fraction=0.2")
    drawn = [share for rank in ranks for share in rank["shares"]]
    assert len(set(drawn)) == len(drawn) == 2 * 2 * 2  # 160 images in batches of 64, 2 epochs


@pytest.mark.slow
def test_two_processes_evaluate_exactly_as_one():
    """Top-1 counts and all counts of energy are equal, losses to rounding, whatever the size: also
    for fewer images than processes, and where one process has a batch more than the other."""
    sizes = (1, 2, 3, 100, 17)  # the last is also that of the validation
    for devices in (2, 1):
        start(EVALUATION, str(devices), *map(str, sizes))
    first, second, alone = (
        json.loads(Path(f"noted-{name}.json").read_text()) for name in ("2-0", "2-1", "1-0")
    )
    for name in [*map(str, sizes), "validation"]:
        for rank in (first, second):
            there, here = rank[name], alone[name]
            assert there["scores"].keys() == here["scores"].keys()
            for metric, value in here["scores"].items():
                size = int(name) if name.isdigit() else sizes[-1]
                if metric.endswith(("top1", "top5")):
                    assert round(there["scores"][metric] * size, 3) == round(value * size, 3)
                    assert abs(value * size - round(value * size)) < 1e-4
                else:
                    assert there["scores"][metric] == pytest.approx(value, rel=1e-5)
            assert there["counts"] == here["counts"]
            assert there["scalars"] == pytest.approx(here["scalars"], rel=1e-12)
    assert 0 < alone["100"]["scores"]["test/top1"] < 1  # no network that always says the same
    assert alone["100"]["scalars"]["rate/mean"] > 0.05


def is_there(group: int) -> bool:
    """Whether any process of a group is left."""
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def train(*words: str, by: tuple[str, ...] = (sys.executable,)) -> subprocess.CompletedProcess[str]:
    """Train in this folder as a user does at a prompt."""
    return subprocess.run(
        [*by, str(ROOT / "train.py"), *words], capture_output=True, text=True, timeout=PATIENCE
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("by", "name"),
    [
        ((sys.executable,), r"20\d\d-\S+"),
        (TORCHRUN, r"20\d\d-\S+"),
        (
            (*TORCHRUN, "--rdzv-backend=c10d", "--rdzv-endpoint=localhost:0", "--rdzv-id=mine"),
            r"mine-[0-9a-f]{6}",
        ),
    ],
    ids=["lightning", "torchrun", "torchrun with a name"],
)
def test_a_run_has_one_folder_and_one_voice(by, name):
    """However the two processes are started: one folder, each line once, nothing on stderr, and
    the second leaves no log of its own."""
    done = train(*SHORT, by=by)
    assert done.returncode == 0, done.stderr
    assert done.stderr == "" and "Starting with 2 processes" in done.stdout
    lines = done.stdout.splitlines()
    assert [line.split()[1] for line in lines if line.startswith("epoch ")] == ["1/3", "2/3", "3/3"]
    said = [line for line in lines if line and not line.startswith(("epoch ", "-----"))]
    assert len(set(said)) == len(said)
    (run,) = Path("outputs/saformer_tiny_digits").iterdir()
    assert re.fullmatch(name, run.name)
    assert [path.name for path in run.glob("*.log")] == ["train.log"]
    assert len((run / "metrics.jsonl").read_text().splitlines()) == 3
    assert json.loads((run / "results.json").read_text())["status"] == "done"


@pytest.mark.slow
def test_a_mistake_of_all_processes_is_told_once():
    """Two processes and a trainer for one: one line, before any training."""
    done = train(*SHORT, "trainer=cpu", "~trainer.devices", "+trainer.devices=1", by=TORCHRUN)
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert done.returncode != 0 and len(errors) == 1
    assert "does not make the 2 process(es) that torchrun started" in errors[0]
    assert not list(Path().rglob("metrics.jsonl"))


@pytest.mark.slow
def test_each_job_of_a_multirun_has_its_own_processes():
    """A job that fails is named and the next one trains; no process replays the sweep."""
    words = [word for word in SHORT if not word.startswith("dataset")]
    done = train("-m", *words, "dataset.train_subset=5000,100", "sweep=seeds", "seed=3")
    assert done.returncode == 1
    assert done.stdout.count("error: dataset.train_subset must be at most 1437") == 1
    assert "job 1: dataset.train_subset must be at most 1437" in done.stdout
    assert "error: " not in done.stderr
    assert done.stdout.count("Starting with 2 processes") == 1
    (sweep,) = Path("outputs/saformer_tiny_digits").iterdir()
    assert sorted(path.name for path in sweep.iterdir()) == ["0", "1", "multirun.yaml"]
    (start,) = json.loads((sweep / "1/run.json").read_text())["starts"]
    assert start["config"]["dataset"]["train_subset"] == 100 and start["config"]["seed"] == 3
    assert (sweep / "1/results.json").exists() and (sweep / "1/.hydra/overrides.yaml").exists()


LONGER = (*SHORT, "epochs=10", "augment.mixup=0.4")


@pytest.fixture(scope="module")
def never_stopped(tmp_path_factory) -> Path:
    """A run of LONGER on two processes."""
    run = tmp_path_factory.mktemp("whole") / "run"
    assert train(*LONGER, f"hydra.run.dir={run}").returncode == 0
    return run


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["ctrl-c", "kill"])
def test_two_processes_that_are_stopped_go_on_exactly(number, never_stopped):
    """Ctrl-C and a kill end both processes with the exit code of a shell; the same command in the
    same folder ends with the metrics of a run that was never stopped."""
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "train.py"), *LONGER, "hydra.run.dir=run"],
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    )
    metrics, end = Path("run/metrics.jsonl"), time.monotonic() + PATIENCE
    while not metrics.exists() or len(metrics.read_text().splitlines()) < 2:
        assert process.poll() is None and time.monotonic() < end
        time.sleep(0.05)
    if number == signal.SIGINT:  # a terminal tells all of its processes
        os.killpg(process.pid, number)
    else:
        process.send_signal(number)
    _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 128 + number
    assert err == f"error: {'interrupted' if number == 2 else 'stopped by SIGTERM'}\n"
    while is_there(process.pid):
        assert time.monotonic() < end
        time.sleep(0.1)
    assert not Path("run/results.json").exists()
    done = train(*LONGER, "hydra.run.dir=run")
    assert done.returncode == 0 and "resuming from run/checkpoints/last.ckpt" in done.stdout
    assert metrics.read_bytes() == (never_stopped / "metrics.jsonl").read_bytes()


@pytest.mark.slow
def test_two_processes_evaluate_a_checkpoint_once(cli):
    """eval with two processes writes one result, equal to that of one."""
    assert train(*SHORT, "hydra.run.dir=run").returncode == 0
    checkpoint = "ckpt_path=run/checkpoints/best.ckpt"
    done = subprocess.run(
        [sys.executable, str(ROOT / "eval.py"), checkpoint, *TRAINER],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "Starting with 2 processes" in done.stdout and done.stdout.count("test acc") == 1
    (both,) = Path("run").glob("eval-*.json")
    two = json.loads(both.rename("two.json").read_text())
    assert cli("eval", checkpoint)[0] == 0  # on one device, where two are not asked for
    (alone,) = Path("run").glob("eval-*.json")
    one = json.loads(alone.read_text())
    assert two["test/top1"] == pytest.approx(one["test/top1"], abs=1e-7)
    assert two["test/loss"] == pytest.approx(one["test/loss"], rel=1e-6)


@pytest.mark.slow
def test_another_number_of_devices_goes_on_at_the_right_learning_rate(compose, monkeypatch):
    """Cut off on one device and started again on two, with half the steps: the learning rate is
    that of the epochs done."""
    alone = ("trainer.devices=1", "trainer.strategy=auto", "hydra.run.dir=run", "epochs=4")
    end = "+callbacks.end={_target_:misfortunes.Signal,number:2,where:on_train_epoch_start,epoch:2}"
    monkeypatch.setenv("PYTHONPATH", str(ROOT / "tests" / "helpers"), prepend=os.pathsep)
    assert train(*SHORT, *alone, end).returncode == 130
    assert train(*SHORT, "hydra.run.dir=run", "epochs=4").returncode == 0
    lines = [json.loads(line) for line in Path("run/metrics.jsonl").read_text().splitlines()]
    config = compose(*SHORT, "epochs=4")
    steps = [line["step"] for line in lines]
    each = [now - before for before, now in zip([0, *steps], steps, strict=False)]
    assert each[0] == each[1] == 2 * each[2] == 2 * each[3]
    for line, count in zip(lines, each, strict=True):
        done = line["epoch"] - 1 / count
        right = lr_at(done, config.optimizer.lr, 4, config.scheduler)
        assert line["lr"] == pytest.approx(right, rel=1e-12)
