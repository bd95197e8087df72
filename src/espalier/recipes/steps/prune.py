"""The step that makes the network smaller."""

from __future__ import annotations

import difflib
from typing import Any, Literal, Self

from pydantic import Field, ValidationInfo, field_validator, model_validator

from ...core import Budget, BudgetError
from .base import MOST_THREADS, Backend, Step
from .recover import Recovery
from .training import Training

# What a network costs, as far as a recipe may limit it: fields of `Prune` and of `core.Budget` alike.
BUDGETS = ("macs", "params", "activations", "size_bytes", "size_ratio", "latency_ms", "latency_ratio")


def known_criterion(name: str) -> str:
    """Return the name of a criterion, if it is one; "reversed:" and the name of one is that one turned upside down."""
    from ... import criteria  # torch is imported for those who name a criterion, not for `--help`

    plain = name.removeprefix(criteria.REVERSED)
    if plain not in criteria.CRITERIA:
        near = difflib.get_close_matches(plain, criteria.CRITERIA, n=1, cutoff=0.4)
        guess = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(sorted(criteria.CRITERIA))}"
        raise ValueError(f"unknown criterion {name!r}; {guess}")
    return name


def in_range(value: int | float | None, info: ValidationInfo) -> int | float | None:
    """Return a limit that may be a ratio or absolute, if ``Budget`` takes it for the field's measure."""
    if value is not None:
        given: dict[str, Any] = {str(info.field_name): value}
        try:
            Budget(**given)
        except BudgetError as error:
            raise ValueError(
                str(error).removeprefix(f"budget {info.field_name}={value!r}: ") + f" (it is {value!r})"
            ) from error
    return value


# What a step with a method leaves to it: fields that are refused unless the method's TAKES names them.
_WITHOUT_METHOD = ("max_drop", "criterion", "score_batches", "strategy", "round_to", "schedule", "rounds", "recover")
_WITHOUT_METHOD += ("recover_batches", "step_ratio", "max_rounds", "latency_ms", "latency_ratio")


def known_method(name: str | None) -> str | None:
    """Return the name of a method, if it is one."""
    from ...methods import registry  # torch is imported for those who name a method, not for `--help`

    if name is not None and name not in registry.names():
        near = difflib.get_close_matches(name, registry.names(), n=1, cutoff=0.4)
        guess = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(registry.names())}"
        raise ValueError(f"unknown method {name!r}; {guess}")
    return name


def known_options(options: dict[str, Any], info: ValidationInfo) -> dict[str, Any]:
    """Return a method's hyperparameters, if it takes them."""
    from ...methods import MethodError, registry

    name = info.data.get("method")
    if name is None:
        if options and "method" in info.data:
            raise ValueError("these are a method's, and no method is given")
        return options
    try:
        registry.made(name, options)
    except MethodError as error:
        raise ValueError(str(error)) from error
    return options


class Prune(Step):
    """Score, cut a little, recover, and again, until the budget or the accuracy limit is met.

        score --> plan --> cut, proved --> recover --> fine-tune --> happy?
          ^                                                            |
          +--------------- no: a little more, or back ----------------+

    With a budget alone the rounds go there on a schedule. With ``max_drop`` alone the smallest network inside it is
    searched for: each round cuts MACs by ``step_ratio``; a round that loses too much is undone, and the next goes
    half as far. With both, whichever comes first ends the search.

    With a ``method`` there are no rounds: it works, and cuts, while the network is trained as ``finetune`` says.
    """

    kind: Literal["prune"] = "prune"
    method: str | None = None
    """a paper's algorithm that decides during training, such as group_fisher; then ``finetune`` is that training"""
    options: dict[str, Any] = {}
    """{hyperparameter: value} of the method, where it is not to be its default"""
    macs: int | float | None = None
    """multiply-accumulates the result may cost: a ratio such as 0.5, or an absolute whole number"""
    params: int | float | None = None
    """parameters the result may have, ratio or absolute"""
    activations: int | float | None = None
    """peak live activations at batch 1, ratio or absolute"""
    size_bytes: int | None = Field(default=None, ge=1)
    """bytes of the result's file, model.safetensors, with all that is in it"""
    size_ratio: float | None = Field(default=None, gt=0, le=1)
    """those bytes as a ratio of the dense network's file"""
    latency_ms: float | None = Field(default=None, gt=0)
    """milliseconds of one forward pass on ``backend``"""
    latency_ratio: float | None = Field(default=None, gt=0, le=1)
    """that time as a ratio of the dense network's"""
    max_drop: float | None = Field(default=None, ge=0, le=100)
    """points of the metric (0.01 of accuracy each) that may be lost on validation against the dense network"""
    criterion: str = "taylor"
    """how units are scored"""
    score_batches: int = Field(default=8, ge=1)
    """training batches that a criterion which needs data reads"""
    strategy: Literal["uniform", "global", "isomorphic"] = "isomorphic"
    """every group alike, all groups compared, or groups compared with those of the same shape"""
    round_to: int | None = Field(default=None, ge=1)
    """keep a multiple of this many units in each group; when not given, tables decide where there are any, else 1"""
    keep: tuple[str, ...] = ()
    """names of layers that stay whole; * and ? match"""
    limit: dict[str, float] = {}
    """{pattern: largest ratio of its units that a group may lose}"""
    only: tuple[str, ...] | None = None
    """prune only groups that these names own"""
    floor: int | float | None = None
    """fewest units a group keeps: a number, or a ratio"""
    schedule: Literal["iterative", "cubic"] = "iterative"
    """equal factors a round, or large cuts first and small ones last"""
    rounds: int = Field(default=1, ge=1)
    """cuts on the way to a budget; one is one-shot"""
    recover: tuple[Recovery, ...] = ()
    """what mends the network after each cut, before it is trained"""
    recover_batches: int = Field(default=16, ge=1)
    """training batches for that"""
    finetune: Training | None = None
    """training after each cut"""
    distill: bool = False
    """that training learns the dense network's softened answers too, as the step ``distill`` does by default; it costs
    a third more time"""
    step_ratio: float = Field(default=0.75, gt=0, lt=1)
    """of the search with ``max_drop``: MACs left after its first step"""
    max_rounds: int = Field(default=12, ge=1)
    """of the search: cuts tried, those that are undone too; each trains ``finetune`` once, or twice"""
    retry_ratio: float = Field(default=0.5, ge=0, le=1)
    """of the search: a trained cut that misses by no more than this share of ``max_drop`` is trained once more, at
    half of the learning rate, before it is undone; 0 never does"""
    backend: Backend = "eager"
    """what ``latency_ms`` and ``latency_ratio`` are measured on"""
    threads: int | None = Field(default=None, ge=1, le=MOST_THREADS)
    """of that backend; one when not given"""
    latency_batch: int = Field(default=1, ge=1)
    """inputs a forward pass, where it is timed"""

    _criterion = field_validator("criterion")(known_criterion)
    _amounts = field_validator("macs", "params", "activations")(in_range)
    _method = field_validator("method")(known_method)
    _options = field_validator("options")(known_options)

    @model_validator(mode="after")
    def _has_an_end(self) -> Self:
        if not self.budget() and self.max_drop is None:
            raise ValueError(f"an empty budget: give at least one of {', '.join(BUDGETS)} or max_drop")
        if self.method is not None:
            self._leaves_to_method(self.method)
        return self

    def _leaves_to_method(self, name: str) -> None:
        """See that nothing is asked that the method does not heed."""
        from ...methods import registry

        takes: frozenset[str] = registry.kind(name).TAKES
        defaults = {field: Prune.model_fields[field].default for field in _WITHOUT_METHOD if field not in takes}
        asked = [field for field, default in defaults.items() if getattr(self, field) != default]
        wrong = [f"{name} does not heed {', '.join(asked)}: leave out what it decides itself"] if asked else []
        if not self.budget() and "max_drop" not in takes:
            wrong.append(f"{name} works towards a budget: give one of {', '.join(BUDGETS[:-2])}")
        if self.finetune is None or not self.finetune.epochs:
            wrong.append(f"{name} works while the network is trained: give finetune with at least one epoch")
        if wrong:
            raise ValueError("; ".join(wrong))

    @property
    def reads_data(self) -> bool:
        """Whether units are ranked with training batches."""
        from ...criteria import reads_data

        return self.method is not None or reads_data(self.criterion)

    def budget(self) -> dict[str, Any]:
        """Return ``{measure: limit}`` of those that are given."""
        return {name: getattr(self, name) for name in BUDGETS if getattr(self, name) is not None}

    @property
    def limits_latency(self) -> bool:
        """Whether milliseconds are limited."""
        return self.latency_ms is not None or self.latency_ratio is not None
