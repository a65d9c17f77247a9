"""Errors made by the user, told in one line.

The command line prints the message of a `UserError` without a traceback and exits with its code.
Any other exception is ours and keeps its full traceback.
"""

from enum import Enum
from pathlib import Path

from saformer.escape import plain


class UserError(Exception):
    """Something the person at the command line can put right."""

    exit_code = 2


class SettingError(UserError, ValueError):
    """A setting has a value that cannot work; the message names it as it is typed."""


class DataError(UserError):
    """Data on disk is missing or is not what it should be.

    Args:
        path: The file or folder that was looked at.
        expected: What should have been there.
        found: What is there instead.
        fix: The one thing to do about it.
    """

    def __init__(self, path: str | Path, expected: str, found: str, fix: str) -> None:
        self.path, self.expected, self.found, self.fix = Path(path), expected, found, fix
        super().__init__(f"{path}: expected {expected}, found {found}. {fix}")

    def __reduce__(self) -> tuple[type, tuple[Path, str, str, str]]:
        """How it comes out of a loader's process."""
        return type(self), (self.path, self.expected, self.found, self.fix)


class OtherRunError(UserError):
    """A folder holds another run, which stays as it is."""


class InUseError(OtherRunError):
    """Another process works in a folder."""


class CheckpointError(UserError):
    """A checkpoint is missing, damaged, or belongs to another model."""


class TrainingStopped(UserError):
    """Training cannot go on (for example the loss is NaN); what was saved so far stays."""

    exit_code = 1


def require(ok: bool, setting: str, rule: str, value: object) -> None:
    """Raise a `SettingError` that reads "<setting> must <rule>, not <value>" unless `ok`."""
    if not ok:
        shown = value.value if isinstance(value, Enum) else value
        raise SettingError(f"{setting} must {rule}, not {plain(str(shown))}")
