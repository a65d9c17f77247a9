"""The leaky integrate-and-fire recurrence over a whole sequence, forward and backward.

With b the decay, c the input scale, th the threshold, H the step and A its surrogate derivative:

    m[t] = b k(m[t-1]) + c x[t] - (soft) th s[t-1]      s[t] = H(m[t] - th)      m[-1] = 0
    k(m) = (1 - s) m  for the hard reset, m otherwise

    p[t] = A[t] (gs[t] - (hard, not detached) b m[t] G[t+1])
    G[t] = p[t] + b (1 - s[t] for the hard reset, else 1) G[t+1]                gx[t] = c G[t]

Forward and backward exist in two forms with equal results. `forward` and `backward` run eagerly, in
place, with as few passes over memory as PyTorch's operations allow. `forward_fused` and
`backward_fused` are written for torch.compile, which turns each of them into one loop.

The eager form stores the negated membrane, n = -m, because PyTorch has one primitive for "n if it
is above -th, else zero", and another one for its gradient. The fused form stores the same n.

x, s, n and gradients are [T, ...] in any dense layout. All arithmetic uses the dtype of n: float32,
or float64 for float64 input.
"""

import itertools
import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from saformer.models.settings import Fire, Reset, SurrogateName
from saformer.models.surrogate import derivative, fires, state_dtype, vjp_

# Gradients of x, and of b, c and th if they are needed.
Grads = tuple[Tensor, Tensor | None, Tensor | None, Tensor | None]


@dataclass(frozen=True)
class Law:
    """The fixed settings that kernels are built for; decay and threshold are their arguments."""

    reset: Reset
    fire: Fire
    detach_reset: bool
    surrogate: SurrogateName
    alpha: float

    @property
    def hard(self) -> bool:
        """Whether a spike sets the membrane to zero."""
        return self.reset is Reset.hard

    @property
    def soft(self) -> bool:
        """Whether a spike subtracts the threshold from the membrane."""
        return self.reset is Reset.soft

    @property
    def reset_has_gradient(self) -> bool:
        """Whether gradients flow through the spike of a hard reset."""
        return self.hard and not self.detach_reset


def forward(law: Law, x: Tensor, b: Tensor, c: Tensor, th: Tensor) -> tuple[Tensor, Tensor]:
    """Compute the spikes in the dtype of x, and the negated membrane n."""
    decay, scale, minus_th = b.item(), c.item(), -th.item()
    n = x.to(state_dtype(x)).mul(-scale)
    edge = _edge(law, minus_th, n.dtype)
    for last, row in itertools.pairwise(n.unbind(0)):
        row.add_(F.threshold(last, edge, 0.0).mul_(decay) if law.hard else last.mul(decay))
        if law.soft:
            row.sub_((last <= edge).to(n.dtype).mul_(minus_th))
    spikes = torch.empty_like(n, dtype=x.dtype)
    torch.le(n, edge, out=spikes)
    return spikes, n


def backward(
    law: Law, gs: Tensor, n: Tensor, x: Tensor | None, b: Tensor, c: Tensor, th: Tensor
) -> Grads:
    """Compute gradients from gs, that of the spikes; pass x only if b, c and th need gradients."""
    decay, scale, minus_th = b.item(), c.item(), -th.item()
    edge = _edge(law, minus_th, n.dtype)
    gs = gs.to(n.dtype)
    p = n - minus_th
    if not law.reset_has_gradient:
        vjp_(law.surrogate, p, gs, law.alpha)
    g = p if x is None else torch.empty_like(p)
    for t in reversed(range(len(g))):
        later = g[t + 1] if t + 1 < len(g) else None
        if law.reset_has_gradient:
            through_spike = gs[t] if later is None else torch.addcmul(gs[t], n[t], later.mul(decay))
            vjp_(law.surrogate, p[t], through_spike, law.alpha)
        if g is not p:
            g[t].copy_(p[t])
        if later is not None:
            # In place, because a new buffer for each pass would take as long as the pass itself.
            g[t].add_(
                _threshold_backward(later, n[t], edge).mul_(decay) if law.hard else later.mul(decay)
            )
    if x is None:
        return g.mul_(scale), None, None, None
    gb = -(g[1:] * _kept(law, n[:-1], edge)).sum()
    gc = (g * x).sum()
    gth = -p.sum()
    if law.soft:
        gth -= g[1:].mul(n[:-1] <= edge).sum()
    return g.mul_(scale), gb, gc, gth


def forward_fused(law: Law, x: Tensor, b: Tensor, c: Tensor, th: Tensor) -> tuple[Tensor, Tensor]:
    """`forward` as pure expressions."""
    spikes: list[Tensor] = []
    rows: list[Tensor] = []
    m = fired = None
    for xt in x.to(state_dtype(x)).unbind(0):
        i = xt * c
        if m is None or fired is None:
            m = i
        else:
            m = (torch.where(fired, 0.0, m) if law.hard else m) * b + i
            if law.soft:
                m = m - torch.where(fired, th, 0.0)
        fired = fires(law.fire, m, th)
        spikes.append(fired.to(x.dtype))
        rows.append(-m)
    return torch.stack(spikes), torch.stack(rows)


def backward_fused(
    law: Law, gs: Tensor, n: Tensor, x: Tensor | None, b: Tensor, c: Tensor, th: Tensor
) -> Grads:
    """`backward` as pure expressions."""
    out: list[Tensor] = []
    gb = gc = gth = torch.zeros((), dtype=n.dtype, device=n.device)
    after: Tensor | None = None
    for t in reversed(range(len(n))):
        m, through_spike = -n[t], gs[t].to(n.dtype)
        fired = fires(law.fire, m, th)
        later = None if after is None else after * b
        if later is not None and law.reset_has_gradient:
            through_spike = through_spike - m * later
        p = derivative(law.surrogate, m - th, law.alpha) * through_spike
        g = p
        if later is not None:
            g = p + (torch.where(fired, 0.0, later) if law.hard else later)
        if x is not None:
            gc = gc + (g * x[t]).sum()
            gth = gth - p.sum()
            if after is not None:
                gb = gb + (after * (torch.where(fired, 0.0, m) if law.hard else m)).sum()
                if law.soft:
                    gth = gth - torch.where(fired, after, 0.0).sum()
        out.append(g * c)
        after = g
    gx = torch.stack(out[::-1])
    return (gx, None, None, None) if x is None else (gx, gb, gc, gth)


def _kept(law: Law, n: Tensor, edge: float) -> Tensor:
    """The negated membrane after the reset, but before the subtraction of a soft reset."""
    return F.threshold(n, edge, 0.0) if law.hard else n


def _edge(law: Law, minus_th: float, dtype: torch.dtype) -> float:
    """The number e for which "n <= e" means "has fired"."""
    if law.fire is Fire.ge:
        return minus_th
    if dtype is torch.float64:
        return math.nextafter(minus_th, -math.inf)
    below = torch.nextafter(torch.tensor(minus_th), torch.tensor(-math.inf))
    return float(below)


_threshold_backward = torch.ops.aten.threshold_backward
