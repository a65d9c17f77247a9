"""Tables from real run folders: what is counted, what is missing, and what is refused."""

import csv
import io
import json
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path
from statistics import mean, stdev

import pytest
import yaml
from mostly_slow import mostly_slow
from small_table import SMALL, TABLE

from saformer.cli import train
from saformer.results import render
from saformer.results import rows as table_rows
from saformer.results.settings import read_table, table_path
from saformer.results.tables import Table, fill
from saformer.runs.folder import find


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """A folder with the runs of both rows, seeds 0 and 1, trained on a hundred digits."""
    folder = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for row in TABLE["rows"]:
            for seed in TABLE["seeds"]:
                words = [*SMALL, *row.get("overrides", []), f"seed={seed}"]
                place = f"hydra.run.dir=outputs/{len(row)}-{row['label'][:2]}/{seed}"
                patch.setattr(sys, "argv", ["train.py", *words, place])
                train()
    return folder / "outputs"


@pytest.fixture
def outputs(trained, tmp_path) -> Path:
    """A copy of these runs, and the table's file, in the test's own folder."""
    shutil.copytree(trained, tmp_path / "outputs")
    Path("mine.yaml").write_text(yaml.safe_dump(TABLE))
    return tmp_path / "outputs"


def collect(*settings: str, outputs: str = "outputs") -> Table:
    """The table of mine.yaml with its runs."""
    config = read_table(table_path("mine.yaml"))
    rows = table_rows.compose_rows("mine", config, [*SMALL, *settings])
    return fill("mine", config, rows, find(Path(outputs))[0])


def results(outputs: Path, row: str) -> list[dict]:
    """results.json of the seeds of a row."""
    return [
        json.loads(path.read_text()) for path in sorted(outputs.glob(f"*{row}*/*/results.json"))
    ]


def rewrite(path: Path, change) -> None:
    value = json.loads(path.read_text())
    change(value)
    path.write_text(json.dumps(value))


def test_a_table_equals_the_results(outputs):
    """Means, deviations and counts are those of the numbers in results.json, in full precision."""
    lines = list(csv.DictReader(io.StringIO(render.csv_text(collect()))))
    assert [line["row"] for line in lines] == ["SAFormer_tiny", "no DWC | none"]
    for line, row in zip(lines, ("SA", "no"), strict=True):
        runs = results(outputs, row)
        assert len(runs) == 2 and line["seeds"] == "0 1" and line["missing_seeds"] == ""
        for name, values in {
            "test_top1": [100 * run["test"]["test/top1"] for run in runs],
            "val_best": [100 * run["best"]["val/top1"] for run in runs],
            "val_last": [100 * run["last"]["val/top1"] for run in runs],
            "best_epoch": [run["best"]["epoch"] for run in runs],
            "last_epoch": [run["epochs"] for run in runs],
            "params": [1e-6 * run["params"] for run in runs],
            "rate": [run["energy"]["rate/mean"] for run in runs],
            "sops": [run["energy"]["energy/sop_G"] for run in runs],
            "energy": [run["energy"]["energy/total_mJ"] for run in runs],
            "energy_strict": [run["energy"]["energy/strict_mJ"] for run in runs],
        }.items():
            assert float(line[f"{name}_mean"]) == pytest.approx(mean(values), rel=1e-12)
            assert float(line[f"{name}_std"]) == pytest.approx(stdev(values), rel=1e-12, abs=1e-15)
            assert line[f"{name}_n"] == "2"
        assert line["energy_convention"] == line["sops_convention"] == "exact"
    assert float(lines[0]["params_mean"]) > float(lines[1]["params_mean"])  # the DWC has some


def test_the_printed_table(cli, outputs):
    """The command prints rows, seeds and notes, and writes three files with the same numbers."""
    code, out, err = cli("table", "mine.yaml", *SMALL, "--out", "made")
    assert (code, err) == (0, "")
    accuracies = [100 * run["test"]["test/top1"] for run in results(outputs, "SA")]
    shown = f"{mean(accuracies):.2f} ± {stdev(accuracies):.2f}"
    (line,) = [line for line in out.splitlines() if line.startswith("  SAFormer_tiny ")]
    assert line.split()[:3] == ["SAFormer_tiny", "1", "2/2"] and shown in line
    assert "best epoch on validation images" in out and "missing" not in out
    assert sorted(path.name for path in Path("made").iterdir()) == [
        "mine.csv",
        "mine.md",
        "mine.tex",
    ]
    page, tex = Path("made/mine.md").read_text(), Path("made/mine.tex").read_text()
    assert r"| no DWC \| none | 1 | 2/2 | " in page and shown in page
    assert shown.replace("±", r"$\pm$") in tex and r"no DWC \textbar{} none & 1 & 2/2 &" in tex


def test_the_convention_stands_beside_the_energy(outputs):
    """Counts and energies carry the convention they were made under."""
    drawn = render.grid(collect())
    energy = drawn.header.index(next(word for word in drawn.header if word.startswith("energy (")))
    assert all(row[energy].endswith(" exact") for row in drawn.sections[0][1])
    assert any(word.startswith("energy, strict (") for word in drawn.header)


def test_a_deleted_run_is_missing_with_its_command(cli, outputs):
    """Deleting one folder makes exactly that seed missing; its command composes to the same run."""
    shutil.rmtree(outputs / "2-no" / "1")
    table = collect()
    assert [row.missing for row in table.rows] == [[], [1]]
    command = f"saformer-train ablation=no_dwc {' '.join(SMALL)} seed=1"
    assert [row.commands(Path("outputs")) for row in table.rows] == [[], [command]]
    _, out, _ = cli("table", "mine.yaml", *SMALL)
    assert "1 of 4 runs are missing" in out and f"\n# 'no DWC | none'\n{command}\n" in out
    assert f"% missing: {command}" in render.latex(table)
    assert command in render.markdown(table)
    (line,) = [line for line in out.splitlines() if line.startswith("  no DWC")]
    assert "1/2" in line and "±" not in line  # of one seed there is no deviation


def test_in_a_clone_the_command_is_that_of_the_readme(outputs):
    """Where there is a train.py, the command of a missing run starts it."""
    shutil.rmtree(outputs / "2-no")
    Path("train.py").touch()
    (command,) = collect().rows[1].commands(Path("outputs"))
    assert command.startswith("python train.py -m ablation=no_dwc ")


def test_all_seeds_missing_are_one_sweep(outputs):
    """A row without runs has one command for all its seeds, and no numbers."""
    shutil.rmtree(outputs / "2-no")
    (row,) = collect().rows[1:]
    (command,) = row.commands(Path("outputs"))
    assert command == f"saformer-train -m ablation=no_dwc {' '.join(SMALL)} seed=0,1"
    assert f"| no DWC \\| none | 1 | 0/2 | {render.NONE} |" in render.markdown(collect())


@pytest.mark.parametrize("state", mostly_slow(["absent", "half", "not done"], 3))
def test_a_cut_off_run_is_reported_and_not_counted(outputs, state):
    """A run without whole results counts for nothing; its command goes on in its folder."""
    folder = outputs / "2-SA" / "1"
    if state == "absent":
        (folder / "results.json").unlink()
    elif state == "half":
        text = (folder / "results.json").read_text()
        (folder / "results.json").write_text(text[: len(text) // 2])
    else:
        rewrite(folder / "results.json", lambda value: value.update(status="running"))
    folder.rename(outputs / "cut off")
    table = collect()
    row = table.rows[0]
    assert row.missing == [1] and list(row.runs) == [0]
    assert table.remarks == [
        "not counted: outputs/cut off (SAFormer_tiny, seed 1) has no results: it was cut off, or "
        "still runs; 1 of 1 epochs"
    ]
    assert row.job(1)[-1] == 'hydra.run.dir="outputs/cut off"'
    shutil.rmtree(outputs / "cut off" / "checkpoints")  # nothing to go on from: begin anew
    assert collect().rows[0].commands(Path("outputs")) == [
        f"saformer-train {' '.join(SMALL)} seed=1"
    ]


def test_commands_keep_the_precision_of_the_row(outputs):
    """What is missing is trained as the other seeds of the row were, not as is usual."""

    def other(value):
        value["starts"][-1]["config"]["trainer"]["precision"] = "bf16-mixed"

    rewrite(outputs / "2-SA" / "0" / "run.json", other)
    shutil.rmtree(outputs / "2-SA" / "1")
    (command,) = collect().rows[0].commands(Path("outputs"))
    assert command == f"saformer-train {' '.join(SMALL)} trainer.precision=bf16-mixed seed=1"


def test_commands_write_where_runs_are_looked_for(cli, outputs):
    """With --outputs a printed command makes its run below that folder, pasted as it stands."""
    (outputs.parent / "else").mkdir()
    _, out, _ = cli("table", "mine.yaml", *SMALL, "--outputs", "else")
    lines = [line for line in out.splitlines() if line.startswith("saformer-train -m")]
    assert len(lines) == 2
    for line in lines:
        words = shlex.split(line, comments=True)
        assert words[-1] == "hydra.sweep.dir=else/${name}/${run_id:}"


def test_a_run_that_went_on_with_other_settings_is_not_counted(cli, outputs):
    """Two experiments in one folder are none: the setting that changed is named."""

    def begun_otherwise(value):
        first = json.loads(json.dumps(value["starts"][-1]))
        first["config"]["optimizer"]["lr"] = 0.5
        value["starts"].insert(0, first)

    rewrite(outputs / "2-SA" / "0" / "run.json", begun_otherwise)
    assert collect().rows[0].missing == [0]
    _, out, _ = cli("table", "mine.yaml", *SMALL)
    said = "outputs/2-SA/0 was started with optimizer.lr=0.5 and resumed with optimizer.lr="
    assert f"not counted: {said}" in out


@pytest.mark.parametrize("value", [float("nan"), float("inf"), "0.9", None])
def test_what_is_no_number_is_not_shown(outputs, value):
    """A result that is no number leaves its cell to the other seeds."""
    rewrite(
        outputs / "2-SA" / "0" / "results.json", lambda r: r["test"].update({"test/top1": value})
    )
    table = collect()
    assert list(table.rows[0].cell(table.columns["test_top1"]).values) == [1]
    assert "(1 seeds)" in render.markdown(table)


def test_a_damaged_run_is_named(cli, outputs):
    """A run.json that cannot be read is told, and the rest of the table stands."""
    (outputs / "2-SA" / "0" / "run.json").write_text('{"starts": [')
    code, out, err = cli("table", "mine.yaml", *SMALL)
    assert (code, err) == (0, "")
    assert "outputs/2-SA/0/run.json cannot be read" in out and "1 of 4 runs are missing" in out


def test_runs_that_differ_are_refused(cli, outputs):
    """Two runs of one row and seed whose numbers do not mix are refused with what differs."""
    shutil.copytree(outputs / "2-SA" / "0", outputs / "other")

    def change(value: dict) -> None:
        value["starts"][-1]["config"]["trainer"]["precision"] = "bf16-mixed"
        value["starts"][-1]["time"] = "2100-01-01T00:00:00+00:00"

    rewrite(outputs / "other" / "run.json", change)
    code, _, err = cli("table", "mine.yaml", *SMALL)
    assert code == 2 and err.count("\n") == 1
    assert "outputs/2-SA/0" in err and "outputs/other" in err
    assert "trainer.precision=32-true and trainer.precision=bf16-mixed" in err
    # The fix that it names: say which.
    assert collect("trainer.precision=32-true").rows[0].runs[0].folder == Path("outputs/2-SA/0")
    chosen = collect("trainer.precision=bf16-mixed").rows[0].runs
    assert {seed: run.folder for seed, run in chosen.items()} == {0: Path("outputs/other")}
    said = "not counted: outputs/other is not SAFormer_tiny, seed 0: trainer.precision=bf16-mixed"
    assert collect("trainer=cpu").remarks == [f"{said}, not 32-true"]


def test_a_run_with_another_setting_is_not_of_the_row(outputs):
    """A run that differs in what defines it is not counted, and what differs is named."""
    shutil.copytree(outputs / "2-SA" / "0", outputs / "other")

    def change(value: dict) -> None:
        config = value["starts"][-1]["config"]
        config["epochs"] = config["trainer"]["max_epochs"] = 7

    rewrite(outputs / "other" / "run.json", change)
    table = collect()
    assert [row.missing for row in table.rows] == [[], []]
    assert table.rows[0].runs[0].folder == Path("outputs/2-SA/0")
    assert table.remarks == [
        "not counted: outputs/other is not SAFormer_tiny, seed 0: epochs=7, not 1"
    ]


def test_of_equal_runs_the_newest_is_taken(outputs):
    """Of runs with equal settings the newest whole one counts, which is said."""
    shutil.copytree(outputs / "2-SA" / "0", outputs / "a newer one")
    shutil.copytree(outputs / "2-SA" / "0", outputs / "the newest, cut off")

    def later(year: int):
        return lambda value: value["starts"][-1].update(time=f"{year}-01-01T00:00:00+00:00")

    rewrite(outputs / "a newer one" / "run.json", later(2100))
    rewrite(
        outputs / "a newer one" / "results.json", lambda v: v["test"].update({"test/top1": 0.5})
    )
    rewrite(outputs / "the newest, cut off" / "run.json", later(2101))
    (outputs / "the newest, cut off" / "results.json").unlink()
    table = collect()
    assert table.rows[0].runs[0].folder == Path("outputs/a newer one")
    assert (
        "SAFormer_tiny, seed 0 was run 2 times with equal settings: the newest, outputs/a newer "
        "one, is taken, and not outputs/2-SA/0"
    ) in table.remarks
    assert table.rows[0].cut == {}  # seed 0 is done


@pytest.mark.parametrize(
    "change",
    [
        lambda c: c.update(
            name="mine", data_dir="/scratch", compile=True, logger={"kind": "wandb"}
        ),
        lambda c: c["trainer"].update(accelerator="gpu", strategy="ddp", deterministic=True),
        lambda c: c["dataset"].update(num_workers=8, eval_batch_size=1, cache_dir="/tmp"),
        lambda c: c["energy"].update(samples=3, every_n_epochs=5),
        lambda c: c["neuron"].pop("fire"),  # a run that is older than the setting
    ],
    ids=["place", "device", "loading", "counting", "older"],
)
def test_place_and_speed_define_nothing(outputs, change):
    """Runs of another machine, folder, speed or version are runs of the same row."""
    rewrite(outputs / "2-SA" / "0" / "run.json", lambda v: change(v["starts"][-1]["config"]))
    table = collect()
    assert [row.missing for row in table.rows] == [[], []] and table.remarks == []


def test_more_devices_of_the_same_batch(outputs):
    """What an optimizer step adds up defines a run, and not how many devices share it."""

    def share(effective: int):
        def change(value: dict) -> None:
            start = value["starts"][-1]
            start["config"]["trainer"].update(devices=8, accumulate_grad_batches=1)
            start["effective_batch"] = effective

        return change

    path = outputs / "2-SA" / "0" / "run.json"
    rewrite(path, share(512))
    assert collect("trainer.accumulate_grad_batches=8").rows[0].missing == [1]
    table = collect()
    assert table.rows[0].missing == [0]
    assert "effective_batch=512, not 64" in table.remarks[0]


def test_csv_round_trip(outputs):
    """What the CSV says reads back as the same numbers, whatever the labels hold."""
    table = collect()
    table.rows[0].label = 'a, "b"\n&'
    lines = list(csv.DictReader(io.StringIO(render.csv_text(table), newline="")))
    assert lines[0]["row"] == 'a, "b"\n&'
    for line, row in zip(lines, table.rows, strict=True):
        for name, column in table.columns.items():
            if not column.published:
                cell = row.cell(column)
                assert (float(line[f"{name}_mean"]), float(line[f"{name}_std"])) == (
                    cell.mean,
                    cell.std,
                )


def test_reading_runs_is_quick(outputs):
    """Hundreds of runs are read in a moment, and without torch."""
    for number in range(300):
        folder = outputs / "many" / str(number)
        folder.mkdir(parents=True)
        for name in ("run.json", "results.json"):
            shutil.copy(outputs / "2-SA" / "0" / name, folder)
    start = time.process_time()
    assert len(find(outputs)[0]) == 304
    assert time.process_time() - start < 2
    code = "import sys, saformer.commands.table; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


@pytest.mark.slow
def test_run_makes_what_is_missing(cli, outputs):
    """--run skips what is done, goes on with what was killed, and names what fails with its log.

    An experiment that stands in two rows is run once.
    """
    shutil.rmtree(outputs / "2-SA" / "1")
    again = {**TABLE["rows"][0], "label": "again"}
    table = {
        **TABLE,
        "rows": [TABLE["rows"][0], again, {"label": "no data", "overrides": ["dataset=cifar10"]}],
    }
    Path("mine.yaml").write_text(yaml.safe_dump(table))
    words = [*SMALL, "epochs=15", "augment=none"]
    folder = Path("outputs/killed")
    command = [sys.executable, "-m", "saformer.cli", *words, "seed=1", f"hydra.run.dir={folder}"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as training:
        deadline = time.monotonic() + 60
        while not (folder / "checkpoints" / "last.ckpt").exists():
            assert training.poll() is None and time.monotonic() < deadline
            time.sleep(0.02)
        training.kill()
    assert not (folder / "results.json").exists()
    code, out, err = cli("table", "mine.yaml", *words, "--run", "--out", "made")
    assert code == 1
    assert "[2/4] SAFormer_tiny, seed 1   resumes in outputs/killed" in out
    assert len(err.splitlines()) == 2 and "no data, seed 1 failed with exit code 2" in err
    assert "made/logs/4.log" in err and "fetch cifar10" in Path("made/logs/4.log").read_text()
    assert json.loads((folder / "results.json").read_text())["epochs"] == 15
    starts = json.loads((folder / "run.json").read_text())["starts"]
    assert len(starts) == 2
    (line,) = [line for line in out.splitlines() if line.startswith("  SAFormer_tiny ")]
    assert "2/2" in line
    assert len(list(outputs.glob("saformer_tiny_digits/*/results.json"))) == 1
