"""Whatever a name or label holds, our output shows it and nothing obeys it."""

import csv
import io
import logging
import re
import subprocess
from pathlib import Path, PurePosixPath, PureWindowsPath

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import example, given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from saformer.escape import (
    PlainFormatter,
    comment,
    csv_text,
    latex,
    lines,
    markdown,
    override,
    plain,
    shell,
)
from saformer.names import is_name

HOSTILE = st.text(
    st.characters() | st.sampled_from("\n\r\t\x1b\x00\x85\u2028\u202e$\\|[]()<>&`*_~=+-@'\"{}%#;")
)
MATH = (r"$\pm$", r"$\mu$")  # what an escape makes of a sign


def one_line(text: str) -> bool:
    """Whether a text is a line for every program that may split it, and moves no cursor."""
    return text.isprintable() and len(f"{text}.".splitlines()) == 1


@given(HOSTILE)
@example("a\x1b[2J\nb\u202e")
def test_plain_text_is_one_printable_line(text):
    """Nothing is left of line breaks, escapes of terminals and marks of direction."""
    assert one_line(plain(text))
    assert plain(text) == text or not text.isprintable()


@given(HOSTILE)
@example(r"$\input{/etc/passwd}$")
@example("^^5cinput{x}")
def test_latex_has_no_command_of_the_text(text):
    """Braces are balanced, and the commands are those that stand for a character."""
    written = latex(text)
    assert one_line(written)
    bare = written
    for sign in MATH:
        bare = bare.replace(sign, "")
    bare = re.sub(r"\\text[a-z]+\{\}|\\[&%$#_{}]", "", bare)
    bare = bare.removeprefix("{}")
    assert not set(bare) & set("\\{}$&#%_~^")
    assert not written.startswith(("[", "*"))


@given(HOSTILE)
@example("a | b")
@example("[x](javascript:alert(1)) <script> **b** `c` _d_ &lt; $e$ ~~f~~")
@example("![](http://tracker)")
def test_markdown_is_one_cell_of_text(text):
    """A cell reads back as the text alone: no further cell, no HTML, no link, no emphasis."""
    page = f"| a | b |\n| --- | --- |\n| {markdown(text)} | 1 |\n"
    tokens = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"]).parse(page)
    cells = [token for token in tokens if token.type == "inline"]
    assert len(cells) == 4 and cells[3].content == "1"
    children = cells[2].children or []
    assert {child.type for child in children} <= {"text", "text_special"}
    assert "".join(child.content for child in children) == plain(text).strip()


@given(st.lists(HOSTILE, min_size=1))
@example(["=cmd|' /C calc'!A0", "@x", "+1+1", "-2+3", "\uff1d1"])
def test_csv_is_one_cell_and_no_formula(texts):
    """Each text reads back as one cell that no spreadsheet takes for a formula."""
    header = [f"c{i}" for i in range(len(texts))]
    written = csv_text(header, [dict(zip(header, texts, strict=True))])
    names, cells = csv.reader(io.StringIO(written, newline=""))
    assert names == header and len(cells) == len(texts)
    for text, cell in zip(texts, cells, strict=True):
        assert all(map(one_line, cell.split("\n")))
        if cell.startswith(("=", "+", "-", "@", "\uff1d")):
            float(text)
        assert cell.removeprefix("'") == lines(text).removeprefix("'")


@given(st.floats(allow_nan=False) | st.integers())
def test_csv_keeps_numbers(number):
    """Numbers are what they were, those below zero too, and those written as text."""
    cells = list(csv.reader(csv_text(["a", "b"], [{"a": number, "b": str(number)}]).splitlines()))
    assert [float(cell) for cell in cells[1]] == [float(number)] * 2


@given(st.lists(HOSTILE.filter(lambda text: "\0" not in text), min_size=1))
def test_a_command_is_one_line(words):
    """A printed command has no line of its own making."""
    assert one_line(shell(words))


def test_bash_reads_the_words_that_were_meant():
    """Pasted into a shell, a command has the words it was made of, and a comment does nothing."""
    words = [
        "a b",
        "$(touch pwned)",
        "x\ntouch pwned",
        "'\\\x1b[2J1",
        "\u202e",
        "name=`touch pwned`",
        "\udc80 and \udcff",  # bytes of a file's name that are no UTF-8
    ]
    lines = [comment("x; touch pwned"), comment("y\ntouch pwned"), comment("$(touch pwned)")]
    script = "\n".join([*lines, shell(["printf", r"%s\0", *words])])
    done = subprocess.run(
        ["bash", "-c", script], capture_output=True, errors="surrogateescape", check=True
    )
    assert done.stdout.split("\0")[:-1] == words
    assert not list(Path().iterdir())


@given(HOSTILE)
def test_a_comment_is_one_line_that_does_nothing(text):
    """It begins with # and is quoted where a shell without comments would see an operator."""
    line = comment(text)
    assert one_line(line) and line.startswith("# ")
    bare = re.sub(r"'[^']*'|\"'\"", "", line[2:])
    assert not set(bare) & set(";&|`$<>()!*?~\\\"'{}[]#=")


def test_a_harmless_comment_stays_as_it_is():
    """What no shell reads as anything is not quoted."""
    assert comment("ours 4_384, 95.1 %: +0.2/-0.1") == "# ours 4_384, 95.1 %: +0.2/-0.1"


def test_a_log_has_no_control_characters():
    """Line breaks stay, since tracebacks have them; cursors do not move."""
    record = logging.LogRecord("a", logging.INFO, "", 0, "on\x1b[2J %s\nb", ("\u202e",), None)
    assert PlainFormatter("%(message)s").format(record) == "on\\x1b[2J \\u202e\nb"


@given(HOSTILE)
@example("../../x")
@example("..")
@example("x\n#SBATCH --wrap=id")
@example("/etc")
@example("C:\\x")
@example("-rf")
@example("=1")
def test_a_name_is_one_printable_folder(text):
    """What is accepted is one component of a path, printable, not hidden and no option."""
    if is_name(text):
        assert one_line(text) and not text.startswith((".", "-", " ", "=", "+", "@"))
        assert PurePosixPath(text).parts == (text,) and PurePosixPath("a", text).name == text
        assert PureWindowsPath("a", text.replace(":", "")).name == text.replace(":", "")


@pytest.mark.parametrize("name", ["saformer_tiny_digits", "SAFormer-4-384", "T = 4, ü", "a~b", "9"])
def test_usual_names_are_names(name):
    """Letters, digits, signs and spaces within."""
    assert is_name(name)


def test_a_name_has_at_most_200_bytes():
    """Bytes and not letters are counted, as a file system does."""
    assert is_name("é" * 100) and not is_name("é" * 100 + "a")


@given(st.text(alphabet="/-_.aZ9 =,'\\\"{}[]éß日", min_size=1))
def test_a_value_for_hydra_is_read_as_it_is(value):
    """Hydra's parser gives back what was meant, letters of other alphabets too."""
    (parsed,) = OverridesParser.create().parse_overrides([f"name={override(value)}"])
    assert parsed.value() == value
