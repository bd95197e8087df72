"""The same inputs at other sizes: more examples, longer sequences, larger images."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from torch import Tensor, cat, nn
from torch.utils._pytree import tree_leaves, tree_map

from .masking import close, masked_outputs, outputs

MORE = (1, 4)


def other_sizes(example: Any) -> Iterator[tuple[str, Any]]:
    """Yield what has grown, and the example that has; a network need not run on all of them."""
    tensors = [leaf for leaf in tree_leaves(example) if isinstance(leaf, Tensor) and leaf.dim()]
    examples = tensors[0].shape[0] if tensors else 0
    yield "batch", _grown(example, lambda t: (0,) if t.shape[0] == examples else (), 1)
    for more in MORE:
        yield f"space + {more}", _grown(example, lambda t: range(2, t.dim()), more)
        yield f"last + {more}", _grown(example, lambda t: (-1,) if t.dim() > 2 else (), more)
        yield f"length + {more}", _grown(example, lambda t: (1,) if t.dim() in (2, 3) else (), more)


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


def _grown(example: Any, dims: Callable[[Tensor], Iterable[int]], more: int) -> Any:
    """Go on in some dimensions of each tensor with what is there already, backwards: ids stay ids."""

    def grow(leaf: Any) -> Any:
        for dim in dims(leaf) if isinstance(leaf, Tensor) and leaf.dim() else ():
            leaf = cat([leaf, leaf.flip(dim).narrow(dim, 0, min(more, leaf.shape[dim]))], dim)
        return leaf

    return tree_map(grow, example)
