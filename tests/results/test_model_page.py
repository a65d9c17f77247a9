"""The accuracies that docs/model.md gives are those of the tables and results beside it."""

import csv
import json
import re
from pathlib import Path
from statistics import mean, stdev

import pytest
import torch
from torchmetrics.functional.regression import spearman_corrcoef

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "model.md").read_text()
SECTIONS = ("digits, T = 4", "digits as events, T = 4")
FEWER = tuple(f"{data}, T = {T}" for data in ("digits", "digits as events") for T in (1, 2))


def lines_of(name: str) -> list[dict[str, str]]:
    """The lines of a published table."""
    with (ROOT / "docs" / "tables" / f"{name}.csv").open() as file:
        return list(csv.DictReader(file))


def shown(name: str) -> dict[tuple[str, str], str]:
    """Test accuracy of each row of a published table, as pages write it."""
    return {
        (line["section"], line["row"]): (
            f"{float(line['test_top1_mean']):.2f} ± {float(line['test_top1_std']):.2f}"
        )
        for line in lines_of(name)
    }


@pytest.mark.parametrize(
    ("name", "header", "sections"),
    [
        ("rivals", "| | digits | digits as events | energy", SECTIONS),
        ("rivals_timesteps", f"| | {' | '.join(FEWER)} |", FEWER),
        ("digits", "| | digits | digits as events | difference", SECTIONS),
    ],
)
def test_accuracies_are_those_of_the_table(name, header, sections):
    """Every row of a table stands on the page, for the sections it names, and no other."""
    table = shown(name)
    rows = [label for section, label in table if section == sections[0]]
    lines = PAGE[PAGE.index(header) :].partition("\n\n")[0].splitlines()[2:]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert [line[: 1 + len(sections)] for line in cells] == [
        [label, *(table[section, label] for section in sections)] for label in rows
    ]


def test_ranks_are_those_of_the_tables():
    """The rank correlations between timesteps and between datasets, recomputed."""
    means: dict[str, list[float]] = {}
    for name in ("rivals", "rivals_timesteps"):
        for line in lines_of(name):
            if "spikes added" not in line["row"]:
                accuracy = round(float(line["test_top1_mean"]), 3)
                means.setdefault(line["section"], []).append(accuracy)

    def ranked(one: str, other: str) -> str:
        return f"{spearman_corrcoef(*(torch.tensor(means[x]) for x in (one, other))):.2f}"

    over_T = [ranked(f"{d}, T = 1", f"{d}, T = 4") for d in ("digits", "digits as events")]
    assert f"Spearman {over_T[0]} on digits, {over_T[1]} on events" in PAGE
    between = [ranked(f"digits, T = {T}", f"digits as events, T = {T}") for T in (1, 2, 4)]
    assert "({}, {} and {} at T = 1, 2 and 4)".format(*between) in PAGE


def test_differences_are_those_of_the_pairs():
    """Mean and standard error over seeds and both datasets, of the accuracies in the table."""
    (path,) = (ROOT / "benchmarks" / "results").glob("*/readings.json")
    result = json.loads(path.read_text())
    pairs: dict[str, list[float]] = {}
    for rows in result["test_top1"].values():
        first, *others = rows
        for label in others:
            differences = (a - b for a, b in zip(rows[label], rows[first], strict=True))
            pairs.setdefault(label, []).extend(differences)
    assert len(pairs) == 9
    for label, of in pairs.items():
        difference, error = mean(of), stdev(of) / len(of) ** 0.5
        line = re.search(rf"^\| {re.escape(label)} \|.*$", PAGE, re.MULTILINE)
        assert line is not None and line[0].endswith(f"| {difference:+.2f} ± {error:.2f} |")
    table = shown("digits")
    for section, rows in result["test_top1"].items():
        for label, values in rows.items():
            assert table[section, label].startswith(f"{mean(values):.2f} ")
