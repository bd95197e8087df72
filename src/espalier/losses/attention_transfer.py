"""Attention transfer: the student learns where the teacher's layers are active, not in which channels."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional

from .attachment import Attachment, Call
from .errors import DistillationError
from .feature_part import FeaturePart
from .layers import Match, Named
from .objective import Mix, Objective, Part, added, check_number


@dataclass(frozen=True, kw_only=True)
class AttentionTransfer(Objective):
    """Match the attention maps of some layers: how strong all channels are together, pixel by pixel or token by token.

        map(a) = sum over channels c of |a_c|^p,   Q = map / ||map||_2      (a sample; over pixels or tokens)
        loss = task loss + weight * mean over layers, mean over samples of 1/2 ||Q_student - Q_teacher||_2^2

    A layer's distance lies in [0, 1]. No adapters are needed: any student whose layers have the same pixels or tokens.

    Source: Zagoruyko & Komodakis, ICLR 2017, arXiv:1612.03928, section 3.1, equation 2.
    Differs: (1) the squared norm, as in the authors' code, not the norm; (2) the mean over layers, not the sum.

    Attributes:
        weight: at least 0; of 3, 10 and 30 the best on validation in benchmarks/distillation.py, and what the
            authors' code comes to on maps of about 32 places.
        power: p, above 0; larger ones look at the strongest channels.
        layers: names, or pairs (teacher's, student's); stage ends when empty (see ``stage_ends``).
        stages: how many stage ends at most, when no layers are named.

    Raises:
        DistillationError: a number out of range.
    """

    weight: float = 30.0
    power: float = 2.0
    layers: Named = ()
    stages: int = 4

    def __post_init__(self) -> None:
        """Check ranges."""
        check_number("weight", self.weight, 0)
        check_number("power", self.power, 0, open_end=True)
        check_number("stages", self.stages, 1)

    def parts(self, made: Attachment, call: Call | None) -> list[tuple[Mix, Part]]:
        """Return this objective, attached."""
        part = _Maps(made, call, self.layers, self.stages)
        part.power = self.power
        return [(added(self.weight), part)]


class _Maps(FeaturePart):
    """Compares attention maps."""

    power: float

    def check(self, match: Match) -> None:
        if match.channel is None:
            raise DistillationError(f"{match}: no single dimension carries its channels, so it has no map")

    def distance(self, number: int, match: Match, theirs: Tensor, own: Tensor) -> Tensor:
        maps = [attention_map(feature, match.channel or 0, self.power) for feature in (own, theirs)]
        if maps[0].shape != maps[1].shape:
            raise DistillationError(
                f"{match}: the student's feature has shape {tuple(own.shape)}, the teacher's {tuple(theirs.shape)}: "
                "attention maps need the same samples and places"
            )
        return (maps[0] - maps[1]).square().sum(1).mean() / 2


def attention_map(feature: Tensor, channel: int, power: float) -> Tensor:
    """Return the normalised map (samples, places) of a feature (samples, ...) with its channels in one dimension."""
    strength = feature.abs().pow(power).sum(channel).flatten(1)
    return functional.normalize(strength, dim=1)
