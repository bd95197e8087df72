"""The jobs of a study of heuristics."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

from ..recipes.steps import AnyStep, Finetune, Prune
from .jobs import Job, dense_job, recipe_of
from .study import RANDOM, SCRATCH, Arm, Heuristics, Subject

_SHAPE = ("strategy", "round_to", "keep", "limit", "only", "floor")  # what decides widths, beside the budget


def jobs_of(study: Heuristics) -> Iterator[Job]:
    """Yield everything that the study needs, dense networks first."""
    starts = {
        (subject.name, seed): dense_job(subject, seed, study.split)
        for subject, seed in product(study.tasks, study.seeds)
    }
    yield from starts.values()
    for subject, seed in product(study.tasks, study.seeds):
        start = starts[subject.name, seed]
        yield from _scores(study, subject, seed, start)
        yield from _scratch(study, subject, seed)
        for arm, ratio, name in product(study.arms, study.ratios, study.heuristics):
            cell = {"task": subject.name, "seed": seed, "arm": arm.name, "ratio": ratio, "heuristic": name}
            recipe = recipe_of(subject, seed, arm.filled(name, study.measure, ratio))
            yield Job("arm", cell, recipe, {"epochs": arm.epochs}, start, study.split)


def _scores(study: Heuristics, subject: Subject, seed: int, start: Job) -> Iterator[Job]:
    """Yield one job a heuristic: how it ranks the dense network's units."""
    batches = _prune(study.arms[0]).score_batches
    for name in study.heuristics:
        cell = {"task": subject.name, "seed": seed, "heuristic": name}
        yield Job("scores", cell, recipe_of(subject, seed, ()), {"criterion": name, "score_batches": batches}, start)


def _scratch(study: Heuristics, subject: Subject, seed: int) -> Iterator[Job]:
    """Yield the controls: the small network, its fresh weights drawn as the dense one's, trained from scratch.

        scratch-E: epochs(dense) + epochs(arm)               as many epochs as any arm has seen
        scratch-B: epochs(dense) / ratio + epochs(arm)       as many multiply-accumulates as well

    *Source*: Liu et al., Rethinking the value of network pruning, ICLR 2019, arXiv:1810.05270, section 3.
    *Differs*: (1) the arms' fine-tuning counts, as the paper's own budget leaves it out to the arms' favour; (2) which
    of the dense network's fresh units are kept is drawn by chance, and their initial scale is the dense network's.
    """
    epochs = subject.train.epochs
    fresh = subject.model_copy(update={"weights": ""})
    for ratio in study.ratios:
        cut = _shape(study.arms[0], study.measure, ratio)
        for name, before in zip(SCRATCH, (epochs, epochs / ratio), strict=True):
            total = round(before) + study.arms[0].epochs
            training = Finetune.model_validate({**subject.train.model_dump(exclude={"kind"}), "epochs": total})
            cell = {"task": subject.name, "seed": seed, "arm": name, "ratio": ratio}
            yield Job("scratch", cell, recipe_of(fresh, seed, (cut, training)), {"epochs": total}, split=study.split)


def _shape(arm: Arm, measure: str, ratio: float) -> AnyStep:
    """Return a prune step to the same widths, by chance, without anything that mends or trains."""
    prune = _prune(arm)
    return Prune.model_validate(
        {measure: ratio, "criterion": RANDOM, **{name: getattr(prune, name) for name in _SHAPE}}
    )


def _prune(arm: Arm) -> Prune:
    return next(step for step in arm.steps if isinstance(step, Prune))
