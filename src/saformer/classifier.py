"""Load a trained network from one file; it takes images that are not normalised."""

from collections.abc import Collection
from pathlib import Path

import torch
from torch import Tensor, nn

from saformer.checkpoint import load_checkpoint, load_weights, saved_config
from saformer.checkpoint_path import checkpoint_file
from saformer.config.check import check
from saformer.config.overrides import compose
from saformer.config.restore import restore
from saformer.config.schema import Config
from saformer.create import build_backbone
from saformer.data.prepare import to_float
from saformer.data.settings import Resize
from saformer.errors import CheckpointError


class Classifier(nn.Module):
    """A network that prepares its input itself: it maps images or event frames to logits [B, K].

    Args:
        config: Settings of the run that trained the network.

    Attributes:
        config: The settings.
        backbone: The network: normalised input to logits at every timestep [T, B, K].
    """

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.backbone = build_backbone(config)
        for name in ("mean", "std"):
            value = torch.tensor(getattr(config.dataset, name)).view(-1, 1, 1)
            self.register_buffer(name, value, persistent=False)

    @property
    def timesteps(self) -> int:
        """Timesteps T."""
        return self.backbone.timesteps

    def forward(self, x: Tensor) -> Tensor:
        """Logits averaged over time, [B, K].

        Args:
            x: Images [B, C, H, W], as bytes or as floats in 0..1; or event counts [B, T, 2, H, W].

        Raises:
            ValueError: The input has a wrong shape, images have a wrong type or range, or a value
                is NaN.
        """
        logits: Tensor = self.backbone(self.prepare(x))
        return logits.mean(0)

    def prepare(self, x: Tensor) -> Tensor:
        """Scale the input as in training, and normalise it for the backbone."""
        data = self.config.dataset
        events = data.events is not None
        lead = "B, T" if events else "B"
        wanted = (data.in_channels, data.image_size, data.image_size)
        resized = data.events is not None and data.events.resize is Resize.bilinear
        sized = x.shape[-3:] == wanted or (resized and x.shape[-3:-2] == wanted[:1])
        if x.ndim != 3 + len(lead.split()) or not sized:
            shape = ", ".join(map(str, wanted))
            raise ValueError(f"the input must be [{lead}, {shape}], not {list(x.shape)}")
        if not events and x.dtype is not torch.uint8:
            low, high = (x.min().item(), x.max().item()) if x.numel() else (0, 0)
            if not x.is_floating_point() or not (low >= 0 and high <= 1):  # also true for NaN
                raise ValueError(
                    f"images must be bytes (uint8) or floats in 0..1, not {x.dtype} in "
                    f"{low:.3g}..{high:.3g}; they are normalised here"
                )
        looks = not torch.compiler.is_compiling()  # an exported program cannot check values
        if events and looks and not torch.isfinite(x).all():
            raise ValueError("event counts must be finite: neurons would hide NaN from the logits")
        mean, std = self.get_buffer("mean"), self.get_buffer("std")
        return (to_float(x, data).to(mean.dtype) - mean) / std


def load(path: str | Path, trust: Collection[str] = ()) -> Classifier:
    """Load a classifier in evaluation mode on the CPU, from a checkpoint of a run or an import.

    The file is read with `weights_only=True`, and no other file is needed. Paths and workers in
    `config` are those of this machine, as in an evaluation.

    Args:
        path: The checkpoint, such as `outputs/NAME/RUN/checkpoints/best.ckpt`; the folder of its
            run, for its best checkpoint; or `latest`, the run below outputs/ that wrote one last.
        trust: Your own classes and modules that it may import, such as `synaptic.Synaptic`.

    Raises:
        CheckpointError: The file is missing, damaged, or not a checkpoint of this project.
        SettingError: This version does not know its settings, or it needs an import that `trust`
            does not name.
    """
    try:
        path = checkpoint_file(path)
        checkpoint = load_checkpoint(path)
        saved = saved_config(checkpoint)
        classifier = Classifier(check(restore(saved, compose([], "eval"), [], trust)))
        load_weights(str(path), checkpoint, classifier)
    except CheckpointError as error:
        raise CheckpointError(str(error).removeprefix("ckpt_path=")) from error
    return classifier.eval()
