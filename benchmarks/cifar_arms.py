"""The arms of the CIFAR-10 benchmark: ours, three of torch-pruning 1.6.1, and the dense network.

Every arm sees the same epochs of the same batches (order and augmentation follow from the seed), with the optimizer,
schedule and precision of ``training``, in the product's one loop. The peers are set up as their own reproduction script
sets them up for CIFAR-10, outputs left alone, 400 small steps until the budget, with two differences in their favour:
every group loses the same share (their default; the script compares all groups, which is worse for each of them here
on validation), and the last network that is not below the budget is taken. Their group-norm arm trains sparsely at full
width first (no weight decay, regularisation 5e-4, importance normalised by its maximum), and those epochs count. The
shortcuts' 0/1 kernels are trained in all arms: the peer's cut makes them trainable.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

import espalier as es
from espalier.core.atomic import replacing
from espalier.engines.engine import Alone
from espalier.recipes import Distill, Measure, Prune, Recipe, Training
from espalier.recipes.training.learner import Learner
from espalier.recipes.training.lesson import Lesson
from espalier.recipes.training.loop import train
from espalier.recipes.training.state import State
from espalier.tasks import Task

LR = 0.02
PEER_STEPS = 400  # of their iterative pruning, from all channels to none
SPARSE_REG = 5e-4  # their group-norm pruner's, for CIFAR-10


@dataclass(frozen=True)
class Item:
    """One run.

    Attributes:
        network: its layers.
        ratio: how many times fewer MACs are asked for; 1 for the dense arm.
        arm: a name in ``ARMS``.
        seed: of data order, augmentation and all else.
        epochs: in all.
    """

    network: int
    ratio: float
    arm: str
    seed: int
    epochs: int


@dataclass(frozen=True)
class Place:
    """Where runs find and leave things: the data, the folder of results, and the device that trains."""

    data: Path
    results: Path
    device: torch.device


@dataclass(frozen=True)
class Bench:
    """What an arm works with: which run, the task with its seed, and the dense network, which is its own to change."""

    item: Item
    task: Task
    dense: nn.Module
    place: Place

    @property
    def brief(self) -> Task:
        """The task with one batch for validation: no arm chooses by it, so its whole is read once, after training."""
        return replace(self.task, validation=[next(iter(self.task.validation))])

    @property
    def budget(self) -> float:
        """The MACs of the dense network over the ratio."""
        return es.trace(self.dense, self.task.example()).cost().macs / self.item.ratio


@dataclass(frozen=True)
class Outcome:
    """A network, and its accuracy on the test split in [0, 1]."""

    model: nn.Module
    test: float


def training(epochs: int, **changes: Any) -> Training:
    """Return what all arms train with, for a stretch of some epochs."""
    common = Training(epochs=epochs, lr=LR, precision="bfloat16", channels_last=True)
    return common.model_copy(update=changes)


def sparse_epochs(epochs: int) -> int:
    """Return how many of all epochs the group-norm arm trains sparsely at full width."""
    return max(1, round(0.4 * epochs))


def recipe(item: Item) -> Recipe:
    """Return ours: the L2 norm of groups, compared among those of one shape; least squares; the dense one's answers."""
    prune = Prune(macs=1 / item.ratio, criterion="magnitude", strategy="isomorphic", recover=("least_squares",))
    distill = Distill(**training(item.epochs).model_dump())
    return Recipe(steps=(prune, distill, Measure(latency=False)), seed=item.seed)


def ours(bench: Bench) -> Outcome:
    """Compress by the recipe, which reads the test split at its end."""
    result = es.compress(bench.dense, bench.brief, recipe(bench.item))
    assert result.run.after is not None and result.run.after.accuracy is not None
    return Outcome(result.model, result.run.after.accuracy)


def dense(bench: Bench) -> Outcome:
    """Train the dense network on."""
    return tested(bench, trained(bench, bench.dense, training(bench.item.epochs)))


def magnitude(bench: Bench) -> Outcome:
    """Prune by the L1 norm of groups, and fine-tune."""
    import torch_pruning as peer

    pruner = peer.pruner.BasePruner(importance=peer.importance.MagnitudeImportance(p=1), **options(bench))
    small = pruned(bench.dense, pruner, bench)
    return tested(bench, trained(bench, small, training(bench.item.epochs)))


def bn_scale(bench: Bench) -> Outcome:
    """Prune by batch norms' scales, and fine-tune; without their sparse training, whose 1e-5 does nothing so soon."""
    import torch_pruning as peer

    pruner = peer.pruner.BNScalePruner(importance=peer.importance.BNScaleImportance(), **options(bench))
    small = pruned(bench.dense, pruner, bench)
    return tested(bench, trained(bench, small, training(bench.item.epochs)))


def group_norm(bench: Bench) -> Outcome:
    """Train sparsely, prune by the L2 norm of groups, and fine-tune for the epochs that are left."""
    import torch_pruning as peer

    importance = peer.importance.GroupMagnitudeImportance(p=2, normalizer="max")
    pruner = peer.pruner.GroupNormPruner(importance=importance, reg=SPARSE_REG, **options(bench))
    first = sparse_epochs(bench.item.epochs)
    budget = bench.budget
    sparsely_trained(bench, pruner, first)
    small = pruned(bench.dense, pruner, bench, budget)
    return tested(bench, trained(bench, small, training(bench.item.epochs - first), first_epoch=first))


ARMS: dict[str, tuple[Callable[[Bench], Outcome], str]] = {
    "ours": (ours, ""),
    "magnitude": (magnitude, "group L1"),
    "bn_scale": (bn_scale, "BN scale, no sparse training"),
    "group_norm": (group_norm, f"group L2 normalised by the maximum, sparse training with {SPARSE_REG}"),
    "dense": (dense, ""),
}


def setup(item: Item) -> str:
    """Return in words how an arm is run: results of another setup are not its results."""
    if item.arm == "ours":
        return recipe(replace(item, seed=0)).model_dump_json(exclude_defaults=True)
    return f"{ARMS[item.arm][1]}; {training(item.epochs).model_dump_json(exclude_defaults=True)}"


def options(bench: Bench) -> dict[str, Any]:
    """Return what all of the peer's pruners are given; groups are cut alike, which is its default."""
    return {
        "model": bench.dense,
        "example_inputs": bench.task.example(1),
        "global_pruning": False,
        "pruning_ratio": 1.0,
        "iterative_steps": PEER_STEPS,
        "ignored_layers": [bench.dense.linear],
    }


def pruned(model: nn.Module, pruner: Any, bench: Bench, budget: float | None = None) -> nn.Module:
    """Let the peer prune step by step and group by group, and return the last network that is not below the budget."""
    budget = bench.budget if budget is None else budget
    example = bench.task.example(1)
    model.eval()
    while pruner.current_step < PEER_STEPS:
        for group in pruner.step(interactive=True):
            before = copy.deepcopy(model)
            group.prune()
            if macs(model, example) < budget:
                return before
    return model


def macs(model: nn.Module, example: torch.Tensor) -> int:
    """Return the multiply-accumulates of one forward pass, quickly; what is reported is counted by the trace."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(example)
    return counter.get_total_flops() // 2


def sparsely_trained(bench: Bench, pruner: Any, epochs: int) -> None:
    """Train the dense network in place with the pruner's regularisation, or load what did; one serves all ratios."""
    item = bench.item
    path = bench.place.results / f"sparse-{item.network}-{item.seed}-{epochs}-{LR}-{SPARSE_REG}.safetensors"
    if not path.exists():
        # no weight decay beside it, as in their script
        trained(bench, bench.dense, training(epochs, weight_decay=0.0), regularise=pruner.regularize)
        with replacing(path) as temporary:
            save_file({name: t.contiguous() for name, t in bench.dense.state_dict().items()}, temporary)
    bench.dense.load_state_dict(load_file(path))


def trained(
    bench: Bench,
    model: nn.Module,
    how: Training,
    *,
    first_epoch: int = 0,
    regularise: Callable[[nn.Module], Any] | None = None,
) -> nn.Module:
    """Train a network in place by the product's loop; ``regularise`` changes gradients before each step."""
    learner, engine = Learner.of_own(State(model), how), Alone(bench.place.device)
    if regularise is not None:
        learner.optimizer.register_step_pre_hook(lambda *_: regularise(model))
    learner.spread(engine)
    lesson = Lesson(
        task=bench.brief,
        training=how,
        stage=bench.item.arm,
        seed=bench.item.seed,
        first_epoch=first_epoch,
        engine=engine,
    )
    train(learner, lesson)
    learner.gathered(engine)
    return learner.model


def tested(bench: Bench, model: nn.Module) -> Outcome:
    """Read the test split."""
    return Outcome(model, bench.task.test_once({"small": model})["small"])
