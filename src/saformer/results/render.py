"""Render a table for the terminal, as Markdown, as LaTeX and as CSV."""

from dataclasses import dataclass

from rich.box import SIMPLE
from rich.table import Table as RichTable
from rich.text import Text

from saformer import escape
from saformer.results.published import PATH
from saformer.results.tables import Cell, Row, Table
from saformer.runs.columns import Column

NONE = "\u2013"  # an en dash
SEEDS = "Mean ± sample standard deviation over the seeds of each row; seeds: done of wanted."
PROTOCOL = (
    "Test accuracy is that of the best epoch on validation images held out of training; the test "
    "set is used once."
)
PEERS = (
    "Published figures do not compare with it: as far as is known they are of the best epoch on "
    "the test set itself, after training on all training images."
)
ENERGY = (
    "Energy is an estimate of arithmetic on 45 nm constants, per image, under the convention named "
    "with it (docs/energy.md); it excludes memory and was not measured on hardware."
)


@dataclass(frozen=True)
class Grid:
    """A table as text: header, rows under headings, notes below."""

    header: list[str]
    sections: list[tuple[str, list[list[str]]]]
    notes: list[str]


def grid(table: Table) -> Grid:
    """Make the text of a table, with every number as it is printed."""
    cited: dict[str, int] = {}
    units = {
        name: column.unit(row.cell(column).mean for row in table.rows)
        for name, column in table.columns.items()
    }
    header = ["", "T", "seeds"]
    header += [column.header.format(unit=units[name][0]) for name, column in table.columns.items()]
    sections = []
    for label, rows in table.sections():
        lines = []
        for row in rows:
            line = [row.label, str(row.config["timesteps"]), f"{len(row.runs)}/{len(row.seeds)}"]
            for name, column in table.columns.items():
                if column.published:
                    line.append(_published(row, column, cited))
                else:
                    line.append(_cell(row.cell(column), column, units[name][1], len(row.runs)))
            lines.append(line)
        sections.append((label, lines))
    return Grid(header, sections, _notes(table, cited))


def terminal(table: Table) -> RichTable:
    """The table for a terminal."""
    drawn = grid(table)
    shown = RichTable(title=_text(table.title), title_justify="left", box=SIMPLE)
    for index, word in enumerate(drawn.header):
        shown.add_column(_text(word), justify="right" if index else "left")
    for label, rows in drawn.sections:
        if label:
            shown.add_section()
            shown.add_row(_text(label, style="bold"))
        for row in rows:
            shown.add_row(*map(_text, row))
    return shown


def markdown(table: Table) -> str:
    """The table as a page, with the commands that make its missing runs."""
    drawn = grid(table)
    lines = [f"# {escape.markdown(table.title)}", ""]
    lines += [
        _markdown_row(drawn.header),
        f"| {' | '.join(['---', *['---:'] * len(drawn.header[1:])])} |",
    ]
    for label, rows in drawn.sections:
        if label:
            empty = "  |" * len(drawn.header[1:])
            lines.append(f"| **{escape.markdown(label)}** |{empty}")
        lines += map(_markdown_row, rows)
    lines += ["", *(f"- {escape.markdown(note)}" for note in drawn.notes)]
    if commands := missing(table):
        lines += ["", "## Missing", "", "```bash", *commands, "```"]
    if table.remarks:
        lines += ["", "## Run folders", ""]
        lines += [f"- {escape.markdown(remark)}" for remark in table.remarks]
    return "\n".join(lines) + "\n"


def latex(table: Table) -> str:
    """The table for a paper that loads booktabs; comments list the missing runs."""
    drawn = grid(table)
    width = len(drawn.header)
    body = []
    for index, (label, rows) in enumerate(drawn.sections):
        if index:
            body.append(r"\midrule")
        if label:
            body.append(rf"\multicolumn{{{width}}}{{l}}{{\textit{{{escape.latex(label)}}}}} \\")
        body += [_latex_row(row) for row in rows]
    notes = r" \\ {}".join(map(escape.latex, drawn.notes))
    lines = [
        *(f"% missing: {line}" for line in missing(table)),
        "% needs \\usepackage{booktabs}",
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{escape.latex(table.title)}}}",
        rf"\label{{tab:{''.join(c if c.isalnum() else '-' for c in table.name)}}}",
        rf"\begin{{tabular}}{{l{'r' * (width - 1)}}}",
        r"\toprule",
        _latex_row(drawn.header),
        r"\midrule",
        *body,
        r"\bottomrule",
        r"\end{tabular}",
        rf"\par\smallskip{{\footnotesize\raggedright {notes}\par}}",
        r"\end{table}",
    ]
    return "\n".join(lines) + "\n"


def csv_text(table: Table) -> str:
    """One line per row, with numbers in full precision; units are G for counts, mJ for energy."""
    lines: list[dict[str, object]] = []
    for row in table.rows:
        line: dict[str, object] = {
            "section": row.section,
            "row": row.label,
            "timesteps": row.config["timesteps"],
            "overrides": " ".join(row.words),
            "seeds": " ".join(map(str, sorted(row.runs))),
            "missing_seeds": " ".join(map(str, row.missing)),
            "runs": "; ".join(str(run.folder) for _, run in sorted(row.runs.items())),
        }
        for name, column in table.columns.items():
            if column.published:
                values = [(getattr(f, column.published), s) for f, s in row.published]
                given = [(value, source) for value, source in values if value is not None]
                line[name] = "; ".join(str(value) for value, _ in given)
                line[f"{name}_source"] = "; ".join(source.cite() for _, source in given)
                continue
            cell = row.cell(column)
            line |= {
                f"{name}_mean": cell.mean,
                f"{name}_std": cell.std,
                f"{name}_n": len(cell.values),
            }
            if column.convention:
                line[f"{name}_convention"] = cell.convention
        lines.append(line)
    return escape.csv_text(list(lines[0]), lines)


def missing(table: Table) -> list[str]:
    """Commands that make the missing runs, each below a comment that names its row.

    The comment has its own line, because zsh treats a comment after a typed command as arguments.
    """
    lines = []
    for row in table.rows:
        for command in row.commands(table.outputs):
            lines += [escape.comment(row.name), command]
    return lines


def _notes(table: Table, cited: dict[str, int]) -> list[str]:
    """Notes that a reader of the table needs."""
    columns = table.columns.values()
    notes = [f"[{number}] {source}" for source, number in cited.items()]
    notes.append(SEEDS)
    if "test_top1" in table.columns:
        notes.append(PROTOCOL)
    if cited and "published" in table.columns:
        notes.append(PEERS)
    if any(name.startswith("energy") for name in table.columns):
        notes.append(ENERGY)
    if any(column.published for column in columns):
        empty = {figure.method for row in table.rows for figure, _ in row.published if figure.empty}
        notes += [
            f"The published figures of {method} are not known here: if you hold the paper, fill "
            f"them in, method {method} of {PATH.name} in saformer/results."
            for method in sorted(empty)
        ]
    runs = [run for row in table.rows for run in row.runs.values()]
    if runs:
        code = sorted({run.code or "unknown" for run in runs})
        precision = sorted({str(run.config["trainer"].get("precision")) for run in runs})
        notes.append(
            f"{len(runs)} runs; commit {', '.join(code)}; precision {', '.join(precision)}."
        )
    return notes


def _cell(cell: Cell, column: Column, factor: float, runs: int) -> str:
    """Mean, deviation and convention; also the number of seeds if it differs from the row's."""
    if cell.mean is None:
        return NONE
    decimals = column.digits(cell.mean * factor)
    text = f"{cell.mean * factor:.{decimals}f}"
    if cell.std is not None and column.spread:
        # The standard deviation of whole numbers, such as epochs, is not a whole number.
        text += f" ± {cell.std * factor:.{max(decimals, 1) if column.decimals == 0 else decimals}f}"
    if cell.convention:
        text += f" {cell.convention}"
    if len(cell.values) < runs:
        text += f" ({len(cell.values)} seeds)"
    return text


def _published(row: Row, column: Column, cited: dict[str, int]) -> str:
    """Every published value, with the number of its source."""
    shown = []
    for figure, source in row.published:
        value = getattr(figure, column.published or "")
        if value is not None:
            number = cited.setdefault(source.cite(), len(cited) + 1)
            shown.append(f"{value:.{column.digits(value)}f} [{number}]")
    return ", ".join(shown) or NONE


def _text(text: str, style: str = "") -> Text:
    """A cell for the terminal; in a Text, rich does not treat [1] as markup."""
    return Text(escape.plain(text), style=style)


def _markdown_row(cells: list[str]) -> str:
    return f"| {' | '.join(map(escape.markdown, cells))} |"


def _latex_row(cells: list[str]) -> str:
    return " & ".join(map(escape.latex, cells)) + r" \\"
