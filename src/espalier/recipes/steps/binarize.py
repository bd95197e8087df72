"""The step that leaves two or three values a weight."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import model_validator

from .base import Step
from .training import Training


class Binarize(Step):
    """Train the network with weights of two or three values; nothing may change its weights after it.

        binary_connect    -1 and +1                                                      (arXiv:1511.00363)
        binary_net        -1 and +1, and layers read the signs of what comes to them     (arXiv:1602.02830)
        xnor_net          -a and +a with one a a filter, and layers read scaled signs    (arXiv:1603.05279)
        trained_ternary   -W_n, 0 and W_p, which are learned                             (arXiv:1612.01064)

    xnor_net and trained_ternary leave the first and the last layer as they are. The network stays an ordinary module:
    what codes few values in few bits makes a smaller file of it, and ``espalier.packed`` a faster network.

    Costs: an epoch takes a few per cent more than one of ``train``; these networks need more epochs than others.
    """

    kind: Literal["binarize"] = "binarize"
    method: Literal["binary_connect", "binary_net", "xnor_net", "trained_ternary"] = "binary_connect"
    """whose algorithm"""
    options: dict[str, Any] = {}
    """{hyperparameter: value} of the method, where it is not to be its default"""
    keep: tuple[str, ...] = ()
    """names of layers that stay as they are; * and ? match"""
    only: tuple[str, ...] | None = None
    """binarise nothing but these"""
    ends: bool | None = None
    """whether the first and the last layer are meant too; the method's own answer when not given"""
    finetune: Training
    """the training that it happens in; adamw without weight decay, with a rate of 0.001 to 0.01, suits"""
    distill: bool = False
    """that training learns the dense network's softened answers too, as the step ``distill`` does by default; it costs
    a third more time"""

    @model_validator(mode="after")
    def _can_be(self) -> Self:
        from ...methods import MethodError, registry  # torch is imported for those who binarise, not for `--help`

        wrong = []
        try:
            registry.made(self.method, self.hyperparameters())
        except MethodError as error:
            wrong.append(str(error))
        twice = sorted(self.options.keys() & {"keep", "only", "ends"})
        if twice:
            wrong.append(f"{', '.join(twice)}: give them to the step, not in options")
        if not self.finetune.epochs:
            wrong.append("weights become binary while the network is trained: give finetune with at least one epoch")
        if self.finetune.ema_decay is not None:
            wrong.append("ema_decay: an average of binary weights is not binary; leave it out of finetune")
        if wrong:
            raise ValueError("; ".join(wrong))
        return self

    def hyperparameters(self) -> dict[str, Any]:
        """Return what the method is made with."""
        ends = {} if self.ends is None else {"ends": self.ends}
        return {**self.options, "keep": self.keep, "only": self.only, **ends}
