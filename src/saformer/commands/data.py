"""`saformer-data`: show what the disk holds of each dataset, and get the rest.

Words without `=` are datasets. The other words are overrides, composed as for a training. So
`data_dir`, conf/local and all settings of a dataset mean the same as there, and a training finds
the caches that this command builds.
"""

import sys
import time
from pathlib import Path
from typing import Any

from rich.filesize import decimal
from rich.table import Table
from rich.text import Text

from saformer.commands.words import WordParser, names_and_settings
from saformer.config.check import check
from saformer.config.files import options
from saformer.config.overrides import compose
from saformer.config.schema import Config
from saformer.data.archives import DISTRIBUTIONS, Distribution, disk_usage, find_archive, look
from saformer.data.cache import is_built, read_meta
from saformer.data.download import verify
from saformer.data.fetch import fetch
from saformer.data.settings import DatasetConfig
from saformer.errors import DataError, SettingError
from saformer.escape import plain, say
from saformer.suggest import suggest
from saformer.terminal import console

EXAMPLES = """\
  list                             show each dataset: its state, size and folder
  fetch cifar10 cifar100           download, verify and unpack, or say what to do by hand
  check cifar10_dvs                count its items, show its split, and say what is missing
  build cifar10_dvs timesteps=10   make the cache now, so that a training need not

Settings are those of a training: data_dir=/scratch/me is the folder of all datasets,
dataset.root=... that of one, experiment=... chooses the dataset and settings of a recipe.
Your files there are never deleted or overwritten.

datasets: """


def run(words: list[str]) -> int:
    """Carry out one command line.

    Returns:
        The exit code: 1 if a dataset is incomplete or damaged.

    Raises:
        SettingError: A word is wrong.
        DataError: Files are not what they should be.
    """
    commands = {"list": _list, "fetch": _fetch, "check": _check, "build": _build}
    parser = WordParser(
        "saformer-data",
        usage="saformer-data COMMAND [DATASET ...] [setting=value ...] [--mirror URL]",
        description="Show what the disk holds of each dataset, and get the rest.",
        epilog=EXAMPLES + ", ".join(_names()),
    )
    parser.add_argument("command", metavar="COMMAND", nargs="?", help=", ".join(commands))
    parser.add_argument("words", metavar="DATASET, setting=value", nargs="*", help="see below")
    help_ = "address of a folder with the archives, https:// or file://, which fetch tries first"
    parser.add_argument("--mirror", metavar="URL", default="", help=help_)
    typed = parser.parse_intermixed_args(words)
    if typed.command is None:
        parser.print_help()
        return 0
    if typed.command not in commands:
        near = suggest(typed.command, commands)
        raise SettingError(
            f"there is no command '{typed.command}'.{near} Commands: {', '.join(commands)}"
        )
    names, settings = names_and_settings(typed.words)
    if typed.command == "list":
        names = names or _names()
    elif not names and not any(word.startswith(("dataset=", "experiment=")) for word in settings):
        datasets = ", ".join(_names())
        raise SettingError(
            f"{typed.command} needs a dataset. Type saformer-data {typed.command} NAME: {datasets}"
        )
    return commands[typed.command](_compose(names, settings), typed.mirror)


def _names() -> list[str]:
    """All datasets that have a configuration."""
    return list(options("dataset"))


def _compose(names: list[str], settings: list[str]) -> list[Config]:
    """Compose a training on each dataset, or on the dataset that the settings choose."""
    choices = [[f"dataset={name}"] for name in names] or [[]]
    return [check(compose([*settings, *choice])) for choice in choices]


def _list(configs: list[Config], mirror: str) -> int:
    table = Table("dataset", "state", "on disk", "folder", "cache", box=None, pad_edge=False)
    for config in configs:
        dataset = config.dataset
        state, folder = _state(dataset)
        usage = caches = ""
        if folder is not None:
            size, all_of_it = disk_usage(folder)
            usage = ("" if all_of_it else "more than ") + decimal(size) if size else ""
        if dataset.cache_dir is not None:
            # Builds that were killed leave these folders.
            unfinished = Path(dataset.cache_dir).glob(f".{dataset.name}-*")
            size = sum(disk_usage(cache)[0] for cache in [*_caches(dataset), *unfinished])
            caches = decimal(size) if size else ""
        place = Text(plain(str(folder or "")))
        table.add_row(Text(dataset.name), state, usage, place, caches)
    console().print(table)
    return 0


def _state(dataset: DatasetConfig) -> tuple[str, Path | None]:
    """Say in a few words what is on the disk, and where; look only at the names of files."""
    if dataset.root is None:
        return "shipped", None
    root = Path(dataset.root)
    distribution = DISTRIBUTIONS.get(dataset.name, Distribution())
    if not distribution.parts:
        absent = "made when first used" if distribution.by_hand else "missing"
        return "ready" if root.is_dir() else absent, root
    parts = [look(part, root, distribution.places) for part in distribution.parts]
    if all(part.whole for part in parts):
        return "ready", root if root.is_dir() else parts[0].folder
    count, expected = sum(part.count for part in parts), sum(part.expected for part in parts)
    if count:
        return f"incomplete: {count} of {expected}", root
    archives = sum(find_archive(part, root) is not None for part in distribution.parts)
    return f"archives only, {archives} of {len(parts)}" if archives else "missing", root


def _caches(dataset: DatasetConfig) -> list[Path]:
    """The folders of all caches of a dataset, whatever their settings."""
    if dataset.cache_dir is None:
        return []
    return sorted(Path(dataset.cache_dir).glob(f"{dataset.name}-{'[0-9a-f]' * 16}"))


def _fetch(configs: list[Config], mirror: str) -> int:
    done = True
    for config in configs:
        name, root = config.dataset.name, Path(config.dataset.root or "")
        if name not in DISTRIBUTIONS:
            raise SettingError(f"no download is known for {name}: put its files into {root}")
        done &= fetch(name, DISTRIBUTIONS[name], root, mirror)
    return 0 if done else 1


def _check(configs: list[Config], mirror: str) -> int:
    code = 0
    for config in configs:
        dataset = config.dataset
        say(f"{dataset.name}" + (f" in {dataset.root}" if dataset.root else ", shipped"))
        try:
            _check_archives(dataset)
            _check_items(config)
        except DataError as error:
            say(f"error: {error}", sys.stderr)
            code = 1
    return code


def _check_archives(dataset: DatasetConfig) -> None:
    """Count the unpacked files, and verify the MD5 of the archives that are there."""
    distribution, root = DISTRIBUTIONS.get(dataset.name, Distribution()), Path(dataset.root or "")
    for part in distribution.parts:
        unpacked, archive = look(part, root, distribution.places), find_archive(part, root)
        print(
            f"  {part.folder or ' '.join(part.files)}: {unpacked.count} of {unpacked.expected}",
            end="",
        )
        try:
            if archive is not None:
                print(f"; {archive.name}, {decimal(archive.stat().st_size)}", end="", flush=True)
                again = f"run saformer-data fetch {dataset.name}"
                verify(archive, part, f"It was left as it is: move it away and {again}.")
                print(", MD5 as published", end="")
        finally:  # end the line, because an error gets its own
            print()


def _check_items(config: Config) -> None:
    """Open a dataset as a training does, and print what it holds."""
    import numpy as np

    from saformer.data import readers
    from saformer.data.splits import choose_test, digest_of

    dataset = config.dataset
    index = getattr(readers.find(dataset), "index", None)
    fingerprint = None
    if index is not None:  # read only the index, because the recordings take long
        items = index(dataset)
        identify, labels, fingerprint = items.names.__getitem__, items.labels, items.fingerprint
        test = np.flatnonzero(choose_test(dataset, items.names, labels, items.test))
    else:
        source = readers.read(dataset, config.timesteps)
        identify, labels, test = source.identify, source.y.numpy(), source.test
    counts = np.unique(labels, return_counts=True)[1]
    per_class = f"{counts.min()}" + (f" to {counts.max()}" if counts.max() > counts.min() else "")
    print(f"  {len(labels)} items: {len(counts)} classes of {per_class}")
    print(
        f"  split {dataset.split.value}: {len(labels) - len(test)} for training and validation, "
        f"{len(test)} for testing (digest {digest_of(test, labels, identify)})"
    )
    if dataset.cache_dir is not None:
        _check_caches(dataset, fingerprint)


def _check_caches(dataset: DatasetConfig, fingerprint: str | None) -> None:
    """Print which caches there are, and from which settings."""
    folders = _caches(dataset)
    if not folders:
        print(f"  no cache; to make it now: saformer-data build {dataset.name}")
    for folder in folders:
        about = "damaged, will be built again"
        if is_built(folder):
            key: dict[str, Any] = read_meta(folder)["key"]
            same_files = key.pop("source", None) == fingerprint
            about = ", ".join(f"{name} {value}" for name, value in key.items() if name != "dataset")
            about += "" if same_files else ", built from other files"
        say(f"  cache {folder}, {decimal(disk_usage(folder)[0])}: {about}")


def _build(configs: list[Config], mirror: str) -> int:
    from saformer.data.readers import read

    for config in configs:
        dataset = config.dataset
        before = {folder for folder in _caches(dataset) if is_built(folder)}
        start = time.perf_counter()
        source = read(dataset, config.timesteps)
        seconds = time.perf_counter() - start
        if "cache" not in source.facts:
            print(f"{dataset.name} needs no cache: it is read as it is")
            continue
        folder = Path(dataset.cache_dir or "") / source.facts["cache"]
        how = "was there" if folder in before else f"built in {seconds:.1f} s"
        say(f"{dataset.name}: {folder}, {decimal(disk_usage(folder)[0])}, {how}")
        if "saturated_cells" in source.facts:
            print(
                f"  {source.facts['num_events']} events in {len(source.y)} recordings; "
                f"{source.facts['saturated_cells']} cells cut off at 255"
            )
    return 0
