"""The LightningModule: loss, metrics, optimizer, schedule.

T timesteps, B batch, K classes.
"""

from typing import Any

import torch
import torch.nn.functional as F
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor
from torchmetrics import MeanMetric, MetricCollection
from torchmetrics.classification import MulticlassAccuracy

from saformer.config.schema import Config
from saformer.create import build_backbone
from saformer.models.transformer import SAFormer
from saformer.training.finite_module import FiniteModule
from saformer.training.losses import classification_loss, mean_over_time
from saformer.training.same_logits import SameLogits
from saformer.training.schedule import EpochSchedule, keep_settings, lr_at


class SAFormerModule(FiniteModule):
    """Trains and evaluates one backbone.

    Logs `train/loss`, `val/loss`, `val/top1`, `test/loss`, `test/top1` and, for more than five
    classes, `val/top5` and `test/top5`; accuracies are fractions.

    Args:
        config: The run's settings.
        saved: The same settings as plain values; every checkpoint contains them, so that one file
            is enough for an evaluation.
    """

    backbone: SAFormer

    def __init__(self, config: Config, saved: dict[str, Any]) -> None:
        super().__init__()
        self.save_hyperparameters({"config": saved}, logger=False)  # the logger has them already
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
        """Batches between two validations, from the settings of the trainer."""
        self._asked_to_stop = False
        """Whether a callback has asked to stop during the current epoch."""
        self._logits = SameLogits(num_classes)
        self.same_logits = False
        """Whether all images of the last validation or test had the same logits."""
        self.val_loss, self.test_loss = MeanMetric(), MeanMetric()
        self.val_accuracy = accuracy.clone(prefix="val/")
        self.test_accuracy = accuracy.clone(prefix="test/")

    def forward(self, x: Tensor) -> Tensor:
        """Normalised images to logits averaged over time, [B, K]."""
        return mean_over_time(self.backbone(x))

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        x, y = batch
        loss = classification_loss(self.backbone(x), y, self.config.loss)
        self.watch(loss, x)
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

    def on_train_start(self) -> None:
        self._validates_each = self.trainer.val_check_batch or 1.0

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Validate also at the end of an epoch whose length is not a multiple of the interval.

        Otherwise the last validation within the epoch would count as that of the whole epoch, in
        the metrics and for the best checkpoint.
        """
        batches = self.trainer.num_training_batches
        last = batch_idx + 1 == batches
        self.trainer.val_check_batch = batches if last else self._validates_each

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        self._stop_with_the_epoch()

    def on_validation_end(self) -> None:
        self._stop_with_the_epoch()

    def _stop_with_the_epoch(self) -> None:
        """Delay a stop until the end of the epoch, because half an epoch would count as a whole."""
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
        # Check here and not earlier: weight averaging has replaced the weights only now.
        self.require_finite(self.state_dict())
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
        if len(x):  # the last batch of a process may be empty
            by_time = self.backbone(x)
            logits = mean_over_time(by_time)
            self._logits.update(logits, by_time.dtype)
            loss = F.cross_entropy(logits, y)
            self.require_finite_batch(loss, x)
            mean.update(loss, len(x))
            accuracy.update(logits, y)
        # Log the metric object: for a plain loss, Lightning would divide by a number of samples
        # that it rounds down.
        self.log(name, mean, batch_size=len(x))
        self.log_dict(accuracy, batch_size=len(x), prog_bar=True)

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Weights with weight decay, and parameters of fewer than two dimensions without it."""
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
        """Epochs before the next optimizer step: the finished ones plus the share of this one.

        The schedule counts epochs instead of steps, because a run may be resumed with another batch
        size, accumulation or number of devices, and then has another number of steps.
        """
        loop: Any = self.trainer.fit_loop
        progress, accumulated = loop.epoch_progress.current, self.trainer.accumulate_grad_batches
        if progress.started == progress.processed:
            return float(progress.processed)
        steps = -(-int(self.trainer.num_training_batches) // accumulated)
        done = -(-int(loop.epoch_loop.batch_progress.current.processed) // accumulated)
        return float((progress.processed * steps + done) / steps)
