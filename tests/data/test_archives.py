"""Where the files of every dataset come from, and what of them is there."""

import re

from saformer.config.files import conf_dir
from saformer.data.archives import DISTRIBUTIONS, Part, disk_usage, look


def test_every_dataset_is_in_the_catalogue():
    """Every configuration says where its files come from; sums and addresses are well formed."""
    assert set(DISTRIBUTIONS) == {path.stem for path in (conf_dir() / "dataset").glob("*.yaml")}
    sums = []
    for distribution in DISTRIBUTIONS.values():
        assert distribution.by_hand or distribution.page
        for part in distribution.parts:
            assert re.fullmatch("[0-9a-f]{32}", part.md5) or not part.archive
            assert part.urls or distribution.by_hand
            assert all(re.match("https?://", url) for url in part.urls)
            sums += [part.md5] if part.archive else []
    assert len(set(sums)) == len(sums) == 18


def test_each_dataset_has_as_many_files_as_its_makers_say():
    """Files of all parts, and the names of the archives that hold them."""
    counts = {
        name: sum(sum(part.files.values()) for part in distribution.parts)
        for name, distribution in DISTRIBUTIONS.items()
    }
    assert counts == {
        **{"digits": 0, "digits_events": 0, "fashion_mnist": 4, "cifar10": 6, "cifar100": 2},
        **{"tiny_imagenet": 110_000, "imagenet": 2000, "cifar10_dvs": 10_000},
        "dvs128_gesture": 122 + 122 + 2,
    }
    for name in ("cifar10", "cifar100"):
        (part,) = DISTRIBUTIONS[name].parts
        assert part.archive == f"{name.replace('cifar', 'cifar-')}-python.tar.gz"


def test_the_steps_by_hand_name_all_that_is_needed():
    """Gesture: the page, all four sums and the place. ImageNet: the page, archives and layout."""
    gesture = DISTRIBUTIONS["dvs128_gesture"].by_hand.format(root="here")
    assert len(re.findall("[0-9a-f]{32}", gesture)) == 4
    assert "https://ibm.ent.box.com/s/3hiq58ww1pbbjrinh367ykfdf60xsfm8" in gesture
    assert "DvsGesture.tar.gz and put it into here" in gesture
    imagenet = DISTRIBUTIONS["imagenet"].by_hand.format(root="here")
    assert "here/val/n01440764/*.JPEG" in imagenet and "ILSVRC2012_img_val.tar" in imagenet


def test_counting_prefers_the_place_with_most(tmp_path):
    """Of the places that a reader looks in, the fullest counts; extra files do not."""
    part = Part({"*.bin": 2, "x": 1})
    (tmp_path / "inner").mkdir()
    for name in ("a.bin", "inner/a.bin", "inner/b.bin", "inner/c.bin", "inner/x.gz"):
        (tmp_path / name).touch()
    found = look(part, tmp_path, ("", "inner", "absent"))
    assert (found.folder, found.count, found.whole) == (tmp_path / "inner", 3, True)


def test_disk_usage_stops(tmp_path):
    """Sizes are summed over all folders, and no longer than is asked for."""
    for name in ("a", "b/c", "b/d"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"12345")
    assert disk_usage(tmp_path) == (15, True)
    assert disk_usage(tmp_path, max_files=2) == (10, False)
    assert disk_usage(tmp_path / "nowhere") == (0, True)
