"""Weight files into models: the names and shapes must be the model's own."""

from __future__ import annotations

import os.path
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn

from ..core import FileError
from ..graph.files import read_header
from .checkpoints import read_tensors

_PREFIX = "module."  # left by DataParallel
_COUNTER = "num_batches_tracked"  # of batch norms; nothing that a network computes depends on it
_SHOWN = 3


@dataclass(frozen=True)
class _Mismatch:
    """How the tensors of a file differ from a model's: names, and (name, shape in the file, shape in the model)."""

    missing: list[str]
    unknown: list[str]
    shapes: list[tuple[str, tuple[int, ...], tuple[int, ...]]]

    def __bool__(self) -> bool:
        return bool(self.missing or self.unknown or self.shapes)


def load_weights(model: nn.Module, path: str | Path) -> None:
    """Fill ``model`` with the tensors of a weight file, in place.

    Tensors that a file may lack: parameters that are not trained, and the batch counters of batch norms.

    Args:
        model: the network that the file was made for.
        path: safetensors, or a checkpoint (``.th``, ``.pt``, ``.pth``) that holds tensors by name, under
            ``state_dict`` or at the top, with or without the prefix ``module.``.

    Raises:
        FileError: the file is missing, damaged, or made for another network. The model is untouched then.
    """
    source = Path(path)
    tensors = {name.removeprefix(_PREFIX): tensor for name, tensor in read_tensors(source).items()}
    found = _compared(model, tensors)
    if found:
        raise FileError(
            f"{source} was made for another network than {type(model).__name__}: {_words(found)}. "
            f"{_hint(source, model, tensors, found)}".rstrip()
        )
    model.load_state_dict(tensors, strict=False)


def _compared(model: nn.Module, tensors: Mapping[str, Tensor]) -> _Mismatch:
    state = model.state_dict()
    fixed = {name for name, parameter in model.named_parameters() if not parameter.requires_grad}
    return _Mismatch(
        [name for name in state if name not in tensors and name not in fixed and not name.endswith(_COUNTER)],
        [name for name in tensors if name not in state and not name.endswith(_COUNTER)],
        [
            (name, tuple(tensor.shape), tuple(state[name].shape))
            for name, tensor in tensors.items()
            if name in state and tensor.shape != state[name].shape
        ],
    )


def _words(found: _Mismatch) -> str:
    shapes = [f"{name} is {theirs}, not {ours}" for name, theirs, ours in found.shapes]
    parts = [
        _counted(
            found.missing, "of the model's tensors is not in the file", "of the model's tensors are not in the file"
        ),
        _counted(
            found.unknown, "of the file's tensors is not in the model", "of the file's tensors are not in the model"
        ),
        _counted(shapes, "has another shape", "have other shapes"),
    ]
    return "; ".join(filter(None, parts))


def _counted(names: list[str], one: str, several: str) -> str:
    if not names:
        return ""
    more = ", ..." if len(names) > _SHOWN else ""
    return f"{len(names)} {one if len(names) == 1 else several} ({', '.join(names[:_SHOWN])}{more})"


def _hint(source: Path, model: nn.Module, tensors: Mapping[str, Tensor], found: _Mismatch) -> str:
    """Guess what happened."""
    if _is_cut(source):
        return "Espalier has cut this network: es.load(path, the original model) reads it."
    return _prefix_hint(model, tensors, found) or _classes_hint(found) or "Is it another size or kind of network?"


def _prefix_hint(model: nn.Module, tensors: Mapping[str, Tensor], found: _Mismatch) -> str:
    if not (found.missing and found.unknown):
        return ""
    ours, theirs = _prefix(model.state_dict()), _prefix(tensors)
    if theirs and _share(model, {name.removeprefix(theirs) for name in tensors}) > 0.5:
        return f"Its names begin with {theirs!r}, a prefix that the model has not: save them without it."
    if ours and _share(model, {ours + name for name in tensors}) > 0.5:
        return f"The model's names begin with {ours!r}, and the file's do not: save them with that prefix."
    return ""


def _classes_hint(found: _Mismatch) -> str:
    layers = {name.rpartition(".")[0] for name, _, _ in found.shapes}
    classes = {(there[0], here[0]) for _, there, here in found.shapes if there and here and there[1:] == here[1:]}
    if len(layers) != 1 or len(classes) != 1 or found.missing or found.unknown:
        return ""
    there, here = classes.pop()
    return f"Was it trained on other classes ({there}, and here {here})?"


def _is_cut(source: Path) -> bool:
    try:
        surgery = read_header(source).surgery
    except FileError:
        return False
    return bool(surgery.slices or surgery.attributes)


def _prefix(names: Mapping[str, Tensor]) -> str:
    """Return what all names begin with, up to a dot."""
    return os.path.commonprefix(list(names)).rpartition(".")[0] + "." if len(names) > 1 else ""


def _share(model: nn.Module, names: set[str]) -> float:
    state = model.state_dict().keys()
    return len(state & names) / max(len(state), 1)
