"""Results never take the name of others, however many are made in one second."""

import json
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path

import pytest
import yaml
from forked import start
from mostly_slow import mostly_slow
from resumable import SHORT

from saformer import files
from saformer.files import new_folder, write_new_json

NAME = "2026-01-02_12-00-00"


@pytest.fixture(scope="module")
def checkpoint(shared_run) -> Path:
    """The checkpoint of a short run."""
    words = ("energy=off", "dataset.train_subset=100", "epochs=1")
    return shared_run(*SHORT, *words) / "run/checkpoints/best.ckpt"


@pytest.fixture
def noon(monkeypatch: pytest.MonkeyPatch) -> None:
    """All that happens happens within one second."""

    class Noon(datetime):
        @classmethod
        def now(cls, tz=None) -> datetime:
            return datetime(2026, 1, 2, 12)

    monkeypatch.setattr(files, "datetime", Noon)


def results(checkpoint: Path, what: str) -> list[str]:
    """Names of what is beside a run, which is then taken away."""
    found = sorted(checkpoint.parents[1].glob(f"{what}-*"), key=lambda path: path.name)
    return [path.rename(path.name).name for path in found]


def test_writers_at_the_same_moment_have_a_name_each():
    """Sixteen at a time, under one name: sixteen whole files and folders, and nothing beside."""
    made = Path("made")
    made.mkdir()
    with ThreadPoolExecutor(16) as pool:
        written = list(pool.map(lambda i: write_new_json(made / "eval", i), range(16)))
        folders = list(pool.map(lambda _: new_folder(made / "plots"), range(16)))
    assert sorted(json.loads(path.read_text()) for path in written) == list(range(16))
    assert len(set(folders)) == 16 and set(made.iterdir()) == {*written, *folders}
    assert made / "eval.json" in written and made / "eval-15.json" in written


@pytest.mark.slow
def test_evaluations_of_one_command_leave_a_file_each(cli, checkpoint, noon):
    """`-m` with four values, in one second: four files, of each value one."""
    words = (f"ckpt_path={checkpoint}", "timesteps=1,2,3,4", "hydra.sweep.dir=sweep")
    code, out, err = cli("eval", "-m", *words)
    assert (code, err) == (0, ""), out
    names = results(checkpoint, "eval")
    assert sorted(names) == sorted(f"eval-{NAME}{n}.json" for n in ("", "-1", "-2", "-3"))
    found = [json.loads(Path(name).read_text())["config"]["timesteps"] for name in names]
    assert sorted(found) == [1, 2, 3, 4]
    assert all(f"{name}\n" in out for name in names)


@pytest.mark.slow
def test_evaluations_at_a_time_leave_a_file_each(checkpoint, tmp_path):
    """Four processes on one checkpoint: four files, whole, and nothing else."""
    words = (f"ckpt_path={checkpoint}", "trainer=cpu")
    running = [start(tmp_path, *words, log=f"{i}", command="evaluate") for i in range(4)]
    for process in running:
        process.join()
    assert [process.exitcode for process in running] == [0] * 4, (tmp_path / "0").read_text()
    names = results(checkpoint, "eval")
    assert len({name for name in names if name.endswith(".json")}) == len(names) == 4
    assert len({json.loads(Path(name).read_text())["test/top1"] for name in names}) == 1


@pytest.mark.parametrize(
    ("command", "words", "what"),
    mostly_slow(
        [("energy", ("ckpt_path=",), "energy"), ("plot", ("spikes", "--images", "1"), "plots")],
        names=3,
    ),
)
def test_reports_of_one_second_have_a_folder_each(cli, checkpoint, noon, command, words, what):
    """The second has a number behind its name, and nothing of the first is changed."""
    given = (f"ckpt_path={checkpoint}",) if command == "energy" else (*words, str(checkpoint))
    for _ in range(2):
        code, _out, err = cli(command, *given)
        assert (code, err) == (0, "")
    first, second = results(checkpoint, what)
    assert (first, second) == (f"{what}-{NAME}", f"{what}-{NAME}-1")
    names = [sorted(path.name for path in Path(one).iterdir()) for one in (first, second)]
    assert names[0] == names[1] != []


def test_tables_of_one_second_have_a_folder_each(cli, noon):
    """So do figures; what is refused leaves no folder."""
    table = {"title": "One", "seeds": [0], "columns": ["test_top1"], "rows": [{"label": "it"}]}
    Path("one.yaml").write_text(yaml.safe_dump(table))
    for _ in range(2):
        assert cli("table", "one.yaml")[0] == 0
        assert cli("plot", "bars", "one.yaml")[0] == 2  # there is no run to draw
    names = sorted(path.name for path in Path("outputs/tables").iterdir())
    assert names == [f"one-{NAME}", f"one-{NAME}-1"]
    assert cli("table", "one.yaml", "seed=1")[0] == 2
    assert len(list(Path("outputs/tables").iterdir())) == 2 and not Path("outputs/plots").exists()


def test_what_fails_leaves_nothing(cli, checkpoint):
    """Another model, or data that is not there: neither an empty file nor an empty folder."""
    wrong = (f"ckpt_path={checkpoint}", "model.dim=16")
    for command in ("eval", "energy"):
        assert cli(command, *wrong)[0] == 2
    assert cli("plot", "spikes", str(checkpoint), "model.dim=16")[0] == 2
    assert sorted(path.name for path in checkpoint.parents[1].glob("*-*")) == []
