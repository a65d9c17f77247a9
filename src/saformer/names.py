"""Check names that become names of folders or files. This module imports no torch."""

from saformer.errors import require

LONGEST = 200  # bytes; file systems allow 255, but results append the time to a name
RULE = (
    "be one printable name and no path: a letter, a digit or _ first, no / and no \\, at most "
    f"{LONGEST} bytes"
)


def is_name(text: str) -> bool:
    """Whether a text is one printable path component that is not hidden and not like an option."""
    return (
        (text[:1].isalnum() or text.startswith("_"))
        and text.isprintable()
        and not {"/", "\\"} & set(text)
        and text == text.rstrip()
        and len(text.encode()) <= LONGEST
    )


def require_name(setting: str, name: str) -> None:
    """Refuse a name that leads out of its folder, or has a meaning for a terminal or a script.

    Args:
        setting: The setting with this name, as the user types it.
        name: The name.

    Raises:
        SettingError: The text cannot be the name of a folder.
    """
    require(is_name(name), setting, RULE, f"'{name}'")


def require_line(setting: str, text: str) -> None:
    """Refuse a text with line breaks or control characters, because it must be one line.

    Raises:
        SettingError: The text has such characters.
    """
    require(text.isprintable(), setting, "be one line of printable characters", f"'{text}'")
