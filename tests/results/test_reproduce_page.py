"""docs/reproduce.md says what the code does."""

import json
import re
from pathlib import Path

import yaml

from saformer.results.published import Provenance
from saformer.results.settings import read_table, table_names, table_path
from saformer.runs.columns import COLUMNS
from saformer.runs.identity import FREE, SAME

PAGE = (Path(__file__).parents[2] / "docs" / "reproduce.md").read_text()


def section(heading: str) -> str:
    return PAGE.partition(f"## {heading}\n")[2].partition("\n##")[0]


def test_every_table_stands_there_with_its_runs():
    """The page names every table of conf/paper/ and how many runs it has."""
    rows = dict(re.findall(r"^\| `(\w+)` \|.*?\| (\d+) \|", section("Tables"), re.MULTILINE))
    tables = {name: read_table(table_path(name)) for name in table_names()}
    assert rows == {
        name: str(len(table.seeds) * sum(len(part.rows) for part in table.parts()))
        for name, table in tables.items()
    }


def test_every_setting_that_defines_nothing_stands_there():
    """The settings in which the runs of a row may differ are the ones of the code."""
    named = set(re.findall(r"`([\w.*]+)`", section("Which run belongs to which row")))
    for name in (*FREE, *SAME):
        listed = name in named or ("trainer.enable_*" in named and "trainer.enable_" in name)
        assert listed or name == "seed", name


def test_every_column_and_provenance_stands_there():
    """The page lists each column and each provenance, and no other."""
    listed = section("A table of your own").partition("| column |")[2]
    firsts = "".join(line.split("|")[1] for line in listed.splitlines() if line.startswith("| `"))
    assert set(re.findall(r"`(\w+)`", firsts)) == set(COLUMNS)
    kinds = re.findall(r"^\| `(\w+)` \|", section("Published figures"), re.MULTILINE)
    assert set(kinds) == {kind.value for kind in Provenance}


def test_the_example_is_a_table():
    """The file shown is read as a table."""
    (text,) = re.findall(r"^```yaml\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    Path("mine.yaml").write_text(text)
    table = read_table(table_path("mine.yaml"))
    assert [row.label for row in table.rows] == [
        row["label"] for row in yaml.safe_load(text)["rows"]
    ]


def test_the_expected_time_is_that_of_the_benchmark():
    """Hours and days on the page are those that benchmarks.expected_time wrote."""
    results = Path(__file__).parents[2] / "benchmarks" / "results" / "amd-epyc-2-cores"
    measured = json.loads((results / "expected_time.json").read_text())
    rows = re.findall(
        r"^\| `(\w+)` \| (\d+) \| (.*?) \| (.*?) \|$", section("How long it takes"), re.M
    )
    assert len(rows) == 4
    for name, runs, one, eight in rows:
        assert int(runs) == measured["runs"][name]
        for devices, text in ((1, one), (8, eight)):
            hours = measured["hours_one_gpu"][name] / devices
            assert text == (f"{hours:.0f} h" if hours < 72 else f"{hours / 24:.0f} days")
    assert f"{min(measured['macs_per_second'].values()) / 1e12:.1f} x 10^12" in PAGE
