"""Count a network while it runs: hooks on layers, markers and neurons fill a `LayerTable`.

    >>> from saformer.energy import count
    >>> table = count(model, images)  # any network of convolutions, linear layers and neurons

Hooks see the inputs and outputs of a layer and do not change them. `probe` computes the totals of a
tensor, and `fanout` the operations of an input element; this module applies both to a network.

T timesteps, B samples, N tokens, D width.
"""

import inspect
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import snntorch as snn
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from saformer.energy.axes import EnergyError
from saformer.energy.calls import WEIGHTED, Calls
from saformer.energy.fanout import CONVS
from saformer.energy.probe import NotFiniteError, Prober
from saformer.energy.table import Kind, Layer, LayerTable, join_calls, merge
from saformer.finite import nonfinite, shortened
from saformer.generators import apart
from saformer.models.spike_ops import ResidualAdd, SpikeMask, SpikeMatMul, SpikeMax, SpikeSum

NEURONS: tuple[type[nn.Module], ...] = (snn.SpikingNeuron, snn.LeakyParallel)
MARKERS = {
    SpikeMatMul: Kind.matmul,
    SpikeMask: Kind.mask,
    SpikeSum: Kind.sum,
    SpikeMax: Kind.max,
    ResidualAdd: Kind.add,
}
MERGED_AT_ONCE = 16  # tables of batches; fewer would cost more time, more would cost more memory


class Counter:
    """Counts forward passes of a network; the weights must not change during the count.

    Args:
        model: The network; compiled parts of it run eagerly during the count.
        timesteps: Timesteps T that the layers receive in one call, 1 in a loop over time;
            `model.timesteps` by default. It is needed if shapes are ambiguous.
        neurons: Classes of the network's neurons; their output is the spikes, or a tuple that
            starts with the spikes.

    Raises:
        EnergyError: The network has no neuron, or no layer to count.
    """

    def __init__(
        self,
        model: nn.Module,
        timesteps: int | None = None,
        neurons: tuple[type[nn.Module], ...] = NEURONS,
    ) -> None:
        self.model = model
        known = getattr(model, "timesteps", None)
        self.timesteps = known if timesteps is None and isinstance(known, int) else timesteps
        prober = Prober()
        self._calls = {
            name: Calls(name.replace("_orig_mod.", ""), kind, prober)
            for name, module in model.named_modules()
            if (kind := _kind_of(module, neurons)) is not None
        }
        kinds = {calls.kind for calls in self._calls.values()}
        network = type(getattr(model, "_orig_mod", model)).__name__
        if Kind.neuron not in kinds:
            raise EnergyError(
                f"{network} has no spiking neuron, so there are no spikes to count; known are "
                f"{', '.join(kind.__name__ for kind in neurons)}: give others as "
                "neurons=(YourNeuron,)"
            )
        if not kinds & {Kind.conv, Kind.linear}:
            raise EnergyError(f"{network} has no convolution or linear layer")
        self._ran: dict[str, Calls] = {}  # in this batch, in the order of their first calls
        self._tables: list[LayerTable] = []
        self._failure: EnergyError | None = None
        if bad := nonfinite(model.state_dict()):  # the count would not show it: neurons do not fire
            bad = [name.replace("_orig_mod.", "") for name in bad]
            layer = bad[0].rpartition(".")[0]
            self._failure = EnergyError(f"layer {layer} has {shortened(bad)} not finite")
        self._attached = ExitStack()

    @contextmanager
    def counting(self, samples: int) -> Iterator[None]:
        """Count the forward pass inside; `samples` is B."""
        self.start(samples)
        try:
            yield
        except BaseException:
            self.stop(keep=False)
            raise
        self.stop()

    def start(self, samples: int) -> None:
        """Attach the hooks for one batch of `samples`."""
        self.stop(keep=False)
        if not samples:
            raise EnergyError("the batch is empty")
        self._attached.enter_context(_eager(self.model))
        for name, module in self.model.named_modules():
            if name in self._calls:
                self._calls[name].reset(samples, self.timesteps)
                handle = module.register_forward_hook(self._hook(name), with_kwargs=True)
                self._attached.callback(handle.remove)

    def stop(self, keep: bool = True) -> None:
        """Detach the hooks and add the batch to the table, or drop it."""
        self._attached.close()
        ran, self._ran = self._ran, {}
        if not keep or self._failure or not ran:
            return
        try:
            layers = _join([calls.counted for calls in ran.values()], self.timesteps)
            table = LayerTable(layers, sum(p.numel() for p in self.model.parameters()))
            self._tables.append(table)
            if len(self._tables) == MERGED_AT_ONCE:
                self._tables = [merge(self._tables)]
        except (EnergyError, ValueError) as error:
            self._failure = EnergyError(str(error))

    @property
    def samples(self) -> int:
        """Samples counted so far."""
        return sum(table.samples for table in self._tables)

    def table(self) -> LayerTable:
        """The counts of all batches so far.

        Raises:
            EnergyError: No batch was counted, or a batch could not be counted.
        """
        if self._failure:
            raise self._failure
        if not self._tables:
            raise EnergyError("nothing was counted: no batch ran through the network")
        try:
            self._tables = [merge(self._tables)]
        except ValueError as error:
            raise EnergyError(str(error)) from None
        return self._tables[0]

    def _hook(self, name: str) -> Callable[..., None]:
        calls = self._calls[name]

        def hook(
            module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any
        ) -> None:
            if self._failure:  # the forward pass continues; `table` raises the error later
                return
            self._ran.setdefault(name, calls)
            first = calls is next((c for c in self._ran.values() if c.kind in WEIGHTED), None)
            if kwargs:  # bring them into the order of the signature, because operands have roles
                args = inspect.signature(module.forward).bind(*args, **kwargs).args
            inputs = [value for value in args if isinstance(value, Tensor)]
            out = out if isinstance(out, Tensor) else out[0]
            try:
                with torch.no_grad():
                    calls.count(module, inputs, out, first)
            except NotFiniteError:
                self._failure = EnergyError(f"layer {calls.name} meets NaN or infinite values")
            except EnergyError as error:
                self._failure = EnergyError(f"layer {calls.name}: {error}")

        return hook


def count(
    model: nn.Module,
    batch: Tensor,
    timesteps: int | None = None,
    neurons: tuple[type[nn.Module], ...] = NEURONS,
) -> LayerTable:
    """Count one batch through a network, in evaluation mode and without gradients.

    Args:
        model: The network; its training mode is restored afterwards.
        batch: Input of the network, samples first: [B, ...].
        timesteps: See `Counter`.
        neurons: See `Counter`.

    Raises:
        EnergyError: The network or the batch cannot be counted.
    """
    counter = Counter(model, timesteps, neurons)
    with _evaluating(model), counter.counting(len(batch)):
        model(batch)
    return counter.table()


def coverage(model: nn.Module, batch: Tensor, table: LayerTable) -> float:
    """Share of a network's dense operations that a table of the same batch contains.

    The share is one unless the network has matrix products outside of layers and markers. torch's
    FlopCounterMode measures all operations of the network. It sees every operation but no spikes,
    and it counts two operations for each multiply-accumulate.
    """
    # FlopCounterMode does not see the operations in fused attention on a CPU, and compiled parts,
    # such as a neuron with backend `compile`, refuse to run under it.
    math, flops = sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False)
    stance = torch.compiler.set_stance("force_eager")
    with _evaluating(model), _eager(model), stance, math, flops:
        getattr(model, "_orig_mod", model)(batch)
    total = flops.get_total_flops() / 2
    return sum(layer.dense_padded for layer in table.layers) / total if total else 1.0


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode without gradients; restores modes and random generators at the end."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with torch.no_grad(), apart():
            yield
    finally:
        for module, training in modes:
            module.training = training


@contextmanager
def _eager(model: nn.Module) -> Iterator[None]:
    """Run compiled parts eagerly: hooks would split their graphs and recompile them each time."""
    with ExitStack() as undo:
        for module in model.modules():
            if (compiled := module._compiled_call_impl) is not None:  # from module.compile()
                undo.callback(setattr, module, "_compiled_call_impl", compiled)
                module._compiled_call_impl = None
            wrapped: Any = module._modules.get("_orig_mod")  # from torch.compile(module)
            if wrapped is not None:
                undo.callback(setattr, module, "forward", module.forward)
                module.forward = wrapped.__call__
        yield


def _join(calls: list[list[Layer]], known: int | None) -> list[Layer]:
    """Join the calls of a batch to layers.

    Args:
        calls: The calls of each layer.
        known: Timesteps that layers hold in one call, None if unknown.
    """
    neurons = [of_layer for of_layer in calls if of_layer[0].kind is Kind.neuron] or calls
    timesteps = max(call.timesteps for of_layer in neurons for call in of_layer)
    if timesteps == 1:  # the network loops over time, or it runs a single timestep
        timesteps = min(len(of_layer) for of_layer in neurons)
        if known and known > 1 and timesteps % known == 0:
            timesteps = known  # the network uses every neuron in several places
        for of_layer in calls:
            held = max(call.timesteps for call in of_layer)
            if 1 < timesteps <= len(of_layer) and held > 1:
                raise EnergyError(
                    f"layer {of_layer[0].name} seems to hold {held} timesteps in each of "
                    f"{len(of_layer)} calls: if the network loops over time, give timesteps=1"
                )
    if known not in (None, 1, timesteps):
        raise EnergyError(
            f"the neurons ran {timesteps} timesteps of {calls[0][0].samples} samples, not "
            f"{known}: check timesteps and the number of samples"
        )
    layers = [join_calls(of_layer, timesteps) for of_layer in calls]
    weighted = [layer for layer in layers if layer.kind in WEIGHTED]
    if weighted:
        weighted[-1].last = True
    return layers


def _kind_of(module: nn.Module, neurons: tuple[type[nn.Module], ...]) -> Kind | None:
    if isinstance(module, neurons):
        return Kind.neuron
    if isinstance(module, CONVS):
        return Kind.conv
    if isinstance(module, nn.Linear):
        return Kind.linear
    return next((kind for marker, kind in MARKERS.items() if isinstance(module, marker)), None)
