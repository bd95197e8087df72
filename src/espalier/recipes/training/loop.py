"""The only training loop, plain: batches, a loss, an optimizer, and an evaluation after each epoch.

    for each epoch:
        for each batch:    loss = objective(outputs, targets) + method.penalty;  backward
            every accumulate_steps:  method.gradients;  masks;  clip;  clusters;  optimizer.step;  masks, clusters;
                                     average;  method.step
            now and then:  checkpoint
        evaluate on the validation split

Where a batch goes through, and what several processes tell each other about it, is the engine's: each process has its
part of every batch, and all take the same branches.

All that is random follows from the stretch's seed, the epoch and the checkpoint, so a resumed stretch ends the same.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from ...core.run import Epoch
from ...engines.engine import local
from ...graph.grids import Grids, grids_of
from ...graph.probes.outputs import logits
from ...graph.recording.running import device_of
from ...methods import Quantizer
from .. import chance
from ..progress import bar
from .adapters import Adapters
from .clustering import Clustering
from .companion import Companion
from .learner import Learner
from .lesson import START, Checkpoint, Lesson, Loss, Position
from .masking import Masking
from .optimizers import TrainingError, learning_rate

_CHECKED_EVERY = 20  # batches between looks at the loss on an accelerator or over ranks: each look waits for it


def train(
    learner: Learner,
    lesson: Lesson,
    *,
    position: Position = START,
    extra: dict[str, Tensor] | None = None,
    checkpoint: Checkpoint = lambda position, extra: None,
) -> Position:
    """Train ``learner`` in place and return the last position, with the record of all epochs.

    Args:
        learner: the network and its optimizer, at work (``engine.spread``).
        lesson: what to do.
        position, extra: where a checkpoint was taken, and what it kept beside the learner's state.
        checkpoint: called after every step of the optimizer with the position and a function that gives what must be
            kept beside the learner's state; it decides whether to write anything, on all ranks alike.

    Raises:
        TrainingError: the loss became NaN or infinite, or the training split is empty.
    """
    steps = len(lesson.task.train)
    if not steps:
        raise TrainingError("the training split holds no batch: give more data or a smaller batch size")
    total = lesson.training.epochs * steps
    with ExitStack() as stack:
        stretch = _Stretch(learner, lesson, stack, checkpoint)
        stretch.resume(extra or {})
        stretch.advance = stack.enter_context(bar(lesson.stage, total, position.epoch * steps + position.batch))
        while position.epoch < lesson.training.epochs:
            position = stretch.epoch(position, extra or {})
            extra = None
        stretch.companion.stop()
        stretch.note()
    learner.model.eval()
    notes = tuple(dict.fromkeys((*position.notes, *stretch.notes)))
    return replace(position, notes=notes, cuts=stretch.companion.cuts, gap=stretch.companion.gap)


class _Stretch:
    """A stretch of training under way."""

    def __init__(self, learner: Learner, lesson: Lesson, stack: ExitStack, checkpoint: Checkpoint) -> None:
        self.learner, self.lesson, self.task, self.training = learner, lesson, lesson.task, lesson.training
        self.engine = lesson.engine
        self.steps = len(lesson.task.train)
        self.checkpoint = checkpoint
        self.device = device_of(learner.model)
        self.checked_every = 1 if self.device.type == "cpu" and self.engine.ranks == 1 else _CHECKED_EVERY
        self.advance: Callable[[str], None] = lambda text: None
        self.companion = Companion(lesson, learner, self.retrain)
        self.objectives = stack.enter_context(ExitStack())
        stack.callback(self.companion.close)
        self.notes: list[str] = []
        self.leave_grids()
        self.attach()

    def attach(self) -> None:
        """Wrap the network that is trained now, and attach the objective to it."""
        self.objectives.close()
        self.masking = Masking(self.learner)
        self.clustering = Clustering(self.learner, self.engine)
        self.forward = self.engine.wrapped(self.learner.model)
        make = self.lesson.objective
        self.loss = _plain(self.lesson) if make is None else self.objectives.enter_context(make(self.learner.model))
        self.adapters = Adapters(self.loss.learned, self.training, self.engine)
        self.note()

    def leave_grids(self) -> None:
        """Forget which grids the weights lay on, unless a method keeps them there: training moves them."""
        grids = grids_of(self.learner.model)
        if grids.weights and not isinstance(self.lesson.method, Quantizer):
            self.learner.model.espalier_grids = Grids(grids.inputs)  # type: ignore[assignment]
            self.notes.append(f"{self.lesson.stage}: the weights lay on grids, and training takes them off")

    def note(self) -> None:
        """Keep what a user should know of the loss, and of the network where a method has cut it."""
        own = getattr(self.learner.model, "espalier_notes", ())
        self.notes += (*self.loss.notes, *own, *self.companion.notes)

    def resume(self, extra: dict[str, Tensor]) -> None:
        if extra:
            self.learner.resume(extra)
            self.adapters.resume(extra)
        self.companion.start(extra)

    def epoch(self, position: Position, extra: dict[str, Tensor]) -> Position:
        """Train one epoch, or the rest of one, and evaluate."""
        start = time.perf_counter() - position.seconds
        lr, total = 0.0, torch.tensor(position.loss, dtype=torch.float64, device=self.device)
        if "loss" in extra:  # a checkpoint has rank 0's in its position
            total.fill_(float(extra["loss"]))
        self.learner.model.train()
        for batch, (inputs, targets) in self.batches(position, extra):
            lr = learning_rate(
                self.training, (position.epoch * self.steps + batch + 0.5) / (self.training.epochs * self.steps)
            )
            total += self.batch(inputs, targets, batch, lr)
            if batch % self.checked_every == 0:
                mean = self.finite(total, lr) / (batch + 1)
                self.advance(f"epoch {position.epoch + 1}/{self.training.epochs}  loss {mean:.4f}")
            else:
                self.advance("")
            if self.stepped(batch) and batch + 1 < self.steps:
                here = replace(position, batch=batch + 1, seconds=time.perf_counter() - start)
                self.offer(here, total, lr)
        loss = self.finite(total, lr) / self.steps
        score = self.evaluate(self.learner.best_known)
        seconds = time.perf_counter() - start
        number = self.lesson.first_epoch + position.epoch + 1
        done = Epoch(stage=self.lesson.stage, epoch=number, loss=loss, accuracy=score, lr=lr, seconds=seconds)
        notes = tuple(dict.fromkeys((*position.notes, *self.notes)))
        after = Position(position.epoch + 1, history=(*position.history, done), notes=notes)
        if after.epoch < self.training.epochs:
            self.offer(after, total, lr)
        return after

    def batches(self, position: Position, extra: dict[str, Tensor]) -> Iterator[tuple[int, tuple[Any, Any]]]:
        """Yield numbered batches from the position on; those before it are drawn and dropped."""
        rank = self.engine.rank  # rank 0 draws what one process would, the others draw anew
        chance.seed_all(chance.derived(self.lesson.seed, position.epoch, *([rank] if rank else [])))
        loader = self.task.train
        loader.epoch = self.lesson.first_epoch + position.epoch
        for batch, pair in enumerate(loader):
            if batch < position.batch:
                continue
            if batch == position.batch and batch:
                chance.restore({k.removeprefix("chance/"): v for k, v in extra.items() if k.startswith("chance/")})
            yield batch, pair

    def batch(self, inputs: Any, targets: Any, batch: int, lr: float) -> Tensor:
        """Go forward and backward on a batch, and step where its gradients complete a step; return the loss."""
        model, optimizer = self.learner.model, self.learner.optimizer
        inputs, targets = self.placed(inputs), self.placed(targets)
        stepped = self.stepped(batch)
        with nullcontext() if stepped else self.engine.accumulating(self.forward):
            with self.autocast():
                outputs = self.forward(inputs)
            outputs = pytree.tree_map_only(Tensor, _single, outputs)
            loss = self.loss.of(inputs, outputs, targets)
            if self.engine.ranks > 1:
                loss = loss * self.engine.weight(len(targets))
            penalised = loss + self.companion.penalty((inputs, targets), outputs)
            (penalised / self.share(batch)).backward()
        if stepped:
            for group in optimizer.param_groups:
                group["lr"] = lr
            self.companion.gradients(lr)
            self.masking.gradients()
            if self.training.clip_norm is not None:
                nn.utils.clip_grad_norm_(model.parameters(), self.training.clip_norm)
            self.clustering.gradients()
            if not self.companion.holding:
                optimizer.step()
            self.masking.weights()
            self.clustering.weights()
            optimizer.zero_grad()
            self.adapters.step(lr)
            if self.learner.average is not None:
                with self.companion.aside():
                    self.learner.average.update(model)
                    self.clustering.average()
            if self.companion.step():
                self.learner.model.train()
                self.attach()
            self.masking = self.masking.of(self.learner)
            self.clustering = self.clustering.of(self.learner)
        return loss.detach()

    def share(self, batch: int) -> int:
        """Return how many batches share this batch's step; the last step of an epoch may have fewer."""
        every = self.training.accumulate_steps
        return min(every, self.steps - batch // every * every)

    def stepped(self, batch: int) -> bool:
        return (batch + 1) % self.training.accumulate_steps == 0 or batch + 1 == self.steps

    def placed(self, item: Any) -> Any:
        """Return a batch on the network's device, images in its memory format."""

        def place(tensor: Tensor) -> Tensor:
            tensor = tensor.to(self.device, non_blocking=True)
            last = self.training.channels_last and tensor.dim() == 4
            return tensor.contiguous(memory_format=torch.channels_last) if last else tensor

        return place(item) if isinstance(item, Tensor) else pytree.tree_map_only(Tensor, place, item)

    def autocast(self) -> AbstractContextManager[Any]:
        if self.training.precision == "float32":
            return nullcontext()
        return torch.autocast(self.device.type, torch.bfloat16)

    def evaluate(self, model: nn.Module) -> float:
        """Return the metric on validation: each rank counts its part, with rank 0's statistics."""
        self.engine.lead(model)
        batches = self.engine.even(model, self.task.validation)
        return self.task.measure(model, batches, sum_ranks=self.engine.sum)[self.task.metric]

    def finite(self, total: Tensor, lr: float) -> float:
        """Return the sum of losses, a mean over ranks.

        Raises:
            TrainingError: it is not finite; on every rank.
        """
        value = float(self.engine.sum(total)) / self.engine.ranks
        if not math.isfinite(value):
            raise TrainingError(
                f"{self.lesson.stage}: the loss became {value}. Lower the learning rate (now {lr:.3g}), set clip_norm, "
                "or check the data; the last checkpoint is from before it"
            )
        return value

    def offer(self, position: Position, total: Tensor, lr: float) -> None:
        """Offer a checkpoint."""

        def extra() -> dict[str, Tensor]:
            whole = all(bool(local(p).isfinite().all()) for p in self.learner.model.parameters())
            self.finite(total if whole else torch.full_like(total, math.nan), lr)
            for model in (self.learner.model, self.learner.best_known):
                self.engine.lead(model)  # who writes a buffer that is in no shards is not said
            own = {f"chance/{name}": value for name, value in chance.states().items()}
            own |= {"loss": total} if self.engine.rank and position.batch else {}
            kept = (self.learner.extra(), self.companion.extra(), self.adapters.extra())
            return {**chance.by_rank(self.engine.each(own)), **kept[0], **kept[1], **kept[2]}

        with self.companion.aside():
            self.checkpoint(replace(position, loss=float(total)) if position.batch else position, extra)

    def retrain(self, epochs: int) -> None:
        """Train the learner for a method that asks for it, on a schedule of its own and without the method."""
        training = self.training.model_copy(update={"epochs": epochs})
        lesson = replace(self.lesson, training=training, method=None, seed=chance.derived(self.lesson.seed, "method"))
        self.forward = self.learner.model  # two wrappers of one network would both answer its gradients
        train(self.learner, lesson)
        self.learner.model.train()
        self.attach()


def _plain(lesson: Lesson) -> Loss:
    """Return the task's loss, with smoothed targets where that is asked for."""
    task, smoothing = lesson.task, lesson.training.label_smoothing
    if not smoothing:
        return Loss(lambda inputs, outputs, targets: task.loss(outputs, targets))
    if task.kind != "classification":
        raise TrainingError(f"label_smoothing is for classification; {task.name} is {task.kind}")
    smoothed = nn.CrossEntropyLoss(label_smoothing=smoothing)
    return Loss(lambda inputs, outputs, targets: smoothed(logits(outputs), targets))


def _single(tensor: Tensor) -> Tensor:
    return tensor.float() if tensor.dtype == torch.bfloat16 else tensor
