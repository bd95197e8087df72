"""Gradual magnitude pruning: the smallest weights become zero while the network is trained, fast first and slowly last.

    s_t = s_f + (s_i - s_f) (1 - (t - t_0) / (n dt))^3        for t in {t_0, t_0 + dt, ..., t_0 + n dt}

*Source*: Zhu and Gupta, To prune, or not to prune, 2017, arXiv:1710.01878, equation 1.
*Differs*: (1) s_i = 0 always, and masks only become tighter: a network that is sparser already waits until the schedule
has come to where it is; (2) the last step, t_0 + n dt, need not be a whole number of dt away from the first.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from torch import Tensor, nn

from ...graph.masks import mask_
from ...selection.sparsity import Sparsity, choose_masks
from ..protocol import Context, MethodError, Stored

if TYPE_CHECKING:
    from ...graph import Graph


def cubic(final: float, share: float) -> float:
    """Return the sparsity when ``share`` of the way is gone, s_f (1 - (1 - share)^3).

    >>> [round(cubic(0.8, share), 3) for share in (0.0, 0.5, 1.0)]
    [0.0, 0.7, 0.8]
    """
    return final * (1 - (1 - min(max(share, 0.0), 1.0)) ** 3)


@dataclass
class _State:
    """The network, steps of the optimizer so far, and the steps between which masks become tighter."""

    model: nn.Module
    first: int
    last: int
    step: int = 0


@dataclass(frozen=True, kw_only=True)
class GradualMagnitude:
    """Tighten the masks every so many steps, until the target is met.

    Attributes:
        target: where it ends.
        begin_ratio, end_ratio: share of the steps after which masks are tightened first and last.
        every_steps: dt, steps of the optimizer between two tightenings.
    """

    TAKES: ClassVar[frozenset[str]] = frozenset()

    target: Sparsity
    begin_ratio: float = 0.0
    end_ratio: float = 0.75
    every_steps: int = 10

    def __post_init__(self) -> None:
        """Refuse a schedule that has no way to go."""
        if not 0.0 <= self.begin_ratio < self.end_ratio <= 1.0 or self.every_steps < 1:
            raise MethodError(
                f"a gradual schedule goes from begin_ratio to end_ratio in [0, 1], every_steps at least 1; got "
                f"{self.begin_ratio:g} to {self.end_ratio:g} every {self.every_steps}"
            )

    def start(self, model: nn.Module, graph: Graph, context: Context) -> _State:
        """Return the state for a stretch of training."""
        first = round(self.begin_ratio * context.steps)
        return _State(model, first, max(round(self.end_ratio * context.steps), first + 1))

    def penalty(self, state: _State, batch: tuple[Any, Any], outputs: Any) -> Tensor | float:
        """Add nothing to the loss."""
        return 0.0

    def step(self, state: _State) -> None:
        """Tighten the masks where it is time to; the loop keeps what they hide at zero."""
        state.step += 1
        since = state.step - state.first
        if since < 0 or state.step > state.last or (since % self.every_steps and state.step != state.last):
            return
        share = since / (state.last - state.first)
        masks = choose_masks(state.model, self.target.mapped(lambda final: cubic(final, share)))
        mask_(state.model, masks)

    def after_cut(self, state: _State, model: nn.Module, graph: Graph) -> None:
        """Go on with another network."""
        state.model = model

    def stop(self, state: _State) -> None:
        """Leave the masks where they are."""

    def stored(self, state: _State) -> Stored:
        """Return what a checkpoint must keep: the masks are the network's own."""
        return {"step": state.step}

    def resume(self, state: _State, stored: Stored) -> None:
        """Go on from a checkpoint."""
        step = stored["step"]
        assert isinstance(step, int)
        state.step = step
