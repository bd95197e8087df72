"""What can be traced: models that cannot are refused with one clear word before anything runs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from ...core import ModelError, cause
from .record import Record, tensors_in

_HINTS = {
    "flex_attention": "flex_attention compiles itself and cannot be recorded: call scaled_dot_product_attention in its "
    "place while tracing and cutting",
    "FlexAttention": "flex_attention compiles itself and cannot be recorded: call scaled_dot_product_attention in its "
    "place while tracing and cutting",
    "NestedTensor": "Nested tensors cannot be recorded: pad them in a forward_fn",
}
_ADVICE = (
    "Pass the example as a tensor, a tuple of positional arguments or a dict of keyword arguments, or give a "
    "forward_fn(model, example)"
)


def check_traceable(model: nn.Module, example: Any, given_forward: bool) -> None:
    """Check a model and its example.

    Raises:
        ModelError: no parameters, parameters without a shape, quantised layers, or no tensor to run on.
    """
    lazy = [name for name, tensor in (*model.named_parameters(), *model.named_buffers()) if is_lazy(tensor)]
    if lazy:
        raise ModelError(
            f"{type(model).__name__} has lazy layers whose sizes are not known yet ({_some(lazy)}): run it once on an "
            "example, then trace it"
        )
    packed = [name or type(model).__name__ for name, module in model.named_modules() if _is_quantized(module)]
    if packed:
        raise ModelError(
            f"{type(model).__name__} holds quantised layers ({_some(packed)}), whose packed weights cannot be cut: cut "
            "the floating-point model, then quantise it"
        )
    if not any(True for _ in model.parameters()):
        raise ModelError(f"{type(model).__name__} has no parameters: there is nothing to cut")
    if not given_forward and not any(True for _ in tensors_in(example)):
        raise ModelError(
            f"the example, of type {type(example).__name__}, holds no tensor: pass a tensor (torch.as_tensor makes one "
            "of an array), a tuple of positional arguments or a dict of keyword arguments, or give a "
            "forward_fn(model, example)"
        )


def does_not_run(model: nn.Module, example: Any, error: Exception) -> ModelError:
    """Return the error of a model that does not run on its example, with what to do about it."""
    if isinstance(error, ModelError):
        return error
    given = ", ".join(f"{tuple(t.shape)} of {_dtype(t)}" for t in tensors_in(example)) or "no tensors"
    weights = ", ".join(dict.fromkeys(_dtype(parameter) for parameter in model.parameters()))
    advice = next((hint for word, hint in _HINTS.items() if word in str(error)), _ADVICE)
    return ModelError(
        f"{type(model).__name__}, whose weights are {weights}, does not run on its example: {given}. {advice}. The "
        f"cause: {cause(error)}"
    )


def _dtype(tensor: torch.Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def notes_on(model: nn.Module) -> Iterator[str]:
    """Yield what the user should know about a model before its groups."""
    compiled = [name or "the model" for name, m in model.named_modules() if isinstance(m, torch.jit.ScriptModule)]
    outermost = [n for n in compiled if not any(n.startswith(f"{o}.") or o == "the model" != n for o in compiled)]
    if outermost:
        yield f"{_some(outermost)}: TorchScript, whose compiled sizes stay as they are; give the Python module instead"


def untouched(names: Iterable[str]) -> Iterator[str]:
    """Yield what the user should know about parameters that no forward pass reached."""
    owners = list(dict.fromkeys(name.rpartition(".")[0] or name for name in names))
    if owners:
        yield (
            f"the example does not reach {_some(owners)}: a branch that only other inputs take keeps its sizes, and "
            "will not fit where its neighbours are cut. Keep those whole, or give an example that reaches it (a larger "
            "example, where its values choose among experts)"
        )


def hungry(records: Iterable[Record]) -> Iterator[str]:
    """Yield what the user should know about tensors that were read for no rows at all: experts without tokens."""
    read: dict[str, bool] = {}
    for record in records:
        for op in record.ops if not record.on_meta else ():
            fed = all(value is None or 0 not in record.shapes[value] for value in op.outs)
            for name in (record.names[value] for value in op.refs() if value in record.names):
                read[name] = read.get(name, False) or fed
    owners = list(dict.fromkeys(name.rpartition(".")[0] or name for name, fed in read.items() if not fed))
    if owners:
        yield f"no rows of the example reach {_some(owners)}, so no proof compares them: give a larger example"


def _is_quantized(module: nn.Module) -> bool:
    return type(module).__module__.startswith(("torch.ao.nn.quantized", "torch.nn.quantized"))


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
