"""A dense network and the one cut from it, side by side."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from ..core import ModelError, Plan
from ..graph import Graph
from ..graph.recording.capture import run_model
from ..graph.recording.running import on_device
from ..graph.recording.tensors import named_tensors
from ..graph.rescale import change
from .sites import Site


@dataclass(eq=False)
class Pair:
    """A dense network, the network cut from it, and what relates them.

    Attributes:
        dense, small: the networks.
        kept: ``{(tensor, dimension): positions of the dense one's that were kept}``; all where nothing is said.
        graph: the dense one's.
        factors: ``{weight: factor of its rows}`` where the cut multiplied rows to make up for a derived scale.
        originals, tensors: of the dense and of the small network, by name.
    """

    dense: nn.Module
    small: nn.Module
    graph: Graph
    kept: Mapping[tuple[str, int], Tensor]
    factors: Mapping[str, Tensor]
    originals: dict[str, Tensor] = field(init=False)
    tensors: dict[str, Tensor] = field(init=False)

    def __post_init__(self) -> None:
        self.originals = named_tensors(self.dense)
        self.tensors = named_tensors(self.small)

    @classmethod
    def of(cls, dense: nn.Module, small: nn.Module, graph: Graph, plan: Plan) -> Pair:
        """Relate a network to what ``plan`` made of it.

        Raises:
            ModelError: ``small`` is not what the plan makes of ``dense``.
        """
        surgery = graph.surgery(plan)
        kept = {key: torch.tensor(one.keep) for key, one in surgery.slices.items()}
        large, tensors = named_tensors(dense), named_tensors(small)
        for name in graph.leaves:
            shape = list(graph.shapes[name])
            for d in range(len(shape)):
                shape[d] = len(kept[name, d]) if (name, d) in kept else shape[d]
            ours = tensors.get(name)
            if (
                ours is None
                or list(ours.shape) != shape
                or name not in large
                or large[name].shape != graph.shapes[name]
            ):
                raise ModelError(f"the small model is not what this plan makes of the dense one: {name!r} differs")
        return cls(dense, small, graph, kept, _factors(graph, plan))

    def run(self, model: nn.Module, inputs: Any) -> Any:
        """Make a forward pass."""
        return run_model(model, on_device(inputs, model), self.graph.forward_fn)

    def frozen(self) -> set[str]:
        """Return the parameters that are meant to stay: those that are not trained, where others are."""
        parameters = {name: tensor for name, tensor in self.tensors.items() if isinstance(tensor, nn.Parameter)}
        still = {name for name, tensor in parameters.items() if not tensor.requires_grad}
        return still if len(still) < len(parameters) else set()

    def channels(self, site: Site, value: Tensor) -> Tensor:
        """Return the kept channels of a dense value, channels last."""
        kept = self.kept.get((site.weight, site.kind.outputs))
        return value if kept is None else value[..., kept.to(value.device)]


def _factors(graph: Graph, plan: Plan) -> dict[str, Tensor]:
    """Return what a cut multiplied the rows of tensors by, of those rows that are left."""
    alive = graph.alive(plan)
    found: dict[str, Tensor] = {}
    for one in graph.rescaled:
        factor = change(graph, plan, alive, one)
        for name, rows in (one.rows or {}).items() if factor != 1.0 else ():
            whole = torch.ones(graph.shapes[name][0], dtype=torch.float64)
            whole[rows] = factor
            own = whole[torch.from_numpy(graph.kept(graph.leaves[name][0], alive))]
            found[name] = found[name] * own if name in found else own
    return found
