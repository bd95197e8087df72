"""What a method is: a frozen dataclass of hyperparameters with seven verbs that the training loop calls in plain sight.

    start ──▶ ┌─ penalty   added to the loss of every batch
              │  step      after every step of the optimizer: a Plan (cut now), a Restore (go back), or None
              └─ after_cut the network is another one now
          ──▶ stop

    stored, resume           what a checkpoint keeps of the state, so that a killed run goes on with it

A method that watches or gates the network opens its taps and gates in ``start`` and ``after_cut``, and has them closed
when ``step`` returns a Plan or a Restore, and after ``stop``: nothing may stand between the engine and the network
while it is cut.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from torch import Generator, Tensor, nn

from ..core import Plan

if TYPE_CHECKING:
    from ..graph import Graph

Stored = Mapping[str, Tensor | int | float | str | bool | list | dict | None]  # tensors, and what JSON can hold


@dataclass(frozen=True, eq=False)
class Snapshot:
    """A network as it was, with its optimizer; only the loop that took it looks inside."""

    held: Any


@dataclass(frozen=True, eq=False)
class Restore:
    """Go back to a snapshot."""

    snapshot: Snapshot


@dataclass(frozen=True, kw_only=True)
class Context:
    """What a method may need from above it.

    Attributes:
        evaluate: ``evaluate(model)`` is the metric on the validation split, in [0, 1], higher is better.
        train: ``train(epochs)`` trains the network that the method was given last, without the method, on a schedule
            of its own; the network stays the same object.
        snapshot: ``snapshot()`` keeps the network and its optimizer as they are.
        batches: ``batches(count)`` gives that many training batches, (inputs, targets); the same ones every time.
        loss: ``loss(outputs, targets)`` is the task's.
        steps: of the optimizer, in the stretch of training that the method is started for.
        sum_ranks: ``sum_ranks(tensor)`` is its sum over all ranks; the tensor itself where there is one.
        generator: seeded; all that is random in a method comes from it, and every rank has the same.
    """

    evaluate: Callable[[nn.Module], float]
    train: Callable[[int], None]
    snapshot: Callable[[], Snapshot]
    batches: Callable[[int], Iterable[tuple[Any, Any]]]
    loss: Callable[[Any, Any], Tensor]
    steps: int
    sum_ranks: Callable[[Tensor], Tensor]
    generator: Generator


class Method(Protocol):
    """One paper's algorithm. Hyperparameters are fields; all that changes is in the state that ``start`` returns."""

    def start(self, model: nn.Module, graph: Graph, context: Context) -> Any:
        """Return the state for a stretch of training."""
        ...

    def penalty(self, state: Any, batch: tuple[Any, Any], outputs: Any) -> Tensor | float:
        """Return what is added to the loss of a batch, a scalar; 0.0 for nothing."""
        ...

    def step(self, state: Any) -> Plan | Restore | None:
        """Decide after a step of the optimizer; every rank decides the same."""
        ...

    def after_cut(self, state: Any, model: nn.Module, graph: Graph) -> None:
        """Go on with another network: what the plan left, or what was restored."""
        ...

    def stop(self, state: Any) -> Plan | None:
        """Close what is open; a plan is what remains to be cut."""
        ...

    def stored(self, state: Any) -> Stored:
        """Return what a checkpoint must keep of the state."""
        ...

    def resume(self, state: Any, stored: Stored) -> None:
        """Bring a freshly started state to where ``stored`` was taken."""
        ...
