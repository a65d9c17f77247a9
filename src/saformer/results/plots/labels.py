"""Put a label beside each point so that it covers no point, no bar and no other label.

All is measured in pixels of the finished layout. Obstacles are boxes [number, 4] of x0, y0, x1, y1;
a bar is a thin one.
"""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Annotation

from saformer.figure_style import GREY, renderer

Place = tuple[float, float]
DISTANCES = (4, 7, 11, 16, 22, 29, 37, 46)
"""Points between a marker and its label that are tried."""
ANGLES = np.deg2rad([45, 135, 315, 225, 0, 180, 90, 270, *np.arange(22.5, 360, 45)])
LEADER, NEAR = 9, 11  # points: from there on a line leads to the marker; so far is beside it
MARKER = 2.8  # points: half of its width
SWEEPS = 4  # each label is placed again, now that the others stand


class Labels:
    """Labels of one panel, whose axis limits are fixed.

    Args:
        ax: The panel.
        points: Where the markers are, in data coordinates.
        texts: A label for each.
        colours: Of each label.
        marks: Marks at the right edge, in data coordinates: their labels are stacked left of them.
        sides: A label for each of those.
        bars: Lines along an axis, each as two points in data coordinates, to keep clear of where
            it can be.
    """

    def __init__(
        self,
        ax: Axes,
        points: Sequence[Place],
        texts: Sequence[str],
        colours: Sequence[str],
        marks: Sequence[Place] = (),
        sides: Sequence[str] = (),
        bars: Sequence[tuple[Place, Place]] = (),
    ) -> None:
        self.ax = ax
        self.points, self.marks, self.bars = points, marks, bars
        self.labels = [self._label(*one) for one in zip(points, texts, colours, strict=True)]
        self.sides = [
            self._label(mark, text, GREY) for mark, text in zip(marks, sides, strict=True)
        ]

    def place(self) -> bool:
        """Move each label to the best place there is, once the layout of the figure is done.

        Returns:
            Whether every label is inside the panel and beside its marker, and covers no other
            label or marker.
        """
        fig = self.ax.get_figure()
        assert isinstance(fig, Figure)
        dot = fig.dpi / 72
        at = self._pixels(self.points)
        markers = np.hstack([at - MARKER * dot, at + MARKER * dot])
        ends = self._pixels([end for bar in self.bars for end in bar]).reshape(-1, 2, 2)
        bars = np.hstack([ends.min(1) - 0.5 * dot, ends.max(1) + 0.5 * dot])
        frame = np.array(self.ax.get_window_extent().extents)
        stacked = self._stack(frame, dot)
        fits = _overlap(stacked, markers) < dot**2
        taken, good = self._around(at, markers, bars, frame, stacked, dot)
        for label, point, box in zip(
            [*self.labels, *self.sides],
            [*at, *self._pixels(self.marks)],
            [*taken, *stacked],
            strict=True,
        ):
            label.set_position(tuple(((box[:2] + box[2:]) / 2 - point) / dot))
            self._lead(np.clip(point, box[:2], box[2:]), point, dot)
        return bool(fits.all() and good.all())

    def _around(
        self,
        at: np.ndarray,
        markers: np.ndarray,
        bars: np.ndarray,
        frame: np.ndarray,
        stacked: np.ndarray,
        dot: float,
    ) -> tuple[np.ndarray, np.ndarray]:
        """A box for the label of each point, and whether it is a good one."""
        sizes = [_size(label) + dot for label in self.labels]
        taken = np.full((len(sizes), 4), np.nan)
        good = np.zeros(len(sizes), dtype=bool)
        for _ in range(SWEEPS):
            for i in _crowded_first(at):
                boxes, distances = _candidates(at[i], sizes[i], dot)
                others = np.vstack([markers, np.delete(taken, i, axis=0), stacked])
                outside = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1) - _overlap(boxes, frame[None])
                hard = _overlap(boxes, others) + outside
                cost = 10 * hard + _overlap(boxes, bars) + 0.3 * dot * distances
                best = int(np.argmin(cost))
                taken[i] = boxes[best]
                # An area of a point squared is the rounding of a letter's corner.
                good[i] = hard[best] < dot**2 and distances[best] <= NEAR
        return taken, good

    def _stack(self, frame: np.ndarray, dot: float) -> np.ndarray:
        """Boxes of the labels at the edge: in the order of their marks, as near as they can be."""
        marks = self._pixels(self.marks)
        sizes = np.array([_size(label) for label in self.sides]).reshape(-1, 2)
        order = np.argsort(marks[:, 1], kind="stable")
        pitch = sizes[:, 1].max(initial=0) + dot
        rise = pitch * np.arange(len(order))
        highest = frame[3] - pitch * len(order)
        middle = marks[:, 1].copy()
        wished = _rising(marks[order, 1] - rise)
        middle[order] = np.clip(wished, frame[1] + pitch / 2, highest + pitch / 2) + rise
        right = marks[:, 0] - LEADER * dot
        return np.stack(
            [
                right - sizes[:, 0],
                middle - sizes[:, 1] / 2,
                right,
                middle + sizes[:, 1] / 2,
            ],
            axis=1,
        )

    def _label(self, at: Place, text: str, colour: str) -> Annotation:
        label = self.ax.annotate(
            text,
            at,
            (0, 0),
            textcoords="offset points",
            ha="center",
            va="center",
            color=colour,
            annotation_clip=False,
        )
        label.set_in_layout(False)
        return label

    def _lead(self, edge: np.ndarray, point: np.ndarray, dot: float) -> None:
        """Draw a line from the edge of a label to its marker, if it is far."""
        if np.hypot(*(edge - point)) >= LEADER * dot:
            self.ax.annotate(
                "",
                tuple(self.ax.transData.inverted().transform(point)),
                tuple((edge - point) / dot),
                textcoords="offset points",
                annotation_clip=False,
                arrowprops={
                    **{"arrowstyle": "-", "color": GREY, "linewidth": 0.5},
                    **{"shrinkA": 0, "shrinkB": MARKER},
                },
            ).set_in_layout(False)

    def _pixels(self, points: Sequence[Place]) -> np.ndarray:
        return self.ax.transData.transform(np.array(points, dtype=float).reshape(-1, 2))


def _size(label: Annotation) -> np.ndarray:
    fig = label.get_figure()
    assert isinstance(fig, Figure)
    box = label.get_window_extent(renderer(fig))
    return np.array([box.width, box.height])


def _candidates(at: np.ndarray, size: np.ndarray, dot: float) -> tuple[np.ndarray, np.ndarray]:
    """Boxes around a point, and their distances from it in points."""
    distance, angle = (a.ravel() for a in np.meshgrid(DISTANCES, ANGLES, indexing="ij"))
    way = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    # The middle is as far out as the edge of the box on that side.
    reach = np.clip(1.5 * way, -1, 1) * size / 2
    middle = at + way * distance[:, None] * dot + reach
    return np.hstack([middle - size / 2, middle + size / 2]), distance


def _overlap(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Area that each box shares with all others; those that are NaN do not count."""
    low = np.maximum(boxes[:, None, :2], others[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], others[None, :, 2:])
    total: np.ndarray = np.nansum(np.clip(high - low, 0, None).prod(axis=2), axis=1)
    return total


def _crowded_first(at: np.ndarray) -> list[int]:
    """Points with near neighbours have the fewest places left: they choose first."""
    apart = np.hypot(*(at[:, None] - at[None]).transpose(2, 0, 1))
    near = np.sort(apart, axis=1)[:, 1:4].sum(axis=1)
    return [int(i) for i in np.argsort(near, kind="stable")]


def _rising(values: np.ndarray) -> np.ndarray:
    """The nearest values in the sense of least squares that never fall (pooled neighbours)."""
    pools: list[tuple[float, int]] = []
    for value in values:
        pools.append((float(value), 1))
        while len(pools) > 1 and pools[-2][0] > pools[-1][0]:
            (last, n), (before, m) = pools.pop(), pools.pop()
            pools.append(((last * n + before * m) / (n + m), n + m))
    return np.repeat([value for value, _ in pools], [count for _, count in pools])
