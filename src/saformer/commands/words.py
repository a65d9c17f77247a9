"""The words of a command line that is not Hydra's: names, and the overrides of a training."""

import argparse
from typing import Any, NoReturn

from saformer.errors import SettingError


class WordParser(argparse.ArgumentParser):
    """Answers a wrong word in one line, and prints examples as they are written."""

    def __init__(self, prog: str, **arguments: Any) -> None:
        as_written = argparse.RawDescriptionHelpFormatter
        super().__init__(prog, formatter_class=as_written, allow_abbrev=False, **arguments)

    def error(self, message: str) -> NoReturn:
        raise SettingError(f"{message}. Help: {self.prog} --help")


def names_and_settings(words: list[str]) -> tuple[list[str], list[str]]:
    """Words without `=`, and those with it."""
    return [w for w in words if "=" not in w], [w for w in words if "=" in w]
