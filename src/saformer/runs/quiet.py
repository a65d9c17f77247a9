"""Suppress known messages of Lightning that say nothing about a run; all others stay."""

import logging
import os
import warnings

from lightning.pytorch.utilities import rank_zero_only

LOGGED = (
    "litlogger",  # an advertisement
    "TPU available: ",
    "Loading `train_dataloader` to estimate",
    # These come before the test; our line on the result names the checkpoint too.
    "Restoring states from the checkpoint path",
    "Loaded model weights from the checkpoint",
)
"""A log line with one of these texts is suppressed."""


def quiet() -> None:
    """Suppress known messages of Lightning; call it after Lightning is imported.

    All other warnings and log lines are still shown. A second call changes nothing.
    """
    # `import lightning` adds its own log handler; together with Hydra's, each line appears twice.
    logging.getLogger("lightning").handlers.clear()
    if getattr(rank_zero_only, "rank", 0) != 0:  # only the first process logs for all
        logging.getLogger("saformer").setLevel(logging.WARNING)
    for name in ("lightning.pytorch.utilities.rank_zero", "lightning.fabric.utilities.rank_zero"):
        logging.getLogger(name).addFilter(_says_something)

    def ignore(message: str, category: type[Warning] = UserWarning) -> None:
        warnings.filterwarnings("ignore", message, category)

    # It comes from Lightning's copy of a torch function, so we cannot fix its cause.
    ignore(r"`isinstance\(treespec, LeafSpec\)` is deprecated", FutureWarning)
    # metrics.jsonl has one line for each epoch, independent of the logging interval.
    ignore(r"The number of training batches \(\d+\) is smaller than the logging interval")
    # All processes log the same values, because their counts were added up before.
    ignore(r"It is recommended to use `self\.log\('(energy|rate|neurons)/")
    ignore(r"(Experiment logs|Checkpoint) directory .* exists and is not empty")
    if "SLURM_JOB_ID" not in os.environ:  # inside a Slurm job the warning is useful
        ignore(r"The `srun` command is available on your system but is not used")


def _says_something(record: logging.LogRecord) -> bool:
    return not any(words in record.getMessage() for words in LOGGED)
