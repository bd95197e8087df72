"""PyTorch as it is."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..graph.probes.operators import Sized
from ..graph.recording.running import fixed_threads
from .onednn import kernels_of
from .protocol import Prepared, Run, call, tensors
from .torch_calls import time_calls

# Views and bookkeeping: no time of their own.
_FREE = set(
    "view _unsafe_view reshape t transpose permute expand unbind slice select unsqueeze squeeze split split_with_sizes "
    "chunk detach alias as_strided unsafe_split unsafe_split_with_sizes unfold".split()
)
# Their arguments carry sizes that alone they cannot be given, or they run for much longer than one layer.
_NOT_ALONE = set("lstm gru rnn_tanh rnn_relu embedding index index_put repeat pad constant_pad_nd roll arange".split())


@dataclass(frozen=True)
class Eager:
    """One operator after another, each with its own kernel."""

    name: str = "eager"

    def unavailable(self) -> str | None:
        """Return None: PyTorch is always there."""
        return None

    def version(self) -> str:
        """Return PyTorch's version."""
        return f"torch {torch.__version__}"

    def prepare(self, model: nn.Module, example: Any, threads: int) -> Prepared:
        """Return the model's forward pass without gradients."""
        ready = copy.deepcopy(model).eval()

        def bind(given: Any) -> Run:
            def run() -> list[Tensor]:
                with torch.inference_mode(), fixed_threads(threads):
                    return tensors(call(ready, given))

            return run

        return Prepared(bind, example, lambda: kernels_of(bind(example)))

    def times(self, kind: str) -> bool:
        """Whether the operator does work of its own: all but views."""
        return kind not in _FREE and kind not in _NOT_ALONE and not kind.startswith(("new_", "zeros", "ones", "full"))

    def time(self, calls: Sequence[Sized], threads: int, sweeps: int) -> list[float]:
        """Return the milliseconds of each call alone."""
        return time_calls(calls, threads, sweeps)
