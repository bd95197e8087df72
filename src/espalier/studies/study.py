"""What a study is, as plain data: subjects, seeds, and what is done to each of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Annotated, Any, Literal, Self

from pydantic import Field, StringConstraints, field_validator, model_validator

from ..recipes.steps import AnyStep, Cluster, Prune, Sparsify, Step, Train, Training
from ..recipes.steps.base import Record
from ..recipes.steps.prune import BUDGETS, known_criterion

Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")]  # of files and of columns
RANDOM, REVERSED, ALL = "random", "reversed:", "all"
SCRATCH = ("scratch-E", "scratch-B")  # arms that every study has


def distinct(values: Sequence[Any]) -> Sequence[Any]:
    """Return the values, if none is there twice."""
    twice = [value for value, count in Counter(values).items() if count > 1]
    if twice:
        raise ValueError(f"{twice[0]!r} is there twice")
    return values


class Subject(Record):
    """A network on data, and how it is trained before anything is done to it; each seed has its own."""

    name: Name
    """in tables and pictures"""
    model: str = Field(min_length=1)
    """timm:, torchvision:, transformers: or espalier: name, or path/to/file.py:function"""
    data: str = Field(min_length=1)
    """digits, parquet:PATH, imagefolder:PATH, ..."""
    weights: str = ""
    """file with trained weights, which all seeds then share; ``train`` says how they were trained"""
    train: Train
    """how the dense network is trained; the scratch controls are trained in the same way"""
    image_size: int | None = Field(default=None, ge=1)
    """height and width to scale images to"""
    batch_size: int = Field(default=64, ge=2)
    """images a training step"""


class Study(Record):
    """What all studies share."""

    kind: str
    name: Name = "study"
    """of its folder"""
    tasks: tuple[Subject, ...] = Field(min_length=1)
    """networks on data"""
    seeds: tuple[Annotated[int, Field(ge=0)], ...] = Field(default=(0, 1), min_length=1)
    """of everything random; each is one repetition, paired over all arms"""
    split: Literal["test", "validation"] = "test"
    """what is compared; a study that chooses something (a rate, a loss) takes validation, and then never sees test"""
    threads: int = Field(default=1, ge=1)
    """of each run, whatever the executor: the last bits of its sums depend on them"""

    @field_validator("tasks")
    @classmethod
    def _named_apart(cls, tasks: tuple[Subject, ...]) -> tuple[Subject, ...]:
        distinct([subject.name for subject in tasks])
        return tasks

    _seeds = field_validator("seeds")(distinct)


class Arm(Record):
    """What is done with the units that a heuristic chose: steps of a recipe, one of which is a prune.

    The study writes its criterion and its budget into the prune step, and its seed into the recipe.
    """

    name: Name
    steps: tuple[AnyStep, ...] = Field(min_length=1)
    """as in a recipe; what trains, trains as many epochs in every arm"""

    @model_validator(mode="after")
    def _prunes_once(self) -> Self:
        prunes = [step for step in self.steps if isinstance(step, Prune)]
        if len(prunes) != 1:
            raise ValueError(f"an arm has one prune step, not {len(prunes)}")
        if prunes[0].max_drop is not None:
            raise ValueError("max_drop searches for as long as it takes: an arm's training is counted beforehand")
        if prunes[0].method is not None and "criterion" not in _taken(prunes[0].method):
            raise ValueError(f"{prunes[0].method} chooses units itself, so that no heuristic matters to it")
        wrong = [step.kind for step in self.steps if step.kind in ("train", "measure", "save")]
        if wrong:
            raise ValueError(f"the study itself trains, measures and saves: leave {wrong[0]} out")
        if self.name in SCRATCH:
            raise ValueError(f"{self.name} is a control that every study has")
        return self

    def filled(self, criterion: str, measure: str, ratio: float) -> tuple[AnyStep, ...]:
        """Return the steps with a criterion and a budget in the prune."""
        changes: dict[str, Any] = dict.fromkeys(BUDGETS)
        changes |= {measure: ratio, "criterion": criterion}
        return tuple(step.model_copy(update=changes) if isinstance(step, Prune) else step for step in self.steps)

    @property
    def epochs(self) -> int:
        """Epochs of training."""
        return sum(training.epochs for training in trainings(self.steps))

    @property
    def updates(self) -> float:
        """Steps of the optimizer, in passes over the training split."""
        return sum(training.epochs / training.accumulate_steps for training in trainings(self.steps))


def _taken(method: str) -> frozenset[str]:
    """Return which settings of a prune step a method heeds."""
    from ..methods import registry

    return registry.kind(method).TAKES


def trainings(steps: Iterable[Step]) -> Iterable[Training]:
    """Yield every stretch of training of these steps."""
    for step in steps:
        if isinstance(step, Training):
            yield step
        elif isinstance(step, Prune | Sparsify) and step.finetune is not None:
            yield from [step.finetune] * step.rounds
        elif isinstance(step, Cluster) and step.finetune is not None:
            yield step.finetune


class Heuristics(Study):
    """Arms x heuristics x ratios x seeds x tasks: how much does the choice of heuristic matter, and in which arm?

    Always there: random, an anti-heuristic, and the small network trained from scratch for as many epochs (scratch-E)
    and for as many multiply-accumulates (scratch-B).
    """

    kind: Literal["heuristics"] = "heuristics"
    criteria: tuple[str, ...] = (ALL,)
    """how units are scored; ["all"] is every criterion there is"""
    reversed: tuple[str, ...] = ("magnitude",)
    """criteria that are turned upside down, for anti-heuristics"""
    ratios: tuple[Annotated[float, Field(gt=0, lt=1)], ...] = Field(default=(0.5,), min_length=1)
    """what the result may cost, of ``measure``"""
    measure: Literal["macs", "params", "activations", "size_ratio"] = "macs"
    """what the ratios are of"""
    arms: tuple[Arm, ...] = Field(min_length=1)
    """the first is the baseline of all others"""

    @model_validator(mode="before")
    @classmethod
    def _give_budgets(cls, data: Any) -> Any:
        """Write a budget into prune steps that have none, so that they are checked whole as steps of a recipe."""
        if not isinstance(data, dict) or not isinstance(data.get("arms"), list | tuple):
            return data
        return {**data, "arms": [_budgeted(arm) for arm in data["arms"]]}

    @field_validator("criteria", "reversed")
    @classmethod
    def _known(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        if names == (ALL,):
            return names
        for name in distinct(names):
            if name == RANDOM or name.startswith(REVERSED):
                raise ValueError(f"{name}: random is always there, and anti-heuristics are named in reversed")
            known_criterion(name)
        return names

    _ratios = field_validator("ratios")(distinct)

    @field_validator("reversed")
    @classmethod
    def _some(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        if not names:
            raise ValueError("a study has an anti-heuristic: name a criterion to be reversed")
        return names

    @model_validator(mode="after")
    def _trains_alike(self) -> Self:
        distinct([arm.name for arm in self.arms])
        counts = {arm.name: arm.updates for arm in self.arms}
        if len(set(counts.values())) > 1:
            told = ", ".join(f"{name} {count:g}" for name, count in counts.items())
            raise ValueError(
                f"arms train for different numbers of epochs ({told}; accumulated batches count as one step), and "
                "longer training alone makes heuristics look alike: give each arm the same"
            )
        return self

    @property
    def heuristics(self) -> tuple[str, ...]:
        """All of them, controls last."""
        from ..criteria import CRITERIA

        chosen = CRITERIA if self.criteria == (ALL,) else self.criteria
        plain = tuple(name for name in chosen if name != RANDOM)
        return (*plain, RANDOM, *(REVERSED + name for name in self.reversed))


class Sensitivity(Study):
    """Each group cut alone, at several ratios, without any training: which one can the network do without?

    Read on validation, since what is seen here decides what is cut.
    """

    kind: Literal["sensitivity"] = "sensitivity"
    split: Literal["validation"] = "validation"  # type: ignore[assignment]
    """of what is compared"""
    criteria: tuple[str, ...] = Field(default=("magnitude",), min_length=1)
    """how the units that go are chosen; "random" is a control"""
    ratios: tuple[Annotated[float, Field(gt=0, lt=1)], ...] = Field(default=(0.25, 0.5, 0.75), min_length=1)
    """share of its units that a group loses"""
    score_batches: int = Field(default=8, ge=1)
    """training batches that a criterion which needs data reads"""

    @field_validator("criteria")
    @classmethod
    def _known(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(known_criterion(name) for name in distinct(names))

    _ratios = field_validator("ratios")(distinct)


def _budgeted(arm: Any) -> Any:
    if not isinstance(arm, dict) or not isinstance(arm.get("steps"), list | tuple):
        return arm
    steps = []
    for step in arm["steps"]:
        if isinstance(step, dict) and step.get("kind") == "prune":
            given = [name for name in (*BUDGETS, "criterion") if name in step]
            if given:
                raise ValueError(f"arm {arm.get('name', '')!r}: leave {given[0]} out: the study goes through them")
            step = {"macs": 0.5, **step}
        steps.append(step)
    return {**arm, "steps": steps}
