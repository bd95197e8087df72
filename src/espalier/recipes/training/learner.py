"""A network in training: what an optimizer's step changes, and what a cut changes for all of it at once."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from ...core import Plan
from ...engines.engine import like
from ...graph import carry_optimizer, cut
from ...graph.recording.tensors import named_tensors
from .average import Average
from .optimizers import continued
from .state import State, settle

if TYPE_CHECKING:
    from ...engines.engine import Engine
    from ...graph import Graph
    from ..steps import Training


@dataclass(eq=False)
class Learner:
    """A network in training.

    Attributes:
        model: trained in place; another one after a cut.
        optimizer: of ``model``.
        kept: ``{group: units of the dense network that are left}``.
        average: the moving average of the weights, where one is asked for.
    """

    model: nn.Module
    optimizer: Optimizer
    kept: Mapping[str, tuple[int, ...]]
    average: Average | None = None

    @classmethod
    def of(cls, state: State, training: Training) -> Learner:
        """Return a learner that starts from a copy of ``state``."""
        own = state.copied()
        return cls.of_own(own, training)

    @classmethod
    def of_own(cls, own: State, training: Training) -> Learner:
        """Return a learner that takes a state over."""
        optimizer = continued(own.optimizer, own.model, training)
        settle(own.model, optimizer, channels_last=training.channels_last)
        average = None if training.ema_decay is None else Average(own.model, training.ema_decay)
        return cls(own.model, optimizer, own.kept, average)

    def spread(self, engine: Engine) -> None:
        """Go to work: to the engine's device, or into its shards."""
        self._become(engine.spread)

    def gathered(self, engine: Engine) -> None:
        """Come to rest: a whole network on the CPU."""
        self._become(engine.gathered)

    def _become(self, change: Callable[[nn.Module, Optimizer | None], tuple[nn.Module, Optimizer | None]]) -> None:
        self.model, optimizer = change(self.model, self.optimizer)
        assert optimizer is not None
        self.optimizer = optimizer
        if self.average is not None:
            self.average.model, _ = change(self.average.model, None)

    def state(self, epochs: int) -> State:
        """Return where the learner is, as a state that shares its tensors."""
        return State(self.model, self.optimizer, self.kept, epochs)

    def result(self, epochs: int) -> State:
        """Return what the training came to: the average where there is one."""
        if self.average is not None:
            averaged = named_tensors(self.average.model)
            with torch.no_grad():
                for name, tensor in named_tensors(self.model).items():
                    tensor.copy_(averaged[name])
        return self.state(epochs)

    @property
    def best_known(self) -> nn.Module:
        """The network to evaluate."""
        return self.model if self.average is None else self.average.model

    def cut(self, graph: Graph, plan: Plan, *, channels_last: bool = False) -> None:
        """Cut the network, its average and the optimizer's moments by one plan; the cut is proved."""
        small = cut(self.model, graph, plan, prove=True)
        self.optimizer = carry_optimizer(self.optimizer, self.model, small)
        self.kept = self.state(0).then(plan)
        self.model = small
        if self.average is not None:
            self.average.model = cut(self.average.model, graph, plan, prove=False)
        settle(self.model, self.optimizer, channels_last=channels_last)

    def copied(self) -> Learner:
        """Return a copy that shares nothing."""
        own = self.state(0).copied()
        assert own.optimizer is not None
        return Learner(own.model, own.optimizer, own.kept, copy.deepcopy(self.average))

    def take(self, other: Learner) -> None:
        """Become another learner."""
        self.model, self.optimizer, self.kept, self.average = other.model, other.optimizer, other.kept, other.average

    def extra(self) -> dict[str, Tensor]:
        """Return the average's tensors by name, for a checkpoint."""
        if self.average is None:
            return {}
        found = {f"average/{name}": tensor for name, tensor in named_tensors(self.average.model).items()}
        return {**found, "average-steps": torch.tensor(self.average.steps)}

    def resume(self, extra: Mapping[str, Tensor]) -> None:
        """Take the average from a checkpoint's tensors."""
        if self.average is not None:
            self.average.steps = int(extra["average-steps"])
            with torch.no_grad():
                for name, tensor in named_tensors(self.average.model).items():
                    tensor.copy_(like(extra[f"average/{name}"], tensor))
