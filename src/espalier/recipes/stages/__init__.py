"""What the steps of a recipe do, a file a step. Each is ``do(step, name, work, state) -> state``.

A stage may be run again after a crash: it looks up what is done in ``work.checkpoints``, and everything else that it
does is a function of the recipe, of the state that it is given and of its name.
"""

from collections.abc import Callable
from typing import Any

from ..folders.checkpoints import Handle
from ..work import Work
from . import (
    binarize,
    cluster,
    distill,
    encode,
    export,
    finetune,
    measure,
    prune,
    quantize,
    recover,
    save,
    sparsify,
    train,
)

Stage = Callable[[Any, str, Work, Handle], Handle]

STAGES: dict[str, Stage] = {
    "train": train.do,
    "prune": prune.do,
    "sparsify": sparsify.do,
    "cluster": cluster.do,
    "quantize": quantize.do,
    "recover": recover.do,
    "finetune": finetune.do,
    "distill": distill.do,
    "binarize": binarize.do,
    "measure": measure.do,
    "save": save.do,
    "encode": encode.do,
    "export": export.do,
}

__all__ = ["STAGES", "Stage"]
