"""`MultiStepLeaky`: snnTorch's leaky integrate-and-fire neuron over a whole sequence.

It is an `snn.Leaky` with the same constructor and state_dict, so snnTorch's tools recognise it. But
it takes all timesteps at once, [T, B, ...], starts from a zero membrane and keeps none afterwards.
So it avoids what makes the stock neuron slow (a chain of small kernels at every step) and what
breaks its training (a membrane that stays in a buffer between batches).

The backends compute the same results:

    loop     snn.Leaky, step by step: the reference, and the only one for options of snn.Leaky that
             the kernels do not cover (graded spikes, inhibition, quantised state, custom gradient)
    torch    one autograd function with few in-place passes; no compiler; `auto` on CPU
    compile  the same function, compiled once per process; `auto` on CUDA
"""

import functools
import logging
from collections.abc import Callable
from typing import Any

import snntorch as snn
import torch
from torch import Tensor, nn

from saformer.errors import require
from saformer.models import lif_kernels
from saformer.models.lif_kernels import Law
from saformer.models.settings import Backend, Fire, NeuronConfig, Reset, SurrogateName
from saformer.models.surrogate import spike_grad, state_dtype
from saformer.plugins import locate, require_options

log = logging.getLogger(__name__)

RESETS = {"subtract": Reset.soft, "zero": Reset.hard, "none": Reset.none}
MECHANISMS = {reset: mechanism for mechanism, reset in RESETS.items()}


class MultiStepLeaky(snn.Leaky):  # type: ignore[misc]  # snnTorch has no types
    """snn.Leaky over a sequence: [T, B, ...] -> spikes [T, B, ...] in the same dtype.

    The membrane is float32 (float64 for float64 input), also under autocast.

    Args:
        *args: Arguments of `snn.Leaky`: beta, threshold, spike_grad, ...
        decay_input: Scale the input by 1 - beta, as SpikingJelly's LIFNode does.
        fire: Fire at the threshold or only above it.
        surrogate: Name and steepness of the surrogate derivative. A `spike_grad` of your own runs
            on the backend loop, because the kernels cannot look into a closure.
        backend: How to run over time.
        **kwargs: Keyword arguments of `snn.Leaky`.

    Raises:
        ValueError: `init_hidden` or `output` is set, but there is no state to keep or to return.
    """

    def __init__(
        self,
        *args: Any,
        decay_input: bool = False,
        fire: Fire = Fire.gt,
        surrogate: tuple[SurrogateName, float] = (SurrogateName.atan, 2.0),
        backend: Backend = Backend.auto,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        # snnTorch's list would keep every neuron of the process alive; we do not use it.
        snn.SpikingNeuron.instances.remove(self)
        if self.init_hidden or self.output:
            raise ValueError("MultiStepLeaky has no state: init_hidden and output do not apply")
        self._own_surrogate = kwargs.get("spike_grad") is not None or len(args) > 2
        if not self._own_surrogate and not self.surrogate_disable:
            self.spike_grad = spike_grad(*surrogate, fire)
        self.decay_input = decay_input
        self.law = Law(
            reset=RESETS[self._reset_mechanism],
            fire=fire,
            detach_reset=self.reset_delay,
            surrogate=surrogate[0],
            alpha=surrogate[1],
        )
        self.backend = backend
        self.loop_only = self._why_loop()
        if self.loop_only and backend is not Backend.loop:
            _warn_once(f"{self.loop_only}: these neurons run step by step (backend loop)")

    def _why_loop(self) -> str:
        """Name an option that the kernels do not cover; an empty string if there is none."""
        graded = self.graded_spikes_factor
        reasons = {
            "a spike_grad of your own": self._own_surrogate or self.surrogate_disable,
            "inhibition": self.inhibition,
            "state_quant": bool(self.state_quant),
            "graded spikes": isinstance(graded, nn.Parameter) or bool((graded != 1).any()),
            "a decay or threshold for each channel": self.beta.ndim + self.threshold.ndim > 0,
            "detach_reset=false with a soft reset": self.law.reset is Reset.soft
            and not self.law.detach_reset,
        }
        return next((reason for reason, holds in reasons.items() if holds), "")

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        super()._load_from_state_dict(*args, **kwargs)
        self.loop_only = self._why_loop()  # a state dict can change the factor of graded spikes

    @property
    def binary(self) -> bool:
        """Whether its spikes are zeros and ones by construction, because our kernels write them.

        This is unknown for the loop over snnTorch's steps, where a surrogate or a factor may scale
        the spikes, and for a subclass.
        """
        on_kernels = not self.loop_only and self.backend is not Backend.loop
        return on_kernels and type(self) is MultiStepLeaky

    def forward(self, x: Tensor) -> Tensor:
        """Map the input [T, ...] to spikes of the same shape; the membrane starts from zero."""
        backend = self._backend_for(x)
        if backend is Backend.loop:
            return self._loop(x)
        b = self.beta.clamp(0, 1)
        c = 1 - b if self.decay_input else torch.ones_like(b)
        compiled = backend is Backend.compile
        spikes: Tensor = _Scan.apply(x, b, c, self.threshold, self.law, compiled)
        return spikes

    def _backend_for(self, x: Tensor) -> Backend:
        """Choose the backend for this input."""
        backend = self.backend
        if self.loop_only:
            backend = Backend.loop
        elif backend is Backend.auto:
            backend = Backend.compile if x.is_cuda else Backend.torch
        if backend is Backend.compile and _compiler_failed:
            backend = Backend.torch
        if not torch.compiler.is_compiling():
            _say_once(backend)
        return backend

    def _loop(self, x: Tensor) -> Tensor:
        """Run the stock snn.Leaky, one step after the other."""
        dtype = x.dtype
        x = x.to(state_dtype(x))
        if self.decay_input:
            x = x * (1 - self.beta.clamp(0, 1))
        mem = torch.zeros_like(x[0])
        spikes = []
        for step in x.unbind(0):  # indexing x[t] would cost T^2 in the backward
            spike, mem = super().forward(step, mem)
            spikes.append(spike)
        self.mem = torch.zeros(0, device=x.device)
        return torch.stack(spikes).to(dtype)


def build_neuron(
    config: NeuronConfig, *, v_threshold: float | None = None, learn_threshold: bool = False
) -> snn.SpikingNeuron:
    """Build a neuron from its settings.

    beta is 1 - 1/tau, or 1 if tau is null (IF). A detached reset is snnTorch's `reset_delay=True`,
    which changes no spike but removes the reset from the gradient.

    Args:
        config: Settings.
        v_threshold: Threshold that replaces the configured one.
        learn_threshold: Make it a parameter.

    Raises:
        SettingError: A neuron of your own cannot be built, or does not read a setting.
    """
    surrogate = (config.surrogate.name, config.surrogate.alpha)
    arguments: dict[str, Any] = {
        # Round 1/tau to float32 first: then 1 - beta, which scales the input, is exactly 1/tau, and
        # a membrane that sums up spikes can equal the threshold exactly.
        "beta": 1 - torch.tensor(1 / config.tau).item() if config.tau is not None else 1.0,
        "threshold": config.v_threshold if v_threshold is None else v_threshold,
        "learn_beta": config.learnable_tau,
        "learn_threshold": learn_threshold,
        "reset_mechanism": MECHANISMS[config.reset],
    }
    kind = MultiStepLeaky if config.layer is None else _custom(config)
    if issubclass(kind, MultiStepLeaky):
        arguments |= {
            "reset_delay": config.detach_reset,
            "decay_input": config.decay_input,
            "fire": config.fire,
            "surrogate": surrogate,
            "backend": config.backend,
        }
    else:
        arguments["spike_grad"] = spike_grad(*surrogate, config.fire)
    if config.layer is not None:
        require_options("neuron.options", kind, "__init__", arguments, config.options)
    return kind(**arguments, **config.options)


def _custom(config: NeuronConfig) -> type[snn.SpikingNeuron]:
    """The class that `config.layer` names."""

    def fits(candidate: Any) -> bool:
        if not isinstance(candidate, type) or not issubclass(candidate, snn.SpikingNeuron):
            return False
        # snnTorch's own neurons take one step at a time.
        return not candidate.__module__.startswith("snntorch.")

    expected = "a subclass of MultiStepLeaky, or of a neuron of snnTorch"
    kind: type[snn.SpikingNeuron] = locate("neuron.layer", str(config.layer), fits, expected)
    if not issubclass(kind, MultiStepLeaky):
        for name, value, ok in (
            ("decay_input", "false", not config.decay_input),
            ("detach_reset", "true", config.detach_reset),
            ("backend", "auto", config.backend is Backend.auto),
        ):
            rule = f"be {value} with neuron.layer={config.layer}, which is no MultiStepLeaky"
            require(ok, f"neuron.{name}", rule, getattr(config, name))
    return kind


class _Scan(torch.autograd.Function):
    """The recurrence with its hand-written backward.

    It saves the membrane, and also the input if decay, scale or threshold are learned.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, b: Tensor, c: Tensor, th: Tensor, law: Law, compiled: bool
    ) -> Tensor:
        spikes: Tensor
        spikes, n = _kernel("forward", compiled)(law, x, b, c, th)
        learned = any(ctx.needs_input_grad[1:4])
        ctx.save_for_backward(n, x if learned else None, b, c, th)
        ctx.law, ctx.compiled, ctx.dtype = law, compiled, x.dtype
        return spikes

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        n, x, b, c, th = ctx.saved_tensors
        kernel = _kernel("backward", ctx.compiled)
        gx, gb, gc, gth = kernel(ctx.law, grads[0], n, x, b, c, th)
        constants = [None if g is None else g.to(b.dtype) for g in (gb, gc, gth)]
        return gx.to(ctx.dtype), *constants, None, None


_compiler_failed = False


def _kernel(name: str, compiled: bool) -> Callable[..., Any]:
    """The eager kernel, or the fused one that is compiled at its first call."""
    if torch.compiler.is_compiling():  # in a compiled backbone, the outer compiler fuses the loop
        fused: Callable[..., Any] = getattr(lif_kernels, f"{name}_fused")
        return fused
    eager: Callable[..., Any] = getattr(lif_kernels, name)
    return functools.partial(_try_compiled, name, eager) if compiled else eager


@functools.cache
def _compile(name: str) -> Callable[..., Any]:
    """Compile a fused kernel: one graph for each T and kind of neuron, for all sizes and layers."""
    # Raise the limit: a run makes several graphs, and a sweep is many runs in one process.
    limits = torch._dynamo.config
    limits.recompile_limit = max(limits.recompile_limit, 1024)
    limits.accumulated_recompile_limit = max(limits.accumulated_recompile_limit, 4096)
    fused = getattr(lif_kernels, f"{name}_fused")
    return torch.compile(fused, dynamic=True, fullgraph=True)


def _try_compiled(name: str, eager: Callable[..., Any], *args: Any) -> Any:
    """Run the compiled kernel; without a working compiler, say so once and run eagerly."""
    global _compiler_failed
    if not _compiler_failed:
        # Detach: a tensor that requires a gradient would need a second graph.
        detached = [arg.detach() if isinstance(arg, Tensor) else arg for arg in args]
        try:
            return _compile(name)(*detached)
        except _limit_hit():
            _warn_once("too many kinds of neurons to compile: further ones run on backend torch")
        except torch._dynamo.exc.TorchDynamoException as error:
            _compiler_failed = True
            reason = str(error).strip().partition("\n")[0]
            _warn_once(f"no working compiler ({reason}): neurons run on backend torch")
    return eager(*args)


@functools.cache
def _limit_hit() -> tuple[type[Exception], ...]:
    """Exceptions of dynamo for too many graphs; their names depend on the version."""
    names = ("FailOnRecompileLimitHit", "RecompileLimitExceeded")
    exceptions = vars(torch._dynamo.exc)
    return tuple(exceptions[name] for name in names if name in exceptions)


@functools.cache  # warn once in a process, not once for each layer
def _say_once(backend: Backend) -> None:
    log.info("neurons run on backend %s", backend.value)


@functools.cache
def _warn_once(message: str) -> None:
    log.warning(message)
