"""Record how a run was made: command, code, versions, machine.

`run.json` has one record for each start of the run, `{"starts": [first, second, ...]}`. A run may
be resumed with other code or on another machine; the last record describes the start that made the
final numbers.
"""

import json
import os
import platform
import subprocess
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.utilities import rank_zero_only

from saformer.files import write_json

PACKAGES = (
    "saformer",
    "torch",
    "torchvision",
    "numpy",
    "lightning",
    "hydra-core",
    "omegaconf",
    "torchmetrics",
    "snntorch",
    "wandb",
)
SLURM_IDS = (
    "SLURM_JOB_ID",
    "SLURM_ARRAY_JOB_ID",
    "SLURM_ARRAY_TASK_ID",
    "SLURM_RESTART_COUNT",
    "SLURM_JOB_PARTITION",
    "SLURM_NNODES",
    "SLURM_NTASKS",
)


@rank_zero_only
def write_run_json(
    run_dir: Path, command: list[str], seed: int, config: dict[str, Any], extra: dict[str, Any]
) -> None:
    """Add a record of this start to the `run.json` of a run.

    Uncommitted changes of the code are written to `git.diff` (`git-2.diff` at the second start).

    Args:
        run_dir: Folder of the run.
        command: The command line, as in `sys.argv`.
        seed: Seed of all random numbers.
        config: All settings as plain values.
        extra: Further facts to record.
    """
    path = run_dir / "run.json"
    run = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {"starts": []}
    number = len(run["starts"]) + 1
    diff = run_dir / ("git.diff" if number == 1 else f"git-{number}.diff")
    run["starts"].append(
        {
            "time": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            "command": command,
            "seed": seed,
            "git": git_state(Path(__file__).parent, diff),
            "versions": versions(),
            "machine": machine(),
            "slurm": {name: os.environ[name] for name in SLURM_IDS if name in os.environ} or None,
            **extra,
            "config": config,
        }
    )
    write_json(path, run)


def git_state(package: Path, diff: Path | None = None) -> dict[str, Any]:
    """Commit of the code in `package`, and the changes since this commit.

    All values are None if they are unknown: there is no git, or the package was installed from a
    wheel. The package must be tracked by git, because a virtual environment may be inside another
    project's repository.

    Args:
        package: Folder of the source.
        diff: File to write uncommitted changes to, if there are any; None writes no file.
    """
    tracked = _git(package, "ls-files", "--error-unmatch", "__init__.py")
    commit = _git(package, "rev-parse", "HEAD") if tracked else None
    if not commit:
        return {"commit": None, "dirty": None, "diff": None, "untracked": None}
    root = Path(os.fsdecode(_git(package, "rev-parse", "--show-toplevel") or b"").strip())
    changes = _git(root, "diff", "--no-color", "--no-ext-diff", "--binary", "HEAD")
    new = _git(root, "ls-files", "--others", "--exclude-standard", "-z") or b""
    if changes and diff:
        diff.write_bytes(changes)
    return {
        "commit": commit.decode().strip(),
        "dirty": bool(changes or new),
        "diff": diff.name if changes and diff else None,
        "untracked": [os.fsdecode(name) for name in new.split(b"\0") if name],
    }


def versions(*more: str) -> dict[str, str | None]:
    """Versions of Python and of packages that affect results; the packages are not imported.

    Args:
        more: Further packages.
    """
    installed: dict[str, str | None] = {"python": platform.python_version()}
    for name in (*PACKAGES, *more):
        try:
            installed[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            installed[name] = None
    return installed


def machine() -> dict[str, Any]:
    """Host, processor and accelerators."""
    accelerators = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    if torch.backends.mps.is_available():
        accelerators.append("mps")
    return {
        "host": platform.node(),
        "system": platform.platform(),
        "cpu": _cpu_model(),
        "cores": os.cpu_count(),
        "vectors": torch.backends.cpu.get_cpu_capability(),  # it affects the rounding of sums
        "accelerators": accelerators,
    }


def _git(folder: Path, *args: str) -> bytes | None:
    """Output of a git command, None if it fails for any reason."""
    # Drop these variables: inside a git hook they point to the repository of the hook.
    env = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    try:
        command = ["git", "-C", str(folder), *args]
        done = subprocess.run(command, capture_output=True, timeout=10, env=env)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None


def _cpu_model() -> str:
    """Name of the processor; Python's own function returns an empty name on Linux."""
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
