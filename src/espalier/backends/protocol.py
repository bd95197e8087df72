"""What a backend is: something that runs a network, and can time its layers one by one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
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


class Backend(Protocol):
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

    def prepare(self, model: nn.Module, example: Any, threads: int) -> Run:
        """Return a function that runs ``model`` on ``example`` in eval mode and returns its output tensors.

        Everything that is done once (export, compilation, weight layout) is done here. The model is untouched.

        Raises:
            BackendError: it cannot run this network; says why.
        """
        ...

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
