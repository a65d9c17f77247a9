"""The LightningModule: loss, metrics, optimizer, schedule.

T timesteps, B batch, K classes.
"""

from collections.abc import Mapping
from typing import Any

import lightning.pytorch as pl
import torch
import torch.nn.functional as F
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor
from torch.nn.utils import get_total_norm
from torch.optim import Optimizer
from torchmetrics import MeanMetric, MetricCollection
from torchmetrics.classification import MulticlassAccuracy

from saformer.checkpoint import trained_values
from saformer.config import Config, LossConfig
from saformer.create import build_backbone
from saformer.diagnose import first_nonfinite
from saformer.errors import TrainingStopped
from saformer.finite import nonfinite, shortened
from saformer.models.surrogate import state_dtype
from saformer.same_logits import SameLogits
from saformer.schedule import EpochSchedule, keep_settings, lr_at


def classification_loss(logits: Tensor, target: Tensor, config: LossConfig) -> Tensor:
    """Cross-entropy of spiking logits.

    Plain: CE(mean_t o_t, y). TET (arXiv 2202.11946, equations 9 to 11):
    (1 - lambda) * mean_t CE(o_t, y) + lambda * MSE(o, tet_mean).

    Args:
        logits: [T, B, K].
        target: Class numbers [B], or class probabilities [B, K] from MixUp and CutMix.
        config: Label smoothing and TET.
    """

    def cross_entropy(o: Tensor, y: Tensor) -> Tensor:
        return F.cross_entropy(o, y, label_smoothing=config.label_smoothing)

    if not config.tet:
        return cross_entropy(_mean_over_time(logits), target)
    each = target.repeat(len(logits), *[1] * (target.ndim - 1))
    pull = F.mse_loss(logits, torch.full_like(logits, config.tet_mean))
    data = cross_entropy(logits.flatten(0, 1), each)
    return (1 - config.tet_lambda) * data + config.tet_lambda * pull


def _mean_over_time(logits: Tensor) -> Tensor:
    """[T, B, K] -> [B, K], not in the half precision that autocast leaves logits in."""
    return logits.to(state_dtype(logits)).mean(0)


class SAFormerModule(pl.LightningModule):
    """Trains and evaluates one backbone.

    Logs `train/loss`, `val/loss`, `val/top1`, `test/loss`, `test/top1` and, for more than five
    classes, `val/top5` and `test/top5`; accuracies are fractions.

    Args:
        config: The run's settings.
        saved: The same as plain values, kept in every checkpoint so that one file is enough to
            evaluate.
    """

    def __init__(self, config: Config, saved: dict[str, Any]) -> None:
        super().__init__()
        self.save_hyperparameters({"config": saved}, logger=False)  # the logger has it already
        self.config = config
        num_classes = config.dataset.num_classes
        self.backbone = build_backbone(config)
        ranks = {"top1": 1, "top5": 5} if num_classes > 5 else {"top1": 1}
        accuracy = MetricCollection(
            {
                name: MulticlassAccuracy(num_classes, top_k=k, average="micro")
                for name, k in ranks.items()
            }
        )
        self._validates_each = 1.0
        """Batches from one validation to the next, as Trainer was told."""
        self._asked_to_stop = False
        """Whether a callback wants to stop within the epoch under way."""
        self._unchecked: list[tuple[Tensor, Tensor]] = []
        """Losses since the last step of the optimizer, and the batches that they are of."""
        self._logits = SameLogits(num_classes)
        self.same_logits = False
        """Whether those of the last validation or test were the same for all images."""
        self.val_loss, self.test_loss = MeanMetric(), MeanMetric()
        self.val_accuracy = accuracy.clone(prefix="val/")
        self.test_accuracy = accuracy.clone(prefix="test/")

    def forward(self, x: Tensor) -> Tensor:
        """Normalised images to logits averaged over time, [B, K]."""
        return _mean_over_time(self.backbone(x))

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        x, y = batch
        loss = classification_loss(self.backbone(x), y, self.config.loss)
        self._unchecked.append((loss.detach(), x))
        self.log(
            "train/loss",
            loss,
            on_step=False,
            on_epoch=True,
            batch_size=len(x),
            prog_bar=True,
            sync_dist=True,
        )
        return loss

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        """Stop before a bad step reaches the weights, in all ranks together.

        Behind a neuron the loss stays finite whatever the membrane is, and only gradients tell. To
        look at anything before the backward pass would make the CPU wait there for the GPU.
        """
        unchecked, self._unchecked = self._unchecked, []
        finite = [torch.isfinite(part).all() for each in unchecked for part in each]
        norm = get_total_norm([p.grad for p in self.parameters() if p.grad is not None])
        fine = torch.stack([torch.stack(finite).all(), torch.isfinite(norm)])
        if self.trainer.world_size > 1:
            fine = self.trainer.strategy.reduce(fine.int(), reduce_op="min")
        forward, backward = fine.tolist()  # here the CPU waits, once a step
        if not (forward and (backward or self._scaler_skips())):
            found = self._first_said(self._what_went_wrong(unchecked))
            raise TrainingStopped(found or self._bad_gradient())

    def _scaler_skips(self) -> bool:
        """Whether a loss scale that is too high explains gradients that are not finite."""
        scaler = getattr(self.trainer.precision_plugin, "scaler", None)
        return scaler is not None and scaler.get_scale() >= 1

    def on_test_start(self) -> None:
        self._require_finite(self.state_dict())

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self._require_finite(trained_values(checkpoint))

    def _require_finite(self, values: Mapping[str, Tensor]) -> None:
        """Stop in all ranks together where a weight, a statistic or a moment is not finite."""
        bad = nonfinite(values)
        fine = torch.tensor(not bad, dtype=torch.int, device=self.device)
        if self.trainer.world_size > 1:
            fine = self.trainer.strategy.reduce(fine, reduce_op="min")
        if not fine:
            words = f"{shortened(bad)} became infinite or NaN" if bad else ""
            raise TrainingStopped(self._in_words(self._first_said(words)))

    def on_train_start(self) -> None:
        self._validates_each = self.trainer.val_check_batch or 1.0

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Validate where an epoch ends too, if its batches are no multiple of the interval.

        The last validation would be told, and weights kept by it, as that of the whole epoch.
        """
        batches = self.trainer.num_training_batches
        last = batch_idx + 1 == batches
        self.trainer.val_check_batch = batches if last else self._validates_each

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        self._stop_with_the_epoch()

    def on_validation_end(self) -> None:
        self._stop_with_the_epoch()

    def _stop_with_the_epoch(self) -> None:
        """Put off what a callback asked for: half an epoch would be saved and tested as a whole."""
        trainer: Any = self.trainer
        done = trainer.fit_loop.epoch_loop.batch_progress.current.processed
        if trainer.should_stop and done < trainer.num_training_batches:
            self._asked_to_stop, trainer.should_stop = True, False

    def on_train_epoch_end(self) -> None:
        self.trainer.should_stop |= self._asked_to_stop

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        self._evaluate("val/loss", self.val_loss, self.val_accuracy, *batch)

    def test_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        self._evaluate("test/loss", self.test_loss, self.test_accuracy, *batch)

    def on_validation_epoch_start(self) -> None:
        # Not sooner: an average has only now taken the place of the weights.
        self._require_finite(self.state_dict())
        self._logits.reset()

    def on_test_epoch_start(self) -> None:
        self._logits.reset()

    def on_validation_epoch_end(self) -> None:
        self.same_logits = bool(self._logits.compute())

    def on_test_epoch_end(self) -> None:
        self.same_logits = bool(self._logits.compute())

    def _evaluate(
        self, name: str, mean: MeanMetric, accuracy: MetricCollection, x: Tensor, y: Tensor
    ) -> None:
        if len(x):  # the share of a process may have ended before that of another
            by_time = self.backbone(x)
            logits = _mean_over_time(by_time)
            self._logits.update(logits, by_time.dtype)
            loss = F.cross_entropy(logits, y)
            if not torch.isfinite(loss) & torch.isfinite(x).all():
                raise TrainingStopped(self._what_went_wrong([(loss, x)]))
            mean.update(loss, len(x))
            accuracy.update(logits, y)
        # Given the loss itself, Lightning would divide by half of an odd number, rounded down.
        self.log(name, mean, batch_size=len(x))
        self.log_dict(accuracy, batch_size=len(x), prog_bar=True)

    def _what_went_wrong(self, batches: list[tuple[Tensor, Tensor]]) -> str:
        """What these batches show of why something became infinite or NaN; or nothing."""
        for loss, x in batches:
            with self.trainer.precision_plugin.forward_context():  # as the step had it
                where = first_nonfinite(self.backbone, x)
            if not torch.isfinite(loss):
                where = where or "every layer is finite, so the loss itself overflowed"
                return self._in_words(where, f"the loss became {loss.item()}")
            if where:
                return self._in_words(where)
        return ""

    def _bad_gradient(self) -> str:
        """Where gradients, which all ranks share, became infinite or NaN: they come from behind."""
        for name, parameter in reversed(list(self.named_parameters())):
            if parameter.grad is not None and not torch.isfinite(norm := parameter.grad.norm()):
                where = f"from {name} backwards, though the loss is finite"
                return self._in_words(where, f"the gradient became {norm.item()}")
        return self._in_words("the norm of all gradients overflowed")

    def _in_words(self, where: str, what: str = "") -> str:
        """What became infinite or NaN, when, where in the network it began, and what may help."""
        if self.trainer.testing:
            return f"{what or 'the test stopped'}: {where}"
        return (
            f"{what or 'training stopped'} in epoch {self.current_epoch + 1}, "
            f"step {self.global_step}: {where}. "
            "The last good checkpoint is kept; a lower optimizer.lr, trainer.gradient_clip_val=1 "
            "or trainer.precision=32-true may help."
        )

    def _first_said(self, words: str) -> str:
        """What the first of the ranks says that has something to say; all must ask."""
        ranks = range(self.trainer.world_size)
        said = [self.trainer.strategy.broadcast(words, rank) for rank in ranks]
        return next(filter(None, said), "")

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Weights, which are decayed, and what has fewer than two dimensions, which is not."""
        trained = [p for p in self.parameters() if p.requires_grad]
        decay = self.config.optimizer.weight_decay
        return [
            {"params": [p for p in trained if p.ndim > 1], "weight_decay": decay},
            {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
        ]

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        optim, schedule, epochs = self.config.optimizer, self.config.scheduler, self.config.epochs
        betas = (optim.betas[0], optim.betas[1])
        optimizer = torch.optim.AdamW(
            self.parameter_groups(), lr=optim.lr, betas=betas, eps=optim.eps
        )
        keep_settings(optimizer)

        def factor(epoch: float) -> float:
            return lr_at(epoch, optim.lr, epochs, schedule) / optim.lr

        scheduler = EpochSchedule(optimizer, factor, self._epochs_done)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": scheduler, "interval": schedule.interval.value},
        }

    def _epochs_done(self) -> float:
        """Epochs before the next step of the optimizer: whole ones, and the share of this one.

        In epochs, since a run may go on with another batch size, accumulation or number of devices,
        and so with other steps.
        """
        loop: Any = self.trainer.fit_loop
        progress, each = loop.epoch_progress.current, self.trainer.accumulate_grad_batches
        if progress.started == progress.processed:
            return float(progress.processed)
        steps = -(-int(self.trainer.num_training_batches) // each)
        done = -(-int(loop.epoch_loop.batch_progress.current.processed) // each)
        return float((progress.processed * steps + done) / steps)
