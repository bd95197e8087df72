"""Deep Compression on MNIST: three seeds of both LeNets by the ready recipes, beside the paper's table.

    python -m benchmarks.deep_compression [--networks 300 5] [--seeds 0 1 2] [--data FOLDER] [--table]

Sizes are those of the file system: model.esp against four bytes a parameter. All was chosen on validation; a run reads
the test split once, for the dense network and the small one together, after the last epoch. A run that was stopped goes
on; finished ones are read from their folders, so that several processes may share the work.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterable
from pathlib import Path

import espalier as es
from espalier.core.run import Run
from espalier.recipes import Recipe, named, read
from espalier.recipes.folders.folder import RUN, read_run

EXAMPLES = Path(__file__).parents[1] / "examples"
RESULTS = Path("runs") / "bench-deep-compression"
RECIPES = {"300": "lenet-deep-compression.toml", "5": "lenet5-deep-compression.toml"}
NAMES = {"300": "LeNet-300-100", "5": "LeNet-5"}
# arXiv:1510.00149: table 1, and of tables 2 and 3 the share kept and the compression with and without Huffman's code.
PAPER = {
    "300": "LeNet-300-100  kept  8 %, 6 bits, 32 x; with Huffman 40 x: 1,070 to 27 KB; error 1.64 to 1.58 %",
    "5": "LeNet-5        kept  8 %, 8 and 5 bits, 33 x; with Huffman 39 x: 1,720 to 44 KB; error 0.80 to 0.74 %",
}


def data_folder() -> Path:
    """Return where MNIST is: ESPALIER_DATA, or ../shared/data beside the repository."""
    return Path(os.environ.get("ESPALIER_DATA", Path(__file__).parents[2] / "shared" / "data")) / "mnist"


def recipe_of(network: str, seed: int, data: Path) -> Recipe:
    """Return a ready recipe with this seed and these data."""
    return read(EXAMPLES / RECIPES[network]).model_copy(update={"seed": seed, "data": f"mnist:{data}"})


def finished(folder: Path) -> Run | None:
    """Return the run of a folder where it has ended."""
    run = read_run(folder) if (folder / RUN).exists() else None
    return run if run is not None and run.status == "finished" else None


def run_of(network: str, seed: int, data: Path, results: Path) -> Run:
    """Return a finished run, made or gone on with where it is not."""
    folder = results / f"{network}-seed{seed}"
    known = finished(folder)
    if known is not None:
        return known
    recipe = recipe_of(network, seed, data)
    task = named.load(recipe)
    if (folder / RUN).exists():
        return es.resume(folder, task=task).run
    return es.compress(named.build(recipe, task), task, recipe, folder=folder).run


def stages(run: Run) -> Iterable[str]:
    """Yield the lines of a run's table of stages."""
    for row in run.coded:
        bits = f"{row.bits:4.1f}" if row.bits is not None else "  32"
        score = "" if row.score is None else f"{100 - 100 * row.score:5.2f} % validation error"
        yield (
            f"    {row.stage:11} kept {100 * row.kept / row.weights:5.1f} %  {bits} bits  {row.bytes:>9,} bytes  "
            f"{row.dense_bytes / row.bytes:6.1f} x  {score}"
        )
    for one in run.coded_tensors:
        share = 100 * one.kept / one.weights
        yield (
            f"      {one.name:13} {one.weights:>7,} weights, kept {share:5.1f} %, {one.values:3} values, "
            f"{8 * one.bytes / max(one.kept, 1):5.2f} bits each with its place, {one.bytes:>6,} bytes"
        )


def summary(network: str, runs: list[Run]) -> str:
    """Return both errors on the test split and the ratio, a seed and in the mean."""
    errors = [(100 - 100 * (r.before.accuracy or 0), 100 - 100 * (r.after.accuracy or 0)) for r in runs]
    ratios = [r.coded[-1].dense_bytes / r.coded[-1].bytes for r in runs]
    each = "; ".join(f"{a:.2f} to {b:.2f} %, {x:.1f} x" for (a, b), x in zip(errors, ratios, strict=True))
    means = [sum(column) / len(runs) for column in zip(*errors, strict=True)]
    return (
        f"{NAMES[network]:14} test error {means[0]:.2f} to {means[1]:.2f} %, {sum(ratios) / len(ratios):.1f} x in the "
        f"mean ({each})\n  the paper: {PAPER[network]}"
    )


def main() -> None:
    """Run what is not there yet, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", choices=list(RECIPES), default=list(RECIPES))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--data", type=Path, default=data_folder())
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--table", action="store_true", help="only print what is there")
    given = parser.parse_args()
    for network in given.networks:
        runs = []
        for seed in given.seeds:
            folder = given.results / f"{network}-seed{seed}"
            run = finished(folder) if given.table else run_of(network, seed, given.data, given.results)
            if run is not None:
                runs.append(run)
                print(f"{NAMES[network]}, seed {seed}", *stages(run), sep="\n", flush=True)
        if runs:
            print(summary(network, runs), flush=True)


if __name__ == "__main__":
    main()
