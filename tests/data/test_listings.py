"""Which image is which does not hang on the order in which a file system lists its files."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from pictures import write_imagenet, write_tiny

from saformer.data.readers import find

SETS = {
    "tiny_imagenet as downloaded": write_tiny,
    "tiny_imagenet with val/ sorted": lambda root: write_tiny(root, layout="sorted"),
    "imagenet": write_imagenet,
}


@pytest.fixture
def order(monkeypatch) -> Callable[[bool], None]:
    """Make every listing of a folder come in order of names, or against it."""
    listdir, scandir = os.listdir, os.scandir

    def call(backwards: bool) -> None:
        @contextmanager
        def scanned(folder: Path) -> Iterator[list[os.DirEntry]]:
            with scandir(folder) as entries:
                yield sorted(entries, key=lambda entry: entry.name, reverse=backwards)

        monkeypatch.setattr(os, "scandir", scanned)
        monkeypatch.setattr(os, "listdir", lambda f: sorted(listdir(f), reverse=backwards))

    return call


@pytest.mark.parametrize("which", SETS)
def test_the_order_of_a_listing_does_not_matter(compose, tmp_path, order, which):
    """Names, class numbers and test set are the same where folders are listed backwards."""
    name = which.split()[0]
    root = SETS[which](tmp_path / "data")
    (root / "wnids.txt").unlink(missing_ok=True)  # so that the classes are the folders listed
    config = compose(
        f"dataset={name}",
        f"dataset.root={root}",
        "dataset.num_classes=4",
        "dataset.allow_incomplete=true",
    )
    found = []
    for backwards in (False, True):
        order(backwards)
        index = find(config.dataset).index(config.dataset)
        found.append((index.names, index.files, index.labels.tolist(), index.test.tolist()))
    assert found[0] == found[1] and len(found[0][0]) > 8
