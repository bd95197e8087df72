"""ResNet-20 and ResNet-56 on real CIFAR-10 at fewer MACs: ours against torch-pruning, with the same training.

    python -m benchmarks.cifar [--networks 20 56] [--ratios 2.6 5 2.1] [--seeds 0 1 2] [--epochs 5] [--only ours ...]
    python -m benchmarks.cifar --table

Arms are in ``cifar_arms``. Each finished run is a row in the results folder: a benchmark that was stopped goes on where
it was, several processes share the work, and --table prints what there is. The order: ResNet-20 at 2.6 and 5, seed by
seed, then the rest. The baselines saw none of the validation images; all choices were made on those, with another seed.
The test split is read once a run, after the last epoch.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import torch

import espalier as es

from .cifar_arms import ARMS, Bench, Item, Place, setup
from .cifar_results import DENSE, Ledger, Row, report

DATA = Path(__file__).parents[1] / ".." / "shared" / "data"
RESULTS = Path("runs") / "bench-cifar"
BATCH = 128
WAIT_SECONDS = 20.0  # between looks at what another process has in hand


def main() -> None:
    """Do what is not done, and print the tables."""
    options = parsed()
    torch.set_num_threads(options.threads)
    ledger = Ledger(options.results)
    items = order(options.networks, options.ratios, options.only, options.seeds, options.epochs)
    if not options.table:
        place = Place(options.data, options.results, torch.device(options.device))
        work(items, ledger, place)
    wanted = {key(item) for item in items}
    print(report(row for row in ledger.rows() if row.key in wanted))


def parsed() -> argparse.Namespace:
    """Return the options."""
    line = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    line.add_argument("--networks", type=int, nargs="+", default=[20, 56])
    line.add_argument("--ratios", type=float, nargs="+", default=[2.6, 5.0, 2.1])
    line.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    line.add_argument("--epochs", type=int, default=5)
    line.add_argument("--only", nargs="+", choices=list(ARMS), default=list(ARMS), metavar="ARM")
    line.add_argument("--data", type=Path, default=DATA)
    line.add_argument("--results", type=Path, default=RESULTS, help="folder")
    line.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    line.add_argument("--threads", type=int, default=1)
    line.add_argument("--table", action="store_true", help="only print what there is")
    return line.parse_args()


def order(networks: list[int], ratios: list[float], arms: list[str], seeds: list[int], epochs: int) -> list[Item]:
    """Return the work: network by network; the first two ratios seed by seed, then the dense arm, then other ratios."""
    pruning = [arm for arm in arms if arm != DENSE]
    items: list[Item] = []
    for network in networks:
        first, rest = (
            [Item(network, ratio, arm, seed, epochs) for seed in seeds for arm in pruning for ratio in few]
            for few in (ratios[:2], ratios[2:])
        )
        dense = [Item(network, 1.0, DENSE, seed, epochs) for seed in seeds if DENSE in arms]
        items += [*first, *dense, *rest]
    return items


def work(
    items: list[Item],
    ledger: Ledger,
    place: Place,
    how: tuple[Callable[..., Row], Callable[[Item], tuple]] | None = None,
) -> None:
    """Do the items that nobody has done or has in hand, and come back to those that others had.

    ``how`` is what does one (item, place) and what its row's key is; this benchmark's own when None.
    """
    do, named = how or (one, key)
    waiting = items
    while waiting:
        later = []
        for item in waiting:
            if named(item) in done(ledger):
                continue
            with ledger.claim(claim(item)) as free:
                if not free:
                    later.append(item)
                elif named(item) not in done(ledger):
                    row = do(item, place)
                    ledger.add(row)
                    print(f"{time.strftime('%H:%M:%S')} {line(row)}", flush=True)
        waiting = later
        if waiting:
            time.sleep(WAIT_SECONDS)


def done(ledger: Ledger) -> set[tuple]:
    """Return the keys of what is finished."""
    return {row.key for row in ledger.rows()}


def key(item: Item) -> tuple:
    """Return the key of an item's row."""
    return (item.network, item.ratio, item.arm, item.seed, item.epochs, setup(item))


def claim(item: Item) -> str:
    """Return the name of the claim: runs that share a sparsely trained network share one."""
    parts = [item.network, item.arm, item.seed, item.epochs]
    return "-".join(str(part) for part in (parts if item.arm == "group_norm" else [*parts, item.ratio]))


def one(item: Item, place: Place) -> Row:
    """Run an arm and measure what it leaves."""
    begun = time.perf_counter()
    task = es.load_task(f"parquet:{place.data / 'cifar10'}", batch_size=BATCH, seed=item.seed)
    weights = place.data / "weights" / f"cifar10-resnet{item.network}.safetensors"
    dense = es.model(f"espalier:cifar_resnet{item.network}", weights=weights).requires_grad_(True)
    dense_macs = es.trace(dense, task.example()).cost().macs
    torch.manual_seed(item.seed)
    outcome = ARMS[item.arm][0](Bench(item, task, dense, place))
    cost = es.trace(outcome.model, task.example()).cost()
    return Row(
        **vars(item),
        setup=setup(item),
        macs=cost.macs,
        dense_macs=dense_macs,
        params=cost.params,
        validation=task.evaluate(outcome.model, task.validation),
        test=outcome.test,
        seconds=time.perf_counter() - begun,
        machine=f"{place.device.type}, {torch.get_num_threads()} threads",
    )


def line(row: Row) -> str:
    """Return a row in words."""
    return (
        f"ResNet-{row.network} /{row.ratio:g} {row.arm} seed {row.seed}: {row.dense_macs / row.macs:.3f} times fewer "
        f"MACs, validation {100 * row.validation:.2f} %, test {100 * row.test:.2f} %, {row.seconds:.0f} s"
    )


if __name__ == "__main__":
    main()
