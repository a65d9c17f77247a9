"""Text of others in our output: one escape for each format, used by all that write it.

Names, labels and what stands in others' files may hold anything. Here each becomes text that a
terminal, a page, a paper, a spreadsheet or a shell shows and does not obey. Imports no torch.
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
"""What Hydra takes for a text without quotes: neither a number nor letters of other alphabets."""
CONSTANTS = ("true", "false", "null", "inf", "nan")
FORMULA = tuple("=+-@\uff1d\uff0b\uff0d\uff20")  # and the same at the width of Chinese characters
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
    r"|(?<![^\W_])_|_(?![^\W_])"  # but not within a word, where it says nothing
)


def plain(text: str) -> str:
    """One printable line: what moves a cursor, a line or the direction of writing as its code."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)


def lines(text: str) -> str:
    """The same with each line as `plain` has it: line breaks stay where they are meant."""
    return "\n".join(map(plain, text.split("\n")))


def say(text: str, file: TextIO | None = None) -> None:
    """Print one line at once, as `plain` has it."""
    print(plain(text), file=file or sys.stdout, flush=True)


def latex(text: str) -> str:
    """Plain text for LaTeX."""
    escaped = plain(text).translate(LATEX)
    # Behind the end of a row these two would be its arguments.
    return f"{{}}{escaped}" if escaped.startswith(("[", "*")) else escaped


def markdown(text: str) -> str:
    """Plain text within a line or a cell of markdown, in which no HTML and no link is left."""
    marked = MARKDOWN.sub(lambda match: f"\\{match[0]}", plain(text))
    return marked.replace("&", "&amp;").replace("<", "&lt;")


def csv_text(header: Sequence[str], rows: Iterable[Mapping[str, object]]) -> str:
    """Rows of CSV below a header, in which a spreadsheet finds no formula."""
    text = StringIO()
    writer = csv.DictWriter(text, header, lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({name: _cell(value) for name, value in row.items()})
    return text.getvalue()


def shell(words: Sequence[str]) -> str:
    """A command for bash and zsh, in one line whatever its words hold."""
    return " ".join(shlex.quote(w) if w.isprintable() else f"$'{_coded(w)}'" for w in words)


def override(value: Any) -> str:
    """A value that Hydra's parser reads as it is: text, a number, null, a list or a dictionary."""
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
    # Its parser takes a backslash for an escape before a quote, and at the end.
    inside = re.sub(r'(\\*)("|$)', lambda m: 2 * m[1] + ('\\"' if m[2] else ""), value)
    return f'"{inside}"'


def comment(text: str) -> str:
    """A comment of a shell; quoted, since zsh takes it for a command where it is typed."""
    text = plain(text)
    harmless = all(char.isalnum() or char in " _-+.,:/%" for char in text)
    # Quoted by hand, since shlex takes a word with = for one that needs no quotes.
    return f"# {text}" if harmless else "# '" + text.replace("'", "'\"'\"'") + "'"


class PlainFormatter(logging.Formatter):
    """Writes each line of a message as `plain` has it."""

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
    """A word within $'...': what is not printed as the octal numbers of its bytes."""
    return "".join(c if c.isprintable() and c not in "'\\" else _octal(c) for c in word)


def _octal(char: str) -> str:
    undecoded = "\udc80" <= char <= "\udcff"  # a byte of a file's name that is no UTF-8
    coded = char.encode(errors="surrogateescape" if undecoded else "replace")
    return "".join(f"\\{byte:03o}" for byte in coded)
