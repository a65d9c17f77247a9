"""Write the files that every run has with any logger: metrics.jsonl and results.json."""

import json
import logging
import os
import time
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import ModelCheckpoint

from saformer.files import write_json, write_whole
from saformer.training.callbacks.checkpoint import best_checkpoint
from saformer.training.callbacks.energy import counted, silenced
from saformer.training.callbacks.meter import EpochMeter, compile_seconds

log = logging.getLogger(__name__)


class ResultsWriter(EpochMeter):
    """Writes one line for each epoch to metrics.jsonl, and results.json at the end of the test.

    A line holds `epoch` (the first is 1), `step`, `lr` (of the epoch's last step), all `train/*`
    and `val/*` metrics, and the metrics of energy. Numbers have full precision, and there are no
    times or paths, so two runs with the same seed write the same bytes. A checkpoint contains the
    lines so far, so a resumed run has all of them, even in another folder. Lines of epochs after
    the checkpoint are dropped, because these epochs are trained again.

    Args:
        run_dir: Folder of the run.
    """

    def __init__(self, run_dir: Path) -> None:
        super().__init__()
        self._run_dir = run_dir
        self._metrics = run_dir / "metrics.jsonl"
        self._lines: list[dict[str, Any]] = []
        # Totals over all starts of the run.
        self._total: dict[str, float] = {"seconds": 0.0, "train_seconds": 0.0, "samples": 0}
        self._clock = time.perf_counter()
        self._fit: dict[str, Any] | None = None
        self._all_lines: list[dict[str, Any]] = []
        self._tested_step = 0  # training step of the current weights
        self._first_step: dict[str, float] = {}  # times of the first step of this start

    def state_dict(self) -> dict[str, Any]:
        return {"total": dict(self._total), "lines": list(self._lines)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._total = dict(state_dict["total"])
        self._lines = list(state_dict["lines"])

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        self._tested_step = checkpoint["global_step"]

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._clock = time.perf_counter()
        self._write_lines(trainer)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        super().on_train_start(trainer, pl_module)
        self._first_step = {}
        self._began, self._compiled_before = time.perf_counter(), compile_seconds()

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)
        if self._first_step:
            return
        took, compiling = time.perf_counter() - self._began, compile_seconds()
        compiling -= self._compiled_before
        self._first_step = {"seconds": round(took, 3), "compile_seconds": round(compiling, 3)}
        if compiling and trainer.is_global_zero:
            log.info("first step %.1f s, of which torch.compile took %.1f s", took, compiling)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        metrics = self.read(trainer)
        self._total["samples"] += self.samples
        self._total["train_seconds"] += self.seconds
        self._add_wall_seconds()
        line = {
            "epoch": trainer.current_epoch + 1,
            "step": trainer.global_step,
            "lr": self.lr,
            **dict(sorted(metrics.items())),
        }
        self._lines.append(line)
        self._write_lines(trainer)

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        # Collect this now and not at the end of the test, because loading a checkpoint for the test
        # also resets all callbacks to the epoch of that checkpoint.
        self._add_wall_seconds()
        self._all_lines, self._tested_step = self._lines, trainer.global_step
        paths, best = {"best": "", "last": ""}, best_checkpoint(trainer)
        if best is not None:
            paths["best"] = best.best_model_path
        for callback in trainer.checkpoint_callbacks:
            if isinstance(callback, ModelCheckpoint) and callback.monitor is None:  # last.ckpt
                paths["last"] = callback.best_model_path
        trained = self._total["train_seconds"]
        self._fit = {
            "last": self._lines[-1] if self._lines else None,
            "epochs": len(self._lines),
            "params": sum(p.numel() for p in pl_module.parameters()),
            "seconds": round(self._total["seconds"], 3),
            "samples_per_second": round(self._total["samples"] / trained, 1) if trained else None,
            "first_step": self._first_step,
            "checkpoints": {
                name: os.path.relpath(path, self._run_dir) if path else None
                for name, path in paths.items()
            },
        }

    def on_test_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self._fit is None or not trainer.is_global_zero:
            return
        test = {k: float(v) for k, v in trainer.callback_metrics.items() if k.startswith("test/")}
        record = {
            "status": "done",
            "test": test,
            "silence": silenced(trainer, pl_module),
            "energy": counted(trainer),
            "best": self._tested_epoch(trainer),
            **self._fit,
        }
        write_json(self._run_dir / "results.json", record)

    def _tested_epoch(self, trainer: pl.Trainer) -> dict[str, Any] | None:
        """The line of the epoch whose weights were tested; None if it has no monitored metric.

        The epoch is found by the step of the tested weights. To choose the best line again could
        give another epoch.
        """
        best = best_checkpoint(trainer)
        watched = (best.monitor if best is not None else None) or "val/top1"
        lines = (line for line in self._all_lines if line["step"] == self._tested_step)
        return next((line for line in lines if watched in line), None)

    def _write_lines(self, trainer: pl.Trainer) -> None:
        if trainer.is_global_zero:
            write_whole(self._metrics, "".join(json.dumps(line) + "\n" for line in self._lines))

    def _add_wall_seconds(self) -> None:
        now = time.perf_counter()
        self._total["seconds"] += now - self._clock
        self._clock = now
