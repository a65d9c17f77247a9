"""Every command that README and docs show is run here, or stands with the test that runs it."""

import copy
import functools
import re
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from plot_runs import fabricate

from saformer.results import rows
from saformer.results.settings import read_table, table_path

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
SHORT = (
    *("dataset.train_subset=100", "epochs=2", "scheduler.warmup_epochs=0"),
    *("logger=none", "callbacks=none", "trainer=cpu", "plots=false"),
)
OUT_OF_REACH = r"cifar10|imagenet|trainer=ddp|trainer=gpu"
"""Words of a training that want data or devices which are not here: it is composed and checked."""
ELSEWHERE = {
    r"make (train|test)": "Makefile",
    r"pip install": "Makefile",
    r"saformer-data (fetch|check|build)": "tests/commands/test_data_command.py",
    r"python -m scripts\.resize_images": "tests/data/test_imagenet.py",
    r"saformer-import|saformer-eval ckpt_path=spikformer": "tests/commands/test_interop_command.py",
    r"saformer-export": "tests/export/test_export_command.py",
    r"python examples/library\.py": "tests/test_library.py",
    r"torchrun": "tests/runs/test_ddp.py",
    r"sbatch|eval \"\$\(scripts/slurm|scripts/slurm|apt-get|python train.py -m launcher=slurm": (
        "tests/runs/test_slurm.py"
    ),
    r"python train.py -m sweep": "tests/runs/test_sweep.py",
    r"python train.py -m (trainer=ddp|timesteps=1,2,4 seed)": "tests/test_cluster_page.py",
    r"python -m benchmarks\.step_profile": "tests/benchmarks/test_step_profile.py",
    r"export WANDB_MODE|wandb sync": "tests/runs/test_wandb_gone.py",
}
"""What is run by another test, or, of the Makefile, by whoever runs the tests."""


def commands() -> list[str]:
    """Each line of a shell block once; docs/extend.md is tests/test_extend.py's."""
    found: dict[str, None] = {}
    for page in PAGES:
        if page.name == "extend.md":
            continue
        for block in re.findall(r"^```bash\n(.*?)^```", page.read_text(), re.M | re.S):
            for line in block.splitlines():
                command = " ".join(re.sub(r"(^|\s)#.*", "", line).split())
                if command:
                    found[re.sub("^saformer ", "saformer-", command)] = None
    return list(found)


COMMANDS = commands()
HERE = [c for c in COMMANDS if not any(re.match(pattern, c) for pattern in ELSEWHERE)]
LISTS = r"saformer-data|saformer-table mine"  # other tables compose rows for seconds
QUICK = [
    command
    for command in HERE
    if (re.search(OUT_OF_REACH, command) and "table" not in command) or re.match(LISTS, command)
]
SLOW = [c for c in HERE if c not in QUICK]


@pytest.fixture(scope="module")
def filled(workspace) -> Callable[[str], None]:
    """Puts finished runs of all rows of a table into the workspace."""

    @functools.cache
    def call(table: str) -> None:
        place = workspace / "outputs" / table
        found = rows.compose_rows(table, read_table(table_path(table)), [])
        fabricate(found, place, lambda row, seed: {"top1": 90.0, "energy": 1e-3})

    return call


@pytest.fixture(scope="module")
def workspace(tmp_path_factory) -> Iterator[Path]:
    """A folder with a table of one's own, where a row is composed once for all commands."""
    folder = tmp_path_factory.mktemp("pages")
    text = (ROOT / "docs/reproduce.md").read_text()
    (mine,) = [b for b in re.findall(r"```yaml\n(.*?)```", text, re.S) if "rows:" in b]
    (folder / "mine.yaml").write_text(mine)
    real = rows._composed
    composed = functools.cache(lambda *words: real(list(words)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rows, "_composed", lambda words: copy.deepcopy(composed(*words)))
        yield folder


@pytest.fixture
def call(cli, workspace, filled, monkeypatch):
    """Run a command as it stands, shortened where it trains; the exit code, stdout, stderr."""
    monkeypatch.chdir(workspace)

    def run(command: str, *more: str):
        for table in re.findall(r"digits|rivals|ablation", command):
            if re.match("saformer-(table|plot)", command):
                filled(table)
        words = shlex.split(command.replace("/scratch/me/", ""))
        if words[0] == "python":
            words[:2] = [f"saformer-{words[1].removesuffix('.py')}"]
        return cli(words[0].removeprefix("saformer-"), *words[1:], *more)

    return run


def test_every_command_is_run_somewhere():
    """Each test that ELSEWHERE names is there, and each of its patterns is a command of a page."""
    for pattern, where in ELSEWHERE.items():
        assert (ROOT / where).is_file(), where
        assert any(re.match(pattern, command) for command in COMMANDS), pattern
    assert len(HERE) > 20


@pytest.mark.parametrize("command", QUICK)
def test_a_quick_command(call, command):
    """Tables and lists are made; trainings out of reach here are composed and checked."""
    trains = command.startswith("python")
    code, out, err = call(command, *(("--cfg", "job") if trains else ()))
    assert (code, err) == (0, "")
    assert out


@pytest.mark.slow
@pytest.mark.parametrize("command", SLOW)
def test_a_command_that_trains_or_draws(call, command):
    """Trainings, evaluations and figures run to their end, on two epochs of a hundred digits."""
    if "NAME/RUN" in command and not Path("outputs/NAME/RUN").exists():
        first = ("hydra.run.dir=outputs/NAME/RUN", *SHORT, "epochs=1", "callbacks=default")
        assert call("python train.py", *first)[0] == 0
    trains = command.startswith("python train.py")
    reads = re.search(
        r"checkpoint|ckpt_path", command
    )  # then callbacks=none would leave out too much
    words = [word for word in SHORT if not reads or "callbacks" not in word]
    code, out, err = call(command, *(words if trains else ()))
    assert (code, err) == (0, "")
    assert out
