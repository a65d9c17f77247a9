"""Names of runs."""

import functools
import secrets
from datetime import datetime


@functools.cache
def run_id() -> str:
    """Name of this process's run folder: time of start and a random tail.

    The tail keeps apart two runs that start in the same second.
    """
    return f"{datetime.now():%Y-%m-%d_%H-%M-%S}-{secrets.token_hex(2)}"
