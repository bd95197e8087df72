"""The CIFAR-10 benchmark goes on where it was, does nothing twice, and compares pairs."""

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch

pytest.importorskip("fcntl", reason="claims between processes are locks of POSIX files")

from benchmarks import cifar
from benchmarks.cifar_arms import Item, Place, setup, sparse_epochs, training
from benchmarks.cifar_results import Ledger, Row, differences, report

ITEMS = cifar.order([20], [2.6, 5.0, 2.1], ["ours", "magnitude", "group_norm", "dense"], [0, 1], 5)


def _row(item: Item, test: float = 0.8) -> Row:
    return Row(
        **vars(item),
        setup=setup(item),
        macs=1000,
        dense_macs=2600,
        params=10,
        validation=0.9,
        test=test,
        seconds=1.0,
        machine="cpu",
    )


def test_the_first_two_ratios_come_first_and_seed_by_seed() -> None:
    first = ITEMS[: 3 * 2 * 2]
    assert {item.ratio for item in first} == {2.6, 5.0}
    assert [item.seed for item in first] == [0] * 6 + [1] * 6
    assert [item.arm for item in ITEMS[12:14]] == ["dense", "dense"]
    assert {item.ratio for item in ITEMS[14:]} == {2.1}
    assert len(set(ITEMS)) == len(ITEMS)


def test_a_stopped_benchmark_goes_on_and_does_nothing_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = Place(tmp_path, tmp_path, torch.device("cpu"))
    asked: list[Item] = []

    def one(item: Item, place: Place) -> Row:
        if len(asked) == 3:
            raise KeyboardInterrupt
        asked.append(item)
        return _row(item)

    monkeypatch.setattr(cifar, "one", one)
    with pytest.raises(KeyboardInterrupt):
        cifar.work(ITEMS, Ledger(tmp_path), place)
    assert len(Ledger(tmp_path).rows()) == 3
    monkeypatch.setattr(cifar, "one", lambda item, place: asked.append(item) or _row(item))
    cifar.work(ITEMS, Ledger(tmp_path), place)
    assert asked == ITEMS


def test_results_of_another_setup_are_not_taken_for_ours(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    ledger.add(replace(_row(ITEMS[0]), setup="another recipe"))
    assert cifar.key(ITEMS[0]) not in cifar.done(ledger)


def test_what_another_process_has_in_hand_is_left_to_it(tmp_path: Path) -> None:
    sparse = [item for item in ITEMS if item.arm == "group_norm" and item.seed == 0]
    with (
        Ledger(tmp_path).claim(cifar.claim(sparse[0])) as mine,
        Ledger(tmp_path).claim(cifar.claim(sparse[1])) as other,
    ):
        assert mine and not other  # both wait for the same sparsely trained network
    with Ledger(tmp_path).claim(cifar.claim(sparse[1])) as free:
        assert free
    names = {cifar.claim(item) for item in ITEMS if item.arm != "group_norm"}
    assert len(names) == sum(item.arm != "group_norm" for item in ITEMS)


def test_the_first_row_of_a_run_stands(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    ledger.add(_row(ITEMS[0], 0.8))
    ledger.add(_row(ITEMS[0], 0.1))
    assert [row.test for row in ledger.rows()] == [0.8]


def test_differences_are_of_the_same_seeds_and_the_interval_is_students() -> None:
    ours = {seed: _row(Item(20, 2.6, "ours", seed, 5), test) for seed, test in enumerate((0.84, 0.86, 0.85))}
    other = {seed: _row(Item(20, 2.6, "magnitude", seed, 5), test) for seed, test in ((0, 0.83), (1, 0.83), (5, 0.1))}
    assert differences(ours, other) == pytest.approx([1.0, 3.0])
    text = report([*ours.values(), *other.values()])
    half = 12.706 * math.sqrt(2) / math.sqrt(2)  # t of 0.975 with one degree of freedom; deviation sqrt(2), two pairs
    assert f"| +2.00 | [{2 - half:+.2f}, {2 + half:+.2f}] | 2 |" in text
    assert "magnitude (best peer)" in text


def test_a_dense_arm_is_no_peer_and_stands_in_each_table_of_its_network() -> None:
    rows = [_row(Item(20, ratio, "ours", 0, 5)) for ratio in (2.6, 5.0)] + [_row(Item(20, 1.0, "dense", 0, 5), 0.9)]
    text = report(rows)
    assert text.count("| dense |") == 2 and "best peer" not in text
    assert report([]) == "no results yet"


def test_all_arms_train_for_as_many_epochs() -> None:
    for epochs in (2, 4, 5, 100):
        assert 0 < sparse_epochs(epochs) < epochs
    assert sparse_epochs(5) == 2
    for arm in ("ours", "magnitude", "bn_scale", "group_norm", "dense"):
        assert '"epochs":7' in setup(Item(20, 2.6, arm, 0, 7))
    assert training(5).epochs == 5
