"""How networks are run: one operation after the other, compiled, or as a CUDA graph; in which memory format.

Nothing of a network is changed for good: its ``forward`` and the layout of its weights are others while
`Prepared.running` or `Prepared.preparing` is entered, and as they were afterwards.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from bench.device.precision import tf32_allowed
from bench.errors import UsageError
from bench.files.source import walk

ENGINES = ("eager", "compile", "cuda-graph")
"""What runs a network: Python, one operation after the other; the code that ``torch.compile`` makes of it; or
a recording of its operations on a GPU, which is played again without Python."""

EAGER = "eager"
"""The mode of every record that names none."""

LAYOUT = "channels_last"

RECOMPILES = 64
"""Shapes and precisions that one function may be compiled for in a process; torch stops at 8 by itself."""

ROUNDS = 3
"""Calls before a CUDA graph is recorded, in which libraries choose their algorithms and allocate."""

Forward = Callable[..., Any]


@dataclass(frozen=True)
class Mode:
    """How networks are run.

    Attributes:
        engine: one of `ENGINES`.
        channels_last: whether weights of four dimensions lie in memory with the channels last, as
            convolutions of some processors and of GPUs with half precision like them.
    """

    engine: str = EAGER
    channels_last: bool = False

    @classmethod
    def parse(cls, text: str) -> Mode:
        """Return what ``str`` of a mode wrote, as in ``compile+channels_last``.

        Raises:
            UsageError: if it is no mode.
        """
        engine, plus, layout = text.partition("+")
        if engine not in ENGINES or layout != (LAYOUT if plus else ""):
            raise UsageError(f"unknown mode {text!r}; use {', '.join(ENGINES)}, or one with +{LAYOUT}")
        return cls(engine, bool(plus))

    def __str__(self) -> str:
        return f"{self.engine}+{LAYOUT}" if self.channels_last else self.engine

    @property
    def is_eager(self) -> bool:
        """Whether networks are run as they are."""
        return self == Mode()

    def lacking(self, device: torch.device) -> str:
        """Return why the mode cannot be had on a device, as a clause; empty where nothing is known."""
        if self.engine == "cuda-graph" and device.type != "cuda":
            return f"a CUDA graph needs a CUDA device, and this is {device}"
        if self.engine == "compile" and not hasattr(torch.compiler, "set_stance"):
            return f"it needs torch 2.6, and this is {torch.__version__}"
        return ""


def networks_of(model: object) -> list[nn.Module]:
    """Return the networks that a model calls: the modules found in it that lie in no other one."""
    found = [one for one in walk([model]) if isinstance(one, nn.Module)]
    inside = {id(child) for one in found for child in one.modules() if child is not one}
    return [one for one in found if id(one) not in inside]


class Prepared:
    """The networks of a model, ready to be run in a mode.

    Args:
        model: the model; networks are found wherever it holds them.
        mode: how they are to be run.

    Raises:
        UsageError: if there is no network to be run otherwise than it is.
    """

    def __init__(self, model: object, mode: Mode) -> None:
        networks = [] if mode.is_eager else networks_of(model)
        if not networks and not mode.is_eager:
            raise UsageError(f"mode {mode} runs networks otherwise, and this model holds no torch.nn.Module")
        self._mode = mode
        layouts = [_Layouts(network) for network in networks] if mode.channels_last else []
        self._forwards = [_Forwards(network, mode) for network in networks]
        self._parts: Sequence[_Layouts | _Forwards] = [*layouts, *self._forwards]

    @contextmanager
    def running(self) -> Iterator[None]:
        """Run the networks in the mode within, for what they were prepared for; as they are for all else.

        Nothing is compiled within, so that the time of what is run there is the time of running it.
        """
        with ExitStack() as entered:
            if self._mode.engine == "compile":
                entered.enter_context(torch.compiler.set_stance("eager_on_recompile"))
            for part in self._parts:
                entered.enter_context(part.swapped())
            yield

    @contextmanager
    def preparing(self) -> Iterator[None]:
        """Compile or record, for good, whatever the networks are asked within."""
        with ExitStack() as entered:
            if self._mode.engine == "compile":
                entered.enter_context(_many_recompiles())
            for part in self._parts:
                entered.enter_context(part.swapped())
            for forward in self._forwards:
                forward.preparing = True
                entered.callback(setattr, forward, "preparing", False)
            yield


def _many_recompiles() -> Any:
    config: Any = __import__("torch._dynamo.config", fromlist=["config"])
    return config.patch(recompile_limit=RECOMPILES)


class _Layouts:
    """The weights of a network in two memory formats: each keeps its place in memory, as a graph needs it."""

    def __init__(self, network: nn.Module) -> None:
        tensors = [one for one in (*network.parameters(), *network.buffers()) if one.dim() == 4]
        self._held = [
            (one, one.data, one.data.contiguous(memory_format=torch.channels_last)) for one in tensors
        ]

    @contextmanager
    def swapped(self) -> Iterator[None]:
        """Have the weights in the other format within."""
        try:
            for tensor, _, other in self._held:
                tensor.data = other
            yield
        finally:
            for tensor, own, _ in self._held:
                tensor.data = own


class _Forwards:
    """A network's ``forward`` and the one that takes its place.

    Attributes:
        preparing: whether what is asked now is to be compiled or recorded.
    """

    def __init__(self, network: nn.Module, mode: Mode) -> None:
        self.preparing = False
        self._network = network
        own: Forward = network.forward
        if mode.engine == "compile":
            self._other: Forward = torch.compile(own, dynamic=False)
        elif mode.engine == "cuda-graph":
            self._other = _Graphs(own, self)
        else:
            self._other = own
        self._contiguous = mode.channels_last

    @contextmanager
    def swapped(self) -> Iterator[None]:
        """Have the network run by the other one within."""
        vars(self._network)["forward"] = self._ask  # as an attribute of its own it hides the class's method
        try:
            yield
        finally:
            del vars(self._network)["forward"]

    def _ask(self, *args: Any, **kwargs: Any) -> Any:
        answer = self._other(*args, **kwargs)
        if not self._contiguous:
            return answer
        # Samplers add the answer to states that are contiguous: two layouts would slow every step.
        return pytree.tree_map_only(Tensor, Tensor.contiguous, answer)


class _Graphs:
    """Recordings of a function on a GPU, one for each set of shapes and precision that it was prepared for.

    A recording reads and writes the same memory every time: what is asked is copied into it, and answers are
    copied out of it.
    """

    def __init__(self, function: Forward, owner: _Forwards) -> None:
        self._function, self._owner = function, owner
        self._recorded: dict[object, _Recording] = {}

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if torch.is_grad_enabled():  # a recording knows of no gradients
            return self._function(*args, **kwargs)
        leaves, tree = pytree.tree_flatten((args, kwargs))
        key = (str(tree), *map(_signature, leaves), *_arithmetic())
        recording = self._recorded.get(key)
        if recording is None:
            if not self._owner.preparing or not all(_is_on_gpu(one) for one in leaves):
                return self._function(*args, **kwargs)
            with _recordable():
                others = next(iter(self._recorded.values()), None)
                recording = self._recorded[key] = _Recording(self._function, leaves, tree, others)
        return recording.play(leaves)


def _arithmetic() -> tuple[object, ...]:
    """Return how networks are computed now: a recording computes as it was done when it was made."""
    half = torch.get_autocast_dtype("cuda") if torch.is_autocast_enabled("cuda") else None
    return half, *tf32_allowed()


@contextmanager
def _recordable() -> Iterator[None]:
    """Have tensors that may be written to whatever mode is on, and weights cast within every call.

    What autocast keeps of a weight's cast is gone when autocast ends, and a recording would go on reading it.
    """
    kept = torch.is_autocast_cache_enabled()
    torch.set_autocast_cache_enabled(False)
    try:
        with torch.inference_mode(False), torch.no_grad():
            yield
    finally:
        torch.set_autocast_cache_enabled(kept)


class _Recording:
    """The operations of one call of a function, to be done again with other numbers.

    Recordings of one function may work in the same memory: they are played one after the other, and the
    answer of each is copied before the next one writes over it.

    Args:
        function: what is called.
        leaves: its arguments, flattened.
        tree: how they belong together.
        other: a recording whose memory is shared; None for memory of its own.
    """

    def __init__(
        self, function: Forward, leaves: Sequence[Any], tree: Any, other: _Recording | None = None
    ) -> None:
        self._inputs = [one.clone() if isinstance(one, Tensor) else one for one in leaves]
        args, kwargs = pytree.tree_unflatten(self._inputs, tree)
        here = torch.cuda.current_stream()
        beside = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        beside.wait_stream(here)
        with torch.cuda.stream(beside):
            for _ in range(ROUNDS):
                function(*args, **kwargs)
            with _waiting_refused():
                function(*args, **kwargs)
        here.wait_stream(beside)
        self._graph = torch.cuda.CUDAGraph()
        # The inner context leaves its own stream in place where recording fails, the outer one puts it back.
        pool = None if other is None else other._graph.pool()
        with torch.cuda.stream(here), torch.cuda.graph(self._graph, pool=pool):
            self._answer = function(*args, **kwargs)

    def play(self, leaves: Iterable[Any]) -> Any:
        """Do it again and return a copy of the answer, which the next time would write over."""
        for own, given in zip(self._inputs, leaves, strict=True):
            if isinstance(own, Tensor):
                own.copy_(given)
        self._graph.replay()
        return pytree.tree_map_only(Tensor, Tensor.clone, self._answer)


@contextmanager
def _waiting_refused() -> Iterator[None]:
    """Raise RuntimeError where the host waits for the GPU within, which cannot be recorded.

    Found out while nothing is recorded: a recording that fails leaves the GPU's random numbers and memory in
    disorder.
    """
    before = torch.cuda.get_sync_debug_mode()
    with warnings.catch_warnings():  # torch says once that it does not find out every wait
        warnings.simplefilter("ignore")
        torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode(before)


def _signature(leaf: object) -> object:
    """Return what must be the same of an argument for a recording to serve: all but a tensor's values."""
    if isinstance(leaf, Tensor):
        return leaf.shape, leaf.stride(), leaf.dtype, leaf.device
    return leaf


def _is_on_gpu(leaf: object) -> bool:
    return not isinstance(leaf, Tensor) or leaf.device.type == "cuda"
