"""Find the files of the configuration: the package's conf/, and a conf/ in the current folder."""

from pathlib import Path


def conf_dir() -> Path:
    """The config folder: beside the sources in a clone, inside the package when installed."""
    clone = Path(__file__).parents[3] / "conf"
    return clone if clone.is_dir() else Path(__file__).parents[1] / "conf"


def own_conf_dir() -> Path | None:
    """The folder `conf` in the current folder, with the user's own options; not the package's."""
    folder = Path("conf").absolute()
    return folder if folder.is_dir() and not folder.samefile(conf_dir()) else None


def options(group: str) -> dict[str, Path]:
    """The options of a group and their files, from the package and from the user."""
    # If both folders have a name, the package's file is used, as in Hydra.
    folders = [own_conf_dir(), conf_dir()]
    paths = [path for folder in folders if folder for path in (folder / group).glob("*.yaml")]
    return {path.stem: path for path in sorted(paths, key=lambda path: path.stem)}
