"""Check settings of checkpoint callbacks, so that each file is what its name says."""

import re
from typing import Any

from saformer.errors import SettingError, require
from saformer.names import RULE, is_name

OURS = "saformer.training.callbacks.checkpoint.RunCheckpoint"
HALF = "may save within an epoch: leave it out, or use lightning.pytorch.callbacks.ModelCheckpoint"
METRIC = re.compile(r"\{[^{}:]+(:[0-9.]*[defg]?)?\}")
"""A placeholder in the name of a file, which Lightning replaces by a number."""
REFUSED = {
    # The only value that an argument of RunCheckpoint may have, and why.
    "every_n_train_steps": (0, HALF),
    "train_time_interval": (None, HALF),
    "save_on_exception": (False, HALF),
    "save_on_train_epoch_end": (True, "would save within an epoch: leave it out"),
    "auto_insert_metric_name": (False, "would put '=' into file names: leave it out"),
    "save_weights_only": (False, "would leave out what a test and a resume need: leave it out"),
    "save_last": (
        False,
        "would name the best epoch last.ckpt: leave it out, callbacks.last writes the last epoch",
    ),
}


def require_own_files(callbacks: dict[str, Any]) -> None:
    """Refuse checkpoint callbacks that would overwrite a file of another, or save within an epoch.

    Args:
        callbacks: The entries of `callbacks` in the configuration.

    Raises:
        SettingError: The file of the best epoch could hold another epoch.
    """
    taken: dict[tuple[Any, Any], tuple[str, bool]] = {}
    for name, entry in callbacks.items():
        if not isinstance(entry, dict) or not str(entry.get("_target_")).endswith("Checkpoint"):
            continue
        for key, (allowed, reason) in REFUSED.items():
            applies = entry["_target_"] == OURS or key == "save_weights_only"
            if applies and entry.get(key) not in (None, allowed):
                raise SettingError(f"callbacks.{name}.{key}={entry[key]} {reason}")
        setting = f"callbacks.{name}.filename"
        numbered = entry.get("enable_version_counter", True)  # adds a number to a name that exists
        file = entry.get("filename") or "{epoch}-{step}"
        bare = METRIC.sub("0", file)
        rule = f"{RULE}; a metric as {{name}} or {{name:.3f}}"
        require(is_name(bare) and not {"{", "}"} & set(bare), setting, rule, f"'{file}'")
        several = numbered or "{epoch" in file or "{step" in file
        if entry.get("save_top_k", 1) not in (0, 1) and not several:
            raise SettingError(
                f"callbacks.{name}.save_top_k={entry['save_top_k']} would write all of them to "
                f"the same file {file}.ckpt: type \"{setting}='{file}-{{epoch}}'\""
            )
        if file == "previous":
            raise SettingError(
                f"{setting}={file} is the name of the older last.ckpt: choose another name"
            )
        other, other_numbered = taken.setdefault((entry.get("dirpath"), file), (name, numbered))
        if other != name and not (numbered and other_numbered):
            raise SettingError(
                f"{setting}={file} is also that of callbacks.{other}, which would overwrite it: "
                f"type {setting}={name}"
            )
