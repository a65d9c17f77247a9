"""Silence known lines that say nothing about a run, and nothing else."""

import logging
import os
import warnings

from lightning.pytorch.utilities import rank_zero_only

LOGGED = (
    "litlogger",  # an advertisement
    "TPU available: ",
    "Loading `train_dataloader` to estimate",
    # Before the test; the line on its result names the checkpoint.
    "Restoring states from the checkpoint path",
    "Loaded model weights from the checkpoint",
)
"""Log lines, by words of theirs."""


def quiet() -> None:
    """Leave out known noise of Lightning; call it after Lightning is imported.

    All other warnings and log lines still come through. Calling it again changes nothing.
    """
    # `import lightning` adds a handler of its own; beside that of Hydra every line comes twice.
    logging.getLogger("lightning").handlers.clear()
    if getattr(rank_zero_only, "rank", 0) != 0:  # one of several processes speaks for all
        logging.getLogger("saformer").setLevel(logging.WARNING)
    for name in ("lightning.pytorch.utilities.rank_zero", "lightning.fabric.utilities.rank_zero"):
        logging.getLogger(name).addFilter(_says_something)

    def ignore(message: str, category: type[Warning] = UserWarning) -> None:
        warnings.filterwarnings("ignore", message, category)

    # Lightning's own copy of a torch function; nothing we could change.
    ignore(r"`isinstance\(treespec, LeafSpec\)` is deprecated", FutureWarning)
    # metrics.jsonl has one line for each epoch, whatever the interval of the logger.
    ignore(r"The number of training batches \(\d+\) is smaller than the logging interval")
    # All processes log the same there, because their counts have been added up.
    ignore(r"It is recommended to use `self\.log\('(energy|rate|neurons)/")
    ignore(r"(Experiment logs|Checkpoint) directory .* exists and is not empty")
    if "SLURM_JOB_ID" not in os.environ:  # inside a job the hint is right
        ignore(r"The `srun` command is available on your system but is not used")


def _says_something(record: logging.LogRecord) -> bool:
    return not any(words in record.getMessage() for words in LOGGED)
