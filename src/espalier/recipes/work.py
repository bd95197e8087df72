"""What the stages of a run share."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ..core import Cost, Plan
from ..core.run import Epoch, Point
from ..engines.engine import Alone, Engine, placed
from ..graph import trace
from . import chance
from .folders.checkpoints import Checkpoints, Handle
from .folders.folder import Journal
from .training.learner import Learner
from .training.lesson import START, Lesson, Objective, Position
from .training.loop import train

if TYPE_CHECKING:
    from ..methods import Goal, Method
    from ..tasks import Task
    from .recipe import Recipe
    from .steps import Training

_ASKED_EVERY = 16  # steps of the optimizer between questions to rank 0's clock


@dataclass(eq=False)
class Work:
    """A run under way.

    Attributes:
        task: the data.
        part: this process's part of it.
        recipe: what to do.
        original: the network as it was given; it is the architecture that files are loaded onto.
        example: what it is traced on.
        journal: the record for people.
        checkpoints: the record for a resumed run.
        dense: the network before the first cut.
        pruned: whether that cut was made.
        cuts: proved so far.
        gap: the largest difference of outputs that their proofs found, a share of their magnitude.
        engine: where networks are trained.
    """

    task: Task
    recipe: Recipe
    original: nn.Module
    example: Tensor
    journal: Journal
    checkpoints: Checkpoints
    dense: Handle
    pruned: bool = False
    cuts: int = 0
    gap: float = 0.0
    engine: Engine = field(default_factory=lambda: Alone(torch.device("cpu")))

    def __post_init__(self) -> None:
        """Take this process's part of the data."""
        self.part = self.task.sharded(self.engine.rank, self.engine.ranks)

    def dense_cost(self) -> Cost:
        """Return what the dense network costs."""
        found = self.checkpoints.once("dense/cost", lambda: vars(trace(self.original, self.example).cost()))
        return Cost(**found)

    def score(self, key: str, handle: Handle) -> float:
        """Return the metric on the validation split."""
        return self.checkpoints.once(key, lambda: self._evaluated(handle.open().model))

    def _evaluated(self, model: nn.Module) -> float:
        with placed(self.engine.device, model):
            counted = self.part.measure(model, self.part.validation, sum_ranks=self.engine.sum)
        return counted[self.task.metric]

    def narrowed(self, handle: Handle) -> None:
        """Write down the widths of a state, and the plan that leads from the dense network to it."""
        kept = handle.kept
        widths = (replace(w, after=len(kept.get(w.group, range(w.before)))) for w in self.journal.run.widths)
        self.journal.write("plan.json", Plan(kept).to_json())
        self.journal.update(widths=tuple(widths))

    def visit(self, point: Point) -> None:
        """Add a network to the path."""
        self.journal.update(path=(*self.journal.run.path, point))

    def learn(
        self,
        key: str,
        handle: Handle,
        training: Training,
        stage: str,
        *,
        objective: Objective | None = None,
        method: tuple[Method, Goal | None] | None = None,
    ) -> tuple[Handle, float]:
        """Train a copy of a state, with checkpoints; return what it came to, and its metric on validation."""
        before, whole = self.journal.run.history, handle
        handle, found = self.checkpoints.change(
            key, lambda: _learned(self, key, whole, training, stage, (objective, method))
        )
        history = tuple(Epoch(**epoch) for epoch in found["history"])
        self.journal.update(history=(*before, *history))
        for note in found["notes"]:
            self.journal.note(note)
        if found.get("cuts"):
            self.proved(found["proof"], found["gap"], found["cuts"])
        return handle, history[-1].accuracy or 0.0

    def proved(self, kind: str, gap: float | None, cuts: int = 1) -> None:
        """Add cuts to the run's words about its proofs."""
        self.cuts, self.gap = self.cuts + cuts, max(self.gap, gap or 0.0)
        words = f"{self.cuts} {'cut' if self.cuts == 1 else 'cuts'} proved in {kind}: cut equals masked"
        if gap is not None:
            words += f", the outputs within {self.gap:.0e} of their magnitude"
        self.journal.update(proof=words)


def _learned(
    work: Work,
    key: str,
    handle: Handle,
    training: Training,
    stage: str,
    how: tuple[Objective | None, tuple[Method, Goal | None] | None],
) -> tuple[Any, dict[str, Any]]:
    partial = work.checkpoints.partial(key)
    own = handle.open().copied() if partial is None else partial.state
    base = own.epochs
    learner, engine = Learner.of_own(own, training), work.engine
    method, goal = how[1] or (None, None)
    lesson = Lesson(
        task=work.part,
        training=training,
        stage=stage,
        seed=work.checkpoints.seed_of(key),
        first_epoch=base,
        objective=how[0],
        method=method,
        goal=goal,
        original=work.original,
        engine=engine,
    )
    position, extra = (START, {}) if partial is None else (Position.from_data(partial.notes), dict(partial.extra))
    extra = chance.of_rank(extra, engine.rank)
    learner.spread(engine)
    scribe = _Scribe(work, key, learner, base)
    position = train(learner, lesson, position=position, extra=extra, checkpoint=scribe)
    learner.gathered(engine)
    found: dict[str, Any] = {"history": [asdict(epoch) for epoch in position.history], "notes": list(position.notes)}
    if position.cuts:
        found |= {"cuts": position.cuts, "gap": position.gap, "proof": str(learner.model.espalier_proof)}
    return learner.result(base + training.epochs), found


class _Scribe:
    """Writes a checkpoint now and then, and the record after each epoch."""

    def __init__(self, work: Work, key: str, learner: Learner, epochs: int) -> None:
        self.work, self.key, self.learner, self.epochs = work, key, learner, epochs
        self.before = work.journal.run.history
        self.last, self.calls = time.monotonic(), 0

    def __call__(self, position: Position, extra: Any) -> None:
        if not position.batch:
            self.work.journal.update(history=(*self.before, *position.history))
        if self.due():
            self.work.checkpoints.save_partial(self.key, self.learner.state(self.epochs), position.to_data(), extra())
            self.last = time.monotonic()

    def due(self) -> bool:
        """Say whether it is time, by rank 0's clock; several ranks ask it every few steps only."""
        elapsed = time.monotonic() - self.last >= self.work.recipe.checkpoint_seconds
        if self.work.engine.ranks == 1 or not self.work.recipe.checkpoint_seconds:
            return elapsed
        self.calls += 1
        return self.calls % _ASKED_EVERY == 0 and self.work.engine.agreed(elapsed)
