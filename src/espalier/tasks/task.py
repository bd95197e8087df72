"""What a network is for."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from torch import Tensor, nn

from .batches import Batches, as_batches, from_the_start, shard
from .evaluation import count
from .loader import Loader
from .metrics import Accuracy, Metrics, classification_loss
from .sealed import Fingerprint, Reading, Sealed

Kind = Literal["classification", "segmentation", "detection"]


@dataclass(frozen=True, eq=False)
class Task:
    """Data, loss and metrics.

    Attributes:
        name: what ``load_task`` was asked for.
        train: shuffled and augmented batches; their order follows from a seed and ``train.epoch``.
        validation: for every choice: rates, thresholds, early stopping.
        test: read once a run, at the end; a second iteration is refused.
        classes: outputs that a network needs.
        input_shape: of one input, without the batch.
        loss: ``loss(outputs, targets)`` returns a scalar; targets may be shares of classes where batches are mixed.
        metrics: what is counted on a split; the first of its names decides.
        kind: one class an input, one a pixel, or boxes with classes.
        class_names: in the order of the outputs; empty where the data has none.
    """

    name: str
    train: Batches
    validation: Batches
    test: Batches
    classes: int
    input_shape: tuple[int, ...]
    loss: Callable[[Any, Tensor], Tensor] = classification_loss
    metrics: Metrics = Accuracy()
    kind: Kind = "classification"
    class_names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Give plain collections an epoch, and seal the test split."""
        for split in ("train", "validation"):
            object.__setattr__(self, split, as_batches(getattr(self, split)))
        if not isinstance(self.test, Sealed):
            object.__setattr__(self, "test", Sealed(as_batches(self.test)))

    @property
    def metric(self) -> str:
        """The name of the metric that decides; higher is better, in [0, 1]."""
        return self.metrics.names[0]

    @property
    def test_reads(self) -> int:
        """How often the test split was read in this run."""
        return self._seal.reads

    @property
    def test_readings(self) -> tuple[Reading, ...]:
        """What ``test_once`` read in this run, and found."""
        return self._seal.readings

    @property
    def _seal(self) -> Sealed:
        assert isinstance(self.test, Sealed)
        return self.test

    def example(self, batch: int = 2) -> Tensor:
        """Return the first ``batch`` training inputs, neither shuffled nor augmented; repeated where there are fewer.

        Of a user's own loader it is the first batch of validation.
        """
        if isinstance(self.train, Loader):
            inputs = self.train.first(batch)
        else:
            inputs, _ = next(iter(self.validation))
        times = -(-batch // len(inputs))
        return inputs.repeat(times, *[1] * (inputs.dim() - 1))[:batch] if times > 1 else inputs[:batch]

    def evaluate(self, model: nn.Module, batches: Iterable[tuple[Any, Tensor]]) -> float:
        """Return the deciding metric of ``model`` over ``batches`` (``task.validation``), in eval mode."""
        return self.measure(model, batches)[self.metric]

    def measure(
        self,
        model: nn.Module,
        batches: Iterable[tuple[Any, Tensor]],
        *,
        sum_ranks: Callable[[Tensor], Tensor] = lambda counts: counts,
    ) -> dict[str, float]:
        """Return all metrics of ``model`` over ``batches``.

        Args:
            model: moved nowhere; its modules' modes are what they were before.
            batches: of any split; gone through once.
            sum_ranks: adds up integers over the processes that share the batches.
        """
        counts = count({"": model}, batches, self.metrics)
        return self._values(sum_ranks(counts[""])) if counts else dict.fromkeys(self.metrics.names, 0.0)

    def test_once(
        self,
        models: Mapping[str, nn.Module],
        *,
        watched: Callable[[Batches], Iterable[tuple[Any, Tensor]]] = lambda batches: batches,
        sum_ranks: Callable[[Tensor], Tensor] = lambda counts: counts,
    ) -> dict[str, float]:
        """Return the deciding metric of each network on the test split, in one pass; ``test_readings`` has them all.

        Args:
            models: ``{"dense": ..., "small": ...}``.
            watched: wraps the batches, for a progress bar.
            sum_ranks: adds up integers over the processes that share the batches.

        Raises:
            SplitError: this run has read the test split already.
        """
        seen = Fingerprint()
        counts = count(models, watched(self._seal), self.metrics, seen=seen.add)
        values = {name: self._values(sum_ranks(total)) for name, total in counts.items()}
        reading = Reading(examples=seen.examples, targets_sha256=seen.hexdigest(), metrics=values)
        self._seal.readings += (reading,)
        return {name: found[self.metric] for name, found in values.items()}

    def new_run(self) -> Task:
        """Return the same task for another run: epochs from 0, and a test split that nobody has read."""
        return replace(
            self,
            train=from_the_start(self.train),
            validation=from_the_start(self.validation),
            test=self._seal.resealed(),
        )

    def sharded(self, rank: int, ranks: int) -> Task:
        """Return the task as process ``rank`` of ``ranks`` reads it: its part of every batch of every split.

        The parts of a batch make up the whole one, so ``batch_size`` counts all ranks' images; give ``measure`` and
        ``test_once`` a ``sum_ranks``. The test split keeps its seal.

        Raises:
            FileError: a split is read by the user's own loader, which nobody else can divide.
        """
        seal = replace(self._seal, _batches=shard(self._seal._batches, rank, ranks))
        return replace(
            self, train=shard(self.train, rank, ranks), validation=shard(self.validation, rank, ranks), test=seal
        )

    def _values(self, counts: Tensor) -> dict[str, float]:
        return self.metrics.values(counts)
