"""Chunk, split, slice, stack, cat, flip, roll, repeat, reshape: positions move, units stay."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .base import Pattern, image, tokens


class Between(nn.Module):
    """A pointwise convolution, something done to its channels, a pointwise convolution that reads the result."""

    def __init__(self, move: Callable[[Tensor], Tensor], out: int = 8, width: int = 8) -> None:
        super().__init__()
        self.one, self.two, self.head = nn.Conv2d(3, width, 1), nn.Conv2d(out, 6, 1), nn.Conv2d(6, 2, 1)
        self.move = move

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.two(self.move(self.one(x))).relu())


ORDER = [3, 1, 0, 2, 7, 6, 5, 4]


def chunk(x: Tensor) -> Tensor:
    a, b = x.chunk(2, dim=1)
    return a * b


def split(x: Tensor) -> Tensor:
    a, b, c = torch.split(x, [2, 2, 4], dim=1)
    return torch.cat([c, a + b], dim=1)


def stack(x: Tensor) -> Tensor:
    return torch.stack([x, x.relu()], dim=2).flatten(1, 2)


def unbind(x: Tensor) -> Tensor:
    a, b = x.unflatten(1, (2, -1)).unbind(1)
    return torch.cat([b, a.sigmoid()], 1)


def nested(x: Tensor) -> Tensor:
    """16 = 2 x 8 read as 4 x 4: axes of 2, 2 and 4."""
    x = x.reshape(x.shape[0], 2, -1, *x.shape[2:]).transpose(1, 2).flatten(1, 2)
    return x.reshape(x.shape[0], 4, -1, *x.shape[2:]).transpose(1, 2).flatten(1, 2)


def channels_last(x: Tensor) -> Tensor:
    return x.permute(0, 2, 3, 1).contiguous().relu().movedim(-1, 1)


def by_token(x: Tensor) -> Tensor:
    batch, _, height, width = x.shape
    rows = F.gelu(x.view(batch, -1, height * width).transpose(1, 2))
    return rows.transpose(1, 2).reshape(batch, -1, height, width)


def indexed(x: Tensor) -> Tensor:
    return x[:, ORDER] + x.index_select(1, torch.tensor(ORDER))


def slot_write(x: Tensor) -> Tensor:
    out = x.clone()
    out[:, :4] = x[:, 4:]
    return out


def accumulate(x: Tensor) -> Tensor:
    out = torch.zeros_like(x)
    out += x
    return out.mul_(0.5).add_(x).relu_()


class Unflattened(nn.Module):
    """nn.Unflatten splits a linear layer's outputs into channels and space."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.grow, self.two = nn.Linear(8, 32), nn.Unflatten(1, (8, 2, 2)), nn.Conv2d(8, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.two(self.grow(self.one(x)).relu())


class Decoder(nn.Module):
    """A generator: linear, view with -1, transposed convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.norm = nn.Linear(8, 32), nn.BatchNorm1d(32)
        self.two, self.head = nn.ConvTranspose2d(8, 4, 2, 2), nn.Conv2d(4, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.one(x)).relu().view(x.shape[0], -1, 2, 2)
        return self.head(self.two(x).relu())


class TokenMixer(nn.Module):
    """MLP-mixer: one MLP over tokens, one over channels; token count equals width equals 8."""

    def __init__(self, count: int = 8, width: int = 8) -> None:
        super().__init__()
        self.stem, self.t1, self.t2 = nn.Linear(4, width), nn.Linear(count, 6), nn.Linear(6, count)
        self.n1, self.n2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.c1, self.c2, self.head = nn.Linear(width, 16), nn.Linear(16, width), nn.Linear(width, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = x + self.t2(F.gelu(self.t1(self.n1(x).transpose(1, 2)))).transpose(1, 2)
        x = x + self.c2(F.gelu(self.c1(self.n2(x))))
        return self.head(x.mean(1))


class BetweenLinear(nn.Module):
    """Two linear layers with a move of features between them."""

    def __init__(self, move: Callable[[Tensor], Tensor], out: int = 8) -> None:
        super().__init__()
        self.one, self.two, self.head, self.move = nn.Linear(8, 8), nn.Linear(out, 6), nn.Linear(6, 4), move

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.two(self.move(self.one(x).relu())).tanh())


def windowed(x: Tensor) -> Tensor:
    batch, channels, height, width = x.shape
    x = x.view(batch, channels, height // 4, 4, width // 4, 4).permute(0, 2, 4, 1, 3, 5).reshape(-1, channels, 4, 4)
    x = x.relu().view(batch, height // 4, width // 4, -1, 4, 4).permute(0, 3, 1, 4, 2, 5)
    return x.reshape(batch, -1, height, width)


def shifted(x: Tensor) -> Tensor:
    """The temporal shift: some channels move one step back, some forward, the rest stay."""
    out = torch.zeros_like(x)
    out[:, :2, 1:] = x[:, :2, :-1]
    out[:, 2:4, :-1] = x[:, 2:4, 1:]
    out[:, 4:] = x[:, 4:]
    return out


MOVES: dict[str, tuple[Callable[[Tensor], Tensor], int, int]] = {
    # name: (move, channels after it for 8 before it, groups that a good engine finds)
    "chunk": (chunk, 4, 2),
    "split": (split, 6, 1),  # its sizes are literals
    "stack": (stack, 16, 2),
    "unbind": (unbind, 8, 2),
    "nested_reshape": (nested, 16, 2),
    "channels_last": (channels_last, 8, 2),
    "to_tokens_and_back": (by_token, 8, 2),
    "fixed_permutation": (indexed, 8, 1),
    "slice_assignment": (slot_write, 8, 1),
    "in_place": (accumulate, 8, 2),
    "windows": (windowed, 8, 2),
    "temporal_shift": (shifted, 8, 1),
    "strided_slice": (lambda x: x[:, ::2] + x[:, 1::2], 4, 1),
    "narrow": (lambda x: x.narrow(1, 2, 4), 4, 1),
    "cat_twice": (lambda x: torch.cat([x, x.neg()], 1), 16, 2),
    "flip": (lambda x: x.flip(1).relu(), 8, 1),
    "roll_channels": (lambda x: x.roll(3, 1).relu(), 8, 1),
    "roll_space": (lambda x: x.roll((1, 2), (2, 3)).relu(), 8, 2),
    "repeat": (lambda x: x.repeat(1, 2, 1, 1), 16, 2),
    "repeat_interleave": (lambda x: x.repeat_interleave(2, 1), 16, 2),
    "pad_channels": (lambda x: F.pad(x, (0, 0, 0, 0, 2, 2)), 12, 2),
    "max_over_pairs": (lambda x: x.unflatten(1, (-1, 2)).amax(2), 4, 2),
    "group_mean": (lambda x: x.unflatten(1, (-1, 2)).mean(2), 4, 2),
    "transpose_space": (lambda x: x.transpose(2, 3).relu(), 8, 2),
    "squeeze_and_back": (lambda x: x.unsqueeze(1).relu().squeeze(1), 8, 2),
}

WIDE = {"nested_reshape": 16}

FEATURES: dict[str, tuple[Callable[[Tensor], Tensor], int, int]] = {
    "linear": (lambda x: x, 8, 2),
    "linear_chunk_product": (lambda x: x.chunk(2, -1)[0] * x.chunk(2, -1)[1].sigmoid(), 4, 2),
    "linear_cat_flip": (lambda x: torch.cat([x, x.flip(1)], -1), 16, 2),
    "linear_t": (lambda x: x.mT.contiguous().mT, 8, 2),
    "linear_expand": (lambda x: x.unsqueeze(-2).expand(-1, -1, 3, -1).mean(-2), 8, 2),
}

PATTERNS = [
    *(
        Pattern(
            name=name,
            make=lambda move=move, out=out, name=name: Between(move, out, WIDE.get(name, 8)),
            example=image(3, 8, 8),
            expect=expect,
            zero_ok=name not in {"max_over_pairs", "group_mean"},
        )
        for name, (move, out, expect) in MOVES.items()
    ),
    *(
        Pattern(name=name, make=lambda move=move, out=out: BetweenLinear(move, out), example=tokens(), expect=expect)
        for name, (move, out, expect) in FEATURES.items()
    ),
    Pattern(name="unflatten", make=Unflattened, example=lambda: torch.randn(2, 8), expect=1),
    Pattern(name="view_to_image", make=Decoder, example=lambda: torch.randn(2, 8), expect=2),
    Pattern(name="token_mixer", make=TokenMixer, example=tokens(8, 4), expect=3),
]
