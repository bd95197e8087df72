"""Recipes: what to do to a network, as plain data; the only training loop; and runs, which survive anything.

What is imported here is plain data for files and the command line; what needs torch is imported from its file.
"""

from .files import RecipeError, checked, parse, read, schema, to_toml, write
from .recipe import Recipe
from .settings import Settings
from .steps import (
    STEPS,
    Binarize,
    Cluster,
    Distill,
    Encode,
    Export,
    Finetune,
    Measure,
    Prune,
    Quantize,
    Recover,
    Save,
    Sparsify,
    Step,
    Train,
    Training,
)

__all__ = [
    "STEPS",
    "Binarize",
    "Cluster",
    "Distill",
    "Encode",
    "Export",
    "Finetune",
    "Measure",
    "Prune",
    "Quantize",
    "Recipe",
    "RecipeError",
    "Recover",
    "Save",
    "Settings",
    "Sparsify",
    "Step",
    "Train",
    "Training",
    "checked",
    "parse",
    "read",
    "schema",
    "to_toml",
    "write",
]
