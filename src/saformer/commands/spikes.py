"""`saformer-plot spikes`: draw what a trained network does on single images.

Unlike the other figures, these need the network, so only this file of `saformer-plot` imports
torch.
"""

from pathlib import Path

from saformer.checkpoint import load_checkpoint, saved_config
from saformer.checkpoint_path import checkpoint_file
from saformer.config.check import check
from saformer.config.overrides import compose
from saformer.config.restore import restore
from saformer.runs import experiment


def draw(path: Path, settings: list[str], images: int, out: Path | None) -> list[Path]:
    """Draw what a trained network does on the first test images.

    Args:
        path: A checkpoint, the folder of a run, or `latest`.
        settings: Overrides, like those of `saformer-eval`.
        images: Number of images.
        out: Folder for the figures; by default a new `plots-<time>` beside the checkpoint's run.

    Returns:
        The files: PNG and PDF of every figure.

    Raises:
        UserError: There is no checkpoint, it is damaged or does not fit the settings, or the test
            set has fewer images.
    """
    chosen = checkpoint_file(path)
    checkpoint = load_checkpoint(chosen)
    composed = compose(settings, "eval")
    config = check(restore(saved_config(checkpoint), composed, settings))
    config.ckpt_path = str(chosen)
    return experiment.draw_spikes(config, checkpoint, images, out)
