"""The step that sets single weights to zero."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Literal, Self

from pydantic import Field, model_validator

from .base import Step
from .training import Training

if TYPE_CHECKING:
    from ...selection.sparsity import Sparsity

Share = Annotated[float, Field(gt=0, lt=1)]

# What belongs to one schedule alone; given with another, it would not be heeded.
_OF_SCHEDULE = {"rounds": "iterative", "begin_ratio": "gradual", "end_ratio": "gradual", "every_steps": "gradual"}


class Sparsify(Step):
    """Set the weights of the smallest magnitude to zero; they stay zero through all later steps, cuts among them.

        one_shot    mask --> train (finetune)
        iterative   mask a little --> train --> mask --> train ...,  each round an equal share of the survivors
        gradual     train, and mask more and more meanwhile: fast first and slowly last (Zhu and Gupta, 1710.01878)

    Tensors keep their shapes: neither MACs nor the file become smaller by it, until something that codes zeros in fewer
    bits writes the file. Biases, norms and all other tensors with one dimension stay whole.
    """

    kind: Literal["sparsify"] = "sparsify"
    sparsity: Share | None = None
    """share of the weights that become zero; of those that ``layers`` does not name"""
    layers: dict[str, Share] = {}
    """{pattern: share} of single layers or tensors, * and ? match; where several match, the last"""
    scope: Literal["layer", "global"] = "layer"
    """whether ``sparsity`` is the share of every layer, or of all together, whose weights are compared"""
    keep: tuple[str, ...] = ()
    """names of layers or tensors that stay whole; * and ? match"""
    only: tuple[str, ...] | None = None
    """mask nothing but these"""
    ranking: Literal["magnitude", "random"] = "magnitude"
    """which weights go first: the smallest, or any, which is a control"""
    schedule: Literal["one_shot", "iterative", "gradual"] = "one_shot"
    """all at once, in rounds with training after each, or during training"""
    rounds: int = Field(default=1, ge=1)
    """of iterative"""
    finetune: Training | None = None
    """training after each masking; with gradual, the training that it happens in"""
    begin_ratio: float = Field(default=0.0, ge=0, lt=1)
    """of gradual: share of that training's steps before the first masking"""
    end_ratio: float = Field(default=0.75, gt=0, le=1)
    """of gradual: share of that training's steps after which the masks stay as they are"""
    every_steps: int = Field(default=10, ge=1)
    """of gradual: steps of the optimizer from one masking to the next"""

    @model_validator(mode="after")
    def _goes_somewhere(self) -> Self:
        wrong = list(self._mistakes())
        if wrong:
            raise ValueError("; ".join(wrong))
        return self

    def _mistakes(self) -> Iterator[str]:
        """Yield what does not go together."""
        if self.sparsity is None and not self.layers:
            yield "nothing becomes zero: give sparsity, or layers = {pattern = share}"
        if self.scope == "global" and self.sparsity is None:
            yield "scope = 'global' compares the weights that share sparsity: give sparsity"
        for name, schedule in _OF_SCHEDULE.items():
            if self.schedule != schedule and getattr(self, name) != Sparsify.model_fields[name].default:
                yield f"{name} is for schedule = {schedule!r} (it is {self.schedule!r})"
        yield from self._schedule_mistakes()

    def _schedule_mistakes(self) -> Iterator[str]:
        """Yield what a schedule needs and does not have."""
        trains = self.finetune is not None and self.finetune.epochs > 0
        if self.schedule == "iterative" and (self.rounds < 2 or not trains):
            yield "schedule = 'iterative' has two or more rounds, and finetune with at least one epoch"
        if self.schedule == "gradual" and not trains:
            yield "schedule = 'gradual' masks while the network is trained: give finetune with at least one epoch"
        if self.schedule == "gradual" and self.ranking == "random":
            yield "schedule = 'gradual' is by magnitude: ranking = 'random' is for the others"
        if self.begin_ratio >= self.end_ratio:
            yield f"begin_ratio lies before end_ratio ({self.begin_ratio:g} and {self.end_ratio:g})"

    def target(self) -> Sparsity:
        """Return what is asked for, as the engine takes it."""
        from ...selection.sparsity import Sparsity  # torch is imported for those who sparsify, not for `--help`

        return Sparsity(overall=self.sparsity, layers=self.layers, scope=self.scope, keep=self.keep, only=self.only)
