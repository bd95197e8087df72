"""Packages that are extras: imported when asked for, and named when they are not there."""

from importlib import import_module
from importlib.util import find_spec
from typing import Any

from ...core import ModelError, cause
from .torchvision_operators import declare


def collection(package: str) -> Any:
    """Import a package that keeps models.

    Raises:
        ModelError: it is not installed, or does not import.
    """
    if find_spec(package) is None:
        raise ModelError(f"{package} is not installed; it comes with the extra 'zoo': pip install 'espalier[zoo]'")
    declare()
    try:
        return import_module(package)
    except (ImportError, OSError, RuntimeError) as error:
        raise ModelError(f"{package} is installed but does not import: {cause(error)}") from error
