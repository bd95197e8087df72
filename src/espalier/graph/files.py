"""Models on disk: ``model.safetensors`` with the surgery in its metadata. No pickle.

    safetensors header
      __metadata__   espalier      format version
                     architecture  name that `es.model` builds, or ""; shown, never built
                     surgery       JSON: the ordered operations of `Surgery.to_data`
                     aliases       JSON: {tied name: stored name}
                     tensors       JSON: {name: [dtype, shape, SHA-256 of its bytes]}
                     proof         what was proved about the last cut: float64, float32, shapes or "not proved"
                     sha256        JSON: {each entry above: SHA-256 of its text}
      tensors        parameters and persistent buffers, tied ones once

`load` checks all of it, and that the surgery fits the model, before the model is touched. The hashes find damage
(safetensors itself loads a flipped bit silently); they are no signature.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from ..core import CutError, FileError, GridError, Surgery
from ..core.atomic import replacing
from .grids import grids_of, off_grid, put_grids_, unquantize_
from .header import Header, check_names, header_of, metadata, read_header, sha256, sort_metadata
from .kinds import check_model, check_path
from .masks import unmask_
from .recording.tensors import aliases, stored_tensors
from .sharing import unshare_
from .surgery.layers import contradictions
from .surgery.operate import check_surgery, operate


@dataclass(frozen=True)
class Contents:
    """What a model file holds, whichever way it is written: what it says, and the tensors on the CPU by name."""

    header: Header
    tensors: Mapping[str, Tensor]


def save(model: nn.Module, path: str | Path) -> None:
    """Write ``model`` as safetensors, whole or not at all.

    Raises:
        FileError: the model has state that safetensors cannot hold, or the place cannot be written.
    """
    check_model("save", model)
    check_path("save", path)
    write(contents(model, Path(path)), path)


def load(path: str | Path, model_or_factory: nn.Module | Callable[[], nn.Module]) -> nn.Module:
    """Return the saved model, rebuilt on the original architecture without tracing it.

    Its inputs are quantized again, and its weights lie on their grids, as its file says.
    A cut one carries ``espalier_surgery`` and ``espalier_proof`` as they were when it was saved; the proof is then
    the word of whoever wrote the file.

    Args:
        path: what ``save`` wrote.
        model_or_factory: the original, uncut architecture: a module (copied, untouched), or a function that builds it.

    Raises:
        FileError: the file is missing, truncated, damaged or foreign, or belongs to another architecture.
    """
    check_path("load", path)
    source = Path(path)
    header = read_header(source)
    return restore(source, header, lambda: _read_tensors(source, header), model_or_factory)


def contents(model: nn.Module, target: Path) -> Contents:
    """Return what a file of ``model`` holds, each tensor with storage of its own.

    Raises:
        FileError: the model has state that no file of ours can hold, or weights that left the grid that it carries.
    """
    _refuse_graph_module(model)
    left = list(off_grid(grids_of(model), model))
    if left:
        raise FileError(f"{'; '.join(left)}, as the model says: quantize it anew, or take its grids off (unquantize_)")
    tensors = {name: tensor.detach() for name, tensor in stored_tensors(model).items()}
    _check_storable(model, tensors)
    surgery = getattr(model, "espalier_surgery", None) or Surgery()
    check_names(surgery, target)
    plain = _own_storage(tensors)
    return Contents(header_of(model, surgery, listed(plain)), plain)


def read(path: str | Path) -> Contents:
    """Return what a safetensors file of ours holds.

    Raises:
        FileError: the file is missing, truncated, damaged or foreign.
    """
    header = read_header(path)
    return Contents(header, _read_tensors(Path(path), header))


def write(held: Contents, path: str | Path) -> None:
    """Write safetensors, whole or not at all.

    Raises:
        FileError: the place cannot be written.
    """
    target = Path(path)
    entries = metadata(held.header)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with replacing(target) as temporary:
            save_file(dict(held.tensors), temporary, metadata=entries)
            sort_metadata(temporary)
    except (OSError, SafetensorError) as error:
        raise FileError(f"cannot write {target}: {error}") from error


def listed(tensors: Mapping[str, Tensor]) -> dict[str, tuple[str, tuple[int, ...], str]]:
    """Return what a header says about tensors: type, shape, SHA-256."""
    return {name: (_dtype(one), tuple(one.shape), tensor_sha256(one)) for name, one in tensors.items()}


def restore(
    source: Path,
    header: Header,
    tensors: Callable[[], Mapping[str, Tensor]],
    model_or_factory: nn.Module | Callable[[], nn.Module],
) -> nn.Module:
    """Return a file's model, rebuilt on the original architecture; its tensors are read once they are known to fit.

    Raises:
        FileError: the file belongs to another architecture, or is damaged.
    """
    given = isinstance(model_or_factory, nn.Module)
    model = model_or_factory if isinstance(model_or_factory, nn.Module) else _build(model_or_factory, header)
    _check_fits(source, header, model)
    held = tensors()
    try:
        result = operate(model, header.surgery, inplace=not given)
    except CutError as error:
        raise FileError(f"{source}: {error}") from error
    targets = stored_tensors(result)
    with torch.no_grad():
        for name, tensor in held.items():
            targets[name].copy_(tensor)
    if header.surgery.slices or header.surgery.attributes:
        result.espalier_proof = header.proof  # type: ignore[assignment]
    try:
        put_grids_(unquantize_(result), header.grids)
    except GridError as error:
        raise FileError(f"{source} is damaged or foreign: {error}") from error
    return unshare_(unmask_(result))  # they speak of weights that are gone now


def _read_tensors(source: Path, header: Header) -> dict[str, Tensor]:
    """Return the tensors, each equal to its recorded type, shape and hash."""
    tensors = {}
    try:
        with safe_open(source, framework="pt") as file:
            if set(file.keys()) != set(header.tensors):
                raise FileError(f"{source} is damaged: its tensors are not those that its metadata lists")
            for name, (dtype, shape, digest) in header.tensors.items():
                tensor = file.get_tensor(name)
                if (_dtype(tensor), tuple(tensor.shape)) != (dtype, shape) or tensor_sha256(tensor) != digest:
                    raise FileError(f"{source} is damaged: tensor {name!r} does not match its SHA-256")
                tensors[name] = tensor
    except (SafetensorError, OSError, ValueError) as error:
        raise FileError(f"{source} is truncated or damaged: {error}") from error
    return tensors


def _build(factory: object, header: Header) -> nn.Module:
    name = header.architecture or "the original architecture"
    if not callable(factory):
        raise FileError(
            f"load needs a model or a function that builds one, not {factory!r:.80}: give es.model({name!r})"
        )
    model = factory()
    if not isinstance(model, nn.Module):
        raise FileError(f"the function given to load returned {type(model).__name__}, not a torch.nn.Module")
    return model


def _check_fits(source: Path, header: Header, model: nn.Module) -> None:
    """Check names, shapes, types and ties of ``model`` after the surgery against the file."""
    origin = f" (saved from {header.architecture})" if header.architecture else ""

    def refuse(what: str) -> NoReturn:
        raise FileError(f"{source}{origin} does not fit this {type(model).__name__}: {what}")

    done = getattr(model, "espalier_surgery", None)
    if done is not None and (done.slices or done.attributes):
        refuse("the model is already cut; give the original architecture")
    try:
        check_surgery(model, header.surgery)
    except CutError as error:
        refuse(str(error))
    for found in contradictions(model, header.surgery):
        refuse(f"the file contradicts itself: {found}")
    stored = stored_tensors(model)
    for kind, names in (("no tensor", set(header.tensors) - set(stored)), ("also", set(stored) - set(header.tensors))):
        if names:
            refuse(f"the model has {kind} {min(names)!r}" + (f" and {len(names) - 1} more" if len(names) > 1 else ""))
    if dict(header.aliases) != _stored_aliases(model):
        refuse("the file and the model tie different tensors")
    kept = {(one.tensor, one.dim): len(one.keep) for one in header.surgery.slices.values()}
    for name, tensor in stored.items():
        shape = tuple(kept.get((name, dim), size) for dim, size in enumerate(tensor.shape))
        _check_tensor(name, tensor, shape, header, refuse)


def _check_tensor(
    name: str, tensor: Tensor, expected: tuple[int, ...], header: Header, refuse: Callable[[str], NoReturn]
) -> None:
    """Check one tensor of the uncut model; ``expected`` is its shape after the surgery."""
    dtype, shape, _ = header.tensors[name]
    if shape != expected:
        refuse(f"tensor {name!r} has shape {shape} in the file, {expected} in the model after the surgery")
    if dtype != _dtype(tensor):
        refuse(f"tensor {name!r} is {dtype} in the file, {_dtype(tensor)} in the model; convert the model first")
    if tensor.is_meta:
        refuse(f"tensor {name!r} is on the meta device; build the model on a real one")


def _refuse_graph_module(model: nn.Module) -> None:
    if isinstance(model, torch.fx.GraphModule):
        raise FileError(
            "a GraphModule has no architecture to rebuild it on: save it as .pt2, "
            "torch.export.save(torch.export.export(model, (example,)), 'small.pt2')"
        )


def _check_storable(model: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    for name, tensor in tensors.items():
        if tensor.is_meta or tensor.layout is not torch.strided or tensor.is_quantized:
            raise FileError(f"tensor {name!r} is meta, sparse or quantized: safetensors cannot hold it")
    for name, module in model.named_modules():
        if type(module).get_extra_state is not nn.Module.get_extra_state:
            where = name or type(model).__name__
            raise FileError(f"{where} keeps extra state outside its tensors, which cannot be saved without pickle")


def _stored_aliases(model: nn.Module) -> dict[str, str]:
    stored = stored_tensors(model)
    return {other: first for other, first in aliases(model).items() if first in stored}


def _own_storage(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors contiguous on the CPU; views get their own storage, as safetensors refuses to share."""
    result: dict[str, Tensor] = {}
    seen: set[int] = set()
    for name, tensor in tensors.items():
        whole = tensor.cpu().contiguous()
        storage = whole.untyped_storage()
        if storage.data_ptr() in seen or storage.nbytes() != whole.numel() * whole.element_size():
            whole = whole.clone()
        seen.add(whole.untyped_storage().data_ptr())
        result[name] = whole
    return result


def _dtype(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def tensor_sha256(tensor: Tensor) -> str:
    """Return the SHA-256 of a CPU tensor's bytes."""
    return sha256(tensor.reshape(-1).view(torch.uint8).numpy() if tensor.numel() else b"")
