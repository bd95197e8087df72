"""Capture: run the model once and record the ATen operators that ran.

    model ──skeleton──▶ copy on the meta device (no data) ──tag sizes──▶ run under two modes ──▶ Record
      TorchFunctionMode   sees Python-level calls: which size expression was passed where
      TorchDispatchMode   sees the operators below them

A model whose Python looks at values (``.item()``) cannot run on meta and is recorded with real tensors instead.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from ...core import ModelError
from .autocast import without_autocast
from .chance import same_chance
from .hearing import hearing
from .meta_layouts import MetaLayouts
from .record import Record, tensors_in
from .recorder import Calls, Recorder
from .running import device_of
from .skeleton import map_tensors, skeleton, tag_sizes
from .tensors import named_tensors
from .traceable import does_not_run

Forward = Callable[[nn.Module, Any], Any]


def run_model(model: nn.Module, example: Any, forward_fn: Forward | None) -> Any:
    """Call the model on its example: a tensor, a tuple of positional arguments or a dict of keywords."""
    if forward_fn is not None:
        return forward_fn(model, example)
    if isinstance(example, dict):
        return model(**example)
    return model(*example) if isinstance(example, tuple | list) else model(example)


def capture(
    model: nn.Module, example: Any, forward_fn: Forward | None, *, layouts: MetaLayouts, training: bool
) -> Record:
    """Record one forward pass on a copy of the model; nothing of the model, its buffers or the RNG changes.

    ``layouts`` of an earlier capture of the model make this one faster.

    Raises:
        ModelError: the model does not run on its example.
    """
    device = device_of(model).type
    try:
        return _capture(Record(training), model, example, forward_fn, layouts)
    except Exception as error:
        if device == "meta":
            raise does_not_run(model, example, error) from error
    record = Record(training)
    try:
        return _capture(record, model, example, forward_fn, None)
    except ModelError:
        raise
    except Exception as error:
        if not record.autocast:
            raise does_not_run(model, example, error) from error
    try:  # autocast, which is left out, may be what made tensors of several dtypes fit
        alike = map_tensors(example, lambda t: t.float() if t.is_floating_point() else t)
        return _capture(Record(training), skeleton(model, None).float(), alike, forward_fn, None)
    except Exception as error:
        raise does_not_run(model, example, error) from error


def _capture(
    record: Record, model: nn.Module, example: Any, forward_fn: Forward | None, layouts: MetaLayouts | None
) -> Record:
    to_meta = layouts is not None
    twin = skeleton(model, "meta" if to_meta else None)
    if to_meta:
        example = map_tensors(example, lambda t: t.to("meta"))
    else:
        example = map_tensors(example, torch.Tensor.clone)
    twin.train()
    twin.train(record.training)
    tag_sizes(twin)
    record.on_meta = to_meta
    recorder = Recorder(record, layouts)
    for name, tensor in named_tensors(twin).items():
        record.names[recorder.see(tensor)] = name
    for tensor in tensors_in(example):
        record.inputs.append(recorder.see(tensor))
    with quiet(record.autocast), _scopes(twin, recorder), torch.no_grad(), hearing(twin) as record.heard:
        with recorder, Calls(recorder):
            output = run_model(twin, example, forward_fn)
    record.outputs = [recorder.see(t) for t in tensors_in(output)]
    if not record.outputs:
        raise ModelError("no tensor was found in what the model returns: return tensors, or containers of tensors")
    real = any(not t.is_meta for t in named_tensors(model).values())
    if to_meta and real and any(t.is_meta for t in record.constants.values()):
        raise ModelError("the model makes tensors from Python numbers, whose values meta does not keep")
    return record


@contextmanager
def quiet(autocast: list[str] | None = None) -> Iterator[None]:
    """Run what is written, no fast path and no autocast (``without_autocast``), and leave the random state alone."""
    fast_path = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with torch.random.fork_rng(devices=[]), same_chance(), without_autocast(autocast):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast_path)


@contextmanager
def _scopes(model: nn.Module, recorder: Recorder) -> Iterator[None]:
    handles = []

    def enter(name: str) -> Callable:
        return lambda *_: recorder.scopes.append(name)

    def leave(name: str) -> Callable:
        def pop(module: nn.Module, inputs: Any, output: Any) -> None:
            recorder.scopes.pop()
            recorder.returned(name, next(tensors_in(output), None))

        return pop

    for name, module in model.named_modules():
        if isinstance(module, torch.jit.ScriptModule):
            continue
        handles.append(module.register_forward_pre_hook(enter(name), prepend=True))
        handles.append(module.register_forward_hook(leave(name)))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
