"""The jobs of a study of lottery tickets, and how a worker does one.

    m_0 = 1,    theta^0 = train(theta_0)
    m_k = m_{k-1} less the smallest |theta^{k-1}| of its survivors, so that (1 - p)^(k / n) of all weights are left
    theta^k = train(m_k * theta_0)                                     the ticket, from which round k + 1 goes on

    fine-tuned       train(m_k * theta^{k-1})  at a lower rate         re-initialised   train(m_k * theta_0')
    random mask      train(m_k' * theta_0),    m_k' is m_k shuffled within each tensor

*Source*: Frankle and Carbin, The lottery ticket hypothesis, ICLR 2019, arXiv:1803.03635, section 1 and appendix B
(resetting at each round), its controls of sections 2 and 3; the fine-tuned arm is that of Liu et al., Rethinking the
value of network pruning, ICLR 2019, arXiv:1810.05270. *Differs*: (1) biases are never masked; (2) all arms of a round
see the same batches in the same order; (3) the fine-tuned arm begins from the weights that its mask was chosen by.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from itertools import product
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ...graph import save
from ...graph.mask_files import read_masks, write_masks
from ...graph.masks import Masks, mask_
from ...recipes import Recipe, chance, named
from ...recipes.steps import Training
from ...recipes.training.learner import Learner
from ...recipes.training.lesson import Lesson
from ...recipes.training.loop import train
from ...recipes.training.state import State
from ...selection.sparsity import Sparsity, aimed, choose_masks
from ...tasks import Task
from ..jobs import Job, dense_job, recipe_of
from ..study import Subject
from ..work import DENSE, built, task_of
from .study import ARMS, FINETUNED, FRESH, RANDOM_MASK, TICKET, Lottery

_TRAINING = set(Training.model_fields)


def jobs_of(study: Lottery) -> Iterator[Job]:
    """Yield everything that the study needs; a round waits for the ticket of the round before."""
    for subject in study.tasks if study.layers or study.keep else ():
        _check(study, subject)
    for subject, seed in product(study.tasks, study.seeds):
        start = dense_job(subject, seed, study.split)
        yield start
        for number in range(1, study.rounds + 1):
            made = {arm: _job(study, subject, start, arm, number) for arm in ARMS}
            yield from made.values()
            start = made[TICKET]


def _check(study: Lottery, subject: Subject) -> None:
    """See that every pattern names a weight, before hours of training.

    Raises:
        UnknownNameError: one does not.
    """
    recipe = recipe_of(subject, study.seeds[0], ())
    network = named.build(recipe, task_of(recipe))
    aimed(network, Sparsity(overall=study.sparsity, layers=study.layers, keep=study.keep))


def _job(study: Lottery, subject: Subject, start: Job, arm: str, number: int) -> Job:
    seed = start.recipe.seed
    power = number / study.rounds
    shares = {name: 1 - (1 - share) ** power for name, share in study.layers.items()}
    training = subject.train.model_dump(mode="json", include=_TRAINING)
    if arm == FINETUNED:
        training["lr"] *= study.finetune_lr_ratio
    options = {
        "arm": arm,
        "round": number,
        "target": {"overall": 1 - (1 - study.sparsity) ** power, "layers": shares, "scope": study.scope},
        "keep": list(study.keep),
        "training": training,
    }
    cell = {"task": subject.name, "seed": seed, "arm": arm, "round": number}
    return Job("lottery", cell, recipe_of(subject, seed, ()), options, start, study.split)


def do(payload: Mapping[str, Any]) -> dict[str, Any]:
    """Mask, begin as the arm says, train, and measure; leave a ticket for the next round."""
    recipe, trained, task = built(payload)
    options = payload["options"]
    seed = chance.derived(recipe.seed, "lottery", options["round"])
    earlier = _masks_beside(Path(recipe.weights))
    if earlier.exists():
        mask_(trained, read_masks(earlier))
    masks = choose_masks(trained, Sparsity(**options["target"], keep=tuple(options["keep"])))
    network, masks = begun(options["arm"], trained, masks, (recipe, task, seed))
    mask_(network, masks)
    curve = _taught(network, task.new_run(), seed, options)
    name = _left(payload, network, masks) if options["arm"] == TICKET else None
    score = task.new_run().test_once({"ticket": network})["ticket"] if payload["split"] == "test" else None
    return {
        "test": score,
        "validation": curve[-1],
        "curve": curve,
        "density": masks.density,
        "layers": {name: float(mask.float().mean()) for name, mask in masks.kept.items()},
        **({"file": name} if name else {}),
    }


def begun(arm: str, trained: nn.Module, masks: Masks, where: tuple[Recipe, Task, int]) -> tuple[nn.Module, Masks]:
    """Return the network that an arm begins with, not masked yet, and its masks.

    Args:
        arm: of ``ARMS``.
        trained: what the masks were chosen by.
        masks: of the ticket.
        where: recipe, task and seed: of the job, and of what is random in it.
    """
    recipe, task, seed = where
    if arm == FINETUNED:
        return copy.deepcopy(trained), masks
    fresh = chance.derived(seed, "fresh") if arm == FRESH else recipe.seed
    network = named.build(recipe.model_copy(update={"weights": "", "seed": fresh}), task)
    return network, shuffled(masks, seed) if arm == RANDOM_MASK else masks


def shuffled(masks: Masks, seed: int) -> Masks:
    """Return random masks that leave as many weights of each tensor."""
    generator = torch.Generator().manual_seed(seed)
    return Masks(
        {
            name: mask.flatten()[torch.randperm(mask.numel(), generator=generator)].view(mask.shape)
            for name, mask in masks.kept.items()
        }
    )


def _taught(network: nn.Module, task: Task, seed: int, options: Mapping[str, Any]) -> list[float]:
    """Train a masked network, and return its accuracy on validation after each epoch."""
    training = Training.model_validate(options["training"])
    chance.seed_all(seed)
    learner = Learner.of_own(State(network), training)
    position = train(learner, Lesson(task=task, training=training, stage="lottery", seed=seed))
    learner.result(training.epochs)  # the average of the weights, where one is asked for
    return [asdict(epoch)["accuracy"] for epoch in position.history]


def _left(payload: Mapping[str, Any], network: nn.Module, masks: Masks) -> str:
    """Write a trained ticket and its masks where the next round finds them; return the file's name in the folder."""
    path = Path(payload["folder"], DENSE, f"{payload['key']}.safetensors")
    write_masks(masks, _masks_beside(path))
    save(network, path)
    return f"{DENSE}/{path.name}"


def _masks_beside(path: Path) -> Path:
    """Return the file of the masks of a network's file; a dense network has none."""
    return path.with_suffix(".masks.safetensors")
