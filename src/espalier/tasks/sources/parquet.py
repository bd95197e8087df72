"""A folder of Parquet files: train.parquet and test.parquet (or several shards, train*.parquet), as hubs serve them.

What validation there is not (val*.parquet) is set aside from training: the last tenth of the rows in the order of
``numpy.random.default_rng(0).permutation``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ...core import FileError
from ..splits import Splits
from .tables import splits_of

CAMVID_NAMES = (
    "sky",
    "building",
    "pole",
    "road",
    "pavement",
    "tree",
    "sign",
    "fence",
    "car",
    "pedestrian",
    "bicyclist",
)


def read(path: Path, image_size: int | None) -> Splits:
    """Return train, validation and test."""
    return splits_of(str(path), _tables(path), image_size)


def camvid(path: Path, image_size: int | None) -> Splits:
    """Return CamVid in eleven classes and one label, 11, for what is of none.

    Source: Brostow et al., "Semantic object classes in video", Pattern Recognition Letters 2009; the classes of
    Badrinarayanan et al., arXiv:1511.00561.
    """
    return splits_of(str(path), _tables(path), image_size, CAMVID_NAMES, void=len(CAMVID_NAMES))


def has_tables(folder: Path) -> bool:
    """Say whether a folder has Parquet files to train on."""
    return any(folder.glob("train*.parquet"))


def _tables(path: Path) -> dict[str, Any]:
    tables = {split: _table(path, split) for split in ("train", "val", "test")}
    for split in ("train", "test"):
        if tables[split] is None:
            raise FileError(f"{path} has no {split}.parquet")
    return {split: table for split, table in tables.items() if table is not None}


def _table(folder: Path, split: str) -> Any:
    """Read one split's files, in the order of their names; None when there are none."""
    files = sorted(folder.glob(f"{split}*.parquet"))
    if not files:
        return None
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise FileError(f"{folder} needs pyarrow: pip install 'espalier[data]'") from error
    try:
        return pyarrow.concat_tables(parquet.read_table(file) for file in files)
    except (pyarrow.ArrowException, OSError) as error:
        reason = str(error).split("\n")[0]
        raise FileError(f"{folder}: {split}*.parquet cannot be read: {reason}") from error
