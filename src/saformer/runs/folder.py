"""Read run folders in one pass over `outputs/`; only JSON is read, so hundreds of runs are fast."""

import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from saformer.runs.identity import defining, differences
from saformer.runs.lock import holder


class Changed(Exception):
    """A run was resumed with other settings, so that it is two experiments."""


@dataclass(frozen=True)
class Run:
    """One run folder.

    Args:
        folder: Path of the folder.
        config: All settings as plain values.
        settings: The settings that define the experiment, from `defining`.
        started: Time of the last start, as ISO text.
        code: Commit of the code, with a note if the code was changed; None if unknown.
        results: Content of results.json; None if the run is not finished.
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
        """Whether a training that is started in this folder can resume this run."""
        last = self.folder / "checkpoints" / "last.ckpt"
        return last.is_file() or not (self.folder / "metrics.jsonl").exists()

    def holder(self) -> str | None:
        """Description of the process that trains it now; None if there is none, or if unknown."""
        return holder(self.folder) if self.results is None else None

    def epochs_done(self) -> int:
        """Number of epochs whose metrics were written."""
        try:
            return len((self.folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines())
        except OSError:
            return 0


def find(outputs: Path) -> tuple[list[Run], list[str]]:
    """Find all runs below a folder, sorted by name.

    Returns:
        The runs, and one line for each folder that cannot be used.
    """
    runs, damaged = [], []
    for parent, folders, files in os.walk(outputs):
        if "run.json" not in files:
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            continue
        folders.clear()  # a run folder contains no other runs
        try:
            runs.append(_read(Path(parent)))
        except Changed as error:
            damaged.append(f"not counted: {shown(parent)} {error}")
        except (ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
            damaged.append(f"{shown(parent)}/run.json cannot be read ({type(error).__name__})")
    return runs, damaged


def shown(path: str | Path) -> str:
    """A path relative to the current folder, as a user would type it."""
    return os.path.relpath(path)


def _read(folder: Path) -> Run:
    """Read a run folder.

    Raises:
        Changed: The run was resumed with other settings.
        ValueError, KeyError, IndexError, TypeError, AttributeError: Its run.json is damaged.
    """
    starts = json.loads((folder / "run.json").read_text(encoding="utf-8"))["starts"]
    settings = [defining(record["config"], record.get("effective_batch")) for record in starts]
    with_seed = [
        defined | {"seed": record["config"]["seed"]}
        for defined, record in zip(settings, starts, strict=True)
    ]
    for before in with_seed[:-1]:
        for name, (first, then) in differences(before, with_seed[-1]).items():
            raise Changed(f"was started with {name}={first} and resumed with {name}={then}")
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
    """Content of results.json if the run is finished, otherwise None."""
    try:
        results = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    whole = isinstance(results, dict) and results.get("status") == "done"
    return results if whole else None
