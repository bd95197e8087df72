"""Recurrent layers as one operator: gates x hidden units, layer by layer, direction by direction."""

from __future__ import annotations

from ....core import Role
from ...recording.record import Ref, tensor_refs
from ..inference import Call, Dims, Refused, stack_rows
from ..units import constant, merge

_GATES = {"lstm": 4, "gru": 3, "rnn_tanh": 1, "rnn_relu": 1}


def recurrent(call: Call) -> list[Dims]:
    """torch.lstm(input, hx, params, biases, layers, dropout, train, bidirectional, batch_first), or packed.

    Packed: (data, batch_sizes, hx, params, biases, layers, dropout, train, bidirectional).
    """
    args = call.op.args
    packed = isinstance(args[1], Ref) and isinstance(args[3], list | tuple)
    hidden, params = (args[2], args[3]) if packed else (args[1], args[2])
    biases, layers, both = (args[4], args[5], args[8]) if packed else (args[3], args[4], args[7])
    x = call.of(args[0])
    states = [call.of(r) for r in (hidden if isinstance(hidden, list | tuple) else [hidden])]
    for state in states:
        for dim in state[:-1]:
            call.freeze(dim, "it counts layers and sequences")
    directions = 2 if both else 1
    step = len(params) // (int(layers) * directions)
    reads = x[-1]
    outputs: Dims = []
    for layer in range(int(layers)):
        outputs = []
        for direction in range(directions):
            start = (layer * directions + direction) * step
            weights = [call.of(r) for r in params[start : start + step]]
            out, cell = _layer(call, reads, weights, bool(biases))
            outputs.append(out)
            call.unify(states[0][-1], out)
            if len(states) == 2:
                call.unify(states[1][-1], cell)
        reads = stack_rows(outputs)
    sequence = [*x[:-1], reads]
    return [sequence, *([*(constant(n) for n in call.out_shape(i + 1)[:-1]), s[-1]] for i, s in enumerate(states))]


def _layer(call: Call, reads, weights: list[Dims], biases: bool):
    """W_ih (gates h, in), W_hh (gates h, out), b_ih, b_hh, [W_hr (out, h)]."""
    gates = _GATES[call.op.func]
    w_ih, w_hh = weights[0], weights[1]
    if len(w_ih[0]) % gates:
        raise Refused("a recurrent layer of unknown layout")
    units = call.fresh(len(w_ih[0]) // gates)
    rows = merge(constant(gates), units)
    for dim in [w_ih[0], w_hh[0], *([w[0] for w in weights[2:4]] if biases else [])]:
        call.role(dim, Role.PRODUCER if dim is w_ih[0] or dim is w_hh[0] else Role.SHIFT)
        call.unify(dim, rows)
    call.role(w_ih[1], Role.READER)
    call.unify(reads, w_ih[1])
    out = units
    if len(weights) in (3, 5):
        project = weights[-1]
        call.role(project[0], Role.PRODUCER)
        call.role(project[1], Role.READER)
        call.unify(project[1], units)
        out = project[0]
    call.role(w_hh[1], Role.READER)
    call.unify(w_hh[1], out)
    return out, units


def pack(call: Call) -> list[Dims]:
    """Sequences of several lengths, step by step without their padding: (b, t, ..) -> (steps, ..), batch sizes."""
    x = call.dims("input")
    for dim in x[:2]:
        call.freeze(dim, "it counts sequences or their steps")
    return [[constant(call.out_shape()[0]), *x[2:]], [constant(n) for n in call.out_shape(1)]]


def unpack(call: Call) -> list[Dims]:
    """The inverse of ``pack``: what is padded is the same number in every channel."""
    x = call.dims("data")
    call.freeze(x[0], "it counts steps of sequences")
    return [[*(constant(n) for n in call.out_shape()[:2]), *x[1:]], [constant(n) for n in call.out_shape(1)]]


def pad_sequence(call: Call) -> list[Dims]:
    """Sequences (t_i, ..) of several lengths as one padded batch."""
    first, *others = (call.of(r) for r in tensor_refs(call["sequences"]))
    call.freeze(first[0], "it counts steps of sequences")
    for x in others:
        call.freeze(x[0], "it counts steps of sequences")
        for own, dim in zip(first[1:], x[1:], strict=True):
            call.unify(own, dim)
    return [[*(constant(n) for n in call.out_shape()[:2]), *first[1:]]]


RULES = {
    **dict.fromkeys(_GATES, recurrent),
    "_pack_padded_sequence": pack,
    "_pad_packed_sequence": unpack,
    "pad_sequence": pad_sequence,
}
