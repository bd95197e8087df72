"""PyTorch through torch.compile and its default compiler, inductor."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..graph.probes.operators import Sized
from ..graph.recording.running import fixed_threads
from .onednn import kernels_of
from .protocol import BackendError, Prepared, Run, call, tensors
from .torch_calls import time_calls

# Inductor calls PyTorch's own kernels for these; everything else it fuses into loops of its own.
_KERNELS = set(
    "convolution _convolution addmm mm bmm baddbmm linear scaled_dot_product_attention max_pool2d_with_indices".split()
)


@dataclass(frozen=True)
class Compile:
    """Graph capture, fusion of pointwise operators, generated C++ for the CPU."""

    name: str = "compile"

    def unavailable(self) -> str | None:
        """Return why inductor cannot compile here, or None."""
        try:
            from torch._inductor.cpp_builder import get_cpp_compiler

            get_cpp_compiler()
        except Exception as error:  # torch raises a type of its own, which it does not export
            return f"torch.compile needs a C++ compiler: {error}. Install g++"
        return None

    def version(self) -> str:
        """Return PyTorch's version."""
        return f"torch {torch.__version__} inductor"

    def prepare(self, model: nn.Module, example: Any, threads: int) -> Prepared:
        """Return the compiled forward pass; it has run once.

        Raises:
            BackendError: inductor cannot compile this model.
        """
        return compiled(copy.deepcopy(model).eval(), example, threads, freezing=False)

    def times(self, kind: str) -> bool:
        """Whether the operator keeps a kernel of its own."""
        return kind in _KERNELS

    def time(self, calls: Sequence[Sized], threads: int, sweeps: int) -> list[float]:
        """Return the milliseconds of each call alone: the kernel is the one that eager PyTorch calls."""
        return time_calls(calls, threads, sweeps)


def compiled(ready: nn.Module, example: Any, threads: int, *, freezing: bool) -> Prepared:
    """Compile a network of our own in eval mode, and run it once.

    Args:
        freezing: make constants of its weights, so that the compiler may lay them out anew.

    Raises:
        BackendError: inductor cannot compile it.
    """
    from torch._inductor import config  # half a second

    def bind(given: Any) -> Run:
        def run() -> list[Tensor]:
            with torch.no_grad(), fixed_threads(threads):
                return tensors(call(network, given))

        return run

    with warnings.catch_warnings(), config.patch(freezing=freezing):
        warnings.simplefilter("ignore")  # the compiler's own, about its internals
        network: Any = torch.compile(ready, dynamic=False)
        try:
            bind(example)()
        except Exception as error:  # dynamo and inductor raise whatever their passes raise
            raise BackendError(f"torch.compile cannot run {type(ready).__name__}: {error!r:.300}") from error
    return Prepared(bind, example, lambda: kernels_of(bind(example)))
