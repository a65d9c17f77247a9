"""Every mistake on the command line is answered in one line, with exit code 2."""

import logging
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from mostly_slow import mostly_slow

ROOT = Path(__file__).parents[1]

WRONG = [
    # A name that does not exist, with the nearest one that does.
    ("timestep=4", "there is no setting 'timestep'. Did you mean 'timesteps'?"),
    ("+timestep=4", "there is no setting 'timestep'. Did you mean 'timesteps'?"),
    ("++timestep=4", "there is no setting 'timestep'. Did you mean 'timesteps'?"),
    ("model.dims=3", "there is no setting 'model.dims'. Did you mean 'model.dim'?"),
    ("+model.dims=3", "there is no setting 'model.dims'. Did you mean 'model.dim'?"),
    ("datset=cifar10", "there is no setting 'datset'. Did you mean 'dataset'?"),
    ("lr=3", "there is no setting 'lr'. Did you mean 'optimizer.lr'?"),
    ("sweep=timesteps", "sweep=timesteps is many runs: add -m"),
    (
        "sweep=timestep",
        "sweep has no option 'timestep'. Did you mean 'timesteps'? "
        "Options: ablation, accuracy_energy, lr, optuna, seeds, timesteps",
    ),
    ("paper=main", "paper holds tables: type saformer-table NAME"),
    ("~foo", "there is no setting 'foo'."),
    # An option that a group does not have.
    (
        "dataset=cifar",
        "dataset has no option 'cifar'. Did you mean 'cifar10'? "
        "Options: cifar10, cifar100, cifar10_dvs, digits, digits_events, dvs128_gesture, "
        "fashion_mnist, imagenet, tiny_imagenet",
    ),
    (
        "dataset=digit",
        "dataset has no option 'digit'. Did you mean 'digits'? "
        "Options: cifar10, cifar100, cifar10_dvs, digits, digits_events, dvs128_gesture, "
        "fashion_mnist, imagenet, tiny_imagenet",
    ),
    (
        "hydra/launcher=joblib",
        "hydra/launcher has no option 'joblib'. Options: basic, submitit_local, submitit_slurm. "
        "It comes with: pip install hydra-joblib-launcher",
    ),
    *(
        (
            word,
            "a group takes the name of an option, as in logger=none, not null and not a number",
        )
        for word in ("callbacks=null", "experiment=null", "model=3", "logger=false")
    ),
    ("+dataset=digits", "dataset is chosen already: type dataset=OPTION without the +"),
    # A value of the wrong kind.
    ("timesteps=abc", "timesteps=abc: Value 'abc' of type 'str' could not be converted to Integer"),
    (
        "timesteps=2.5",
        "timesteps=2.5: Value '2.5' of type 'float' could not be converted to Integer",
    ),
    (
        "dataset.batch_size=true",
        "dataset.batch_size=True: Value 'True' of type 'bool' could not be converted to Integer",
    ),
    (
        "model.residual=zeros",
        "model.residual=zeros: Invalid value 'zeros', expected one of [membrane, sew]",
    ),
    (
        "neuron.reset=zeros",
        "neuron.reset=zeros: Invalid value 'zeros', expected one of [hard, soft, none]",
    ),
    # A value out of range.
    ("timesteps=-1", "timesteps must be at least 1, not -1"),
    ("epochs=0", "epochs must be at least 1, not 0"),
    ("seed=4294967296", "seed must be 0 to 4294967295, not 4294967296"),
    (
        "objective=[val/acc]",
        "objective must be a metric: train/loss, val/loss, val/top1, val/top5, energy/*, rate/*, "
        "neurons/*, not val/acc",
    ),
    (
        "callbacks.checkpoint.monitor=val/acc",
        "callbacks.checkpoint.monitor must be a metric: train/loss, val/loss, val/top1, val/top5, "
        "energy/*, rate/*, neurons/*, not val/acc",
    ),
    ("objective=val/top1", "objective=val/top1: type a list, 'objective=[val/top1]'"),
    (
        "epochs=2",
        "epochs must leave room for scheduler.warmup_epochs + scheduler.cooldown_epochs = 2, not 2",
    ),
    ("neuron.tau=0.5", "neuron.tau must be at least 1, not 0.5"),
    ("optimizer.lr=0", "optimizer.lr must be positive, not 0.0"),
    ("optimizer.lr=inf", "optimizer.lr must be finite, not inf"),
    ("optimizer.eps=-1", "optimizer.eps must be positive, not -1.0"),
    (
        "+callbacks.profile={_target_:benchmarks.step_profile.StepProfile,steps:0}",
        "StepProfile: callbacks.profile.steps must be a whole number of at least 1, not 0",
    ),
    ("dataset.mean=[nan]", "dataset.mean must be finite, not [nan]"),
    ("timesteps=1000000000000", "timesteps must be at most 10000, not 1000000000000"),
    ("trainer.devices=1000000000000", "trainer.devices must be at most 1024, not 1000000000000"),
    (
        "callbacks=early_stopping +callbacks.early_stopping.min_delta=nan",
        "callbacks.early_stopping.min_delta must be finite, not nan",
    ),
    (
        "model=qkformer_4_384 model.stages=[{divide:nan}]",
        "model.stages.divide: Value 'nan' of type 'float' could not be converted to Integer",
    ),
    ("name=", "name must not be empty: runs go into outputs/<name>, not ''"),
    (
        "ckpt_path=",
        "ckpt_path must be null or name a checkpoint: type ckpt_path=outputs/NAME/RUN, not ''",
    ),
    (
        "trainer.max_epochs=3",
        "trainer.max_epochs must be epochs, which the learning rate follows: type epochs=3, not 3",
    ),
    (
        "+trainer.max_steps=5",
        "trainer.max_steps must be left out, since a run ends with a whole epoch: type epochs=N, "
        "or +trainer.limit_train_batches=N for short epochs, not 5",
    ),
    (
        "+trainer.check_val_every_n_epoch=null",
        "trainer.check_val_every_n_epoch must be a number of epochs, by which results are "
        "reported, not null",
    ),
    (
        "+trainer.val_check_interval='00:00:10:00'",
        "trainer.val_check_interval must be a share of an epoch or a number of batches, by which "
        "results are reported, not 00:00:10:00",
    ),
    (
        "+trainer.max_time=00:01:00:00",
        "trainer.max_time must be left out, since a run ends with a whole epoch: type epochs=N; "
        "a stopped run resumes when it is started again, not 00:01:00:00",
    ),
    ("model.dwc.kernel_size=4", "model.dwc.kernel_size must be odd and positive, not 4"),
    ("dataset.split_seed=-1", "dataset.split_seed must be 0 or more, not -1"),
    ("dataset.std=[0]", "dataset.std must be positive, not [0.0]"),
    (
        "dataset.split=peer_last10",
        "dataset.split must be official for digits, whose test set was published, not peer_last10",
    ),
    (
        "dataset.events={norm:max}",
        "dataset.events must be null for digits, which is images, not set",
    ),
    ("augment.nda=true", "augment.nda must be false for digits, which is images, not true"),
    (
        "scheduler=constant scheduler.cooldown_epochs=3",
        "scheduler.cooldown_epochs must be 0 with scheduler.name=constant, which does not read it, "
        "not 3",
    ),
    (
        "dataset=digits_events augment.randaugment=rand-m9-n1",
        "augment.randaugment must be null for digits_events, which is events, not rand-m9-n1",
    ),
    (
        "dataset.in_channels=2 augment.randaugment=rand-m9-n1",
        "augment.randaugment must be null for digits, which is images of 2 channels, "
        "not rand-m9-n1",
    ),
    ("dataset.val_fraction=1", "dataset.val_fraction must be between 0 and 1, not 1.0"),
    # A combination that cannot be.
    ("model.num_heads=3", "model.dim must be divisible by model.num_heads=3, not 64"),
    ("model.dim=20", "model.dim must be divisible by 8 (the stem's first width), not 20"),
    ("model.patch_size=16", "dataset.image_size must be divisible by model.patch_size=16, not 8"),
    # Words that Hydra's grammar cannot read.
    ("timesteps=1,2", "timesteps=1,2 has several values: add -m to run them one after the other"),
    ("dataset", "'dataset' is not an override: type dataset=VALUE, or quote a value with spaces"),
    (
        "ckpt_path=a/epoch=1-step=16.ckpt",
        "cannot read ckpt_path=a/epoch=1-step=16.ckpt: "
        "quote the value, 'ckpt_path=\"a/epoch=1-step=16.ckpt\"'",
    ),
    (
        "outputs/run/checkpoints/best.ckpt",
        "'outputs/run/checkpoints/best.ckpt' is not an override: "
        "type ckpt_path=outputs/run/checkpoints/best.ckpt",
    ),
    # Lightning's objects.
    (
        "trainer.limit_train_batches=3",
        "trainer.limit_train_batches is not set here: "
        "type +trainer.limit_train_batches=VALUE to add an argument of lightning.pytorch.Trainer",
    ),
    ("+trainer.typo=3", "Trainer has no argument 'typo'"),
    ("+callbacks.foo=3", "callbacks.foo must name a class with _target_, not 3"),
    (
        "+callbacks.foo=3 objective=[loss]",
        "objective must be a metric: train/loss, val/loss, val/top1, val/top5, energy/*, rate/*, "
        "neurons/*, not loss",
    ),
]


@pytest.mark.parametrize(
    ("override", "answer"),
    mostly_slow(WRONG, 2, names=2),
    ids=[override for override, _ in WRONG],
)
def test_wrong_override(cli, override, answer):
    """A wrong override is answered word for word as written here, and nothing else is printed."""
    code, _out, err = cli("train", "logger=none", *override.split())
    assert err == f"error: {answer}\n"
    assert code == 2


def test_a_metric_that_nobody_logs(cli, tmp_path, monkeypatch):
    """What Lightning finds wrong only while it trains is one line too, and names the metrics.

    A callback of one's own may log a metric that the settings know nothing of.
    """
    (tmp_path / "quiet.py").write_text("from lightning.pytorch import Callback as Quiet\n")
    monkeypatch.syspath_prepend(tmp_path)
    code, _out, err = cli(
        *("train", "logger=none", "dataset.train_subset=100", "epochs=3"),
        *("callbacks.checkpoint.monitor=val/acc", "+callbacks.mine._target_=quiet.Quiet"),
    )
    assert code == 2
    assert err.startswith("error: Lightning: `ModelCheckpoint(monitor='val/acc')` could not find")
    assert "'val/top1'" in err and err.count("\n") == 1


@pytest.mark.skipif(torch.cuda.is_available(), reason="the machine has what the test says it lacks")
def test_a_gpu_that_is_not_there(cli):
    """Asking for a GPU without one says what to type instead."""
    code, _out, err = cli("train", "logger=none", "trainer=gpu")
    assert err == (
        "error: Trainer: No supported gpu backend found! "
        "Type trainer=auto to use what this machine has.\n"
    )
    assert code == 2


def test_no_traceback_in_a_real_process(tmp_path):
    """The same holds for the script as a user starts it."""
    done = subprocess.run(
        [sys.executable, ROOT / "train.py", "timesteps=-1"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.stderr == "error: timesteps must be at least 1, not -1\n"
    assert done.returncode == 2


@pytest.mark.parametrize(
    "override",
    ["timesteps=-1", "dataset=cifar10", "trainer.devices=abc", "+trainer.num_nodes=2"],
)
def test_a_refused_training_leaves_nothing(cli, override, monkeypatch):
    """No folder is left of a run that never began, whoever refused it, and no run of wandb."""
    monkeypatch.setenv("WANDB_MODE", "offline")
    code, _out, err = cli("train", override)
    assert code == 2 and err.startswith("error: "), err
    assert not list(Path("outputs").iterdir())
    logging.getLogger().warning("later")  # by what goes on in this process: no log to open again


def test_a_refused_training_leaves_a_folder_of_the_users_as_it_is(cli):
    """What was in a folder stays there, and so does a folder that the user has named."""
    Path("mine").mkdir()
    for folder in ("mine", "other"):
        code, _out, _err = cli("train", "timesteps=-1", f"hydra.run.dir={folder}")
        assert code == 2 and Path(folder).is_dir()
    with_notes = Path("outputs/saformer_tiny_digits")
    with_notes.mkdir(parents=True)
    (with_notes / "notes.txt").write_text("mine")
    assert cli("train", "timesteps=-1")[0] == 2
    assert [path.name for path in with_notes.iterdir()] == ["notes.txt"]


@pytest.mark.parametrize("words", [(), ("ckpt_path=",)])
def test_eval_needs_a_checkpoint(cli, words):
    """Evaluation without a checkpoint, or with an empty one, says what to type."""
    code, _out, err = cli("eval", *words)
    assert err == (
        "error: ckpt_path is not set: type ckpt_path=RUN, the folder of a run, a checkpoint, or "
        "latest\n"
    )
    assert code == 2


def test_our_own_faults_keep_their_traceback(cli, monkeypatch):
    """An exception that is not the user's mistake is never hidden."""
    import saformer.cli

    def broken(composed):
        raise RuntimeError("a fault of ours")

    monkeypatch.setattr(saformer.cli, "_train", broken)
    with pytest.raises(RuntimeError, match="a fault of ours"):
        cli("train")
