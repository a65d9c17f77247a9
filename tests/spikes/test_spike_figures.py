"""Figures of a recording: what is written, what they say, and that nothing runs off the page."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from firing import IMAGES
from matplotlib.figure import Figure

from saformer import figure_style as style
from saformer.spikes import figures
from saformer.spikes.record import Recording, record

SASA = "model.dwc.place=none"
INPUTS = IMAGES.sigmoid()


def drawn(found: Recording, labels: tuple[int, ...] = (3,)) -> dict[str, Figure]:
    with style.printed():
        return dict(figures.draw(found, INPUTS[: len(labels)], labels, "a model"))


def words(fig: Figure) -> str:
    return "\n".join(text.get_text() for text in fig.axes[0].texts)


def panels(fig: Figure) -> list[np.ndarray]:
    return [np.asarray(image.get_array()) for image in fig.axes[0].images]


def test_a_run_gets_small_pictures(network, tmp_path):
    """PNG alone; of several images also the mean."""
    found = record(network(SASA), IMAGES[:2])
    files = figures.write(found, INPUTS[:2], [3, 1], "a model", tmp_path, for_print=False)
    names = ["rate_maps_0", "attention_0", "rasters_0", "rate_maps_1", "attention_1", "rasters_1"]
    assert [path.name for path in files] == [f"{n}.png" for n in (*names, "rate_maps_mean")]
    assert sorted(files) == sorted(tmp_path.iterdir())


def test_titles_say_the_class_and_what_the_network_takes_it_for(network):
    """Right and wrong predictions, and every layer under its name with its rate."""
    found = record(network(SASA), IMAGES[:2])
    found.logits = torch.eye(10)[[2, 1]]
    shown = drawn(found, (3, 1))
    for name in ("rate_maps", "attention", "rasters"):
        assert "test image 0: class 3, predicted 2 (wrong)" in words(shown[f"{name}_0"])
        assert "test image 1: class 1, predicted 1 (right)" in words(shown[f"{name}_1"])
    assert "mean over test images 0 to 1" in words(shown["rate_maps_mean"])
    for layer in found.layers:
        lines = words(shown["rasters_1"]).splitlines()
        at = lines.index(layer.name)
        assert lines[at + 1] == f"{float(layer.rates[1]):.3f}", layer.name
        if layer.maps is not None:
            part = layer.name.split(".", 2 if layer.name.startswith("blocks") else 1)[-1]
            lines = words(shown["rate_maps_1"]).splitlines()
            assert lines[lines.index(part) + 1] == f"{float(layer.rates[1]):.3f}", layer.name


def test_maps_are_drawn_as_they_were_recorded_on_one_scale(network):
    """Panels hold the maps of their image; all figures share the range that the scale names."""
    found = record(network(SASA), IMAGES[:2])
    found.layers = [
        replace(layer, maps=None if layer.maps is None else 0.7 * layer.maps)
        for layer in found.layers
    ]
    placed = [layer.maps for layer in found.layers if layer.maps is not None]
    top = max(float(maps.max()) for maps in placed)
    for name, fig in drawn(found, (3, 1)).items():
        if not name.startswith("rate_maps"):
            continue
        image = name.removeprefix("rate_maps_")
        shown = panels(fig)[:-1] if image == "mean" else panels(fig)[1:-1]
        expected = [maps.mean(0) if image == "mean" else maps[int(image)] for maps in placed]
        for one, other in zip(shown, expected, strict=True):
            assert np.array_equal(one, other.numpy())
        limits = {one.get_clim() for one in fig.axes[0].images if one.get_array().ndim == 2}
        assert limits == {(0, top), (0, 1)} and top < 1  # the maps, and the bar itself
        assert f"{top:.2g}" in words(fig).splitlines()


def test_attention_is_drawn_over_the_image(network):
    """Each head's map lies on the grey image; beside a mask over channels is the mask itself."""
    found = record(network(SASA), IMAGES[:2])
    (one,) = found.attentions
    fig = drawn(found, (3, 1))["attention_1"]
    assert "blocks.0.attn: mask over channels" in words(fig)
    picture, *heads, _bar = panels(fig)
    assert np.allclose(picture, np.repeat(INPUTS[1, 0].numpy()[..., None], 3, axis=2))
    for head in range(2):
        grey, tint, mask = heads[3 * head : 3 * head + 3]
        assert grey.min() >= 0.75 and grey.shape == (8, 8, 3)
        assert np.array_equal(tint, one.maps[1, head].numpy())
        assert np.array_equal(mask, one.masks[1, head].numpy())
    for image in fig.axes[0].images[1:3]:
        assert image.get_extent() == fig.axes[0].images[1].get_extent()


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["attention=qkta"], "share of timesteps in which the token is open"),
        (["attention=sdsa"], "spikes that pass the mask, per channel and timestep"),
        (["attention=ssa"], "spikes that a token's key shares with a query (mean)"),
    ],
)
def test_the_scale_says_what_the_tint_is(network, overrides, said):
    """A mask over tokens, one over channels and products are different things."""
    fig = drawn(record(network(*overrides, SASA), IMAGES[:1]))["attention_0"]
    assert said in words(fig).splitlines()


def test_a_network_without_attention_says_so(network):
    """A control has no figure of attention, and its maps say why."""
    shown = drawn(record(network("attention=pooling", SASA), IMAGES[:1]))
    assert not any(name.startswith("attention") for name in shown)
    assert "there is no attention to draw" in " ".join(words(shown["rate_maps_0"]).split())


def test_rasters_hold_the_sampled_spikes(network):
    """A bar for each spike and none without; of many layers, twelve from the first to the last."""
    found = record(network(SASA, "model.depth=3"), IMAGES[:1])
    fig = drawn(found)["rasters_0"]
    assert len(panels(fig)) == 12 < len(found.layers)
    first, last = found.layers[0], found.layers[-1]
    assert words(fig).splitlines()[1] == first.name and last.name in words(fig)
    for layer, panel in ((first, panels(fig)[0]), (last, panels(fig)[-1])):
        neurons, steps = layer.sampled[:, 0].T.shape
        blocks = panel.reshape(neurons, panel.shape[0] // neurons, steps, -1)
        assert np.array_equal(blocks.max((1, 3)), layer.sampled[:, 0].T.numpy())


def test_events_are_shown_in_two_colours():
    """Summed over frames: brighter is blue, darker orange, both grey, none white."""
    frames = torch.zeros(3, 2, 1, 4)
    frames[0, 1, 0, 0] = frames[1, 1, 0, 0] = 1  # brighter, in two frames
    frames[2, 0, 0, 1] = 2  # darker
    frames[0, :, 0, 2] = 1
    blue, orange, both, none = figures.picture(frames)[0]
    assert blue[2] > blue[1] > blue[0] and orange[0] > orange[1] > orange[2]
    assert np.ptp(both) < 0.1 and both.max() < 0.5 and (none == 1).all()


def test_colours_and_grey_levels_are_shown_as_they_are():
    """Three channels are a picture in colour, one is grey."""
    colour = torch.rand(3, 4, 4)
    assert np.array_equal(figures.picture(colour), colour.permute(1, 2, 0).numpy())
    assert np.array_equal(figures.picture(colour[:1])[..., 2], colour[0].numpy())


@pytest.mark.parametrize(
    "overrides",
    [
        ("model=qkformer_4_384", "model.dim=32", "attention=ssa"),
        ("attention.aggregate=both", SASA, "model.dim=96", "model.num_heads=12", "timesteps=16"),
        ("model=saformer_4_384", "model.dwc.place=series", "model.depth=8", "model.patch_size=2"),
        ("timesteps=1",),
    ],
    ids=["hierarchy", "heads", "depth", "short"],
)
def test_nothing_runs_off_the_page_or_into_its_neighbour(network, overrides):
    """All text and panels lie within the figure, none too small, and no two texts on each other."""
    found = record(network(*overrides), IMAGES[:1])
    for name, fig in drawn(found).items():
        ax = fig.axes[0]
        for dots in (style.DPI, figures.SCREEN):
            fig.set_dpi(dots)
            boxes = [text.get_window_extent(style.renderer(fig)) for text in ax.texts]
            width, height = fig.bbox.x1, fig.bbox.y1
            for text, box in zip(ax.texts, boxes, strict=True):
                inside = min(box.x0, box.y0) >= 0 and box.x1 <= width and box.y1 <= height
                assert inside, (name, text.get_text())
        for image in ax.images:
            left, right, bottom, top = image.get_extent()
            assert 0 <= left < right <= style.PAGE
            assert 0 <= top < bottom <= fig.get_size_inches()[1]
            if right - left == pytest.approx(bottom - top):
                assert right - left >= figures.LEAST - 1e-6
        assert fig.get_size_inches()[1] < 11.7 or name == "attention_0"  # a sheet of A4
        for i, one in enumerate(boxes):
            for j in range(i):
                overlap = one.shrunk(0.9, 0.6).overlaps(boxes[j].shrunk(0.9, 0.6))
                assert not overlap, (name, ax.texts[i].get_text(), ax.texts[j].get_text())


def test_a_place_that_cannot_be_written_is_an_error(network, tmp_path):
    """A file where the folder should be."""
    (tmp_path / "plots").write_text("mine")
    with pytest.raises(OSError):
        figures.write(record(network(SASA), IMAGES), INPUTS, [1, 2, 3], "", tmp_path / "plots")
    assert Path(tmp_path / "plots").read_text() == "mine"
