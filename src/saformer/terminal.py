"""Where tables are printed: as wide as the terminal is, or uncut into a file. Imports no torch."""

import sys

from rich.console import Console

WIDTH = 240
"""Columns without a terminal, where rich would squeeze a table into 80."""


def console() -> Console:
    """What prints rich's tables to standard output."""
    return Console(width=None if sys.stdout.isatty() else WIDTH)
