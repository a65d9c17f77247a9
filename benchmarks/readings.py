"""What table `digits` says of the defaults, pair by pair: `python -m benchmarks.readings`.

Two networks trained with the same seed on the same data see the same split and the same order of
images, so the difference of the two tells more than the difference of two means. A reading would
take the default's place if it were better by more than two standard errors of these differences,
over both datasets and all seeds. Reads the run folders of `saformer-table digits --run`, T = 4.
"""

import argparse
from pathlib import Path
from statistics import mean, stdev

from benchmarks.report import save, table
from saformer.results.rows import collect, compose_rows, titled
from saformer.results.tables import Row


def accuracies(rows: list[Row]) -> dict[str, list[float]]:
    """Test accuracy in percent by row, in the order of its seeds."""
    return {
        row.label: [100 * (row.runs[seed].results or {})["test"]["test/top1"] for seed in row.seeds]
        for row in rows
    }


def paired(these: list[float], those: list[float]) -> tuple[float, float]:
    """Mean of the differences, and its standard error."""
    differences = [a - b for a, b in zip(these, those, strict=True)]
    return mean(differences), stdev(differences) / len(differences) ** 0.5


def main() -> None:
    """Read, print a table, write readings.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--outputs", type=Path, default=Path("outputs"))
    args = parser.parse_args()
    name, config = titled("digits", [])
    filled = collect(name, config, compose_rows(name, config, []), args.outputs)
    sections = {
        section: [row for row in filled.rows if row.section == section]
        for section in ("digits, T = 4", "digits as events, T = 4")
    }
    missing = [row.name for rows in sections.values() for row in rows if row.missing]
    if missing:
        parser.error(f"runs are missing ({missing[0]}): saformer-table digits --run makes them")
    by_section = {section: accuracies(rows) for section, rows in sections.items()}
    labels = list(next(iter(by_section.values())))
    joined = {label: [v for part in by_section.values() for v in part[label]] for label in labels}
    compared = {label: paired(joined[label], joined[labels[0]]) for label in labels[1:]}
    table(
        ["against " + labels[0], "difference", "standard error"],
        [[label, f"{d:+.2f}", f"{error:.2f}"] for label, (d, error) in compared.items()],
    )
    save("readings", {"test_top1": by_section, "difference_and_error": compared})


if __name__ == "__main__":
    main()
