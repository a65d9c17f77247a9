"""docs/data.md says what the configurations and the measurements say."""

import json
import re
from fnmatch import fnmatch
from pathlib import Path

import pytest
from pages import numbers

from saformer.config.files import conf_dir
from saformer.data.archives import DISTRIBUTIONS

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "data.md").read_text()
README = (ROOT / "README.md").read_text()
RESULTS = ROOT / "benchmarks" / "results" / "amd-epyc-2-cores"
DATASETS = sorted(path.stem for path in (conf_dir() / "dataset").glob("*.yaml"))
EXPERIMENTS = sorted(path.stem for path in (conf_dir() / "experiment").glob("*.yaml"))


def measured(name: str) -> dict:
    return json.loads((RESULTS / f"{name}.json").read_text())


def test_every_dataset_has_a_section_and_an_origin():
    """Each configuration is described, in a row and a section, and the catalogue knows it."""
    headings = " ".join(re.findall(r"^## (.*)$", PAGE, re.MULTILINE))
    table = PAGE.partition("| `dataset=` |")[2].partition("\n\n")[0]
    for name in DATASETS:
        assert re.search(rf"\b{name}\b", headings), f"no section on {name}"
        assert re.search(rf"\b{name}\b", table), f"no row on {name}"
        assert name in DISTRIBUTIONS


def test_the_commands_name_what_there_is():
    """Each `saformer-data` command of README and the page has a known verb and known datasets."""
    commands = re.findall(r"saformer-data ([^`#\n]+)[`#]", PAGE + README)
    assert len(commands) > 8
    for command in commands:
        verb, *words = command.split()
        assert verb.partition("|")[0] in ("list", "fetch", "check", "build"), command
        assert {word for word in words if "=" not in word} <= set(DATASETS), command


@pytest.mark.slow
def test_the_recipes_are_as_tabled(compose):
    """Epochs, rate and batch of each experiment are those of its row; every experiment has one."""
    rows = re.findall(
        r"^\| ([^|]*) \| [^|]* \| ([\d, ]+) \| ([^|]*) \|$", PAGE.replace("\\", ""), re.MULTILINE
    )
    seen = set()
    for patterns, epochs, rates in rows:
        first, *others = re.split(r", (?=_)|, (?=[a-z])", patterns)
        names = [first, *(o if o[0] != "_" else first.rpartition("_")[0] + o for o in others)]
        for i, pattern in enumerate(names):
            found = [name for name in EXPERIMENTS if fnmatch(name, pattern)]
            assert found, pattern
            for name in found:
                config = compose(f"experiment={name}")
                accumulated = config.trainer["accumulate_grad_batches"]
                batch = config.optimizer.lr_batch or config.dataset.batch_size * accumulated
                shown = f"{config.optimizer.lr:.0e}".replace("e-0", "e-") + f" at {batch}"
                assert shown == rates.split(", ")[min(i, rates.count(", "))]
                assert str(config.epochs) == epochs.split(", ")[min(i, epochs.count(", "))]
                seen.add(name)
    assert seen == set(EXPERIMENTS)


@pytest.mark.parametrize("page", [PAGE, README], ids=["data.md", "README"])
def test_the_speeds_are_the_measured_ones(page):
    """The ratios in the pages stand in benchmarks/results/, where their commands put them."""
    shown = numbers(page)
    cifar = list(measured("data")["recipes"].values())
    events = measured("event_frames")
    prepare, batch = (
        events[f"{what}: saformer"]["speedup"] for what in ("prepare, T=16", "batch of 16")
    )
    if page is README:
        crop, all_of_it = (recipe["times_faster"] for recipe in cifar)
        assert {f"{ratio:.0f}" for ratio in (crop, all_of_it, prepare, batch)} <= shown
        return
    for recipe in cifar:
        speed = recipe["images_per_second"]["ours"]
        assert {f"{recipe['times_faster']:.1f}", f"{speed:,.0f}"} <= shown
    for what in ("prepare, T=16", "batch of 16", "batch of 32"):
        row = events[f"{what}: saformer"]
        assert {f"{row['speedup']:.0f}", f"{1 / row['median_s']:,.0f}"} <= shown, what
