"""Errors that the user can correct; each has a message of one line.

The command line prints the message of a `UserError` without a traceback and exits with its code.
Any other exception is an error in our code and keeps its full traceback.
"""

from enum import Enum
from pathlib import Path

from saformer.escape import plain


class UserError(Exception):
    """An error that the user at the command line can correct."""

    exit_code = 2


class SettingError(UserError, ValueError):
    """A setting has an invalid value; the message names the setting as the user types it."""


class DataError(UserError):
    """Data on the disk is missing or wrong.

    Args:
        path: The file or folder with the problem.
        expected: What was expected there.
        found: What was found instead.
        fix: What the user should do.
    """

    def __init__(self, path: str | Path, expected: str, found: str, fix: str) -> None:
        self.path, self.expected, self.found, self.fix = Path(path), expected, found, fix
        super().__init__(f"{path}: expected {expected}, found {found}. {fix}")

    def __reduce__(self) -> tuple[type, tuple[Path, str, str, str]]:
        """Pickle the error, so that a data worker can send it to the main process."""
        return type(self), (self.path, self.expected, self.found, self.fix)


class OtherRunError(UserError):
    """A folder holds another run, which is not changed."""


class InUseError(OtherRunError):
    """Another process uses a folder."""


class CheckpointError(UserError):
    """A checkpoint is missing, damaged, or belongs to another model."""


class TrainingStopped(UserError):
    """Training cannot continue (for example because the loss is NaN); saved files are kept."""

    exit_code = 1


def require(ok: bool, setting: str, rule: str, value: object) -> None:
    """Raise a `SettingError` that reads "<setting> must <rule>, not <value>" unless `ok`."""
    if not ok:
        shown = value.value if isinstance(value, Enum) else value
        raise SettingError(f"{setting} must {rule}, not {plain(str(shown))}")
