"""Attention kernels: scaled dot-product attention as one operator."""

from __future__ import annotations

from ..inference import Call, Dims, Refused


def attention(call: Call) -> list[Dims]:
    """softmax(q k^T * scale + mask) v, with q (.., h, L, E), k (.., h, S, E), v (.., h, S, V).

    Without ``scale`` the kernel uses 1/sqrt(E): the call is noted, so that cutting E rescales q.
    """
    q, k, v = call.dims("query"), call.dims("key"), call.dims("value")
    if not len(q) == len(k) == len(v):
        raise Refused("attention over operands of different rank")
    repeats = len(q) > 2 and len(q[-3]) != len(k[-3])
    for d in range(len(q) - 2):
        if repeats and d == len(q) - 3:
            owner, _ = call.split(q[d], len(k[d]), len(q[d]) // len(k[d]))
            call.unify(owner, k[d])
        elif len(q[d]) == len(k[d]):
            call.unify(q[d], k[d])
        call.unify(k[d], v[d])
    call.unify(q[-1], k[-1])
    call.unify(k[-2], v[-2])
    _mask(call, [*q[:-1], k[-2]])
    call.statistic(k[-2])
    if call["scale"] is None:
        call.axes.implicit.append((call.record.training, call.index))
    return [[*q[:-1], v[-1]]]


def _mask(call: Call, scores: Dims) -> None:
    dims = call.dims("attn_mask")
    for d in range(1, len(dims) + 1):
        if len(dims[-d]) > 1:
            call.unify(dims[-d], scores[-d])


RULES = {"scaled_dot_product_attention": attention}
