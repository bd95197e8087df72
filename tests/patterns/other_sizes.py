"""The same inputs at other sizes: more examples, longer sequences, larger images; whoever runs on them must be right."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from torch import Tensor, cat, nn
from torch.utils._pytree import tree_leaves, tree_map

from .masking import close, masked_outputs, outputs

MORE = (1, 4)


def other_sizes(example: Any) -> Iterator[tuple[str, Any]]:
    """Yield what has grown, and the example that has; a network need not run on all of them."""
    tensors = [leaf for leaf in tree_leaves(example) if isinstance(leaf, Tensor) and leaf.dim()]
    examples = tensors[0].shape[0] if tensors else 0
    yield "batch", _where(example, lambda t: t.shape[0] == examples, lambda t: _grown(t, (0,), 1))
    for more in MORE:
        yield f"space + {more}", _where(example, lambda t: t.dim() > 2, lambda t: _grown(t, range(2, t.dim()), more))
        yield f"last + {more}", _where(example, lambda t: t.dim() > 2, lambda t: _grown(t, (-1,), more))
        yield f"length + {more}", _where(example, lambda t: t.dim() in (2, 3), lambda t: _grown(t, (1,), more))


def differing(
    dense: Callable[[], nn.Module], small: nn.Module, groups: Any, keep: Mapping[str, Any], example: Any
) -> list[str]:
    """Return where a cut network is not the dense one with zeros, of the sizes at which the dense one runs."""
    found = []
    for what, other in other_sizes(example):
        try:
            outputs(dense(), other)
        except Exception:  # it says nothing about the cut
            continue
        if not close(outputs(small, other), masked_outputs(dense(), groups, keep, other)):
            found.append(what)
    return found


def _where(example: Any, chosen: Callable[[Tensor], bool], change: Callable[[Tensor], Tensor]) -> Any:
    def grow(leaf: Any) -> Any:
        return change(leaf) if isinstance(leaf, Tensor) and leaf.dim() and chosen(leaf) else leaf

    return tree_map(grow, example)


def _grown(tensor: Tensor, dims: Any, more: int) -> Tensor:
    """Go on with what is there already, backwards: ids stay ids."""
    for dim in dims:
        tensor = cat([tensor, tensor.flip(dim).narrow(dim, 0, min(more, tensor.shape[dim]))], dim)
    return tensor
