"""A density of one point as one of all chains: log density, gradient and curvature, vmapped where that holds and pays."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from supermage.errors import DomainError
from supermage.inference.langevin import only_finite

LogDensity = Callable[[Tensor], Tensor]

FAILURES = (RuntimeError, ValueError, ArithmeticError)
"""What a density may raise where it is not defined, as `torch.linalg.cholesky` does of a matrix that is not positive definite."""

MISTAKES = (NotImplementedError, RecursionError, torch.OutOfMemoryError)
"""Those among them that are no property of the point."""

NOT_FOR_VMAP = (RuntimeError, ValueError, TypeError, NotImplementedError)
"""What vmap raises of data-dependent control flow, ``.item()`` or a Pyro trace."""

CLEARLY_SLOWER = 4.0
"""Several chains go by loop where vmap takes more than so many times as long.

The two round differently, so that a choice which hangs on the clock's noise would not give the same draws twice: measured over a dozen
densities, vmap takes 0.8 - 2.3 times the loop for two chains, less for more, and 2.1 - 4.1 times for one, which goes by loop untimed.
"""

REPEATS = 5
"""Times that each way is tried; the fastest counts."""


class BatchTarget:
    """Log density and gradient of all chains at once: one vmapped pass where the density allows it, else one chain after the other.

    Parameters
    ----------
    log_density
        (d,) float64 tensor to scalar tensor. Where it raises one of `FAILURES` it counts as minus infinity.

    Attributes
    ----------
    failed
        Points at which it raised.
    cause
        What it raised last, in one line; empty where it never did.
    """

    def __init__(self, log_density: LogDensity) -> None:
        self.failed = 0
        self.cause = ""
        self._single = log_density
        self._batched: Callable[[Tensor], tuple[Tensor, Tensor]] | None = None
        self._probed = False
        self._hessians: bool | None = None

    @property
    def execution(self) -> Literal["vmap", "loop"]:
        """How chains are carried."""
        return "loop" if self._batched is None else "vmap"

    def __call__(self, position: Float[Tensor, "chain param"]) -> tuple[Float[Tensor, "chain"], Float[Tensor, "chain param"]]:
        """Log density and gradient; minus infinity and zero where either is not finite, or the density raises."""
        if not self._probed:
            self._probe(position)
        return only_finite(*self._evaluate(position))

    def curvature(self, position: Float[Tensor, "chain param"]) -> Tensor | None:
        """Mean over the chains of minus the Hessian, with its eigenvalues made positive (their absolute values); None where there is none.

        The mean over where the chains are, not the value at the best point: that may lie in a funnel's neck.
        """
        try:
            hessians = self._hessians_of(position.detach())
        except NOT_FOR_VMAP:
            return None
        hessians = hessians[torch.isfinite(hessians).all(dim=-1).all(dim=-1)]
        if not len(hessians):
            return None
        values, vectors = torch.linalg.eigh(-0.5 * (hessians + hessians.mT))
        mean = ((vectors * values.abs()[:, None, :]) @ vectors.mT).mean(dim=0)
        if not float(mean.diagonal().max()) > 0.0:
            return None
        # a direction without curvature keeps a width of a million times the narrowest
        return mean + 1e-12 * mean.diagonal().max().clamp(min=1e-300) * torch.eye(len(mean), dtype=mean.dtype)

    def _hessians_of(self, position: Tensor) -> Tensor:
        hessian = torch.func.hessian(self._single)
        if self._batched is not None and self._hessians is not False:
            try:
                with warnings.catch_warnings():
                    # torch warns of outputs that it resizes itself in some second derivatives; the numbers are held against the loop's
                    warnings.simplefilter("ignore", UserWarning)
                    found = torch.func.vmap(hessian)(position).detach()
                if self._hessians:
                    return found
                expected = torch.stack([hessian(x).detach() for x in position])
                self._hessians = torch.allclose(found, expected, rtol=1e-7, atol=1e-9, equal_nan=True)
                return expected
            except NOT_FOR_VMAP:
                pass  # the loop tells a Hessian that cannot be vmapped from one that does not exist
        return torch.stack([hessian(x).detach() for x in position])

    def _probe(self, position: Tensor) -> None:
        self._probed = True
        if len(position) == 1:
            return
        gradient_and_value = torch.func.grad_and_value(self._single)

        def batched(batch: Tensor) -> tuple[Tensor, Tensor]:
            gradient, value = torch.func.vmap(gradient_and_value)(batch)
            return value.detach().to(torch.float64), gradient.detach().to(torch.float64)

        try:
            value, gradient = batched(position)
        except NOT_FOR_VMAP:
            return
        expected = self._loop(position)
        if torch.allclose(value, expected[0], rtol=1e-9, equal_nan=True) and torch.allclose(
            gradient, expected[1], rtol=1e-7, atol=1e-9, equal_nan=True
        ):
            slower = _seconds(batched, position) > CLEARLY_SLOWER * _seconds(self._loop, position)
            self._batched = None if slower else batched

    def _evaluate(self, position: Tensor) -> tuple[Tensor, Tensor]:
        if self._batched is not None:
            try:
                return self._batched(position)
            except FAILURES:
                pass  # at one point, and for all: the loop finds which
        return self._loop(position)

    def _loop(self, position: Tensor) -> tuple[Tensor, Tensor]:
        values, gradients = zip(*(self._one(x) for x in position), strict=True)
        return torch.stack(values), torch.stack(gradients)

    def _one(self, x: Tensor) -> tuple[Tensor, Tensor]:
        nowhere = torch.tensor(-torch.inf, dtype=torch.float64), torch.zeros_like(x)
        leaf = x.detach().clone().requires_grad_(True)
        value = self._attempt(self._single, leaf)
        if value is None:
            return nowhere
        _check_value(value)
        gradient = self._attempt(torch.autograd.grad, value, leaf) if value.requires_grad else None
        return nowhere if gradient is None else (value.detach().to(torch.float64), gradient[0].to(torch.float64))

    def _attempt(self, function: Callable[..., Any], *arguments: Tensor) -> Any:
        """What the function returns; None, and a note of it, where it raises what the point may be to blame for."""
        try:
            return function(*arguments)
        except MISTAKES:
            raise
        except FAILURES as error:
            self.failed += 1
            self.cause = " ".join([f"{type(error).__name__}:", *str(error).splitlines()[:1]])
            return None


def _check_value(value: Any) -> None:
    if not isinstance(value, Tensor):
        raise DomainError(f"a log density must be a scalar tensor, got a {type(value).__name__}")
    if value.ndim != 0:
        raise DomainError(f"a log density must be a scalar tensor, got shape {tuple(value.shape)}")
    if not value.requires_grad and bool(torch.isfinite(value)):
        raise DomainError("a log density must be differentiable in its argument, got a tensor without a gradient")


def _seconds(function: Callable[[Tensor], object], position: Tensor) -> float:
    found = []
    for _ in range(REPEATS):
        began = time.perf_counter()
        function(position)
        found.append(time.perf_counter() - began)
    return min(found)
