"""Overhead of the training loop over a bare PyTorch loop: the same network, data, optimizer and schedule, in turns.

    python -m benchmarks.loop [--model espalier:cifar_resnet20] [--batch 128] [--steps 20] [--rounds 9]

The bare loop is what one writes by hand: forward, loss, backward, step, zero_grad, a learning rate a step. Rounds of
(bare, ours), (ours, bare), ... on the same batches; reported is the median of the ratios within a round, of processor
time, which other work on the machine stretches less than the clock's.
"""

from __future__ import annotations

import argparse
import copy
import math
import time

import torch
from torch import nn
from torch.nn import functional

import espalier as es
from espalier.measure.latency import median_interval
from espalier.recipes import Training
from espalier.recipes.training.learner import Learner
from espalier.recipes.training.lesson import Lesson
from espalier.recipes.training.loop import train
from espalier.recipes.training.optimizers import new_optimizer
from espalier.recipes.training.state import State
from espalier.tasks import Task

Batches = list[tuple[torch.Tensor, torch.Tensor]]


def main() -> None:
    """Race the loops and print one line."""
    line = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    line.add_argument("--model", default="espalier:cifar_resnet20")
    line.add_argument("--batch", type=int, default=128)
    line.add_argument("--steps", type=int, default=20)
    line.add_argument("--rounds", type=int, default=9)
    options = line.parse_args()
    torch.manual_seed(0)
    model = es.model(options.model)
    shape = es.default_example(model, options.model).shape[1:]
    data = [(torch.randn(options.batch, *shape), torch.randint(10, (options.batch,))) for _ in range(options.steps)]
    training = Training(epochs=1, lr=0.01)
    task = Task("random", data, data[:1], data[:1], classes=10, input_shape=tuple(shape))
    ratios, seconds = [], []
    for turn in range(options.rounds + 1):
        found = {}
        for who in ("bare", "ours") if turn % 2 == 0 else ("ours", "bare"):
            found[who] = bare(model, data, training) if who == "bare" else ours(model, task, training)
        if turn:  # the first round warms up
            ratios.append(found["ours"] / found["bare"])
            seconds.append(found["bare"] / options.steps)
    low, middle, high = median_interval(ratios)
    print(
        f"{options.model}, batch {options.batch}, {torch.get_num_threads()} thread(s): bare "
        f"{1e3 * sorted(seconds)[len(seconds) // 2]:.1f} ms a step; ours takes {middle:.4f} of it "
        f"[{low:.4f}, {high:.4f}], {options.rounds} interleaved rounds of {options.steps} steps"
    )


def bare(model: nn.Module, data: Batches, training: Training) -> float:
    """Train by hand and return the seconds; the evaluation at the end is part of both loops."""
    own = copy.deepcopy(model)
    optimizer = new_optimizer(own, training)
    start = time.process_time()
    own.train()
    for step, (inputs, targets) in enumerate(data):
        progress = (step + 1) / len(data)
        for group in optimizer.param_groups:
            group["lr"] = training.lr * (1 + math.cos(math.pi * progress)) / 2
        loss = functional.cross_entropy(own(inputs), targets)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        loss.item()  # everybody prints it
    own.eval()
    with torch.no_grad():
        own(data[0][0]).argmax(1).eq(data[0][1]).sum().item()
    return time.process_time() - start


def ours(model: nn.Module, task: Task, training: Training) -> float:
    """Train by the loop and return the seconds."""
    learner = Learner.of(State(model), training)
    lesson = Lesson(task=task, training=training, stage="benchmark", seed=0)
    start = time.process_time()
    train(learner, lesson)
    return time.process_time() - start


if __name__ == "__main__":
    main()
