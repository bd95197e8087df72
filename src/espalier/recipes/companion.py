"""A method beside the training loop: started, asked, and told, in the order that its protocol says."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ..core import Plan
from ..graph import Graph, trace
from ..methods import Context, Restore, Snapshot
from . import chance
from .learner import Learner
from .optimizers import TrainingError

if TYPE_CHECKING:
    from .lesson import Lesson

_PREFIX = "method/"
_JSON = "method-json"


class Companion:
    """The method of a stretch of training, or nothing: then every call costs nothing."""

    def __init__(self, lesson: Lesson, learner: Learner, train: Callable[[int], None]) -> None:
        self.lesson, self.learner, self.train = lesson, learner, train
        self.method = lesson.method
        self.state: Any = None
        self.running = False
        self.generator = torch.Generator().manual_seed(chance.derived(lesson.seed, "method"))

    def start(self, extra: dict[str, Tensor]) -> None:
        """Start the method, or bring it to where a checkpoint was taken."""
        if self.method is None:
            return
        if self.lesson.engine.shards:
            raise TrainingError(
                f"{type(self.method).__name__} watches whole weights while they are trained, and FSDP keeps shards of "
                "them: use engine = 'ddp'"
            )
        self.graph = self._traced()
        self.state = self.method.start(self.learner.model, self.graph, self._context())
        self.running = True
        if _JSON in extra:
            stored = {k.removeprefix(_PREFIX): v for k, v in extra.items() if k.startswith(_PREFIX)}
            plain = json.loads(bytes(extra[_JSON].tolist()).decode())
            self.generator.set_state(extra["method-generator"])
            self.method.resume(self.state, {**plain, **stored})

    def penalty(self, batch: tuple[Any, Any], outputs: Any) -> Tensor | float:
        """Return what the method adds to the loss."""
        return 0.0 if self.method is None else self.method.penalty(self.state, batch, outputs)

    def step(self) -> bool:
        """Let the method decide, do it, and say whether the network is another one now."""
        if self.method is None:
            return False
        wish = self.method.step(self.state)
        if isinstance(wish, Restore):
            self.learner.take(wish.snapshot.held.copied())
        elif isinstance(wish, Plan):
            self._cut(wish)
        else:
            return False
        self.graph = self._traced()
        self.method.after_cut(self.state, self.learner.model, self.graph)
        return True

    def stop(self) -> None:
        """End the method, and cut what it leaves to be cut."""
        if self.method is not None and self.running:
            self.running = False
            plan = self.method.stop(self.state)
            if plan is not None:
                self._cut(plan)

    def close(self) -> None:
        """End the method after an error: its taps and gates must not outlive it."""
        if self.method is not None and self.running:
            self.running = False
            self.method.stop(self.state)

    def extra(self) -> dict[str, Tensor]:
        """Return what a checkpoint must keep of the method, as tensors."""
        if self.method is None:
            return {}
        stored = self.method.stored(self.state)
        plain = json.dumps({k: v for k, v in stored.items() if not isinstance(v, Tensor)})
        tensors = {_PREFIX + k: v for k, v in stored.items() if isinstance(v, Tensor)}
        text = torch.tensor(list(plain.encode()), dtype=torch.uint8)
        return {**tensors, _JSON: text, "method-generator": self.generator.get_state()}

    def _traced(self) -> Graph:
        return trace(self.learner.model, self.lesson.task.example().to(self.lesson.engine.device))

    def _cut(self, plan: Plan) -> None:
        plan = Plan.from_json(self.lesson.engine.agreed(plan.to_json()))
        self.learner.cut(self.graph, plan, channels_last=self.lesson.training.channels_last)

    def _context(self) -> Context:
        task, engine = self.lesson.task, self.lesson.engine

        def evaluate(model: nn.Module) -> float:
            engine.lead(model)
            return task.measure(model, task.validation, sum_ranks=engine.sum)[task.metric]

        def batches(count: int) -> Iterable[tuple[Any, Any]]:
            epoch, task.train.epoch = task.train.epoch, self.lesson.first_epoch
            try:
                yield from itertools.islice(task.train, count)
            finally:
                task.train.epoch = epoch

        return Context(
            evaluate=evaluate,
            train=self.train,
            snapshot=lambda: Snapshot(self.learner.copied()),
            batches=batches,
            loss=task.loss,
            steps=self.lesson.training.epochs * -(-len(task.train) // self.lesson.training.accumulate_steps),
            sum_ranks=engine.sum,
            generator=self.generator,
        )
