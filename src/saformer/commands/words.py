"""The words of a command line that is not Hydra's: names, and the overrides of a training."""

import argparse
from typing import NoReturn

from saformer.errors import SettingError


class WordParser(argparse.ArgumentParser):
    """Answers a wrong word in one line, as all our commands do."""

    def error(self, message: str) -> NoReturn:
        raise SettingError(f"{message}. Help: {self.prog} --help")


def names_and_settings(words: list[str]) -> tuple[list[str], list[str]]:
    """Words without `=`, and those with it."""
    return [w for w in words if "=" not in w], [w for w in words if "=" in w]
