"""Sequences of several lengths (packed and padded), embedding bags, and tables that are renormalised."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence, pad_sequence

from .base import Net, Pattern, ids, tokens


def lengths(first: int, second: int) -> Callable[[], tuple[Tensor, Tensor]]:
    return lambda: (torch.randn(2, 4, 4), torch.tensor([first, second]))


def sequence(net: Net, x: Tensor, count: Tensor) -> Tensor:
    packed = pack_padded_sequence(net.stem(x), count, batch_first=True, enforce_sorted=False)
    return net.head(pad_packed_sequence(net.layer(packed)[0], batch_first=True)[0])


def last_state(net: Net, x: Tensor, count: Tensor) -> Tensor:
    _, (hidden, _) = net.layer(pack_padded_sequence(net.stem(x), count, batch_first=True))
    return net.head(torch.cat([hidden[-2], hidden[-1]], dim=1))


def pooled(net: Net, x: Tensor) -> Tensor:
    """Lengths as a list; padding of minus one; the maximum over time."""
    out, _ = net.layer(pack_padded_sequence(net.table(x), [4, 3], batch_first=True))
    return net.head(pad_packed_sequence(out, batch_first=True, padding_value=-1.0)[0].max(1)[0])


def packed_data(net: Net, x: Tensor, count: Tensor) -> Tensor:
    """A linear layer between, on the packed steps themselves."""
    packed = pack_padded_sequence(net.stem(x), count, batch_first=True)
    out, _ = net.layer(PackedSequence(net.body(packed.data).relu(), packed.batch_sizes))
    return net.head(out.data)


def padded(net: Net, x: Tensor) -> Tensor:
    """Sequences that the network makes, padded to one length."""
    y = net.stem(x)
    return net.head(pad_sequence([y[0, :3], y[1]], batch_first=True).relu())


def recurrent(layer: nn.Module, out: int) -> Callable[[], nn.Module]:
    return lambda: Net(sequence, stem=nn.Linear(4, 8), layer=layer, head=nn.Linear(out, 4))


def bag(mode: str) -> Callable[[], nn.Module]:
    return lambda: nn.Sequential(nn.EmbeddingBag(8, 8, mode=mode), nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 4))


def bags(net: Net, x: Tensor, starts: Tensor) -> Tensor:
    weights = net.weigh(torch.ones(x.shape[0], 1, dtype=net.weigh.weight.dtype)).flatten()
    return net.head(net.body(net.bag(x, starts, per_sample_weights=weights)).relu())


def shortened() -> nn.Module:
    return nn.Sequential(nn.Embedding(8, 8, padding_idx=0, max_norm=1.0), nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 4))


LAYERS = {
    # name: (layer, width of its output, groups that a good engine finds)
    "packed_lstm": (lambda: nn.LSTM(8, 6, batch_first=True), 6, 2),
    "packed_lstm_deep_both_ways": (lambda: nn.LSTM(8, 6, 2, batch_first=True, bidirectional=True), 12, 2),
    "packed_lstm_projected": (lambda: nn.LSTM(8, 6, 2, bidirectional=True, proj_size=4), 8, 3),
    "packed_gru": (lambda: nn.GRU(8, 6), 6, 2),
    "packed_rnn": (lambda: nn.RNN(8, 6, 2, nonlinearity="relu"), 6, 2),
}

PATTERNS = [
    *(
        Pattern(
            name=name,
            make=lambda layer=layer, out=out: recurrent(layer(), out)(),
            example=lengths(3, 4),
            expect=expect,
        )
        for name, (layer, out, expect) in LAYERS.items()
    ),
    Pattern(
        name="packed_last_state",
        make=lambda: Net(
            last_state,
            stem=nn.Linear(4, 8),
            layer=nn.LSTM(8, 6, batch_first=True, bidirectional=True),
            head=nn.Linear(12, 4),
        ),
        example=lengths(4, 3),
        expect=2,
    ),
    Pattern(
        name="packed_pooled",
        make=lambda: Net(pooled, table=nn.Embedding(8, 8), layer=nn.GRU(8, 6, batch_first=True), head=nn.Linear(6, 4)),
        example=ids(),
        expect=2,
    ),
    Pattern(
        name="packed_data",
        make=lambda: Net(
            packed_data, stem=nn.Linear(4, 8), body=nn.Linear(8, 6), layer=nn.GRU(6, 5), head=nn.Linear(5, 4)
        ),
        example=lengths(4, 3),
        expect=3,
    ),
    Pattern(
        name="padded_sequences",
        make=lambda: Net(padded, stem=nn.Linear(4, 8), head=nn.Linear(8, 4)),
        example=tokens(4, 4),
        expect=1,
    ),
    *(Pattern(name=f"embedding_bag_{mode}", make=bag(mode), example=ids(), expect=2) for mode in ("mean", "max")),
    Pattern(
        name="embedding_bag_weights",
        make=lambda: Net(
            bags,
            bag=nn.EmbeddingBag(8, 8, mode="sum"),
            weigh=nn.Linear(1, 1),
            body=nn.Linear(8, 6),
            head=nn.Linear(6, 4),
        ),
        example=lambda: (torch.randint(0, 8, (8,)), torch.tensor([0, 3])),
        expect=2,
    ),
    Pattern(name="embedding_shortened", make=shortened, example=ids(), expect=2),
]
