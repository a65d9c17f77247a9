"""The accuracies that docs/model.md gives are those of the tables and results beside it."""

import csv
import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "model.md").read_text()
SECTIONS = ("digits, T = 4", "digits as events, T = 4")


def shown(name: str) -> dict[tuple[str, str], str]:
    """Test accuracy of each row of a published table, as pages write it."""
    with (ROOT / "docs" / "tables" / f"{name}.csv").open() as file:
        return {
            (line["section"], line["row"]): (
                f"{float(line['test_top1_mean']):.2f} ± {float(line['test_top1_std']):.2f}"
            )
            for line in csv.DictReader(file)
        }


@pytest.mark.parametrize(
    ("name", "first"), [("rivals", "SAFormer (SASA, DWC)"), ("digits", "SAFormer (mask")]
)
def test_accuracies_are_those_of_the_table(name, first):
    """Every row of T = 4 stands on the page, for both datasets, and no other."""
    table = shown(name)
    rows = [label for section, label in table if section == SECTIONS[0]]
    start = PAGE.index(f"\n| {first}")
    lines = PAGE[start + 1 :].partition("\n\n")[0].splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert [line[:3] for line in cells] == [
        [label, *(table[section, label] for section in SECTIONS)] for label in rows
    ]


def test_differences_are_those_of_the_pairs():
    """Their mean and standard error, and the accuracies they were computed from."""
    (path,) = (ROOT / "benchmarks" / "results").glob("*/readings.json")
    result = json.loads(path.read_text())
    for label, (difference, error) in result["difference_and_error"].items():
        line = re.search(rf"^\| {re.escape(label)} \|.*$", PAGE, re.MULTILINE)
        assert line is not None and line[0].endswith(f"| {difference:+.2f} ± {error:.2f} |")
    table = shown("digits")
    for section, rows in result["test_top1"].items():
        for label, values in rows.items():
            mean = sum(values) / len(values)
            assert table[section, label].startswith(f"{mean:.2f} ")
