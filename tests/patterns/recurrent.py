"""Embeddings and recurrent layers."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, cat, nn

from .base import Pattern, ids, image, tokens


class Sequence(nn.Module):
    """linear, a recurrent layer, linear; hidden size equals tokens times batch."""

    def __init__(self, layer: nn.Module, out: int) -> None:
        super().__init__()
        self.stem, self.layer, self.head = nn.Linear(4, 8), layer, nn.Linear(out, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.layer(self.stem(x))[0])


class LastState(nn.Module):
    """The classifier reads the last hidden state of both directions."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.head = nn.LSTM(4, 8, batch_first=True, bidirectional=True), nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        _, (hidden, _) = self.layer(x)
        return self.head(cat([hidden[-2], hidden[-1]], dim=1))


class GivenState(nn.Module):
    """The first hidden state is a tensor of zeros that the module makes."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden, self.layer, self.head = 8, nn.GRU(4, 8, batch_first=True), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        out, _ = self.layer(x, x.new_zeros(1, x.shape[0], self.hidden))
        return self.head(out[:, -1])


class Cells(nn.Module):
    """A loop over time steps around a cell."""

    def __init__(self, cell: nn.RNNCellBase) -> None:
        super().__init__()
        self.cell, self.head = cell, nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        state = None
        for step in x.unbind(1):
            state = self.cell(step, state)
        return self.head(state[0] if isinstance(state, tuple) else state)


class Tied(nn.Module):
    """One table embeds tokens and reads out logits."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.body, self.back = nn.Embedding(8, 8), nn.Linear(8, 16), nn.Linear(16, 8)
        self.out = nn.Linear(8, 8, bias=False)
        self.out.weight = self.table.weight

    def forward(self, x: Tensor) -> Tensor:
        x = self.table(x)
        return self.out(x + self.back(F.gelu(self.body(x))))


class TiedFunction(nn.Module):
    """Logits by F.linear with the table itself."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.body = nn.Embedding(8, 6), nn.LSTM(6, 6, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(self.body(self.table(x))[0], self.table.weight)


class Positions(nn.Module):
    """Token, position and segment embeddings, added and normalised."""

    def __init__(self) -> None:
        super().__init__()
        self.word, self.place, self.kind = nn.Embedding(8, 8), nn.Embedding(6, 8), nn.Embedding(2, 8)
        self.norm, self.body, self.head = nn.LayerNorm(8), nn.Linear(8, 12), nn.Linear(12, 4)

    def forward(self, x: Tensor) -> Tensor:
        place = torch.arange(x.shape[1], device=x.device)
        x = self.word(x) + self.place(place) + self.kind(torch.zeros_like(x))
        return self.head(self.body(self.norm(x)).relu())


class Bag(nn.Module):
    """An embedding bag and a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.bag, self.body, self.head = nn.EmbeddingBag(8, 8, mode="sum"), nn.Linear(8, 6), nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(self.bag(x)).relu())


class Recogniser(nn.Module):
    """Convolution, columns as time steps, LSTM (text recognition)."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.layer, self.head = (
            nn.Conv2d(3, 4, 3, padding=1),
            nn.LSTM(16, 8, batch_first=True),
            nn.Linear(8, 4),
        )

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x).relu().permute(0, 3, 1, 2).flatten(2)
        return self.head(self.layer(x)[0])


class Translator(nn.Module):
    """An encoder GRU gives its state to a decoder GRU."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.encoder = nn.Embedding(8, 6), nn.GRU(6, 8, batch_first=True)
        self.decoder, self.head = nn.GRU(6, 8, batch_first=True), nn.Linear(8, 8)

    def forward(self, source: Tensor, target: Tensor) -> Tensor:
        _, state = self.encoder(self.table(source))
        return self.head(self.decoder(self.table(target), state)[0])


LAYERS = {
    # name: (layer, width of its output, groups that a good engine finds)
    "lstm": (lambda: nn.LSTM(8, 8, batch_first=True), 8, 2),
    "lstm_two_layers": (lambda: nn.LSTM(8, 8, 2, batch_first=True), 8, 2),
    "lstm_both_ways": (lambda: nn.LSTM(8, 8, batch_first=True, bidirectional=True), 16, 2),
    "lstm_deep_both_ways": (lambda: nn.LSTM(8, 4, 2, batch_first=True, bidirectional=True), 8, 2),
    "lstm_projected": (lambda: nn.LSTM(8, 8, batch_first=True, proj_size=4), 4, 3),
    "lstm_time_first": (lambda: nn.LSTM(8, 8), 8, 2),
    "lstm_no_bias": (lambda: nn.LSTM(8, 8, bias=False, batch_first=True), 8, 2),
    "gru": (lambda: nn.GRU(8, 8, batch_first=True), 8, 2),
    "gru_both_ways": (lambda: nn.GRU(8, 8, 2, batch_first=True, bidirectional=True), 16, 2),
    "rnn_tanh": (lambda: nn.RNN(8, 8, batch_first=True), 8, 2),
    "rnn_relu": (lambda: nn.RNN(8, 8, 2, nonlinearity="relu", batch_first=True), 8, 2),
}

CELLS = {"lstm_cell": nn.LSTMCell, "gru_cell": nn.GRUCell, "rnn_cell": nn.RNNCell}

PATTERNS = [
    *(
        Pattern(
            name=name, make=lambda layer=layer, out=out: Sequence(layer(), out), example=tokens(4, 4), expect=expect
        )
        for name, (layer, out, expect) in LAYERS.items()
    ),
    *(
        Pattern(name=name, make=lambda cell=cell: Cells(cell(4, 8)), example=tokens(4, 4), expect=1)
        for name, cell in CELLS.items()
    ),
    Pattern(name="lstm_last_state", make=LastState, example=tokens(4, 4), expect=1),
    Pattern(name="gru_given_state", make=GivenState, example=tokens(4, 4), expect=1),
    Pattern(name="embedding_tied", make=Tied, example=ids(), expect=2),
    Pattern(name="embedding_tied_function", make=TiedFunction, example=ids(), expect=1),
    Pattern(name="embedding_positions", make=Positions, example=ids(), expect=2),
    Pattern(name="embedding_bag", make=Bag, example=ids(), expect=1),
    Pattern(name="convolution_to_lstm", make=Recogniser, example=image(3, 4, 8), expect=2),
    Pattern(name="encoder_decoder", make=Translator, example=lambda: (ids()(), ids()()), expect=2),
]
