"""What a module's input is quantized to, and the hook that does it: the module and its class stay what they are.

    x ──hook before──▶ nearest numbers on the input's grid, or signs ──▶ forward ──hook after (K)──▶ output

The engine looks at networks with these hooks set aside. Rounding works on each number alone, with the same grid before
and after a cut, so it commutes with every cut; its jumps would make a rounding error of 1e-16 in a proof a whole step.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..core import GridError
from .straight_through import rounded, sign

BITS = range(2, 17)
_LARGEST = 3.4e38  # of float32


@dataclass(frozen=True, kw_only=True)
class Grid:
    """Numbers ``step (i - zero_point)`` for the integers i that ``bits`` bits can say; fixed when it was calibrated.

    Attributes:
        bits: 2 to 16.
        step: above zero; rounded to float32 here, so that runtimes have the same number.
        zero_point: the integer that stands for 0.0.
        signed: whether the integers are -2^(bits-1) to 2^(bits-1) - 1, or 0 to 2^bits - 1.

    Raises:
        GridError: a number is out of its range.
    """

    bits: int = 8
    step: float
    zero_point: int = 0
    signed: bool = False

    def __post_init__(self) -> None:
        """Refuse what is no grid."""
        check_bits(self.bits)
        if type(self.signed) is not bool or type(self.zero_point) is not int:
            raise GridError(f"a grid's zero point is an integer, and signed is a bool: {self.zero_point!r:.40}")
        if not isinstance(self.step, float | int) or not 0 < self.step < _LARGEST:
            raise GridError(f"a grid's step is a finite number above zero, not {self.step!r:.40}")
        object.__setattr__(self, "step", struct.unpack("f", struct.pack("f", self.step))[0])
        if self.step < torch.finfo(torch.float32).tiny:
            raise GridError(f"a grid's step of {self.step!r} is too small for float32")
        if not self.lowest <= self.zero_point <= self.highest:
            raise GridError(f"the zero point {self.zero_point} is none of the integers {self.lowest} to {self.highest}")

    @property
    def lowest(self) -> int:
        """The smallest integer."""
        return -(1 << self.bits - 1) if self.signed else 0

    @property
    def highest(self) -> int:
        """The largest integer."""
        return self.lowest + (1 << self.bits) - 1

    def of(self, x: Tensor) -> Tensor:
        """Return the nearest numbers on the grid; see ``straight_through.rounded``."""
        return rounded(x, self.step, self.zero_point, self.lowest, self.highest)


@dataclass(frozen=True, kw_only=True)
class Dynamic:
    """A grid of unsigned integers from the least to the largest number of each call, zero among them.

        step = (max(x, 0) - min(x, 0)) / (2^bits - 1),   zero_point = round(-min(x, 0) / step)

    Attributes:
        bits: 2 to 16.
        per: ``"token"``, a grid for each vector along the last dimension, so that a sample's numbers do not depend on
            the others in its batch; or ``"tensor"``, one for the whole input, as ONNX's DynamicQuantizeLinear.

    Raises:
        GridError: bits are out of range, or ``per`` is another word.
    """

    bits: int = 8
    per: Literal["token", "tensor"] = "token"

    def __post_init__(self) -> None:
        """Refuse what is no grid."""
        check_bits(self.bits)
        if self.per not in ("token", "tensor"):
            raise GridError(f"a dynamic grid is per 'token' or per 'tensor', not {self.per!r:.40}")

    def of(self, x: Tensor) -> Tensor:
        """Return the nearest numbers on the grid of these numbers; the gradient passes everywhere."""
        step, zero_point, highest = self.numbers(x)
        return rounded(x, step, zero_point, 0, highest)

    def numbers(self, x: Tensor) -> tuple[Tensor, Tensor, int]:
        """Return the step and the zero point, of shapes that broadcast with ``x``, and the largest integer."""
        still, highest = x.detach(), (1 << self.bits) - 1
        low, high = (still.amin(-1, True), still.amax(-1, True)) if self.per == "token" else still.aminmax()
        low, high = low.clamp(max=0), high.clamp(min=0)
        step = (high - low) / highest
        step = torch.where(step > 0, step, torch.ones_like(step))
        return step, (-low / step).round(), highest


@dataclass(frozen=True, kw_only=True)
class Sign:
    """The sign of each number, +1 for zero; the gradient passes where the number is in [-1, 1].

        scaled:   output = K (forward(sign(x)) - bias) + bias,   K = box filter of the mean of |x| over channels

    Attributes:
        scaled: multiply what a convolution or linear layer makes of the signs by K: the filter is as large as the
            kernel, with its stride, padding and dilation; for a linear layer K is the mean of |x| itself. K has no
            gradient.

    *Source*: Rastegari et al. (XNOR-Net), ECCV 2016, arXiv:1603.05279, section 3.2, equation 11.
    """

    scaled: bool = False

    def __post_init__(self) -> None:
        """Refuse another kind."""
        if type(self.scaled) is not bool:
            raise GridError(f"scaled is True or False, not {self.scaled!r:.40}")

    def of(self, x: Tensor) -> Tensor:
        """Return the signs."""
        return sign(x)


Input = Grid | Dynamic | Sign


def check_bits(bits: object) -> None:
    """Refuse bits that no grid has.

    Raises:
        GridError: they are no whole number from 2 to 16.
    """
    if type(bits) is not int or bits not in BITS:
        raise GridError(f"a grid has {BITS[0]} to {BITS[-1]} bits, not {bits!r:.40}")


class InputHook:
    """Quantizes the first argument of a module.

    Attributes:
        made: what to.
        instead: a function that a method in training puts in place of ``made.of``; copies do not have it.
    """

    def __init__(self, made: Input) -> None:
        self.made = made
        self.instead: Callable[[Tensor], Tensor] | None = None
        self._factor: Tensor | None = None

    def __deepcopy__(self, memo: dict[int, Any]) -> InputHook:
        """Return a hook of the copied module: what it is made to is data that nobody changes."""
        return InputHook(self.made)

    def before(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Return a module's arguments with the first tensor on its grid.

        Raises:
            GridError: there is no such tensor of floating-point numbers.
        """
        x = args[0] if args else next(iter(kwargs.values()), None)
        if not isinstance(x, Tensor) or not x.is_floating_point():
            raise GridError(f"the input of a {type(module).__name__} is on a grid, and it is no tensor of floats")
        if isinstance(self.made, Sign) and self.made.scaled:
            self._factor = _factor(module, x.detach())
        own = (self.instead or self.made.of)(x)
        return ((own, *args[1:]), kwargs) if args else (args, {**kwargs, next(iter(kwargs)): own})

    def after(self, module: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor | None:
        """Return a module's output, scaled by K where that is asked for."""
        factor, self._factor = self._factor, None
        if factor is None:
            return None
        bias: Tensor | None = module.bias  # type: ignore[assignment]
        if bias is None:
            return output * factor
        shift = bias if isinstance(module, nn.Linear) else bias.reshape(-1, *[1] * (output.dim() - 2))
        return (output - shift) * factor + shift


def put_(module: nn.Module, made: Input) -> None:
    """Quantize a module's input from now on; the module has no hook yet."""
    hook = InputHook(made)
    module.register_forward_pre_hook(hook.before, with_kwargs=True)
    if isinstance(made, Sign) and made.scaled:
        module.register_forward_hook(hook.after)


def set_aside_(model: nn.Module) -> nn.Module:
    """Take the hooks off a model and its modules, in place."""
    for module in model.modules():
        for hooks, with_keywords in (
            (module._forward_pre_hooks, module._forward_pre_hooks_with_kwargs),
            (module._forward_hooks, module._forward_hooks_with_kwargs),
        ):
            for key in [key for key, hook in hooks.items() if _owner(hook) is not None]:
                del hooks[key]
                with_keywords.pop(key, None)
    return model


def hook_of(module: nn.Module) -> InputHook | None:
    """Return the hook that quantizes a module's input; None where none does."""
    return next((own for hook in module._forward_pre_hooks.values() if (own := _owner(hook)) is not None), None)


def hooks(model: nn.Module) -> Iterator[tuple[str, InputHook]]:
    """Yield (path, hook) of every module whose input is quantized."""
    for path, module in model.named_modules():
        hook = hook_of(module)
        if hook is not None:
            yield path, hook


def _owner(hook: Any) -> InputHook | None:
    owner = getattr(hook, "__self__", None)
    return owner if isinstance(owner, InputHook) else None


_CONVOLUTIONS: dict[type[nn.Module], Callable[..., Tensor]] = {
    nn.Conv1d: F.conv1d,
    nn.Conv2d: F.conv2d,
    nn.Conv3d: F.conv3d,
}


def check_put(module: nn.Module, made: Input) -> None:
    """Check that a module's input can be quantized so.

    Raises:
        GridError: K cannot scale what this module makes.
    """
    if not isinstance(made, Sign) or not made.scaled or isinstance(module, nn.Linear):
        return
    if not isinstance(module, tuple(_CONVOLUTIONS)) or module.padding_mode != "zeros":
        raise GridError(
            f"signs are scaled in linear layers and convolutions padded with zeros, not in a {type(module).__name__}"
        )


def _factor(module: nn.Module, x: Tensor) -> Tensor:
    """Return K, with one channel."""
    if isinstance(module, nn.Linear):
        return x.abs().mean(-1, keepdim=True)
    convolve = next(function for kind, function in _CONVOLUTIONS.items() if isinstance(module, kind))
    size: tuple[int, ...] = module.kernel_size  # type: ignore[assignment]
    single = x.dim() == len(size) + 1
    mean = x.abs().mean(0 if single else 1, keepdim=True)
    box = torch.ones((1, 1, *size), dtype=x.dtype, device=x.device)
    return convolve(mean, box / box.numel(), None, module.stride, module.padding, module.dilation)
