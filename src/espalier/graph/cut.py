"""Cut: apply a plan to a model, and return nothing that has not proved itself."""

from __future__ import annotations

import warnings

import torch
from torch import nn

from ..core import NOT_PROVED, CutError, EspalierWarning, Plan, Surgery
from .graph import Graph
from .kinds import check_cut
from .proof.prove import Proof, proof_of
from .ranks import agreed, together
from .recording.running import forget
from .recording.tensors import collection_paused, named_tensors
from .rescale import rescale
from .surgery.configs import config_notes
from .surgery.layers import whole_surgery
from .surgery.operate import check_surgery, operate


def cut(model: nn.Module, graph: Graph, plan: Plan, *, prove: bool = True) -> nn.Module:
    """Return a new, physically smaller model of the same class; ``model`` is untouched.

    The result carries ``espalier_surgery`` (what was done, relative to the original architecture),
    ``espalier_proof``: what this cut was proved in ("float64", "float32", "shapes"), or "not proved",
    ``espalier_gap`` (the largest difference that the proof found, a share of the outputs' magnitude, or None) and
    ``espalier_notes``. A ``config`` object that the model is made from (its class is called again, without data, to
    see what follows from it) is copied and says what the network has become; where no single value says it for all
    layers, a note names the value and an ``EspalierWarning`` is given.

    In a process group of ``torch.distributed`` every rank must call it, with the bare module: rank 0's plan is taken
    everywhere, and either all ranks cut or none.

    Args:
        model: the model that ``graph`` was traced from, or any copy of it.
        graph: from ``trace``.
        plan: which units each group keeps.
        prove: compare the result with the masked original and the replayed record before it is returned.

    Raises:
        KindError: an argument is of another kind.
        PlanError: the plan does not fit the graph.
        CutError: the model is not the traced one, or the ranks of a process group differ.
        ProofError: the result does not compute what it must; the message names the groups.
    """
    plan = agreed(plan, lambda: _same(model, graph, plan))

    def act() -> tuple[nn.Module, Proof]:
        with collection_paused():
            small = forget(operate(model, prepared(model, graph, plan)))
            rescale(small, graph, plan)
        return small, proof_of(model, graph, plan) if prove else Proof(NOT_PROVED)

    small, proof = together(act)
    return _marked(small, graph, plan, proof)


def cut_(model: nn.Module, graph: Graph, plan: Plan, *, prove: bool = True) -> nn.Module:
    """Cut ``model`` itself and return it; with ``prove`` a copy is proved first, so that a refusal changes nothing."""
    plan = agreed(plan, lambda: _same(model, graph, plan))

    def check() -> tuple[Surgery, Proof]:
        return prepared(model, graph, plan), proof_of(model, graph, plan) if prove else Proof(NOT_PROVED)

    surgery, proof = together(check)
    forget(operate(model, surgery, inplace=True))
    rescale(model, graph, plan)
    return _marked(model, graph, plan, proof)


def _same(model: nn.Module, graph: Graph, plan: Plan) -> str:
    """Return what must be the same on every rank before anything is cut."""
    check_cut("cut", model, graph, plan)
    return graph.fingerprint


def _marked(model: nn.Module, graph: Graph, plan: Plan, proof: Proof) -> nn.Module:
    """Write the proof and the notes of a cut on its result, in place of those of an earlier cut, and warn of them."""
    model.espalier_proof, model.espalier_gap = proof.kind, proof.gap  # type: ignore[assignment]
    notes = config_notes(model, graph, plan)
    model.espalier_notes = notes  # type: ignore[assignment]
    for note in notes:
        warnings.warn(note, EspalierWarning, stacklevel=3)
    return model


def prepared(model: nn.Module, graph: Graph, plan: Plan) -> Surgery:
    """Return the whole surgery of a plan on this model, checked against it.

    Raises:
        PlanError, CutError: see ``cut``.
    """
    check_cut("cut", model, graph, plan)
    shapes = {name: tuple(tensor.shape) for name, tensor in named_tensors(model).items()}
    traced = {name: shape for name, shape in graph.shapes.items() if name in graph.leaves}
    wrong = [name for name, shape in traced.items() if shapes.get(name) != shape]
    strange = sorted(shapes.keys() ^ graph.shapes.keys())
    if strange and not wrong:
        raise CutError(
            f"this model is not the traced one: {strange[0]!r} is in one of them alone. Trace this model and plan again"
        )
    if wrong:
        found = f"{wrong[0]!r} has shape {shapes[wrong[0]]}" if wrong[0] in shapes else f"it has no tensor {wrong[0]!r}"
        raise CutError(
            f"this model is not the traced one: {found}, "
            f"the graph expects shape {traced[wrong[0]]}. Trace this model and plan again"
        )
    whole = whole_surgery(model, graph, plan)
    _check_python(model, whole)
    check_surgery(model, whole)
    return whole


def _check_python(model: nn.Module, surgery: Surgery) -> None:
    """See that no compiled module holds what is cut: TorchScript keeps its tensors and sizes.

    Raises:
        CutError: one does.
    """
    compiled = [name for name, module in model.named_modules() if isinstance(module, torch.jit.ScriptModule)]
    for one in surgery.slices.values():
        owner = next((name for name in compiled if not name or one.tensor.startswith(f"{name}.")), None)
        if owner is not None:
            what = f"{owner!r} is" if owner else "the model is"
            raise CutError(
                f"{what} TorchScript and holds {one.tensor!r}: give the Python module, and script what is cut"
            )
