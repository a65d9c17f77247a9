"""Figures of a recording: firing rates and attention over the image, and spike rasters.

The figures have their printed size and the style of `saformer.figure_style`. All panels of a figure
are in one matplotlib Axes whose unit is the inch, because making fifty Axes would take longer than
all the other work.

T timesteps, B images, C channels, H W height and width, h heads, d channels of a head.
"""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.colors import Colormap, LinearSegmentedColormap, to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray
from torch import Tensor

from saformer import figure_style as style
from saformer.spikes.record import SAMPLED, Attention, Kind, Layer, Recording

Array = NDArray[Any]
ON, OFF, TINT = style.BLUE, style.VERMILION, style.GREEN
LINE = 0.15  # inches: height of a line of text
GAP = 0.1  # inches between panels
PANEL, SMALL = 0.9, 0.55  # inches: side of a map if there are few rows of maps, and if many
ACROSS = 7  # maps side by side
ROWS = 5  # largest number of rows with maps of size PANEL
SCREEN = 150  # dots per inch of figures for the screen
SLACK = 0.3  # inches: at SCREEN resolution, text is wider than in the measurement
MARKED = 8  # largest number of timesteps at which each one is numbered
BAR = np.pad(np.ones((4, 14)), 1)  # pixels of a spike with a white border
INK: dict[str, Any] = {"cmap": "gray_r", "vmin": 0, "vmax": 1}
STRIP, LEAST = 0.2, 0.4  # inches: room for a mask beside a map, and smallest side of a map
BESIDE = 4  # rasters side by side
RASTERS = 12  # largest number of layers whose spikes are drawn
TITLES = {
    Kind.tokens: "mask over tokens",
    Kind.channels: "mask over channels",
    Kind.products: "products of queries and keys",
}
SCALES = {
    Kind.tokens: "share of timesteps in which the token is open",
    Kind.channels: "spikes that pass the mask, per channel and timestep",
    Kind.products: "spikes that a token's key shares with a query (mean)",
}
NO_ATTENTION = "Nothing in this network masks or multiplies tokens: there is no attention to draw."
EVENTS = "Input: events of all timesteps, blue brighter, orange darker, grey both."
CAPTIONS = {
    Kind.tokens: "Mask over tokens: the tint is the share of timesteps in which the mask lets a "
    "token through.",
    Kind.channels: "Mask over channels: it is the same for all tokens, so the tint is the rate of "
    "the spikes that it lets through at each token; beside each map is the mask itself, the "
    "head's channels from top to bottom and timesteps from left to right, black where it is open.",
    Kind.products: "Products of queries and keys, without a mask: the tint is the attention that a "
    "token receives, the spikes its key shares with a query, mean over all queries and timesteps.",
}


def write(
    recording: Recording,
    inputs: Tensor,
    labels: Sequence[int],
    about: str,
    folder: Path,
    for_print: bool = True,
) -> list[Path]:
    """Write every figure of a recording.

    Args:
        recording: The recording of the network.
        inputs: Inputs of the network before normalisation: images in 0..1 [B, C, H, W], or event
            frames [B, T, 2, H, W].
        labels: Classes of the images [B].
        about: Model, dataset and T, for the captions.
        folder: Folder of the figures; created if needed.
        for_print: Write PNG and PDF; otherwise only a small PNG, which takes a fifth of the time.

    Raises:
        OSError: The folder cannot be written.
    """
    files: list[Path] = []
    with style.printed():
        for name, figure in draw(recording, inputs, labels, about):
            if for_print:
                files += style.save(figure, folder, name)
                continue
            folder.mkdir(parents=True, exist_ok=True)
            files.append(folder / f"{name}.png")
            figure.savefig(files[-1], dpi=SCREEN, metadata={"Software": None})
    return files


def draw(
    recording: Recording, inputs: Tensor, labels: Sequence[int], about: str
) -> Iterator[tuple[str, Figure]]:
    """Yield every figure with its name; see `write` for the arguments."""
    pictures = [picture(x) for x in inputs]
    about += "."
    events = f" {EVENTS}" if inputs.ndim == 5 else ""
    unseen = "" if recording.attentions else f" {NO_ATTENTION}"
    guesses = recording.logits.argmax(1).tolist()
    places = [layer for layer in recording.layers if layer.maps is not None]
    top = max(float(layer.maps.max()) for layer in places if layer.maps is not None) or 1.0
    tops = {kind: _top(kind, recording.attentions) for kind in Kind}
    for i, shown in enumerate(pictures):
        right = "right" if guesses[i] == labels[i] else "wrong"
        of = f"test image {i}: class {labels[i]}, predicted {guesses[i]} ({right})"
        maps = {layer.name: layer.maps[i] for layer in places if layer.maps is not None}
        yield f"rate_maps_{i}", rate_maps(maps, top, shown, of, about + events + unseen)
        if recording.attentions:
            drawn = attention(recording.attentions, i, tops, shown, of, about + events)
            yield f"attention_{i}", drawn
        yield f"rasters_{i}", rasters(recording.layers, i, of, about)
    if len(pictures) > 1:
        maps = {layer.name: layer.maps.mean(0) for layer in places if layer.maps is not None}
        of = f"mean over test images 0 to {len(pictures) - 1}"
        yield "rate_maps_mean", rate_maps(maps, top, None, of, about)


def rate_maps(
    maps: dict[str, Tensor], top: float, shown: Array | None, of: str, about: str
) -> Figure:
    """Maps of firing rates: one panel for each neuron layer, one row for each block.

    Args:
        maps: Rates [H, W] by the name of the layer.
        top: Upper end of the colour scale.
        shown: The image [H, W, 3], None if the maps are a mean over images.
        of: Which images the maps are of, for the title.
        about: Model, dataset and T, for the caption.
    """
    page = _Page(f"Firing rates, {of}")
    rows = _rows(list(maps), first=shown is not None)
    side = PANEL if len(rows) <= ROWS else SMALL
    for heading, names in rows:
        page.line(heading, weight="bold")
        page.down(2 * LINE)
        for column, name in enumerate(names):
            x = style.PAD + column * (style.PAGE - style.PAD) / ACROSS
            if not name and shown is not None:
                page.text(x, "input", up=LINE)
                page.panel(x, side, side, shown)
                continue
            page.text(x, name.removeprefix(f"{heading}."), up=2 * LINE)
            page.text(x, f"{float(maps[name].mean()):.3f}", up=LINE, color=style.GREY)
            page.panel(x, side, side, maps[name].numpy(), cmap="cividis", vmin=0, vmax=top)
        page.down(side + GAP)
    page.scale("cividis", top, "spikes per neuron and timestep")
    return page.finish(
        "Firing rate at each place, mean over channels and timesteps, for each neuron layer that "
        f"has places; the number is the mean of the map. {about}"
    )


def attention(
    found: Sequence[Attention],
    image: int,
    tops: dict[Kind, float],
    shown: Array,
    of: str,
    about: str,
) -> Figure:
    """Maps of what each head attends to, drawn over the image.

    Args:
        found: The attentions of a network.
        image: Number of the image.
        tops: Upper end of the colour scale of each kind.
        shown: The image [H, W, 3].
        of: Which image it is, for the title.
        about: Model, dataset and T, for the caption.
    """
    kinds = list(dict.fromkeys(layer.kind for layer in found))
    page = _Page(f"Attention, {of}")
    grey, tint = _background(shown), _tint()
    strip = STRIP if Kind.channels in kinds else 0.0
    left = style.PAD + PANEL + 2 * GAP
    heads, room = max(layer.maps.shape[1] for layer in found), style.PAGE - left
    lines = math.ceil(heads / int(room / (LEAST + strip + GAP)))
    in_line = math.ceil(heads / lines)
    cell = min(room / in_line, PANEL + strip + GAP)
    side = cell - strip - GAP
    page.text(style.PAD, "input")
    page.panel(style.PAD, PANEL, PANEL, shown, below=LINE)
    bottom = page.y + LINE + PANEL + GAP
    for layer in found:
        page.line(f"{layer.name}: {TITLES[layer.kind]}", left, weight="bold")
        for head, values in enumerate(layer.maps[image].numpy()):
            x = left + head % in_line * cell
            if head and head % in_line == 0:
                page.down(LINE + side + GAP)
            page.text(x, f"head {head + 1}")
            page.panel(x, side, side, grey, below=LINE)
            page.panel(x, side, side, values, LINE, cmap=tint, vmin=0, vmax=tops[layer.kind])
            if layer.masks is not None:
                mask = layer.masks[image, head].numpy()
                page.panel(x + side + 0.03, strip - 0.05, side, mask, LINE, **INK)
        page.down(LINE + side + GAP)
    page.down(max(0.0, bottom - page.y))
    for kind in kinds:
        page.scale(tint, tops[kind], SCALES[kind])
    return page.finish(" ".join([*(CAPTIONS[kind] for kind in kinds), about]))


def rasters(layers: Sequence[Layer], image: int, of: str, about: str) -> Figure:
    """Spikes of some neurons of some layers over time.

    Args:
        layers: All neuron layers; at most `RASTERS` of them, evenly chosen, are drawn.
        image: Number of the image.
        of: Which image it is, for the title.
        about: Model, dataset and T, for the caption.
    """
    chosen = np.linspace(0, len(layers) - 1, min(RASTERS, len(layers))).round().astype(int)
    page = _Page(f"Spikes, {of}")
    cell = (style.PAGE - style.PAD) / BESIDE
    width, steps = cell - 2 * GAP, len(layers[0].sampled)
    marked = range(steps) if steps <= MARKED else (0, steps - 1)
    for start in range(0, len(chosen), BESIDE):
        for column, number in enumerate(chosen[start : start + BESIDE]):
            layer, x = layers[number], style.PAD + column * cell
            page.text(x, layer.name)
            page.text(x, f"{float(layer.rates[image]):.3f}", up=-LINE, color=style.GREY)
            spikes = np.kron(layer.sampled[:, image].T.numpy(), BAR)
            page.panel(x, width, PANEL, spikes, 2 * LINE, **INK)
            for step in marked:
                middle = x + width * (step + 0.5) / steps
                page.text(middle, f"{step + 1}", up=-2 * LINE - PANEL - 0.02, ha="center")
        page.down(3 * LINE + PANEL + GAP)
    return page.finish(
        f"Up to {SAMPLED} neurons of a layer, drawn at random, from top to bottom; timesteps from "
        "left to right; a bar is a spike. The number is the rate of the whole layer, in spikes per "
        f"neuron and timestep. {about}"
    )


def picture(x: Tensor) -> Array:
    """Turn an input of the network into a colour image [H, W, 3].

    Args:
        x: Image in 0..1 [C, H, W], or event frames [T, 2, H, W], which are summed over time.
    """
    x = x.float()  # numpy has no bfloat16
    if x.ndim == 4:
        darker, brighter = (x.sum(0) / x.sum(0).max().clamp(min=1e-9)).numpy()
        missing = [1 - np.array(to_rgb(colour)) for colour in (ON, OFF)]
        mixed = 1 - brighter[..., None] * missing[0] - darker[..., None] * missing[1]
        return np.asarray(mixed.clip(0, 1))
    rgb = x if len(x) == 3 else x.mean(0, keepdim=True).expand(3, *x.shape[1:])
    return np.asarray(rgb.clamp(0, 1).permute(1, 2, 0).numpy())


def _rows(names: list[str], first: bool) -> list[tuple[str, list[str]]]:
    """Group layers by block, in rows of at most `ACROSS`; an empty name stands for the input."""
    blocks: dict[str, list[str]] = {}
    for name in names:
        words = name.split(".")
        depth = 2 if len(words) > 2 and words[1].isdigit() else 1
        blocks.setdefault(".".join(words[:depth]), []).append(name)
    if first:
        blocks[next(iter(blocks))].insert(0, "")
    rows = []
    for block, layers in blocks.items():
        for start in range(0, len(layers), ACROSS):
            rows.append((block, layers[start : start + ACROSS]))
    return rows


def _background(shown: Array) -> Array:
    """A faint grey version of the image, over which a tint is drawn."""
    grey = shown @ np.array([0.299, 0.587, 0.114])
    return np.repeat((0.75 + 0.25 * grey)[..., None], 3, axis=2)


def _tint() -> Colormap:
    """A colour map from transparent to tinted, so that the image below stays visible."""
    red, green, blue = to_rgb(TINT)
    ends = [(red, green, blue, 0.0), (red, green, blue, 0.85)]
    return LinearSegmentedColormap.from_list("tint", ends)


def _top(kind: Kind, found: Sequence[Attention]) -> float:
    """Upper end of the colour scale of one kind of attention."""
    largest = max((float(layer.maps.max()) for layer in found if layer.kind is kind), default=0.0)
    return 1.0 if kind is Kind.tokens else largest or 1.0


class _Page:
    """A figure that is filled from top to bottom with panels and text, positioned in inches."""

    def __init__(self, title: str) -> None:
        self.fig = style.figure(style.PAGE, 1)
        self.fig.set_layout_engine("none")
        self._ax = self.fig.add_axes((0, 0, 1, 1))
        self._ax.set_axis_off()
        self._ax.set_autoscale_on(False)
        self._ax.set_xlim(0, style.PAGE)
        self.y = style.PAD
        self.line(title, weight="bold")
        self.down(GAP)

    def down(self, inches: float) -> None:
        """Move the current position down."""
        self.y += inches

    def text(self, x: float, text: str, up: float = 0.0, **look: Any) -> None:
        """Draw a line of text whose upper left corner is `up` inches above the position."""
        self._ax.text(x, self.y - up, text, va="top", **look)

    def line(self, text: str, x: float = style.PAD, **look: Any) -> None:
        """Draw a line of text and move to the next line."""
        self.text(x, text, **look)
        self.down(LINE)

    def panel(
        self, x: float, width: float, height: float, values: Array, below: float = 0.0, **look: Any
    ) -> None:
        """Draw a framed image whose upper left corner is `below` inches under the position."""
        y = self.y + below
        extent = (x, x + width, y + height, y)
        self._ax.imshow(values, extent=extent, aspect="auto", interpolation="nearest", **look)
        self._ax.add_patch(Rectangle((x, y), width, height, fill=False, linewidth=0.6))

    def scale(self, colours: str | Colormap, top: float, label: str) -> None:
        """Draw a colour scale that starts at zero."""
        x, width, height = style.PAD + GAP, 1.5, 0.1
        self.panel(x, width, height, np.linspace(0, 1, 256)[None], cmap=colours)
        self.text(x + width + 2 * GAP, label)
        self.down(height + 0.03)
        self.text(x, "0", ha="center")
        self.text(x + width, f"{top:.2g}", ha="center")
        self.down(LINE + GAP)

    def finish(self, caption: str) -> Figure:
        """Add the caption below the panels and return the figure."""
        for line in style.wrapped(self.fig, caption, style.PAGE - SLACK):
            self.line(line)
        height = self.y + style.PAD
        self.fig.set_size_inches(style.PAGE, height)
        self._ax.set_ylim(height, 0)
        return self.fig
