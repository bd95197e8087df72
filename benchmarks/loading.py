"""What data costs: loading CIFAR-10, augmenting a batch, and the share of that in a training step of ResNet-20.

    python -m benchmarks.loading [--data ../shared/data/cifar10] [--repeats 100]

CPU seconds of one thread, the median of the repeats, batch 128. kornia is measured beside ours where it is installed.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib.util
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

import espalier as es
from espalier.tasks import Augment, Loader, Storage, Task
from espalier.tasks.augmentation.colour import recoloured
from espalier.tasks.augmentation.geometry import shifted

BATCH = 128


def main() -> None:
    """Print the three tables."""
    line = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    line.add_argument("--data", type=Path, default=Path("../shared/data/cifar10"))
    line.add_argument("--repeats", type=int, default=100)
    options = line.parse_args()
    torch.set_num_threads(1)
    task = loads(options.data)
    assert isinstance(task.train, Loader)
    operations(task.train, options.repeats)
    step(task, options.repeats)


def loads(data: Path) -> Task:
    """Load with an empty cache, from it, and return the task."""
    print("| loading | CPU s | wall s |\n|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for name in ("files decoded", "from the cache"):
            wall, cpu = time.perf_counter(), all_cpu()
            task = es.load_task(f"cifar10:{data}", batch_size=BATCH, storage=Storage(cache=Path(folder)))
            print(f"| {name} | {all_cpu() - cpu:.2f} | {time.perf_counter() - wall:.2f} |")
    return task


def all_cpu() -> float:
    """Return the CPU seconds of this process and its ended workers."""
    return sum(os.times()[:4])


def operations(train: Loader, repeats: int) -> None:
    """Time each augmentation of a batch."""
    indices = train.order(0)[0]
    images, targets = train.images[indices], train.targets[indices]
    floats, labels = images / 255, targets
    generator = torch.Generator().manual_seed(0)
    flip, places = torch.rand(BATCH) < 0.5, torch.randint(0, 9, (2, BATCH))

    def whole(augment: Augment) -> Callable[[], object]:
        loader = dataclasses.replace(train, augment=augment)
        return lambda: loader.batch(indices, 0, 0)

    rows: dict[str, Callable[[], object]] = {
        "pad 4, crop, flip": lambda: shifted(images, flip, places, 4),
        "colour 0.4": lambda: recoloured(floats, 0.4, generator),
        **peers(floats, labels),
        "whole batch: read, normalise": lambda: train.normalise(train.images[indices]),
        "whole batch: pad, crop, flip": whole(Augment(flip=True, pad=4)),
        "whole batch: and mixup": whole(Augment(flip=True, pad=4, mixup=0.2)),
        "whole batch: and CutMix": whole(Augment(flip=True, pad=4, cutmix=1.0)),
        "whole batch: random resized crop, flip": whole(Augment(flip=True, crop_area=(0.25, 1.0))),
    }
    print("\n| batch of 128 | CPU ms | images/s |\n|---|---|---|")
    for name, function in rows.items():
        seconds = median(function, repeats)
        print(f"| {name} | {1e3 * seconds:.2f} | {BATCH / seconds:,.0f} |", flush=True)


def peers(images: Tensor, targets: Tensor) -> dict[str, Callable[[], object]]:
    """Return kornia's counterparts where it is installed."""
    if importlib.util.find_spec("kornia") is None:
        return {}
    from kornia import augmentation as kornia

    moved = kornia.AugmentationSequential(
        kornia.RandomHorizontalFlip(), kornia.RandomCrop((32, 32), padding=4, cropping_mode="slice")
    )
    colour = kornia.ColorJitter(0.4, 0.4, 0.4, 0.0, p=1.0)
    return {"kornia: pad 4, crop, flip": lambda: moved(images), "kornia: colour 0.4": lambda: colour(images)}


def step(task: Task, repeats: int) -> None:
    """Time a training step of ResNet-20 as the recipes take it (bf16, channels last), without its batch."""
    model = es.model("espalier:cifar_resnet20").to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    inputs, targets = next(iter(task.train))
    inputs = inputs.to(memory_format=torch.channels_last)

    def one() -> None:
        with torch.autocast("cpu", torch.bfloat16):
            loss = task.loss(model(inputs), targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    assert isinstance(task.train, Loader)
    indices = task.train.order(0)[0]
    train = task.train
    plain = dataclasses.replace(train, augment=None)
    whole = median(one, max(5, repeats // 10))
    batch, bare = (median(lambda loader=loader: loader.batch(indices, 0, 0), repeats) for loader in (train, plain))
    print("\n| training step | CPU ms | share of the step |\n|---|---|---|")
    for name, seconds in (("ResNet-20", whole), ("its batch", batch), ("of which augmentation", batch - bare)):
        print(f"| {name} | {1e3 * seconds:.2f} | {seconds / whole:.2%} |")


def median(function: Callable[[], object], repeats: int) -> float:
    """Return the median CPU seconds of a call."""
    times = []
    for _ in range(repeats + 2):
        start = time.thread_time()
        function()
        times.append(time.thread_time() - start)
    return statistics.median(times[2:])


if __name__ == "__main__":
    main()
