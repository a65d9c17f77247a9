"""A multirun says what it does, survives a failing job, and ends with a table of all of them."""

import json
from pathlib import Path

import pytest
import yaml
from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from mostly_slow import mostly_slow
from rich.console import Console

from saformer.config.check import to_dict
from saformer.config.files import conf_dir
from saformer.config.overrides import VERSION_BASE
from saformer.errors import UserError
from saformer.runs.sweep import as_table, find_jobs, require_same_run

ROOT = Path(__file__).parents[2]
QUICK = ("trainer=debug", "logger=none", "timesteps=1", "hydra.sweep.dir=sweep")
GRIDS = sorted(
    path.stem for path in (conf_dir() / "sweep").glob("*.yaml") if "optuna" not in path.read_text()
)


def jobs_of(*words: str) -> list[list[str]]:
    """The overrides of each job of a sweep over a grid; the first word names its file."""
    with initialize_config_dir(str(conf_dir()), version_base=VERSION_BASE):
        config = hydra_compose("train", list(words[:1]), return_hydra_config=True)
    params = [f"{name}={value}" for name, value in config.hydra.sweeper.params.items()]
    overrides = OverridesParser.create().parse_overrides([*params, *words])
    return BasicSweeper.split_arguments(overrides, None)[0]


@pytest.mark.parametrize("name", mostly_slow(GRIDS, 2))
def test_every_grid_is_jobs_that_compose_and_differ(name, compose):
    """Each job of each file of conf/sweep is a valid run, and no two are the same run."""
    words = jobs_of(f"sweep={name}")
    runs = [json.dumps(to_dict(compose(*job))) for job in words]
    assert len(runs) > 2 and len(set(runs)) == len(runs)


def test_a_typed_value_replaces_the_axis_of_a_sweep_file():
    """sweep=timesteps timesteps=3 seed=0,1 is two jobs, both with T = 3."""
    words = jobs_of("sweep=timesteps", "timesteps=3", "seed=0,1")
    assert len(words) == 2 and all("timesteps=3" in job for job in words)


def test_a_failing_job_is_named_and_stops_no_other(cli):
    """Progress before each job, a table and the reason at the end, exit code 1; rerun goes on."""
    words = (*QUICK, "-m", "model.dim=32,30,16")
    code, out, _ = cli("train", *words)
    assert code == 1
    for number, dim in ((1, 32), (2, 30), (3, 16)):
        words = f"plots=False trainer=debug logger=none timesteps=1 model.dim={dim}"
        assert f"[{number}/3] {words}\n" in out
    table = out[out.index("status") :]
    assert [line.split()[3] for line in table.splitlines() if line.startswith("│")] == [
        "32",
        "30",
        "16",
    ]
    assert table.count("done") == 2 and table.count("failed") == 1
    why = "model.dim must be divisible by 8 (the stem's first width), not 30"
    assert f"job 2: {why}   log sweep/1/train.log" in table
    assert "hydra.sweep.dir=sweep: finished jobs are skipped" in table
    assert f"error: {why}" in Path("sweep/1/train.log").read_text()
    assert json.loads(Path("sweep/2/results.json").read_text())["status"] == "done"


def test_a_fault_of_ours_keeps_its_traceback_in_the_log(cli, monkeypatch):
    """An unexpected exception in one job: traceback in its log, the sweep ends with exit code 1."""
    from saformer.runs import experiment

    real = experiment.train

    def train(config, run_dir):
        if config.seed == 0:
            raise ZeroDivisionError("boom")
        return real(config, run_dir)

    monkeypatch.setattr(experiment, "train", train)
    code, out, _ = cli("train", *QUICK, "-m", "seed=0,1")
    log = Path("sweep/0/train.log").read_text()
    assert code == 1 and "job 1: ZeroDivisionError: boom" in out
    assert "Traceback" in log and "experiment.train(config, folder)" in log
    assert Path("sweep/1/results.json").exists()


def test_ctrl_c_ends_a_sweep_with_its_table(cli, monkeypatch):
    """Interrupted in the second of three jobs: exit code 130, and the table says what stands."""
    from saformer.runs import experiment

    real = experiment.train

    def train(config, run_dir):
        if config.seed == 1:
            raise KeyboardInterrupt
        return real(config, run_dir)

    monkeypatch.setattr(experiment, "train", train)
    code, out, err = cli("train", *QUICK, "-m", "seed=0,1,2")
    assert (code, err) == (130, "error: interrupted\n")
    assert "cut off" in out and "1 of 3 jobs were not started" in out


def test_a_mistake_for_all_jobs_is_one_line_and_starts_none(cli):
    """A typo in a sweep: the line of a single run, exit code 2, no table."""
    code, out, err = cli("train", *QUICK, "-m", "model.dims=32,16")
    assert code == 2 and "status" not in out
    assert err == "error: there is no setting 'model.dims'. Did you mean 'model.dim'?\n"


def test_the_table_shows_results_json_and_only_what_varies(tmp_path):
    """Accuracy, SOPs and energy are those of results.json; equal settings have no column."""
    for number, top1 in ((0, 0.5), (10, 0.25), (9, None)):
        run = tmp_path / str(number)
        (run / ".hydra").mkdir(parents=True)
        words = [f"seed={number}", "timesteps=2", "hydra.sweep.dir=x", "sweep=seeds"]
        (run / ".hydra/overrides.yaml").write_text(yaml.safe_dump(words))
        hydra = {"hydra": {"job": {"num": number}}}
        (run / ".hydra/hydra.yaml").write_text(yaml.safe_dump(hydra))
        energy = {"energy/sop_G": 0.002, "energy/total_mJ": 0.25}
        results = {"status": "done", "test": {"test/top1": top1}, "energy": energy}
        if top1 is not None:
            (run / "results.json").write_text(json.dumps(results))
    jobs = find_jobs(tmp_path)
    assert [job.number for job in jobs] == [0, 9, 10]
    console = Console(width=120, record=True)
    console.print(as_table(jobs))
    text = console.export_text()
    assert "timesteps" not in text and "sweep" not in text
    cells = [
        [c.strip() for c in line.split("│")[1:-1]] for line in text.splitlines() if "│" in line
    ]
    assert cells == [
        ["1", "0", "50.00", "2.00", "250", "done"],
        ["10", "9", "", "", "", "cut off"],
        ["11", "10", "25.00", "2.00", "250", "done"],
    ]
    assert "SOPs (M)" in text and "energy (µJ)" in text


def test_a_single_run_in_the_folder_of_a_sweep_is_none_of_its_jobs(cli):
    """hydra.sweep.dir may name a folder that holds single runs as well."""
    assert cli("train", *QUICK, "seed=5", "hydra.run.dir=sweep/alone")[0] == 0
    code, out, _ = cli("train", *QUICK, "-m", "seed=0,1")
    assert code == 0 and out.count("done") == 2
    assert [job.folder.name for job in find_jobs(Path("sweep"))] == ["0", "1"]


def test_a_folder_of_another_sweep_is_refused(compose, tmp_path):
    """A job whose folder holds a run of other settings does not take its place."""
    start = {"config": to_dict(compose("timesteps=2", "seed=1")), "effective_batch": None}
    (tmp_path / "run.json").write_text(json.dumps({"starts": [start]}))
    require_same_run(tmp_path, compose("timesteps=2", "seed=1", "logger=none"))
    for words, said in (
        (["timesteps=4", "seed=1"], "timesteps=2 where this one has timesteps=4"),
        (["timesteps=2", "seed=3"], "seed=1 where this one has seed=3"),
    ):
        with pytest.raises(UserError, match=said):
            require_same_run(tmp_path, compose(*words))


def test_a_refused_job_shows_no_results_and_leaves_the_other_run_alone(cli):
    """The same folder under other settings: "refused" with the reason, none of the other run's
    numbers under the new settings, and not a byte of its folder changed."""
    assert cli("train", *QUICK, "-m", "seed=0,1")[0] == 0
    before = {path: path.read_bytes() for path in Path("sweep").glob("?/**/*") if path.is_file()}
    code, out, _ = cli("train", *QUICK, "-m", "seed=1")
    rows = [line.split("│") for line in out.splitlines() if line.startswith("│")]
    assert code == 1 and "to resume" not in out
    assert [[cell.strip() for cell in row[1:-1]] for row in rows] == [["1", "", "", "", "refused"]]
    assert "job 1: sweep/0 holds another run, with seed=0 where this one has seed=1" in out
    left = {path: path.read_bytes() for path in Path("sweep").glob("?/**/*") if path.is_file()}
    assert left == before


def test_a_refused_run_leaves_the_other_one_alone(cli):
    """hydra.run.dir of a finished run under another seed: one line, and no byte changed."""
    assert cli("train", *QUICK[:3], "hydra.run.dir=run")[0] == 0
    before = {path: path.read_bytes() for path in Path("run").rglob("*") if path.is_file()}
    code, _, err = cli("train", *QUICK[:3], "hydra.run.dir=run", "seed=1")
    assert code == 2 and err.startswith("error: run holds another run, with seed=0 where")
    assert before == {path: path.read_bytes() for path in Path("run").rglob("*") if path.is_file()}


@pytest.mark.slow
def test_a_study_of_accuracy_and_energy_goes_on(cli):
    """sweep=accuracy_energy: two objectives, stored; the same command adds trials to the study."""
    import optuna

    words = ("-m", "sweep=accuracy_energy", "hydra.sweeper.n_trials=2", "name=trade")
    words += (*QUICK[:2], "model.dim=16", "timesteps=1,2")
    for start in range(2):
        code, out, _ = cli("train", *words, f"hydra.sweep.dir=outputs/trade/{start}")
        assert code == 0 and "[2/2]" in out
    (storage,) = Path("outputs/optuna").iterdir()
    study = optuna.load_study("trade-accuracy-energy", f"sqlite:///{storage}")
    assert [direction.name for direction in study.directions] == ["MAXIMIZE", "MINIMIZE"]
    assert len(study.trials) == 4 and all(len(trial.values) == 2 for trial in study.trials)
    assert len(find_jobs(Path("outputs/trade"))) == 4  # no folder was used twice


@pytest.mark.slow
def test_one_objective_finds_its_study_again(cli):
    """sweep=optuna keeps its study in a file below outputs/, and a failed trial stops no other."""
    import optuna

    words = ("-m", "sweep=optuna", "hydra.sweeper.n_trials=3", "name=one", *QUICK[:2])
    code, _, _ = cli("train", *words, "timesteps=1", "model.dim=30,32")
    study = optuna.load_study("one", "sqlite:///outputs/optuna/one.db")
    states = [trial.state.name for trial in study.trials]
    assert len(states) == 3 and code == int("FAIL" in states)


def test_the_sweep_of_wandb_types_settings_that_exist(compose):
    """scripts/wandb_sweep.yaml: what an agent would type is a valid run with that objective."""
    sweep = yaml.safe_load((ROOT / "scripts/wandb_sweep.yaml").read_text())
    assert sweep["program"] == "train.py" and sweep["metric"]["name"] == "val/top1"
    values = {
        name: part.get("values", [part.get("min")])[0] for name, part in sweep["parameters"].items()
    }
    config = compose(*(f"{name}={value}" for name, value in values.items()))
    assert config.objective == ["val/top1"]
