"""Escape foreign text in our output: one function for each output format.

Names, labels and files of other people may contain any characters. These functions make sure that a
terminal, a page, a paper, a spreadsheet or a shell displays such text and never executes it. This
module imports no torch.
"""

import csv
import logging
import re
import shlex
import sys
from collections.abc import Iterable, Mapping, Sequence
from enum import Enum
from io import StringIO
from typing import Any, TextIO

UNQUOTED = re.compile(r"(?=[a-z]|.*/)([\w/.:-]|\$\{[\w:.]*\})+", re.ASCII | re.IGNORECASE)
"""Text that Hydra reads as a string without quotes: ASCII only, and not a number."""
CONSTANTS = ("true", "false", "null", "inf", "nan")
FORMULA = tuple("=+-@\uff1d\uff0b\uff0d\uff20")  # also in the full width of Chinese characters
LATEX = str.maketrans(
    {
        **{char: f"\\{char}" for char in "&%$#_{}"},
        "\\": r"\textbackslash{}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "<": r"\textless{}",
        ">": r"\textgreater{}",
        "|": r"\textbar{}",
        "±": r"$\pm$",
        "µ": r"$\mu$",
        "\u2013": "--",
    }
)
MARKDOWN = re.compile(
    r"[\\`*|~$]"
    r"|\](?=[(\[:])"  # the end of a link's text
    r"|(?<![^\W_])_|_(?![^\W_])"  # but not within a word, where an underscore has no effect
)


def plain(text: str) -> str:
    """Make one printable line; control characters are replaced by their escape codes."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)


def lines(text: str) -> str:
    """Apply `plain` to each line; line breaks stay."""
    return "\n".join(map(plain, text.split("\n")))


def say(text: str, file: TextIO | None = None) -> None:
    """Print one line through `plain`, and flush."""
    print(plain(text), file=file or sys.stdout, flush=True)


def latex(text: str) -> str:
    """Escape text for LaTeX."""
    escaped = plain(text).translate(LATEX)
    # After the end of a table row, LaTeX would read [ or * as an argument of \\.
    return f"{{}}{escaped}" if escaped.startswith(("[", "*")) else escaped


def markdown(text: str) -> str:
    """Escape text for a line or a table cell of Markdown, so that it contains no HTML or link."""
    marked = MARKDOWN.sub(lambda match: f"\\{match[0]}", plain(text))
    return marked.replace("&", "&amp;").replace("<", "&lt;")


def csv_text(header: Sequence[str], rows: Iterable[Mapping[str, object]]) -> str:
    """Write rows as CSV with a header, so that a spreadsheet finds no formula in them."""
    text = StringIO()
    writer = csv.DictWriter(text, header, lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({name: _cell(value) for name, value in row.items()})
    return text.getvalue()


def shell(words: Sequence[str]) -> str:
    """Quote a command for bash and zsh; the result is always one line."""
    return " ".join(shlex.quote(w) if w.isprintable() else f"$'{_coded(w)}'" for w in words)


def override(value: Any) -> str:
    """Quote text, a number, null, a list or a dictionary so that Hydra reads it unchanged."""
    if isinstance(value, list | tuple):
        return f"[{','.join(map(override, value))}]"
    if isinstance(value, dict):
        return f"{{{','.join(f'{key}:{override(each)}' for key, each in value.items())}}}"
    if isinstance(value, Enum):
        value = value.value
    if not isinstance(value, str):
        return "null" if value is None else str(value)
    if UNQUOTED.fullmatch(value) and value.lower() not in CONSTANTS:
        return value
    # For Hydra's parser, a backslash is an escape only before a quote and at the end.
    inside = re.sub(r'(\\*)("|$)', lambda m: 2 * m[1] + ('\\"' if m[2] else ""), value)
    return f'"{inside}"'


def comment(text: str) -> str:
    """Make a shell comment; its text is quoted, because zsh executes a comment that is typed."""
    text = plain(text)
    harmless = all(char.isalnum() or char in " _-+.,:/%" for char in text)
    # Quote here and not with shlex, which does not quote a word with =.
    return f"# {text}" if harmless else "# '" + text.replace("'", "'\"'\"'") + "'"


class PlainFormatter(logging.Formatter):
    """Applies `plain` to each line of a message."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        """The formatted message, each line of it printable."""
        return lines(super().formatMessage(record))


def _cell(value: object) -> object:
    if not isinstance(value, str):
        return value
    value = lines(value)
    return f"'{value}" if value.startswith(FORMULA) and not _is_number(value) else value


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _coded(word: str) -> str:
    """Content of a word in $'...'; unprintable characters become octal codes of their bytes."""
    return "".join(c if c.isprintable() and c not in "'\\" else _octal(c) for c in word)


def _octal(char: str) -> str:
    undecoded = "\udc80" <= char <= "\udcff"  # a byte of a file name that is not UTF-8
    coded = char.encode(errors="surrogateescape" if undecoded else "replace")
    return "".join(f"\\{byte:03o}" for byte in coded)
