"""Random small networks: convolutional stages, then tokens, then a head, each a random sequence of blocks and joins."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from hypothesis import strategies as st
from torch import Tensor, nn

from .blocks import IMAGE, Step, nn_conv, nn_linear, sequence
from .token_blocks import TOKEN, ClassToken

WIDTHS = (2, 4, 6, 8, 12)


@dataclass(frozen=True)
class Spec:
    """A whole random network, as plain data that hypothesis can print and shrink.

    Attributes:
        image: steps over (2, channels, 8, 8).
        tokens: steps over (2, tokens, width).
        turn: how images become tokens: pixels after pooling, or rows as columns of features.
        head: how tokens become logits: mean, class token, or all of them flattened.
    """

    image: tuple[Step, ...]
    tokens: tuple[Step, ...]
    turn: int
    head: int


class Network(nn.Module):
    """What a spec describes; reads images (batch, 3, 8, 8)."""

    def __init__(self, spec: Spec) -> None:
        super().__init__()
        self.turn, self.how = spec.turn % 2, spec.head % 3
        self.stem, width = nn.Conv2d(3, 4, 3, padding=1), 4
        self.image, width = sequence(width, spec.image, IMAGE, nn_conv)
        self.pool = nn.AdaptiveAvgPool2d((2, 2) if self.turn == 0 else (2, 4))
        count, width = (4, width) if self.turn == 0 else (4, 2 * width)
        self.token = ClassToken(width) if self.how == 1 else nn.Identity()
        self.tokens, width = sequence(width, spec.tokens, TOKEN, nn_linear)
        self.norm = nn.LayerNorm(width) if spec.head // 3 % 2 else nn.Identity()
        self.head = nn.Linear(width * count if self.how == 2 else width, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(self.image(self.stem(x)))
        x = x.flatten(2).transpose(1, 2) if self.turn == 0 else x.permute(0, 3, 1, 2).flatten(2)
        x = self.norm(self.tokens(self.token(x)))
        return self.head(x.mean(1) if self.how == 0 else x[:, 0] if self.how == 1 else x.flatten(1))


def build(spec: Spec, seed: int = 0) -> tuple[nn.Module, Tensor]:
    """Return the network in float64 and eval mode, and a batch of two images; same seed, same weights."""
    torch.manual_seed(seed)
    model = Network(spec).double().eval()
    return model, torch.randn(2, 3, 8, 8, dtype=torch.float64)


def _steps(kinds: list[str], *, most: int) -> st.SearchStrategy[tuple[Step, ...]]:
    """Return a strategy for sequences of up to ``most`` steps, joins of random branches among them."""
    blocks = [st.builds(Step, st.just(kind), st.sampled_from(WIDTHS), st.integers(0, 23)) for kind in kinds]
    plain = st.one_of(blocks)  # a strategy a kind, so that joins do not crowd them out
    branch = st.lists(plain, max_size=2).map(tuple)
    branches = st.lists(branch, min_size=2, max_size=3).map(tuple)
    join = st.builds(Step, st.just("join"), st.sampled_from(WIDTHS), st.integers(0, 4), branches)
    return st.lists(st.one_of([*blocks, join, join]), min_size=1, max_size=most).map(tuple)


def specs() -> st.SearchStrategy[Spec]:
    """Return a strategy for whole networks."""
    return st.builds(
        Spec, _steps(list(IMAGE), most=4), _steps(list(TOKEN), most=3), st.integers(0, 1), st.integers(0, 5)
    )
