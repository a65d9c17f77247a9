"""Parse a command line that Hydra does not parse: names, and the overrides of a training."""

import argparse
from typing import Any, NoReturn

from saformer.errors import SettingError


class WordParser(argparse.ArgumentParser):
    """Answers a wrong word in one line, and prints examples without changing their layout."""

    def __init__(self, prog: str, **arguments: Any) -> None:
        as_written = argparse.RawDescriptionHelpFormatter
        super().__init__(prog, formatter_class=as_written, allow_abbrev=False, **arguments)

    def add_folders(self, runs: str, made: str) -> None:
        """Add `--outputs`, the folder of runs, and `--out`, the folder of the command's files.

        Args:
            runs: Help of the first.
            made: Help of the second.
        """
        self.add_argument("--outputs", metavar="DIR", default="outputs", help=runs)
        self.add_argument("--out", metavar="DIR", default="", help=made)

    def error(self, message: str) -> NoReturn:
        raise SettingError(f"{message}. Help: {self.prog} --help")


def names_and_settings(words: list[str]) -> tuple[list[str], list[str]]:
    """Split words into names, which have no `=`, and settings, which have one."""
    return [word for word in words if "=" not in word], [word for word in words if "=" in word]
