"""Laws of timing in turns: every network runs in every round, and ratios are within a round."""

from __future__ import annotations

from collections import Counter

import pytest

from espalier.measure import Turns, in_turns, turns


def test_every_network_takes_its_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    monkeypatch.setattr(turns, "repeats_of", lambda run: 1)
    monkeypatch.setattr(turns, "timed", lambda run, repeats: run() or 1.0)
    found = in_turns({name: lambda name=name: order.append(name) for name in "abc"}, rounds=6)
    assert Counter(order) == {"a": 6, "b": 6, "c": 6} and all(len(one) == 6 for one in found.seconds.values())
    rounds = [tuple(order[i : i + 3]) for i in range(0, 18, 3)]
    assert all(sorted(one) == ["a", "b", "c"] for one in rounds) and len(set(rounds)) > 3
    assert {one[0] for one in rounds} == {"a", "b", "c"}, "each is the first at times"


def test_ratios_are_of_one_round() -> None:
    # the machine slows down by a factor of ten; what is twice as fast stays so
    found = Turns({"slow": (2.0, 4.0, 20.0), "fast": (1.0, 2.0, 10.0)})
    assert found.ratio("slow", "fast") == (2.0, 2.0, 2.0)
    assert found.timing("slow").median_ms == 4000.0
