"""What a name may be that becomes the name of a folder or a file. Imports no torch."""

from saformer.errors import require

LONGEST = 200  # bytes; file systems have 255, and results put the time behind a name
RULE = (
    "be one printable name and no path: a letter, a digit or _ first, no / and no \\, at most "
    f"{LONGEST} bytes"
)


def is_name(text: str) -> bool:
    """Whether a text is one printable component of a path, and neither hidden nor an option."""
    return (
        (text[:1].isalnum() or text.startswith("_"))
        and text.isprintable()
        and not {"/", "\\"} & set(text)
        and text == text.rstrip()
        and len(text.encode()) <= LONGEST
    )


def require_name(setting: str, name: str) -> None:
    """Refuse a name that leaves its folder, or that a terminal or a script takes for something.

    Args:
        setting: What was named, as it is typed.
        name: The name.

    Raises:
        SettingError: It is no name of one folder.
    """
    require(is_name(name), setting, RULE, f"'{name}'")


def require_line(setting: str, text: str) -> None:
    """Refuse a text with line breaks or control characters, where one line is shown or written.

    Raises:
        SettingError: It has some.
    """
    require(text.isprintable(), setting, "be one line of printable characters", f"'{text}'")
