"""Laws of the counts that a plan may use, and of the search that walks them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from espalier.core import Tie
from espalier.selection.bounds import Bounds
from espalier.selection.lattice import Lattice
from espalier.selection.search import Target, climb

from .plan_chain import Chain


def lattice_of(graph: Chain, multiple: int, least: int = 1, held: tuple[str, ...] = ()) -> Lattice:
    lower = {name: size if name in held else min(least, size) for name, size in graph.sizes.items()}
    return Lattice(graph, Bounds(frozenset(held), lower), multiple)


@pytest.mark.parametrize(
    ("count", "nearest"), [(1, 8), (8, 8), (11, 8), (12, 16), (19, 16), (20, 24), (26, 24), (27, 27)]
)
def test_rounds_to_the_nearest_multiple_and_leaves_whole_what_is_whole(count, nearest):
    lattice = lattice_of(Chain([27], [1]), 8)
    counts = np.maximum(np.array([count]), lattice.lower)
    assert lattice.rounded(counts).tolist() == [nearest]


@given(st.integers(1, 64), st.integers(1, 64), st.integers(1, 16), st.integers(1, 64))
def test_rounding_stays_within_bounds_and_steps_go_up(size, count, multiple, least):
    lattice = lattice_of(Chain([size], [1]), multiple, least)
    (got,) = lattice.rounded(np.clip(np.array([count]), lattice.lower, lattice.sizes)).tolist()
    assert min(least, size) <= got <= size
    assert got % multiple == 0 or got == size
    above = lattice.above(got, 0)
    assert above > got or got == size
    assert above % multiple == 0 or above == size


def test_a_tied_driver_goes_down_to_a_multiple_that_its_tie_allows():
    tie = Tie("l1.weight:0", {"l0.weight:0": 1}, (1, 3))
    lattice = lattice_of(Chain([72, 24], [1, 1], ties=(tie,)), 4)
    assert lattice.realised(np.array([35, 24])).tolist() == [24, 8]
    assert lattice.realised(np.array([8, 24])).tolist() == [12, 4]  # both keep at least one multiple
    assert lattice.off(np.array([6, 2])).tolist() == [True, False]  # a derived count is not the search's choice


def test_what_a_tie_takes_below_a_bound_is_raised_again():
    tie = Tie("l1.weight:0", {"l0.weight:0": 1}, (1, 4))
    lattice = lattice_of(Chain([40, 10, 7], [1, 1, 1], ties=(tie,)), 1, least=3)
    got = lattice.realised(np.array([5, 10, 3])).tolist()
    assert got[0] == 4 * got[1] and got[1] >= 3 and got[2] == 3
    kept = lattice_of(Chain([40, 10, 7], [1, 1, 1], ties=(tie,)), 1, held=("l1.weight:0",))
    assert kept.realised(np.array([5, 10, 3])).tolist() == [40, 10, 3]


def test_components_of_ties_meet():
    ties = (Tie("l1.weight:0", {"l0.weight:0": 1}), Tie("l3.weight:0", {"l2.weight:0": 1}))
    joined = (*ties, Tie("l3.weight:0", {"l1.weight:0": 1}))
    apart = lattice_of(Chain([4] * 5, [1] * 5, ties=ties), 1).tied.tolist()
    assert apart[0] == apart[1] != apart[2] == apart[3] and apart[4] == -1
    assert len(set(lattice_of(Chain([4] * 5, [1] * 5, ties=joined), 1).tied.tolist()[:4])) == 1


def test_the_climb_passes_by_a_group_whose_step_does_not_fit():
    graph = Chain([4, 100], [400, 1])  # a unit of the first group costs as much as hundreds of the second
    lattice = lattice_of(graph, 1)
    levels = {"l0.weight:0": np.array([0.97, 0.98, 0.99, 1.0]), "l1.weight:0": np.linspace(0.01, 0.9, 100)}
    start = np.array([2, 10])
    target = Target({"macs": graph.cost({"l0.weight:0": 2, "l1.weight:0": 40}).macs})
    assert not target.fits(graph.cost({"l0.weight:0": 3, "l1.weight:0": 10}))
    counts = climb(lattice, levels, start, target)
    assert counts[0] == 2 and target.near(lattice.cost(counts)) and target.fits(lattice.cost(counts))
