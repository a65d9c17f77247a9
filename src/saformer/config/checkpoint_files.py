"""Settings of checkpoint callbacks under which a file is what its name says."""

import re
from typing import Any

from saformer.errors import SettingError, require
from saformer.names import RULE, is_name

OURS = "saformer.training.callbacks.checkpoint.RunCheckpoint"
HALF = "may write half an epoch: leave it out, or use lightning.pytorch.callbacks.ModelCheckpoint"
METRIC = re.compile(r"\{[^{}:]+(:[0-9.]*[defg]?)?\}")
"""What Lightning puts a number for into a file's name."""
REFUSED = {
    # The only value that an argument of RunCheckpoint may have, and why.
    "every_n_train_steps": (0, HALF),
    "train_time_interval": (None, HALF),
    "save_on_exception": (False, HALF),
    "save_on_train_epoch_end": (True, "would write half an epoch: leave it out"),
    "auto_insert_metric_name": (False, "would write '=' into names: leave it out"),
    "save_weights_only": (False, "would leave out what a test and a resume need: leave it out"),
    "save_last": (False, "would call the best epoch the last: leave it out, and to callbacks.last"),
}


def require_own_files(callbacks: dict[str, Any]) -> None:
    """Refuse checkpoints of which one would be written over by another, or by half an epoch.

    Args:
        callbacks: The nodes of `callbacks` in the configuration.

    Raises:
        SettingError: The best file could be another epoch than was found to be the best.
    """
    taken: dict[tuple[Any, Any], tuple[str, bool]] = {}
    for name, node in callbacks.items():
        if not isinstance(node, dict) or not str(node.get("_target_")).endswith("Checkpoint"):
            continue
        for key, (only, reason) in REFUSED.items():
            ours = node["_target_"] == OURS or key == "save_weights_only"
            if ours and node.get(key) not in (None, only):
                raise SettingError(f"callbacks.{name}.{key}={node[key]} {reason}")
        setting = f"callbacks.{name}.filename"
        numbered = node.get("enable_version_counter", True)  # adds a number to a name that exists
        file = node.get("filename") or "{epoch}-{step}"
        bare = METRIC.sub("0", file)
        rule = f"{RULE}; a metric as {{name}} or {{name:.3f}}"
        require(is_name(bare) and not {"{", "}"} & set(bare), setting, rule, f"'{file}'")
        several = numbered or "{epoch" in file or "{step" in file
        if node.get("save_top_k", 1) not in (0, 1) and not several:
            raise SettingError(
                f"callbacks.{name}.save_top_k={node['save_top_k']} would write each of them over "
                f"the one before, to {file}.ckpt: type \"{setting}='{file}-{{epoch}}'\""
            )
        if file == "previous":
            raise SettingError(f"{setting}={file} is where last.ckpt goes: choose another name")
        other, other_numbered = taken.setdefault((node.get("dirpath"), file), (name, numbered))
        if other != name and not (numbered and other_numbered):
            raise SettingError(
                f"{setting}={file} is that of callbacks.{other} too, which would write over it: "
                f"type {setting}={name}"
            )
