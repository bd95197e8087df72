"""What a proof runs on: copies of a model and of its example that no zero or constant makes vacuous."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from ..graph import Graph
from ..grids import unquantize_
from ..recording.skeleton import map_tensors
from ..recording.tensors import named_tensors


def checking_copy(model: nn.Module, dtype: torch.dtype) -> nn.Module:
    """Copy a model in eval mode and ``dtype``, with small, zero and constant parameters randomised; without grids."""
    memo: dict[int, Any] = {}
    for tensor in named_tensors(model).values():
        if not tensor.is_leaf:
            memo[id(tensor)] = tensor.detach().clone()
    twin = unquantize_(copy.deepcopy(model, memo).eval())
    twin = twin.double() if dtype == torch.float64 else twin.float()  # complex parameters stay complex
    generator = torch.Generator().manual_seed(0)
    statistics = {"running_mean", "running_var"}
    with torch.no_grad():
        for name, tensor in named_tensors(twin).items():
            last = name.rpartition(".")[2]
            if tensor.is_floating_point() and (isinstance(tensor, nn.Parameter) or last in statistics):
                _randomise(tensor, last, generator)
    return twin


def _randomise(tensor: Tensor, name: str, generator: torch.Generator) -> None:
    low, high = (float(v) for v in tensor.detach().aminmax())
    if tensor.numel() == 0 or (high - low > 1e-4 and max(abs(low), abs(high)) > 1e-3):
        return
    noise = torch.rand(tensor.shape, generator=generator, dtype=torch.float32).to(tensor)
    positive = name == "running_var" or (low > 0 and tensor.dim() <= 1)
    tensor.copy_(noise + 0.5 if positive else (noise - 0.5) * 0.4)


def checking_example(graph: Graph, dtype: torch.dtype) -> Any:
    """Return the example in ``dtype``, its floating tensors with noise (an example may be all zeros)."""
    generator = torch.Generator().manual_seed(1)

    def noisy(tensor: Tensor) -> Tensor:
        if not tensor.is_floating_point() or tensor.layout != torch.strided:
            return tensor.to(dtype) if tensor.is_floating_point() else tensor.clone()
        noise = torch.randn(tensor.shape, generator=generator, dtype=torch.float32)
        return tensor.to(dtype) + noise.to(device=tensor.device, dtype=dtype)

    return map_tensors(graph.example, noisy)
