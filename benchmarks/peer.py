"""Torch-Pruning 1.6.1, out of the box: one ratio for all layers, with the network's outputs left alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves


def output_layers(model: nn.Module, example: Any) -> list[nn.Module]:
    """Return the layers whose result is, or is viewed as, an output of the network: a user would name them.

    Where an output is computed from a layer's result (upsampling), the last layer with weights is taken.
    """
    made: dict[int, nn.Module] = {}
    weighted: list[nn.Module] = []

    def remember(module: nn.Module, _inputs: Any, result: Any) -> None:
        if getattr(module, "weight", None) is not None and module.weight.dim() > 1:
            weighted.append(module)
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor):
                made[leaf.untyped_storage()._cdata] = module

    layers = [m for m in model.modules() if not list(m.children())]
    hooks = [layer.register_forward_hook(remember) for layer in layers]
    try:
        with torch.no_grad():
            results = [leaf for leaf in tree_leaves(run(model, example)) if isinstance(leaf, Tensor)]
    finally:
        for hook in hooks:
            hook.remove()
    found = [made[result.untyped_storage()._cdata] for result in results if result.untyped_storage()._cdata in made]
    return [*dict.fromkeys([layer for layer in found if layer in weighted] or weighted[-1:])]


def run(model: nn.Module, example: Any) -> Any:
    """Run a model on a tensor, a tuple of positionals or a dict of keywords."""
    if isinstance(example, dict):
        return model(**example)
    return model(*example) if isinstance(example, tuple) else model(example)


def prune_(model: nn.Module, example: Any, ratio: float = 0.5, ignored: Sequence[nn.Module] | None = None) -> nn.Module:
    """Prune ``ratio`` of every layer's channels by magnitude, in place, as its README does.

    Args:
        model: changed.
        example: a tensor, a tuple of positionals or a dict of keywords.
        ratio: share of channels to remove.
        ignored: layers to leave alone; those that make the outputs when None.
    """
    import torch_pruning

    ignored = output_layers(model, example) if ignored is None else ignored

    with torch.enable_grad():
        pruner = torch_pruning.pruner.BasePruner(
            model,
            example,
            importance=torch_pruning.importance.GroupMagnitudeImportance(p=2),
            pruning_ratio=ratio,
            global_pruning=False,
            ignored_layers=list(ignored),
        )
        pruner.step()
    return model
