"""Loss and optimizer do what their settings say."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from saformer.config.check import to_dict
from saformer.config.schema import LossConfig
from saformer.training.module import SAFormerModule, classification_loss


def logits_and_labels(T: int = 3, B: int = 4, K: int = 5, seed: int = 0):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(T, B, K, generator=generator, dtype=torch.float64)
    return logits, torch.randint(K, (B,), generator=generator)


def test_plain_loss_is_the_cross_entropy_of_the_mean():
    """Without TET the logits are averaged over time first."""
    logits, y = logits_and_labels()
    expected = F.cross_entropy(logits.mean(0), y, label_smoothing=0.1)
    assert torch.equal(classification_loss(logits, y, LossConfig(label_smoothing=0.1)), expected)


def test_tet_is_the_mean_of_the_losses_and_a_pull():
    """TET averages the loss over time and pulls every logit to its mean."""
    logits, y = logits_and_labels()
    config = LossConfig(tet=True, tet_lambda=0.2, tet_mean=0.5)
    each = torch.stack([F.cross_entropy(o, y) for o in logits]).mean()
    expected = 0.8 * each + 0.2 * (logits - 0.5).square().mean()
    torch.testing.assert_close(classification_loss(logits, y, config), expected)


@given(tet=st.booleans(), smoothing=st.just(0.0) | st.floats(1e-30, 0.5), seed=st.integers(0, 99))
def test_soft_labels_of_one_class_are_that_class(tet, smoothing, seed):
    """MixUp's soft labels and class numbers give the same loss where they mean the same."""
    logits, y = logits_and_labels(seed=seed)
    soft = F.one_hot(y, logits.shape[-1]).double()
    config = LossConfig(tet=tet, label_smoothing=smoothing)
    torch.testing.assert_close(
        classification_loss(logits, soft, config), classification_loss(logits, y, config)
    )


def test_tet_at_one_timestep_is_the_plain_loss():
    """At T = 1 and without a pull there is nothing to average."""
    logits, y = logits_and_labels(T=1)
    tet = classification_loss(logits, y, LossConfig(tet=True, tet_lambda=0.0))
    torch.testing.assert_close(tet, classification_loss(logits, y, LossConfig()))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_ends_at_the_logits(compose, monkeypatch, dtype):
    """What autocast leaves in half precision is averaged over time in single, and so evaluated."""
    logits, y = logits_and_labels()
    half = logits.to(dtype)
    expected = half.float().mean(0)
    loss = classification_loss(half, y, LossConfig())
    assert loss.dtype is torch.float32 and torch.equal(loss, F.cross_entropy(expected, y))
    config = compose()
    module = SAFormerModule(config, to_dict(config))
    monkeypatch.setattr(module.backbone, "forward", lambda x: half)
    assert torch.equal(module(torch.zeros(4, 1, 8, 8)), expected)


def test_vectors_are_not_decayed(compose):
    """Biases, BatchNorm and learnable neuron constants are in the group without weight decay."""
    config = compose("neuron=plif", "attention.threshold=learnable")
    module = SAFormerModule(config, to_dict(config))
    decayed, plain = module.parameter_groups()
    assert decayed["weight_decay"] == config.optimizer.weight_decay
    assert plain["weight_decay"] == 0
    assert all(p.ndim > 1 for p in decayed["params"])
    assert all(p.ndim <= 1 for p in plain["params"])
    together = sum(len(group["params"]) for group in (decayed, plain))
    assert together == len(list(module.parameters()))


def test_top5_only_where_it_means_something(compose):
    """Up to five classes have no top-5 accuracy."""
    for classes, names in ((5, {"val/top1"}), (6, {"val/top1", "val/top5"})):
        config = compose(f"dataset.num_classes={classes}")
        module = SAFormerModule(config, to_dict(config))
        assert set(module.val_accuracy.keys()) == names


@pytest.mark.parametrize("sizes", [(5, 1), (3, 2, 1), (6,)])
def test_accuracy_is_exact_under_uneven_batches(compose, sizes):
    """The accuracy is that of all samples, however they are cut into batches."""
    config = compose("dataset.num_classes=3")
    module = SAFormerModule(config, to_dict(config))
    logits = torch.eye(3).repeat(2, 1)
    labels = torch.tensor([0, 1, 2, 1, 1, 1])
    for x, y in zip(logits.split(sizes), labels.split(sizes), strict=True):
        module.val_accuracy.update(x, y)
    assert module.val_accuracy.compute()["val/top1"] == pytest.approx(4 / 6)
