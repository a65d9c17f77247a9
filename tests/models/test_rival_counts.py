"""Parameter counts of the rivals, to the digit: their published code, less what never acts.

They are the counts of the networks that the authors' code builds, without LayerNorms, position
embeddings and head mixers that no forward pass reads. Ours has no such parameters.
"""

import pytest
from mostly_slow import mostly_slow

CIFAR = (3, 32)
DVS = (2, 128)
IMAGENET = (3, 224)
# Model, (channels, pixels), classes: parameters, other settings.
ROWS = {
    ("spikformer_4_256", CIFAR, 10): (4_155_178,),
    ("spikformer_4_256", CIFAR, 100): (4_178_308,),
    ("spikformer_2_384", CIFAR, 10): (5_765_050,),
    ("spikformer_2_384", CIFAR, 100): (5_799_700,),
    ("spikformer_4_384", CIFAR, 10): (9_324_730,),
    ("spikformer_4_384", CIFAR, 100): (9_359_380,),
    ("spikformer_4_384", (3, 64), 200): (9_397_880, "model.patch_size=8"),
    ("spikformer_2_256_events", DVS, 10): (2_566_666,),
    ("spikformer_2_256_events", DVS, 11): (2_566_923,),
    ("spikformer_8_384", IMAGENET, 1000): (16_816_024,),
    ("spikformer_6_512", IMAGENET, 1000): (23_373_352,),
    ("spikformer_8_512", IMAGENET, 1000): (29_689_384,),
    ("spikformer_10_512", IMAGENET, 1000): (36_005_416,),
    ("spikformer_8_768", IMAGENET, 1000): (66_338_632,),
    ("spikingformer_4_256", CIFAR, 10): (4_152_106,),
    ("spikingformer_4_256", CIFAR, 100): (4_175_236,),
    ("spikingformer_2_384", CIFAR, 10): (5_762_746,),
    ("spikingformer_2_384", CIFAR, 100): (5_797_396,),
    ("spikingformer_4_384", CIFAR, 10): (9_320_122,),
    ("spikingformer_4_384", CIFAR, 100): (9_354_772,),
    ("spikingformer_2_256_events", DVS, 10): (2_566_666,),
    ("spikingformer_2_256_events", DVS, 11): (2_566_923,),
    ("spikingformer_8_384", IMAGENET, 1000): (16_816_024,),
    ("spikingformer_8_512", IMAGENET, 1000): (29_689_384,),
    ("spikingformer_8_768", IMAGENET, 1000): (66_338_632,),
    ("qkformer_4_384", CIFAR, 10): (6_706_234,),
    ("qkformer_4_384", CIFAR, 100): (6_740_884,),
    ("qkformer_2_256_events", DVS, 10): (1_504_138,),
    ("qkformer_2_256_events", DVS, 11): (1_999_371, "model.mlp_ratio=4"),
    ("qkformer_10_384", IMAGENET, 1000): (16_473_688,),
    ("qkformer_10_512", IMAGENET, 1000): (29_079_336,),
    ("qkformer_10_768", IMAGENET, 1000): (64_962_760,),
    ("sdt_2_256", CIFAR, 10): (2_566_954,),
    ("sdt_2_256", CIFAR, 100): (2_590_084,),
    ("sdt_2_512", CIFAR, 10): (10_233_418,),
    ("sdt_2_512", CIFAR, 100): (10_279_588,),
    ("sdt_2_256_events", DVS, 10): (2_566_666, "attention=sdsa_erode"),
    ("sdt_2_256_events", DVS, 11): (2_566_923,),
    ("sdt_8_384", IMAGENET, 1000): (16_816_024,),
    ("sdt_6_512", IMAGENET, 1000): (23_373_352,),
    ("sdt_8_512", IMAGENET, 1000): (29_689_384,),
    ("sdt_10_512", IMAGENET, 1000): (36_005_416,),
    ("sdt_8_768", IMAGENET, 1000): (66_338_632,),
}


@pytest.mark.parametrize("row", mostly_slow(ROWS, 3), ids=lambda row: f"{row[0]}-{row[2]}")
def test_the_count_is_the_published_networks(backbone, unweighted, row):
    """Every rival has the parameters that act in the authors' network, and no others."""
    preset, (channels, size), classes = row
    expected, *others = ROWS[row]
    zeros, ones = [0] * channels, [1] * channels
    model = backbone(
        f"model={preset}",
        f"dataset.in_channels={channels}",
        *(f"dataset.mean={zeros}", f"dataset.std={ones}", f"dataset.image_size={size}"),
        f"dataset.num_classes={classes}",
        *others,
    )
    assert sum(p.numel() for p in model.parameters()) == expected


def test_every_preset_of_a_rival_has_a_row():
    """No rival's preset is without a published count."""
    from saformer.config.files import conf_dir

    presets = {path.stem for path in (conf_dir() / "model").glob("*.yaml")}
    ours = {preset for preset in presets if preset.startswith("saformer_")}
    assert presets - ours == {preset for preset, _data, _classes in ROWS}
