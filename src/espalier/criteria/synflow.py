"""SynFlow: a unit is worth the flow through its weights, with no data at all."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from ..core import ModelError, Role, cause
from ..graph.recording.capture import run_model
from ..graph.recording.running import forget, on_device
from ..graph.recording.skeleton import map_tensors
from .signals.fallback import completed
from .signals.pooling import pooled
from .signals.slices import Scores, fold, slot_parameters

if TYPE_CHECKING:
    from ..graph import Graph


def synflow(model: nn.Module, graph: Graph, *, reduce: str = "sum") -> Scores:
    """Score every unit by its part in the output of the network whose weights have lost their signs.

        R        = sum of the outputs for an input of ones, every weight replaced by its absolute value
        score[u] = reduce over slots s ( sum_j | dR/d|W|_s[u, j] * W_s[u, j] | )

    A copy in float64 is scored, in eval mode, with running means of zero.

    Source: Tanaka et al., Pruning neural networks without any data by iteratively conserving synaptic flow, NeurIPS
    2020, arXiv:2006.05467, section 5. Recalled, not re-checked against the paper's text.
    Differs: (1) units instead of single weights; (2) one pass, where the paper prunes over a hundred: a recipe's
    rounds do that; (3) a group through which nothing flows (behind a layer norm or softmax of constants), or too much
    for a float64, takes the fallback of ``fallback.completed``.

    Args:
        model, graph: the input has the shape of the graph's example.
        reduce: as in ``magnitude``.

    Raises:
        ModelError: the model does not run on ones.
        UnknownNameError: an unknown reduction.
    """
    tensors = slot_parameters(model, graph)
    twin = _unsigned(model, graph)
    given = dict(twin.named_parameters(remove_duplicate=False))
    parameters = {name: given[name] for name in tensors if given[name].is_floating_point()}
    found = torch.autograd.grad(_flow(twin, graph), list(parameters.values()), allow_unused=True)
    products = {
        name: torch.zeros_like(p) if gradient is None else p.detach() * gradient
        for (name, p), gradient in zip(parameters.items(), found, strict=True)
    }
    measured = {
        name: pairs
        for name, pairs in fold(graph, products, torch.abs).items()
        if pairs and all(one.isfinite().all() for _, one in pairs) and any(bool(one.any()) for _, one in pairs)
    }
    return completed(model, graph, pooled(graph, tensors, measured, reduce=reduce, normalise="none"))


def _unsigned(model: nn.Module, graph: Graph) -> nn.Module:
    """Return a copy in float64 whose weights have lost their signs and whose running means are zero."""
    twin = forget(copy.deepcopy(model)).double().eval()
    shifts = {slot.tensor for group in graph.groups.values() for slot in group.slots if slot.role is Role.SHIFT}
    with torch.no_grad():
        for p in twin.parameters():
            if p.is_floating_point():
                p.requires_grad_(True).abs_()
        for name, buffer in twin.named_buffers(remove_duplicate=False):
            if name in shifts and buffer.is_floating_point():
                buffer.zero_()
    return twin


def _flow(twin: nn.Module, graph: Graph) -> Tensor:
    """Return R.

    Raises:
        ModelError: the model does not run on ones, or its outputs do not depend on its weights.
    """
    example = on_device(map_tensors(graph.example, _ones), twin)
    try:
        outputs = run_model(twin, example, graph.forward_fn)
    except (RuntimeError, TypeError, ValueError) as error:
        raise ModelError(f"synflow: the model does not run on ones in float64: {cause(error)}") from error
    flows = [one.sum() for one in tree_leaves(outputs) if isinstance(one, Tensor) and one.requires_grad]
    if not flows:
        raise ModelError("synflow: the model's outputs do not depend on its weights")
    return torch.stack(flows).sum()


def _ones(tensor: Tensor) -> Tensor:
    return torch.ones_like(tensor, dtype=torch.float64) if tensor.is_floating_point() else tensor.clone()
