"""What the soft relocation of knowledge minimises, beside the task's loss: R1 to R4, and the spectrum they look at.

    reader ──reads──▶ A, positions x channels: columns P (to be removed) and S (survivors) ──▶ z = A W_next

Every loss is a mean over readings; who uses one takes it relative to its value when P is removed at once.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from ..core import Plan, Role
from ..graph import Graph
from ..graph.probes.gates import ungated
from ..graph.recording.tensors import named_tensors

_SMALL = 1e-12


@dataclass(eq=False)
class Reading:
    """One weight that reads units which are to be removed.

    Attributes:
        module: whose ``weight`` it is.
        dim: of the weight, over what is read.
        gone, kept: positions in that dimension, of P and of S.
        inputs, outputs: of the module in the last training forward.
    """

    module: str
    dim: int
    gone: Tensor
    kept: Tensor
    inputs: Tensor | None = field(default=None, repr=False)
    outputs: Tensor | None = field(default=None, repr=False)

    def activations(self, rows: int) -> tuple[Tensor, Tensor] | None:
        """Return (A_P, A_S) of at most ``rows`` positions; None where the weight reads channels group by group."""
        x = self.inputs
        if x is None:
            return None
        channels = x.shape[1] if x.dim() > 2 and self.convolves else x.shape[-1]
        if channels != len(self.gone) + len(self.kept):
            return None
        flat = (x.movedim(1, -1) if self.convolves else x).reshape(-1, channels).float()
        flat = flat[:: max(1, len(flat) // rows)]
        return flat[:, self.gone.to(flat.device)], flat[:, self.kept.to(flat.device)]

    convolves: bool = False


def readings_of(model: nn.Module, graph: Graph, plan: Plan) -> list[Reading]:
    """Return the readings of all groups that lose units by a plan, each weight once, in the graph's order."""
    modules = dict(model.named_modules())
    found: dict[tuple[str, int], set[int]] = {}
    for name, units in plan.keep.items():
        for slot in graph.groups[name].slots:
            module, _, attribute = slot.tensor.rpartition(".")
            if slot.role is Role.READER and attribute == "weight" and slot.dim == 1 and module in modules:
                lost = [unit for unit in range(graph.sizes[name]) if unit not in set(units)]
                found.setdefault((module, slot.dim), set()).update(slot.positions[lost].flatten().tolist())
    made = []
    for (module, dim), gone in found.items():
        size = graph.shapes[f"{module}.weight"][dim]
        kept = [position for position in range(size) if position not in gone]
        one = Reading(module, dim, torch.tensor(sorted(gone)), torch.tensor(kept))
        one.convolves = len(graph.shapes[f"{module}.weight"]) > 2
        made.append(one)
    return made


def spectral_entropy(matrix: Tensor) -> Tensor:
    """Return E(A) = -(1 / log r) sum_j q_j log q_j with q_j = s_j^2 / sum s^2, in [0, 1]; differentiable.

    0 where one direction dominates, 1 where the spectrum is flat; r is the smaller side of A.

    Source: Alter et al., PNAS 2000; Varshavsky et al., Bioinformatics 2006.
    """
    narrow = matrix if matrix.shape[0] >= matrix.shape[1] else matrix.T
    squares = torch.linalg.eigvalsh(narrow.double().T @ narrow.double()).clamp(min=0)
    shares = squares / squares.sum().clamp(min=_SMALL)
    entropy = -(shares * shares.clamp(min=_SMALL).log()).sum()
    return entropy / math.log(len(shares)) if len(shares) > 1 else 0.0 * entropy


def ridge(kept: Tensor, gone: Tensor, amount: float, sum_ranks: Callable[[Tensor], Tensor]) -> Tensor:
    """Return M = argmin |A_P - A_S M|^2 + amount * mean |A_S|^2 * |M|^2, from the positions of all ranks."""
    s, p = kept.detach().double(), gone.detach().double()
    gram, cross = sum_ranks(s.T @ s), sum_ranks(s.T @ p)
    damped = gram + (amount * gram.diagonal().mean() + _SMALL) * torch.eye(len(gram), dtype=s.dtype, device=s.device)
    return torch.linalg.solve(damped, cross).float()


@dataclass(eq=False)
class Relocation:
    """What the losses share.

    Attributes:
        model: whose units are to go.
        readings: of those units.
        teacher: the dense network, frozen; only R2 asks it.
        rows: positions that are looked at.
        ridge: of M, relative.
        sum_ranks: adds up over ranks.
        maps: ``{reading's module: M}``, renewed by ``renew``.
    """

    model: nn.Module
    readings: list[Reading]
    teacher: nn.Module | None
    rows: int
    ridge: float
    sum_ranks: Callable[[Tensor], Tensor]
    maps: dict[str, Tensor] = field(default_factory=dict)

    def watch(self) -> Callable[[], None]:
        """Keep what the readers read and answer in training forwards; return what ends it."""
        handles = [self._watched(self.model, one).remove for one in self.readings]

        def end() -> None:
            for remove in handles:
                remove()

        return end

    @staticmethod
    def _watched(model: nn.Module, reading: Reading) -> Any:
        def keep(module: nn.Module, args: tuple, output: Tensor) -> None:
            if module.training:
                reading.inputs, reading.outputs = args[0], output

        return model.get_submodule(reading.module).register_forward_hook(keep)

    def renew(self) -> None:
        """Solve every M anew from the last forward."""
        for one in self.readings:
            pair = one.activations(self.rows)
            if pair is not None:
                self.maps[one.module] = ridge(pair[1], pair[0], self.ridge, self.sum_ranks)

    # ---- the four losses: (inputs of the batch, alpha) -> a scalar --------------------------------------------------

    def energy(self, inputs: Any, alpha: float) -> Tensor:
        """R1: the share of the reading weights' energy that reads P.

        mean over readings of  sum over c in P |W_next[:, c]|^2 / |W_next|^2 (as it was at the start: see reference)
        """
        terms = []
        with ungated():
            for one in self.readings:
                weight = self.model.get_submodule(one.module).weight
                assert isinstance(weight, Tensor)
                terms.append(weight.index_select(one.dim, one.gone.to(weight.device)).float().square().sum())
        return _mean(terms)

    def reconstruction(self, inputs: Any, alpha: float) -> Tensor:
        """R2: mean over readings of |z_dense - z_gated|^2 / |z_dense|^2, z the readers' pre-activations."""
        assert self.teacher is not None
        answers = self.answers(inputs)
        terms = []
        for one in self.readings:
            if one.outputs is not None:
                target = answers[one.module].float()
                terms.append((target - one.outputs.float()).square().sum() / target.square().sum().clamp(min=_SMALL))
        return _mean(terms)

    def redundancy(self, inputs: Any, alpha: float) -> Tensor:
        """R3: mean over readings of |A_P - A_S M|^2 / |A_P|^2."""
        terms = []
        for one in self.readings:
            pair = one.activations(self.rows)
            if pair is not None and one.module in self.maps:
                gone, kept = pair
                rest = (gone - kept @ self.maps[one.module]).square().sum()
                terms.append(rest / gone.square().sum().clamp(min=_SMALL))
        return _mean(terms)

    def entropy(self, inputs: Any, alpha: float) -> Tensor:
        """R4: mean over readings of  1 - E(A_S) + E(A_P) |alpha A_P|^2 / |A|^2  (E alone is blind to scale)."""
        terms = []
        for one in self.readings:
            pair = one.activations(self.rows)
            if pair is not None:
                gone, kept = pair
                energy = gone.square().sum()
                share = alpha**2 * energy / (energy + kept.square().sum()).clamp(min=_SMALL)
                terms.append(1 - spectral_entropy(kept) + spectral_entropy(gone) * share)
        return _mean(terms).float()

    @torch.no_grad()
    def answers(self, inputs: Any) -> Mapping[str, Tensor]:
        """Return what the dense network's readers answer: batch norms by the batch, as in the network in training."""
        assert self.teacher is not None
        found: dict[str, Tensor] = {}
        handles = []
        for one in self.readings:

            def keep(module: nn.Module, args: tuple, output: Tensor, name: str = one.module) -> None:
                found[name] = output

            handles.append(self.teacher.get_submodule(one.module).register_forward_hook(keep))
        try:
            self.teacher(inputs)
        finally:
            for handle in handles:
                handle.remove()
        return found


def _mean(terms: list[Tensor]) -> Tensor:
    return torch.stack(terms).mean() if terms else torch.zeros(())


LOSSES: dict[str, Callable[[Relocation, Any, float], Tensor]] = {
    "energy": Relocation.energy,
    "reconstruction": Relocation.reconstruction,
    "redundancy": Relocation.redundancy,
    "entropy": Relocation.entropy,
}


def teacher_of(model: nn.Module, stored: Mapping[str, Any]) -> nn.Module:
    """Return a frozen copy of the dense network, or the one that a checkpoint stored, for R2."""
    teacher = copy.deepcopy(model).requires_grad_(False).eval()
    with torch.no_grad():
        for name, tensor in named_tensors(teacher).items():
            if f"teacher/{name}" in stored:
                tensor.copy_(stored[f"teacher/{name}"])
    for module in teacher.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.train()
            module.momentum = 0.0  # its statistics stay those of the dense network
    return teacher


def quiet(model: nn.Module) -> None:
    """Put a network in train mode without the random numbers of dropout."""
    model.train()
    for module in model.modules():
        if "Drop" in type(module).__name__:
            module.eval()
