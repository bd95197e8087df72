"""What runs a network, and what a backend is: a runner that can time layers one by one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor, nn
from torch.utils._pytree import tree_flatten

from ..core import EspalierError
from ..graph.probes.operators import Sized

Run = Callable[[], list[Tensor]]


class BackendError(EspalierError):
    """A backend is not there, or cannot run this network."""


class ExportError(BackendError):
    """A network cannot be written in a format, or what was written does not compute what the network does."""


@dataclass(frozen=True, eq=False)
class Prepared:
    """A network that is ready to run: call it, and it runs on the example that it was prepared on.

    Attributes:
        bind: makes a function that runs the network on an input of the same shapes.
        example: that input.
        seen: runs the network once and says which kernels did the work, and how many times each.
    """

    bind: Callable[[Any], Run]
    example: Any
    seen: Callable[[], Mapping[str, int]] = Counter

    def __post_init__(self) -> None:
        """Bind the example once, so that a timed call does nothing else."""
        object.__setattr__(self, "_run", self.bind(self.example))

    def __call__(self) -> list[Tensor]:
        """Run the network on its example."""
        return self._run()  # type: ignore[attr-defined]

    def on(self, example: Any) -> list[Tensor]:
        """Run the network on another input of the same shapes."""
        return self.bind(example)()

    def kernels(self) -> dict[str, int]:
        """Return the kernels that do its work, and how often each runs in one pass, the most frequent first."""
        return dict(Counter(self.seen()).most_common())


class Runner(Protocol):
    """Runs networks. All of its work is on the CPU with a fixed number of threads."""

    @property
    def name(self) -> str:
        """What ``named`` calls it."""
        ...

    def unavailable(self) -> str | None:
        """Return why it cannot be used here and what to install, or None."""
        ...

    def version(self) -> str:
        """Return the versions that its timings depend on."""
        ...

    def prepare(self, model: nn.Module, example: Any, threads: int) -> Prepared:
        """Return what runs ``model`` on ``example`` in eval mode and returns its output tensors.

        Everything that is done once (export, compilation, weight layout) is done here. The model is untouched.

        Raises:
            BackendError: it cannot run this network; says why.
        """
        ...


class Backend(Runner, Protocol):
    """A runner that can time layers too, so that a cut can be planned by milliseconds."""

    def times(self, kind: str) -> bool:
        """Whether operators of this kind take time of their own here; the others are fused into their neighbours."""
        ...

    def time(self, calls: Sequence[Sized], threads: int, sweeps: int) -> list[float]:
        """Return the milliseconds of each call alone; NaN where it cannot be run alone.

        The lower quartile of ``sweeps`` timings, each with warm inputs and cold weights, as inside a network: what
        disturbs a timing only makes it longer.
        """
        ...


def call(model: nn.Module, example: Any) -> Any:
    """Run a model on a tensor, a tuple of arguments, or a mapping of keywords."""
    if isinstance(example, Mapping):
        return model(**example)
    return model(*example) if isinstance(example, tuple) else model(example)


def tensors(tree: Any) -> list[Tensor]:
    """Return the tensors of nested containers, in order."""
    return [leaf for leaf in tree_flatten(tree)[0] if isinstance(leaf, Tensor)]
