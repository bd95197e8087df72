"""Costs: what counts and plans cost, in every measure that the budget asks for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from ..core import Budget, Cost, Plan
from ..graph.file_size import FileSize
from .latency import LatencyModel
from .tables import Tables

if TYPE_CHECKING:
    from ..graph import Graph


@dataclass(frozen=True, eq=False)
class Costs:
    """The graph's arithmetic, and what it does not know: bytes on disk, and milliseconds.

    Attributes:
        graph: the network.
        size: where the budget limits bytes.
        latency: where there are measured tables.
        dense_ms: of the network that they were measured on: what a latency ratio is relative to.
    """

    graph: Graph
    size: FileSize | None = None
    latency: LatencyModel | None = None
    dense_ms: float | None = None

    @classmethod
    def of(cls, graph: Graph, budget: Budget, tables: Tables | None) -> Costs:
        """Return the costs that a budget needs.

        Raises:
            TablesError: the tables do not fit the network.
        """
        bytes_count = budget.size_bytes is not None or budget.size_ratio is not None
        return cls(
            graph,
            FileSize(graph) if bytes_count else None,
            LatencyModel.of(graph, tables) if tables is not None else None,
            None if tables is None else tables.dense_ms,
        )

    def dense(self) -> Cost:
        """Return what the network costs before anything is cut."""
        return self._filled(self.graph.cost(), Plan({}), self.graph.sizes)

    def limits(self, budget: Budget) -> dict[str, int | float]:
        """Return ``{measure: absolute limit}``; milliseconds are a share of the measured ones, not of predicted ones.

        Raises:
            BudgetError: the budget asks for milliseconds, and there are no tables.
        """
        return dict(budget.limits(replace(self.dense(), latency_ms=self.dense_ms)))

    def of_counts(self, counts: Mapping[str, int]) -> Cost:
        """Return the cost when groups keep ``counts`` units, quickly; every group is named, in the graph's order."""
        cost = self.graph.cost(counts)
        if self.size is not None:
            cost = replace(cost, size_bytes=self.size.of_counts(list(counts.values())))
        return cost if self.latency is None else replace(cost, latency_ms=self.latency.ms(counts))

    def of_plan(self, plan: Plan) -> Cost:
        """Return the exact cost of a plan."""
        counts = {} if self.latency is None else self.graph.counts(plan)
        return self._filled(self.graph.plan_cost(plan), plan, counts)

    def _filled(self, cost: Cost, plan: Plan, counts: Mapping[str, int]) -> Cost:
        if self.size is not None:
            cost = replace(cost, size_bytes=self.size.of_plan(plan))
        return cost if self.latency is None else replace(cost, latency_ms=self.latency.ms(counts))
