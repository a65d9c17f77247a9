"""How a checkpoint is named, in every command: a file, the folder of a run, or `latest`."""

from collections.abc import Sequence
from pathlib import Path

from saformer.errors import CheckpointError

LATEST = "latest"
TO_TEST = ("best.ckpt", "last.ckpt")
"""Checkpoints of a run that is named by its folder; the first that is there is taken."""
TO_GO_ON = ("last.ckpt", "previous.ckpt")
"""The same for a training that goes on from it."""


def checkpoint_file(named: str | Path, order: Sequence[str] = TO_TEST) -> Path:
    """The file of a checkpoint that is named.

    Args:
        named: A file, which is returned as it is, whether it exists or not; the folder of a run;
            or `latest`, the run below outputs/ that wrote a checkpoint last.
        order: Names of files, of which the first that the folder has is taken.

    Raises:
        CheckpointError: The folder has none of them, or no run wrote any.
    """
    path = Path(named)
    if str(named) == LATEST and not path.exists():
        path = latest_run()
    if not path.is_dir():
        return path
    for folder in (path / "checkpoints", path):
        for name in order:
            if (folder / name).is_file():
                return folder / name
    inside = sorted(found for found in path.rglob("*.ckpt") if found.is_file())
    hint = f"; did you mean {inside[0]}?" if inside else ""
    raise CheckpointError(
        f"ckpt_path={named} is a folder without checkpoints/{' or checkpoints/'.join(order)}: name "
        f"the folder of a run, or a checkpoint{hint}"
    )


def latest_run(outputs: Path = Path("outputs")) -> Path:
    """The folder of the run that wrote a checkpoint last.

    Raises:
        CheckpointError: There is none.
    """
    written = [path for path in outputs.rglob("checkpoints/*.ckpt") if path.is_file()]
    if not written:
        raise CheckpointError(
            f"ckpt_path={LATEST}: no run below {outputs}/ has a checkpoint. Train one, or name a "
            "checkpoint"
        )
    return max(written, key=lambda path: path.stat().st_mtime).parent.parent
