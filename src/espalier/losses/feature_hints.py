"""Feature hints: the student's layers learn what the teacher's layers return, channel by channel."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..graph import trace
from ..graph.probes.features import features
from ..graph.recording.running import device_of
from .attachment import Attachment, Call
from .errors import DistillationError
from .feature_part import FeaturePart
from .layers import Match, Named
from .objective import Mix, Objective, Part, added, check_number


@dataclass(frozen=True, kw_only=True)
class FeatureHints(Objective):
    """Match the features of some layers; the channels that a cut removed do not count, or are predicted.

        loss = task loss + weight * mean over layers of sum (t - s)^2 / sum t^2

        adapter "index"     t = the teacher's feature at the channels that the student kept, s = the student's
        adapter "learned"   t = the teacher's feature, s = A (student's) + b: a 1x1 convolution, or linear on tokens

    Layers go together by name and channels by the surgery on the student, composed over its cuts, so nothing is
    configured by hand. A learned adapter begins as the index adapter: A has a 1 where a student's channel is the
    teacher's; for a student that is no cut of the teacher, at random. Give ``example`` to ``attached`` for it, and
    ``term.parameters()`` to the optimizer.

    Source: Romero et al., FitNets, ICLR 2015, arXiv:1412.6550, equation 3.
    Differs: (1) trained along with the task, not as a stage before it; (2) several layers, not one in the middle;
    (3) the squared error is relative to the teacher's feature, so that one weight fits all layers; (4) the regressor
    is an index selection, or a 1x1 convolution that begins as one, not a large random convolution.

    Attributes:
        weight: at least 0; of 1, 3 and 10 the best on validation in benchmarks/distillation.py.
        layers: names, or pairs (teacher's, student's); stage ends when empty (see ``stage_ends``).
        stages: how many stage ends at most, when no layers are named.
        adapter: "index" or "learned".

    Raises:
        DistillationError: a number out of range, or an unknown adapter.
    """

    weight: float = 10.0
    layers: Named = ()
    stages: int = 4
    adapter: Literal["index", "learned"] = "index"

    def __post_init__(self) -> None:
        """Check ranges."""
        check_number("weight", self.weight, 0)
        check_number("stages", self.stages, 1)
        if self.adapter not in ("index", "learned"):
            raise DistillationError(f"adapter={self.adapter!r}: must be 'index' or 'learned'")

    def parts(self, made: Attachment, call: Call | None) -> list[tuple[Mix, Part]]:
        """Return this objective, attached."""
        if self.adapter == "learned" and call is None:
            raise DistillationError(
                "learned adapters exist before the first step: give attached(teacher, student, example=...)"
            )
        kind = _Indexed if self.adapter == "index" else _Learned
        return [(added(self.weight), kind(made, call, self.layers, self.stages))]


class _Indexed(FeaturePart):
    """Selects the teacher's kept channels."""

    def check(self, match: Match) -> None:
        if match.kept is None:
            raise DistillationError(
                f"{match}: no surgery tells which channels of the teacher the student's are: use adapter='learned' "
                "with an example, or AttentionTransfer, which needs no adapter"
            )

    def prepare(self, call: Call) -> None:
        super().prepare(call)
        device = device_of(self.made.student)
        found = [match.kept or {} for _, _, matches in self.matches for match in matches]
        self.indices = [{d: torch.tensor(kept, device=device) for d, kept in one.items()} for one in found]

    def distance(self, number: int, match: Match, theirs: Tensor, own: Tensor) -> Tensor:
        for d, index in self.indices[number].items():
            theirs = theirs.index_select(d, index)
        return _relative_error(match, theirs, own)


class _Learned(FeaturePart):
    """Maps the student's channels to all of the teacher's."""

    def prepare(self, call: Call) -> None:
        super().prepare(call)
        found = [match for _, _, matches in self.matches for match in matches]
        widths = self._widths(call, found)
        self.adapters = nn.ModuleList(
            _adapter(match, width, self.made.student) for match, width in zip(found, widths, strict=True)
        )

    def _widths(self, call: Call, found: list[Match]) -> Iterator[int]:
        """Yield how many channels the student's layers have: by its surgery, else by what they return."""
        unknown = any(match.kept is None for match in found)
        own = features(trace(self.made.student, call.example, call.forward_fn)) if unknown else {}
        for match in found:
            if match.kept is not None:
                yield len(match.kept.get(match.channel or 0, range(match.channels)))
            elif match.student in own:
                yield own[match.student].shape[match.channel or 0]
            else:
                raise DistillationError(f"{match}: the student's layer must run once and compute what it returns")

    def check(self, match: Match) -> None:
        if match.channel is None or set(match.kept or {}) - {match.channel}:
            raise DistillationError(f"{match}: several of its dimensions carry channels: use adapter='index'")

    def distance(self, number: int, match: Match, theirs: Tensor, own: Tensor) -> Tensor:
        d: Any = match.channel
        mapped = self.adapters[number](own.movedim(d, -1)).movedim(-1, d)
        return _relative_error(match, theirs, mapped)


def _adapter(match: Match, width: int, student: nn.Module) -> nn.Linear:
    """Return the map from the student's channels to the teacher's, as an index selection backwards if one is known."""
    first = next(student.parameters())
    dtype = torch.promote_types(first.dtype, torch.float32)
    adapter: Any = nn.utils.skip_init(nn.Linear, width, match.channels, device=first.device, dtype=dtype)
    with torch.no_grad():
        nn.init.zeros_(adapter.bias)
        if match.kept is None:  # its own generator: the training's random numbers stay what they were
            start = torch.empty(match.channels, width)
            nn.init.kaiming_normal_(start, nonlinearity="linear", generator=torch.Generator().manual_seed(0))
        else:
            kept = match.kept.get(match.channel or 0, range(match.channels))
            start = functional.one_hot(torch.tensor(list(kept)), match.channels).T.float()
        adapter.weight.copy_(start)
    return adapter


def _relative_error(match: Match, theirs: Tensor, own: Tensor) -> Tensor:
    if theirs.shape != own.shape:
        raise DistillationError(
            f"{match}: the student's feature has shape {tuple(own.shape)}, and should have {tuple(theirs.shape)}"
        )
    energy = theirs.square().sum()
    return (theirs - own).square().sum() / energy.clamp_min(torch.finfo(energy.dtype).tiny)
