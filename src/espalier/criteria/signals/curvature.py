"""Curvature: products with the loss's Hessian, by differentiating twice; no Hessian is ever built."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from ...core import ModelError, cause
from ...graph import ranks


class Slope:
    """The loss's gradient at one batch, ready to be differentiated again.

    Attributes:
        parameters: ``{name: parameter}``.
        gradient: ``{name: dL/dW}``, averaged over ranks, detached; zero where the loss does not depend on it.
    """

    def __init__(self, value: Tensor, parameters: Mapping[str, Tensor]) -> None:
        self.parameters = parameters
        found = torch.autograd.grad(value, list(parameters.values()), create_graph=True, allow_unused=True)
        self._own = list(found)
        self.gradient = self._named([None if one is None else one.detach() for one in found])

    def curve(self, direction: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the Hessian times a direction, averaged over ranks.

        Raises:
            ModelError: an operator of the model cannot be differentiated twice.
        """
        pairs = [(g, direction[name]) for name, g in zip(self.parameters, self._own, strict=True) if g is not None]
        slope = sum((g * v.to(g.dtype)).sum() for g, v in pairs if g.requires_grad)
        if not isinstance(slope, Tensor) or not slope.requires_grad:  # the loss is linear in every parameter
            return self._named([None] * len(self._own))
        try:
            found = torch.autograd.grad(slope, list(self.parameters.values()), retain_graph=True, allow_unused=True)
        except RuntimeError as error:
            raise ModelError(
                f"the loss cannot be differentiated twice ({cause(error)}); use a first-order criterion"
            ) from error
        return self._named(list(found))

    def _named(self, found: list[Tensor | None]) -> dict[str, Tensor]:
        return {
            name: torch.zeros_like(p.detach()) if one is None else one.detach()
            for (name, p), one in zip(self.parameters.items(), ranks.mean(found), strict=True)
        }


@contextmanager
def twice_differentiable() -> Iterator[None]:
    """Let attention run on the kernel that can be differentiated twice."""
    with sdpa_kernel(SDPBackend.MATH):
        yield
