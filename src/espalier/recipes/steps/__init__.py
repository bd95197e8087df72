"""The steps of a recipe, one a file: plain data, so that the command line costs no import of torch.

Adding a step: a file here, a file of the same name in ``stages`` that does it, and a line in both ``__init__``.
"""

from typing import Annotated

from pydantic import Field

from .base import Step
from .binarize import Binarize
from .cluster import Cluster
from .distill import Distill
from .encode import Encode
from .export import Export
from .finetune import Finetune
from .measure import Measure
from .prune import Prune
from .quantize import Quantize
from .recover import Recover
from .save import Save
from .sparsify import Sparsify
from .train import Train
from .training import Training

AnyStep = Annotated[
    Train
    | Prune
    | Sparsify
    | Cluster
    | Recover
    | Finetune
    | Distill
    | Quantize
    | Binarize
    | Measure
    | Save
    | Encode
    | Export,
    Field(discriminator="kind"),
]

STEPS: dict[str, type[Step]] = {
    "train": Train,
    "prune": Prune,
    "sparsify": Sparsify,
    "cluster": Cluster,
    "quantize": Quantize,
    "recover": Recover,
    "finetune": Finetune,
    "distill": Distill,
    "binarize": Binarize,
    "measure": Measure,
    "save": Save,
    "encode": Encode,
    "export": Export,
}

__all__ = [
    "STEPS",
    "AnyStep",
    "Binarize",
    "Cluster",
    "Distill",
    "Encode",
    "Export",
    "Finetune",
    "Measure",
    "Prune",
    "Quantize",
    "Recover",
    "Save",
    "Sparsify",
    "Step",
    "Train",
    "Training",
]
