"""What a method is: a frozen dataclass of hyperparameters with seven verbs that the training loop calls in plain sight.

    start ──▶ ┌─ penalty   added to the loss of every batch
              │  gradients before every step of the optimizer, of those that hold other weights than the network shows
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
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, runtime_checkable

from torch import Generator, Tensor, nn

from ..core import EspalierError, Plan

if TYPE_CHECKING:
    from ..graph import Graph


class MethodError(EspalierError):
    """A method that is not known, or cannot be as it is asked for; the message lists every mistake."""


@dataclass(frozen=True, eq=False)
class Snapshot:
    """A network as it was, with its optimizer; only the loop that took it looks inside."""

    held: Any


# what a checkpoint can hold: tensors, snapshots, and what JSON can hold
Stored = Mapping[str, Tensor | Snapshot | int | float | str | bool | list | dict | None]


@dataclass(frozen=True, eq=False)
class Restore:
    """Go back to a snapshot."""

    snapshot: Snapshot


@dataclass(frozen=True, kw_only=True)
class Goal:
    """What the result is to be, and what the recipe says of how units are chosen.

    Attributes:
        limits: ``{measure: what the result may cost}``, absolute; empty where only ``max_drop`` limits.
        max_drop: points of the metric on validation that may be lost; None where nothing is said.
        fits: ``fits(graph, counts)`` says whether a network that keeps ``counts`` units is within all limits.
        fewest: ``fewest(graph)`` is ``{group: units that it keeps at least}``; its size where it stays whole.
        scores: ``scores(model, graph)`` are those of the recipe's criterion.
        plan: ``plan(graph, scores)`` is the plan within the limits that keeps the best units.
    """

    limits: Mapping[str, int | float]
    max_drop: float | None
    fits: Callable[[Graph, Mapping[str, int]], bool]
    fewest: Callable[[Graph], Mapping[str, int]]
    scores: Callable[[nn.Module, Graph], Mapping[str, Tensor]]
    plan: Callable[[Graph, Mapping[str, Tensor]], Plan]


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
        hold: ``hold(True)`` leaves the network's weights as they are at every step until ``hold(False)``.
        note: ``note(text)`` tells the user something, once.
        goal: what the result is to be; None where the loop was given none.
    """

    evaluate: Callable[[nn.Module], float]
    train: Callable[[int], None]
    snapshot: Callable[[], Snapshot]
    batches: Callable[[int], Iterable[tuple[Any, Any]]]
    loss: Callable[[Any, Any], Tensor]
    steps: int
    sum_ranks: Callable[[Tensor], Tensor]
    generator: Generator
    hold: Callable[[bool], None]
    note: Callable[[str], None]
    goal: Goal | None = None

    @property
    def aim(self) -> Goal:
        """The goal.

        Raises:
            MethodError: there is none.
        """
        if self.goal is None:
            raise MethodError("this method works towards a budget or a limit of its step, and was given neither")
        return self.goal


class Method(Protocol):
    """One paper's algorithm. Hyperparameters are fields; all that changes is in the state that ``start`` returns.

    ``TAKES`` names what of a step's choices it heeds, beside budgets, patterns and floors; the others are refused.
    """

    TAKES: ClassVar[frozenset[str]]

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


@runtime_checkable
class Quantizer(Method, Protocol):
    """A method whose network shows quantized weights, while it holds the real ones that training changes.

        forward, backward   with quantized weights, which are the network's own at rest: it is evaluated and kept so
        gradients           puts the real weights into the network, and their gradients in place of the quantized ones'
        optimizer.step      on the real weights
        step                takes the real weights out again, and puts their quantized values in

    ``stored`` has the real weights; averages of weights (EMA) mean nothing here and are refused by the steps.
    """

    def gradients(self, state: Any, lr: float) -> None:
        """Prepare the optimizer's step: after the backward pass, before gradients are clipped.

        Args:
            state: what ``start`` returned.
            lr: of the step that follows, for what the method itself learns.
        """
        ...
