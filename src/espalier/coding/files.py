"""Models as ``.esp`` files: written whole, read back to the same bits, or refused."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import overload

import numpy as np
import torch
from torch import Tensor, nn

from ..core import FileError, KindError, Surgery
from ..core.atomic import replacing
from ..graph.files import Contents, contents, listed, restore
from ..graph.header import Header
from ..graph.kinds import check_model, check_path
from .bits import Malformed, Reader
from .container import Layout, opened, prologue, read_layout, root, sealed
from .report import Report, report
from .tensors import DTYPES, Value, extent, from_stream, to_stream, to_words

_NOTHING: Mapping[str, Value] = MappingProxyType({})
Model = nn.Module | Callable[[], nn.Module]


def encode(
    model_or_state: nn.Module | Mapping[str, Tensor] | Contents,
    path: str | Path,
    *,
    tensors: Mapping[str, Value] = _NOTHING,
    threads: int | None = None,
) -> Report:
    """Write an ``.esp`` file, whole or not at all; every stream is decoded and compared before the file has its name.

    Args:
        model_or_state: a model, tensors by name, or what a safetensors file of ours holds.
        path: of the file.
        tensors: what some tensors are made of, by name. Each must equal the tensor of its name bit by bit, so that
            what is decoded is what was given.
        threads: tensors at a time; as many as there are processors when not given.

    Raises:
        FileError: the model has state that no file can hold, a tensor is not what ``tensors`` says, or the place
            cannot be written.
        KindError: an argument is of another kind.
    """
    check_path("encode", path)
    target = Path(path)
    held = _held(model_or_state, target)
    _check_values(held.tensors, tensors)
    names = list(held.header.tensors)
    streams = dict(zip(names, _each(lambda name: _stream(name, held, tensors), names, threads), strict=True))
    digest = root(held.header.tensors)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with replacing(target) as temporary:
            with open(temporary, "wb") as file:
                file.write(prologue(held.header, digest, {name: len(one) for name, one in streams.items()}))
                file.writelines(streams.values())
            written = report(temporary, read_layout(temporary))
    except OSError as error:
        raise FileError(f"cannot write {target}: {error}") from error
    return replace(written, path=target, bytes=os.stat(target).st_size)


@overload
def decode(path: str | Path, model_or_factory: None = None, *, threads: int | None = None) -> dict[str, Tensor]: ...
@overload
def decode(path: str | Path, model_or_factory: Model, *, threads: int | None = None) -> nn.Module: ...
def decode(
    path: str | Path, model_or_factory: Model | None = None, *, threads: int | None = None
) -> nn.Module | dict[str, Tensor]:
    """Return what `encode` was given, bit by bit: the model, or the tensors by name.

    Args:
        path: an ``.esp`` file.
        model_or_factory: the original, uncut architecture: a module (copied, untouched), or a function that builds it,
            as for ``load``. Without it the tensors come by name, tied ones under all their names.
        threads: tensors at a time; as many as there are processors when not given.

    Raises:
        FileError: the file is missing, truncated, damaged or foreign, or belongs to another architecture.
    """
    check_path("decode", path)
    source = Path(path)
    layout = read_layout(source)
    if model_or_factory is not None:
        return restore(source, layout.header, lambda: _decoded(source, layout, threads).tensors, model_or_factory)
    held = _decoded(source, layout, threads)
    ties = {other: held.tensors[first] for other, first in layout.header.aliases.items() if first in held.tensors}
    return {**held.tensors, **ties}


def decoded(path: str | Path, *, threads: int | None = None) -> Contents:
    """Return what an ``.esp`` file holds, as a safetensors file of ours would hold it.

    Raises:
        FileError: the file is missing, truncated, damaged or foreign.
    """
    source = Path(path)
    return _decoded(source, read_layout(source), threads)


def _decoded(source: Path, layout: Layout, threads: int | None) -> Contents:
    """Return the tensors, equal to the hash that the file has of them all."""
    try:
        data = memoryview(source.read_bytes())
    except OSError as error:
        raise FileError(f"cannot read {source}: {error.strerror or error}") from error

    def one(name: str) -> Tensor:
        start, size = layout.streams[name]
        dtype, shape, _ = layout.header.tensors[name]
        try:
            return _opened(data[start : start + size], DTYPES[dtype], shape)
        except Malformed as error:
            raise FileError(f"{source} is damaged: tensor {name!r}: {error}") from error

    names = list(layout.streams)
    tensors = dict(zip(names, _each(one, names, threads), strict=True))
    header = replace(layout.header, tensors=listed(tensors))
    if root(header.tensors) != layout.sha256:
        raise FileError(f"{source} is damaged: its tensors do not match their SHA-256")
    return Contents(header, tensors)


def _opened(stream: memoryview, dtype: torch.dtype, shape: tuple[int, ...]) -> Tensor:
    reader = Reader(opened(stream))
    tensor = from_stream(reader, dtype, shape)
    if any(reader.take(reader.left)):
        raise Malformed("it goes on after its end")
    return tensor


def _stream(name: str, held: Contents, values: Mapping[str, Value]) -> bytes:
    """Return a tensor's stream, which has been read back and found to be the tensor."""
    tensor, value = held.tensors[name], values.get(name)
    stream = sealed(to_stream(tensor, value), extent(tensor, value))
    back = _opened(memoryview(stream), tensor.dtype, tuple(tensor.shape))
    if not np.array_equal(to_words(back), to_words(tensor)):
        raise FileError(f"tensor {name!r} does not decode to what it was: nothing is written")
    return stream


def _held(given: object, target: Path) -> Contents:
    if isinstance(given, Contents):
        held = given
    elif isinstance(given, nn.Module):
        check_model("encode", given)
        held = contents(given, target)
    elif isinstance(given, Mapping) and all(isinstance(one, Tensor) for one in given.values()):
        plain = {str(name): one.detach().cpu().contiguous() for name, one in given.items()}
        held = Contents(Header("", Surgery(), {}, listed(plain)), plain)
    else:
        raise KindError(f"encode takes an nn.Module or tensors by name, not {type(given).__name__}")
    for name, (dtype, _, _) in held.header.tensors.items():
        if dtype not in DTYPES:
            raise FileError(f"tensor {name!r} is {dtype}, which an .esp file cannot hold")
        if not name.isprintable():
            raise FileError(f"tensor {name!r} has a name that cannot be shown")
    return held


def _check_values(tensors: Mapping[str, Tensor], values: Mapping[str, Value]) -> None:
    """Check that what tensors are said to be made of gives those tensors."""
    for name, value in values.items():
        if name not in tensors:
            raise FileError(f"there is no tensor {name!r} to be made of a {type(value).__name__}")
        if not isinstance(value, Value):
            raise KindError(f"tensor {name!r} is made of a Codebook or a Uniform, not {type(value).__name__}")
        meant, tensor = value.value(), tensors[name]
        if (meant.dtype, meant.shape) != (tensor.dtype, tensor.shape):
            raise FileError(
                f"tensor {name!r} is {tensor.dtype} {tuple(tensor.shape)}, and its {type(value).__name__} gives "
                f"{meant.dtype} {tuple(meant.shape)}"
            )
        if not np.array_equal(to_words(meant), to_words(tensor)):
            raise FileError(
                f"tensor {name!r} is not what its {type(value).__name__} says, so that the decoded model would be "
                "another one: copy its value() into the model first"
            )


def _each(work: Callable[[str], object], names: Iterable[str], threads: int | None) -> list:
    """Return ``work`` of each name; several at a time, as the parts in NumPy, hashes and CRCs run beside each other."""
    if threads == 1:
        return [work(name) for name in names]
    with ThreadPoolExecutor(threads or os.cpu_count()) as pool:
        return list(pool.map(work, names))
