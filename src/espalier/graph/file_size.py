"""The header of a model file: what it says, and how many bytes it and the file take, before anything is written.

file  =  8 bytes, header padded to a multiple of 8, tensors
header = {"__metadata__": our entries, tensor name: {"dtype", "shape", "data_offsets"}, ...} without spaces
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from ..core import NOT_PROVED, Plan, Surgery
from .axes.inference import Dims
from .axes.polynomial import Poly
from .header import header_of, metadata
from .probes.operators import Counts
from .recording.tensors import stored_tensors
from .surgery.layers import whole_surgery

if TYPE_CHECKING:
    from .graph import Graph

_WORDS = 100  # about what a slice takes in JSON beside names and numbers, and the attribute that follows it
_NO_DIGEST = "0" * 64
# Safetensors' names of types, in the order in which it writes tensors; those of one type go by name.
_TYPES = {
    "uint64": "U64", "int64": "I64", "float64": "F64", "complex64": "C64", "float32": "F32", "uint32": "U32",
    "int32": "I32", "bfloat16": "BF16", "float16": "F16", "uint16": "U16", "int16": "I16", "float8_e8m0fnu": "F8_E8M0",
    "float8_e4m3fn": "F8_E4M3", "float8_e5m2": "F8_E5M2", "int8": "I8", "uint8": "U8", "bool": "BOOL",
}  # fmt: skip


def file_bytes(entries: Mapping[str, str], tensors: Mapping[str, tuple[str, tuple[int, ...], int]]) -> int:
    """Return the size of a safetensors file.

    Args:
        entries: its metadata.
        tensors: ``{name: (dtype, shape, bytes an element)}``.
    """
    order = list(_TYPES)
    header: dict[str, object] = {"__metadata__": dict(entries)}
    end = 0
    for name in sorted(tensors, key=lambda n: (order.index(tensors[n][0]), n.encode())):
        dtype, shape, width = tensors[name]
        start, end = end, end + math.prod(shape) * width
        header[name] = {"dtype": _TYPES[dtype], "shape": list(shape), "data_offsets": [start, end]}
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    return 8 + -(-len(text) // 8) * 8 + end


@dataclass(frozen=True, eq=False)
class FileSize:
    """The size of the file that ``save`` would write, by arithmetic.

    Attributes:
        graph: the network; its skeleton says what is stored.
    """

    graph: Graph

    def of_plan(self, plan: Plan) -> int:
        """Return the bytes of the file of the network after ``plan``, metadata and all: what ``os.stat`` will say.

        A cut counts as not proved, which is the longest word: the file of a proved one has up to 8 bytes less.
        """
        skeleton = self.graph.skeleton
        cut = whole_surgery(skeleton, self.graph, plan)
        stored = stored_tensors(skeleton)
        kept = {place: len(one.keep) for place, one in cut.slices.items()}
        shapes = {n: tuple(kept.get((n, d), size) for d, size in enumerate(t.shape)) for n, t in stored.items()}
        types = {name: str(tensor.dtype).removeprefix("torch.") for name, tensor in stored.items()}
        surgery = (getattr(skeleton, "espalier_surgery", None) or Surgery()).then(cut)
        listed = {n: (types[n], shapes[n], _NO_DIGEST) for n in stored}
        header = header_of(skeleton, surgery, listed, NOT_PROVED)
        entries = metadata(replace(header, grids=header.grids.sliced(cut.slices.values())))
        return file_bytes(entries, {n: (types[n], shapes[n], t.element_size()) for n, t in stored.items()})

    def of_counts(self, sizes: list[int]) -> int:
        """Return about as many bytes, whatever units are kept: fast, and exact but for the digits of their numbers.

        Args:
            sizes: units that every group keeps, in the graph's order.
        """
        counts, constant, listed, full = self._compiled
        cut = np.asarray(sizes) < full
        words = (listed[:, 0] + listed[:, 1] * np.asarray(sizes)) * cut
        return round(float(counts.values(sizes).sum()) + constant + float(words.sum()))

    @cached_property
    def _compiled(self) -> tuple[Counts, float, np.ndarray, np.ndarray]:
        graph = self.graph
        stored = stored_tensors(graph.skeleton)
        full = list(graph.sizes.values())
        volumes = [
            _volume(graph, dims) * Poly.const(stored[name].element_size())
            for name, dims in graph.leaves.items()
            if name in stored
        ]
        counts = Counts.of(volumes, len(full))
        listed = [
            [
                sum(_WORDS + 2 * len(slot.tensor) for slot in group.slots),
                sum(slot.positions.size / group.size * (len(str(slot.positions.max())) + 2) for slot in group.slots),
            ]
            for group in graph.groups.values()
        ]
        constant = self.of_plan(Plan({})) - float(counts.values(full).sum())
        return counts, constant, np.array(listed).reshape(-1, 2), np.array(full)


def _volume(graph: Graph, dims: Dims) -> Poly:
    volume = Poly.const(1)
    for dim in dims:
        volume = volume * graph.partition.count(dim)
    return volume
