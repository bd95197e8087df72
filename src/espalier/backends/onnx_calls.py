"""Recorded operators as ONNX nodes, so that a runtime can time many of them alone in one session.

Every call becomes a branch of its own, fed by its own inputs; its nodes carry its number in their names
(``call7_``), which runtimes keep through fusion and layout changes, so that their profilers tell calls apart.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from ..graph.probes.operators import Sized
from ..graph.recording.record import Ref
from .torch_calls import groups

OPSET = 20
_IR_VERSION = 10


@dataclass
class Branches:
    """A model under construction.

    Attributes:
        feeds: ``{input name: array}``.
    """

    nodes: list[Any] = field(default_factory=list)
    inputs: list[Any] = field(default_factory=list)
    outputs: list[Any] = field(default_factory=list)
    weights: list[Any] = field(default_factory=list)
    feeds: dict[str, np.ndarray] = field(default_factory=dict)

    def model(self) -> bytes:
        """Return the serialized model."""
        from onnx import helper

        graph = helper.make_graph(self.nodes, "calls", self.inputs, self.outputs, self.weights)
        opset = [helper.make_opsetid("", OPSET)]
        return helper.make_model(graph, opset_imports=opset, ir_version=_IR_VERSION).SerializeToString()


@dataclass
class Branch:
    """One call's part of a model."""

    sized: Sized
    number: int
    into: Branches
    used: int = 0

    def name(self, what: str) -> str:
        """Return a name that carries the call's number."""
        self.used += 1
        return f"call{self.number}_{what}{self.used}"

    def has(self, argument: str) -> bool:
        """Whether a tensor argument is given."""
        return isinstance(self.sized.bound().get(argument), Ref)

    def feed(self, argument: str) -> str:
        """Add an argument as an input; return its name."""
        return self.feed_shape(self.sized.shape(argument))

    def feed_shape(self, shape: Sequence[int]) -> str:
        """Add an input of a shape."""
        from onnx import TensorProto, helper

        name = self.name("in")
        self.into.inputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, list(shape)))
        self.into.feeds[name] = _noise(shape)
        return name

    def weight(self, argument: str, *, turned: bool = False) -> str:
        """Add an argument as a constant; return its name."""
        shape = self.sized.shape(argument)
        return self.constant(_noise(shape[::-1] if turned else shape))

    def constant(self, array: np.ndarray) -> str:
        """Add a constant."""
        from onnx import numpy_helper

        name = self.name("weight")
        self.into.weights.append(numpy_helper.from_array(array, name))
        return name

    def node(self, kind: str, inputs: Iterable[str], **attributes: Any) -> str:
        """Add a node; return its output's name, which is the node's too."""
        from onnx import helper

        name = self.name(kind)
        self.into.nodes.append(helper.make_node(kind, list(inputs), [name], name=name, **attributes))
        return name

    def result(self, name: str) -> None:
        """Make a value an output of the model, so that nothing is left out as unused."""
        from onnx import TensorProto, helper

        self.into.outputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, None))


def _noise(shape: Sequence[int]) -> np.ndarray:
    return np.random.default_rng(0).uniform(0.5, 1.5, tuple(shape)).astype(np.float32)


def _convolution(branch: Branch) -> None:
    bound = branch.sized.bound()
    inputs = [branch.feed("input"), branch.weight("weight")]
    inputs += [branch.weight("bias")] if branch.has("bias") else [_zero_bias(branch)]
    window = branch.sized.shape("weight")[2:]
    common = {
        "kernel_shape": list(window),
        "strides": _each(bound["stride"], len(window)),
        "dilations": _each(bound["dilation"], len(window)),
        "pads": _each(bound["padding"], len(window)) * 2,
        "group": groups(branch.sized),
    }
    if bound["transposed"]:
        more = _each(bound["output_padding"], len(window))
        branch.result(branch.node("ConvTranspose", inputs, output_padding=more, **common))
    else:
        branch.result(branch.node("Conv", inputs, **common))


def _zero_bias(branch: Branch) -> str:
    """Return a bias for a convolution without one: where a norm follows, the runtime folds its shift into a bias."""
    return branch.constant(np.zeros(branch.sized.out[1], np.float32))


def _each(given: Any, count: int) -> list[int]:
    values = [int(v) for v in (given if isinstance(given, list | tuple) else [given])]
    return values * count if len(values) == 1 else values


def _addmm(branch: Branch) -> None:
    inputs = [branch.feed("mat1"), branch.weight("mat2", turned=True)]
    bias = [branch.weight("self")] if branch.sized.kind == "addmm" else []
    branch.result(branch.node("Gemm", inputs + bias, transB=1))


def _mm(branch: Branch) -> None:
    branch.result(branch.node("MatMul", [branch.feed("self"), branch.weight("mat2")]))


def _bmm(branch: Branch) -> None:
    one, other = ("batch1", "batch2") if branch.sized.kind == "baddbmm" else ("self", "mat2")
    branch.result(branch.node("MatMul", [branch.feed(one), branch.feed(other)]))


def _linear(branch: Branch) -> None:
    weight = branch.constant(_noise(branch.sized.shape("weight")[::-1]))
    out = branch.node("MatMul", [branch.feed("input"), weight])
    branch.result(branch.node("Add", [out, branch.weight("bias")]) if branch.has("bias") else out)


def _attention(branch: Branch) -> None:
    query, key, value = (branch.sized.shape(name) for name in ("query", "key", "value"))
    if query[:-2] != key[:-2]:
        raise KeyError("grouped queries")
    turned = branch.feed_shape([*key[:-2], key[-1], key[-2]])
    scores = branch.node("MatMul", [branch.feed_shape(query), turned])
    shares = branch.node("Softmax", [scores], axis=-1)
    branch.result(branch.node("MatMul", [shares, branch.feed_shape(value)]))


def _layer_norm(branch: Branch) -> None:
    count = len(branch.sized.bound()["normalized_shape"])
    shape = branch.sized.shape("input")[-count:]
    inputs = [branch.feed("input"), branch.constant(_noise(shape)), branch.constant(_noise(shape))]
    branch.result(branch.node("LayerNormalization", inputs, axis=-count))


def _one(kind: str) -> Callable[[Branch], None]:
    """Return the writer of an operator with one input."""

    def write(branch: Branch) -> None:
        branch.result(branch.node(kind, [branch.feed("self" if branch.has("self") else "input")]))

    return write


def _silu(branch: Branch) -> None:
    x = branch.feed("self")
    branch.result(branch.node("Mul", [x, branch.node("Sigmoid", [x])]))


# What a runtime runs with a kernel of its own; batch norm and most activations are fused into what they follow.
WRITERS: dict[str, Callable[[Branch], None]] = {
    "convolution": _convolution,
    "_convolution": _convolution,
    "addmm": _addmm,
    "mm": _mm,
    "bmm": _bmm,
    "baddbmm": _bmm,
    "linear": _linear,
    "scaled_dot_product_attention": _attention,
    "layer_norm": _layer_norm,
    "native_layer_norm": _layer_norm,
    "gelu": _one("Gelu"),
    "hardswish": _one("HardSwish"),
    "silu": _silu,
    "_softmax": _one("Softmax"),
}


def branches(calls: Sequence[Sized]) -> Branches:
    """Return one model that holds every call it can as a branch of its own."""
    into = Branches()
    for number, sized in enumerate(calls):
        before = len(into.nodes), len(into.inputs), len(into.weights)
        floats = all(dtype in (torch.float32, torch.bfloat16, torch.float16) for dtype in sized.dtypes.values())
        try:
            if floats:
                WRITERS[sized.kind](Branch(sized, number, into))
        except KeyError:  # a case that the writer does not cover: this call is left out
            del into.nodes[before[0] :], into.inputs[before[1] :], into.weights[before[2] :]
    into.feeds = {one.name: into.feeds[one.name] for one in into.inputs}
    return into


def number_in(name: str) -> int | None:
    """Return the number of the call whose node has this name."""
    found = re.search(r"call(\d+)_", name)
    return int(found.group(1)) if found else None
