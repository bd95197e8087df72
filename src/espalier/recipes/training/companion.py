"""A method beside the training loop: started, asked, and told, in the order that its protocol says."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ...core import Plan, ProofError
from ...graph import Graph, freeze, trace
from ...graph.probes.gates import ungated
from ...methods import Context, Quantizer, Restore, Snapshot
from .. import chance
from .keeping import packed, tensor_text, text_tensor, unpacked
from .learner import Learner
from .optimizers import TrainingError

if TYPE_CHECKING:
    from .lesson import Lesson

_TENSORS, _SNAPSHOTS = "method/", "method-snapshot/"
_JSON, _OWN, _GENERATOR = "method-json", "method-companion", "method-generator"


class Companion:
    """The method of a stretch of training, or nothing: then every call costs nothing.

    Attributes:
        holding: whether the method wants the network's weights left as they are.
        cuts: made so far.
        gap: the largest difference that their proofs found.
        notes: what the method told the user.
    """

    def __init__(self, lesson: Lesson, learner: Learner, train: Callable[[int], None]) -> None:
        self.lesson, self.learner, self.train = lesson, learner, train
        self.method = lesson.method
        self.state: Any = None
        self.running = self.holding = False
        self.cuts, self.gap = 0, 0.0
        self.notes: list[str] = []
        self.whole: dict[str, str] = {}  # groups whose cut did not prove itself, and why
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
        if _OWN in extra:
            own = json.loads(tensor_text(extra[_OWN]))
            self.cuts, self.gap, self.whole, self.notes = own["cuts"], own["gap"], own["whole"], own["notes"]
        self.graph = self._traced()
        self.state = self.method.start(self.learner.model, self.graph, self._context())
        self.running = True
        if _JSON in extra:
            self.generator.set_state(extra[_GENERATOR])
            self.method.resume(self.state, self._stored(extra))

    def aside(self) -> AbstractContextManager[Any]:
        """Return a context in which weights are themselves, whatever gates are open: to copy or keep them."""
        return nullcontext() if self.method is None else ungated()

    def penalty(self, batch: tuple[Any, Any], outputs: Any) -> Tensor | float:
        """Return what the method adds to the loss."""
        return 0.0 if self.method is None else self.method.penalty(self.state, batch, outputs)

    def gradients(self, lr: float) -> None:
        """Let a method that holds the real weights prepare the optimizer's step."""
        if isinstance(self.method, Quantizer):
            self.method.gradients(self.state, lr)

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
            self.running = self.holding = False
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
        kept: dict[str, Tensor] = {}
        plain: dict[str, Any] = {}
        for name, value in self.method.stored(self.state).items():
            if isinstance(value, Snapshot):
                kept |= {f"{_SNAPSHOTS}{name}/{key}": content for key, content in packed(value.held).items()}
            elif isinstance(value, Tensor):
                kept[_TENSORS + name] = value
            else:
                plain[name] = value
        own = {"cuts": self.cuts, "gap": self.gap, "whole": self.whole, "notes": self.notes}
        texts = {_JSON: text_tensor(json.dumps(plain)), _OWN: text_tensor(json.dumps(own))}
        return {**kept, **texts, _GENERATOR: self.generator.get_state()}

    def _stored(self, extra: dict[str, Tensor]) -> dict[str, Any]:
        """Return what the method stored, as it gave it."""
        stored: dict[str, Any] = json.loads(tensor_text(extra[_JSON]))
        snapshots: dict[str, dict[str, Tensor]] = {}
        for key, tensor in extra.items():
            if key.startswith(_SNAPSHOTS):
                name, _, part = key.removeprefix(_SNAPSHOTS).partition("/")
                snapshots.setdefault(name, {})[part] = tensor
            elif key.startswith(_TENSORS):
                stored[key.removeprefix(_TENSORS)] = tensor
        if snapshots and self.lesson.original is None:
            raise TrainingError("a snapshot is rebuilt from the original architecture, which the lesson does not have")
        for name, tensors in snapshots.items():
            assert self.lesson.original is not None
            stored[name] = Snapshot(unpacked(tensors, self.lesson.original, self.lesson.training, self.lesson.engine))
        return stored

    def _traced(self) -> Graph:
        graph = trace(self.learner.model, self.lesson.task.example().to(self.lesson.engine.device))
        for name, reason in self.whole.items():
            graph = freeze(graph, [name], reason) if name in graph.groups else graph
        return graph

    def _cut(self, plan: Plan) -> None:
        """Cut; groups whose cut does not prove itself stay whole, now and later."""
        while plan.keep:
            plan = Plan.from_json(self.lesson.engine.agreed(plan.to_json()))
            try:
                self.learner.cut(self.graph, plan, channels_last=self.lesson.training.channels_last)
            except ProofError as error:
                if not plan.keep.keys() & set(error.groups):
                    raise
                reason = f"its cut did not prove itself: {str(error).splitlines()[0]}"
                self.whole |= dict.fromkeys(error.groups, reason)
                self.notes += [f"group {name} stays whole: {reason}" for name in error.groups]
                rest = {name: units for name, units in plan.keep.items() if name not in error.groups}
                plan = Plan(rest, plan.fingerprint, plan.notes)
            else:
                self.cuts += 1
                self.gap = max(self.gap, self.learner.model.espalier_gap or 0.0)
                self.notes += plan.notes
                return

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

        def snapshot() -> Snapshot:
            with self.aside():
                return Snapshot(self.learner.copied())

        def hold(still: bool) -> None:
            self.holding = still

        return Context(
            evaluate=evaluate,
            train=self.train,
            snapshot=snapshot,
            batches=batches,
            loss=task.loss,
            steps=self.lesson.training.epochs * -(-len(task.train) // self.lesson.training.accumulate_steps),
            sum_ranks=engine.sum,
            generator=self.generator,
            hold=hold,
            note=lambda text: self.notes.append(text),
            goal=self.lesson.goal,
        )
