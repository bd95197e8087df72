"""A made-up network for laws of planning: it answers what a graph answers, by arithmetic one can check by eye."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch

from espalier.core import Cost, Frozen, Group, Plan, Role, Slot, Tie


@dataclass
class Chain:
    """A chain of layers: each maps the group before it to its own group, at a resolution; both ends are frozen.

    ``widths`` gives every unit of a group its width, so that the exact cost depends on which units stay.
    """

    given: list[int]
    pixels: list[int]
    ends: tuple[int, int] = (3, 10)
    ties: tuple[Tie, ...] = ()
    conditions: tuple = ()
    widths: dict[str, np.ndarray] = field(default_factory=dict)
    fingerprint: str = "chain"

    def __post_init__(self) -> None:
        self.groups = {}
        for i, size in enumerate(self.given):
            units = np.arange(size)[:, None]
            slots = (Slot(f"l{i}.weight", 0, units, Role.PRODUCER), Slot(f"l{i + 1}.weight", 1, units, Role.READER))
            self.groups[f"l{i}.weight:0"] = Group(f"l{i}.weight:0", size, slots)
        sizes = [self.ends[0], *self.given, self.ends[1]]
        self.shapes = {f"l{i}.weight": (b, a) for i, (a, b) in enumerate(zip(sizes, sizes[1:], strict=False))}
        self.sizes = {name: group.size for name, group in self.groups.items()}
        last = f"l{len(self.given)}.weight"
        self.frozen = (Frozen("l0.weight", 1, 3, "it is an input"), Frozen(last, 0, 10, "it is an output", "net.py:7"))
        self.asked = 0

    def _cost(self, widths: list[float]) -> Cost:
        chain = [self.ends[0], *widths, self.ends[1]]
        products = [a * b for a, b in zip(chain, chain[1:], strict=False)]
        pixels = [*self.pixels, 1]
        macs = sum(a * p for a, p in zip(products, pixels, strict=True))
        held = [(a + b) * p for a, b, p in zip(chain, chain[1:], pixels, strict=False)]
        return Cost(round(macs), round(sum(products)), round(max(held)))

    def cost(self, counts: dict[str, int] | None = None) -> Cost:
        self.asked += 1
        return self._cost([(counts or {}).get(name, size) for name, size in self.sizes.items()])

    def plan_cost(self, plan: Plan) -> Cost:
        kept = {name: list(plan.keep.get(name, range(size))) for name, size in self.sizes.items()}
        return self._cost(
            [
                float(self.widths[name][units].sum()) if name in self.widths else len(units)
                for name, units in kept.items()
            ]
        )

    def feasible(self, counts: dict[str, int], held: tuple[str, ...] = ()) -> dict[str, int]:
        """Each tie reads: derived = coefficient * driver (one driver); drivers go down until it is whole."""
        counts = dict(counts)
        for tie in self.ties:
            ((driver, _),) = tie.powers.items()
            top = self.sizes[tie.derived]
            fine = (
                n
                for n in range(counts[driver], 0, -1)
                if (v := tie.value({driver: n})).is_integer()
                and 1 <= v <= top
                and (tie.derived not in held or v == top)
            )
            counts[driver] = next(fine, self.sizes[driver])
            counts[tie.derived] = int(tie.value(counts))
        return counts

    def check(self, plan: Plan) -> None:
        for name, units in plan.keep.items():
            assert 0 <= min(units) <= max(units) < self.sizes[name]
        kept = {name: len(plan.keep.get(name, range(size))) for name, size in self.sizes.items()}
        assert all(tie.value(kept) == kept[tie.derived] for tie in self.ties)


def scores_of(graph: Chain, seed: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {
        name: torch.rand(size, generator=generator) * float(10 ** (torch.rand(1, generator=generator) * 2 - 1))
        for name, size in graph.sizes.items()
    }


def counts_of(graph: Chain, result: Plan) -> dict[str, int]:
    return {name: len(result.keep.get(name, range(size))) for name, size in graph.sizes.items()}
