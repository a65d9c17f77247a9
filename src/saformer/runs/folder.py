"""Read run folders: one pass over `outputs/`, JSON only, so that hundreds of runs take no time."""

import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from saformer.runs.identity import defining, differences
from saformer.runs.lock import holder


class Changed(Exception):
    """A run that is two experiments, one after the other."""


@dataclass(frozen=True)
class Run:
    """One run folder.

    Args:
        folder: Where it is.
        config: All its settings as plain values.
        settings: Those that make it what it is, from `defining`.
        started: When it was started the last time, as ISO text.
        code: Commit it ran on, marked where the code was changed; None if unknown.
        results: Its results.json; None if it was cut off, or is not at its end.
    """

    folder: Path
    config: dict[str, Any] = field(repr=False)
    settings: dict[str, Any] = field(repr=False)
    started: str
    code: str | None
    results: dict[str, Any] | None = field(repr=False)

    @property
    def seed(self) -> int:
        """Seed of the run."""
        return int(self.config["seed"])

    def goes_on(self) -> bool:
        """Whether a training that is started in this folder goes on from it."""
        last = self.folder / "checkpoints" / "last.ckpt"
        return last.is_file() or not (self.folder / "metrics.jsonl").exists()

    def holder(self) -> str | None:
        """The process that trains it now, in words; None if none does, or it cannot be known."""
        return holder(self.folder) if self.results is None else None

    def epochs_done(self) -> int:
        """Epochs whose metrics were written."""
        try:
            return len((self.folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines())
        except OSError:
            return 0


def find(outputs: Path) -> tuple[list[Run], list[str]]:
    """Every run below a folder, in the order of their names.

    Returns:
        The runs, and one line for each folder that cannot be used.
    """
    runs, damaged = [], []
    for parent, folders, files in os.walk(outputs):
        if "run.json" not in files:
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            continue
        folders.clear()  # a run has no runs in it
        try:
            runs.append(_read(Path(parent)))
        except Changed as error:
            damaged.append(f"not counted: {shown(parent)} {error}")
        except (ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
            damaged.append(f"{shown(parent)}/run.json cannot be read ({type(error).__name__})")
    return runs, damaged


def shown(path: str | Path) -> str:
    """A path as it is typed from here."""
    return os.path.relpath(path)


def _read(folder: Path) -> Run:
    """A run folder.

    Raises:
        Changed: It went on with other settings.
        ValueError, KeyError, IndexError, TypeError, AttributeError: Its run.json is damaged.
    """
    starts = json.loads((folder / "run.json").read_text(encoding="utf-8"))["starts"]
    settings = [defining(one["config"], one.get("effective_batch")) for one in starts]
    known = [
        own | {"seed": one["config"]["seed"]} for own, one in zip(settings, starts, strict=True)
    ]
    for before in known[:-1]:
        for name, (first, then) in differences(before, known[-1]).items():
            raise Changed(f"was begun with {name}={first} and went on with {name}={then}")
    start = starts[-1]
    config, git = start["config"], start["git"]
    int(config["seed"]), int(config["timesteps"])
    commit = git["commit"] and git["commit"][:10] + (" with changes" if git["dirty"] else "")
    return Run(
        folder=folder,
        config=config,
        settings=settings[-1],
        started=start["time"],
        code=commit,
        results=done_results(folder),
    )


def done_results(folder: Path) -> dict[str, Any] | None:
    """The results.json of a run that came to its end; None of any other."""
    try:
        results = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    whole = isinstance(results, dict) and results.get("status") == "done"
    return results if whole else None
