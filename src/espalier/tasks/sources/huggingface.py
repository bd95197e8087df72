"""Hugging Face datasets: what ``save_to_disk`` wrote, or a ``DatasetDict`` in memory. Nothing is downloaded."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...core import FileError
from ..splits import Splits
from .tables import splits_of

_VALIDATION = ("validation", "valid", "val", "dev")


def read(path: Path, image_size: int | None) -> Splits:
    """Return train, validation and test of a saved ``DatasetDict``."""
    try:
        from datasets import load_from_disk  # type: ignore[attr-defined]
    except ImportError as error:
        raise FileError(f"{path} needs the package datasets: pip install 'espalier[huggingface]'") from error
    try:
        found = load_from_disk(str(path))
    except (OSError, ValueError, KeyError) as error:
        raise FileError(f"{path} is not what datasets' save_to_disk writes: {error}") from error
    return splits(found, str(path), image_size)


def splits(found: Any, place: str, image_size: int | None = None) -> Splits:
    """Return the splits of a ``DatasetDict`` with train, test and perhaps validation.

    Where there is validation and no test, as hubs often have it, validation is the test split, and a tenth of training
    is set aside in its stead.
    """
    if not isinstance(found, Mapping) or "train" not in found:
        raise FileError(f"{place} holds {type(found).__name__}; a DatasetDict with train and test is needed")
    validation = next((found[name] for name in _VALIDATION if name in found), None)
    test = found.get("test")
    if test is None:
        validation, test = None, validation
    if test is None:
        raise FileError(f"{place} has train but neither test nor validation: it has {', '.join(found)}")
    datasets = {"train": found["train"], "val": validation, "test": test}
    tables = {split: _table(dataset) for split, dataset in datasets.items() if dataset is not None}
    return splits_of(place, tables, image_size, _class_names(found["train"]))


def is_datasets(found: Any) -> bool:
    """Say whether something is a ``DatasetDict``, without an import of the package."""
    return type(found).__module__.partition(".")[0] == "datasets" and isinstance(found, Mapping)


def _table(dataset: Any) -> Any:
    """Return the rows as one Arrow table; a selection of rows is carried out."""
    return dataset.with_format("arrow")[:]


def _class_names(dataset: Any) -> tuple[str, ...]:
    """Return the names of the only column that has any."""
    named = [feature.names for feature in dataset.features.values() if getattr(feature, "names", None)]
    return tuple(named[0]) if len(named) == 1 else ()
