"""Our kernels as Pyro `MCMCKernel`s: thin adapters of the pure steps for `pyro.infer.MCMC` and any Pyro model."""

from __future__ import annotations

import warnings
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from pyro.infer.mcmc.mcmc_kernel import MCMCKernel
from pyro.infer.mcmc.util import initialize_model
from torch import Tensor

from supermage.errors import DomainError
from supermage.inference import langevin
from supermage.inference.adaptation import final_step, start_dual_average, update_dual_average
from supermage.inference.batch_target import FAILURES, MISTAKES
from supermage.inference.gauss_newton import FlatModel, gauss_newton_matrix, has_residuals
from supermage.inference.langevin import KERNELS, Draw, State
from supermage.inference.metric import (
    add_ridge,
    checked_metric,
    effective_draws,
    factor_of_covariance,
    factor_of_precision,
    pooled_covariance,
    shrink,
    widest_direction,
)

STAGE_SHARES = (0.05, 0.1, 0.15, 0.3)
"""Shares of the warm-up after which the metric is set anew; the rest only tunes the step size."""


class MALA(MCMCKernel):
    """Metropolis-adjusted Langevin kernel with a dense mass matrix, usable as ``pyro.infer.MCMC(MALA(model), ...)``.

    Metric and step size are adapted during warm-up and frozen afterwards. The metric is the Fisher matrix at the best point so far:
    ``fisher`` where it is given, else the Gauss-Newton matrix where every observed site is Normal or Student-t, else the
    covariance of the warm-up's draws.

    Parameters
    ----------
    model
        A Pyro model.
    fisher
        Maps the flat unconstrained vector (latent sites in the order of their names) to the metric, whole.
    """

    name = "mala"

    def __init__(self, model: Callable[..., Any], *, fisher: Callable[[Tensor], Tensor] | None = None) -> None:
        self.model = model
        self.fisher = fisher
        self.transforms: dict[str, Any] | None = None
        self._initial: dict[str, Tensor] | None = None
        self._kernel = KERNELS[self.name]
        self._reset(0)

    def _reset(self, warmup_steps: int) -> None:
        self._warmup = warmup_steps
        self._step = 0
        self._ends = set(np.cumsum([round(share * warmup_steps) for share in STAGE_SHARES]).tolist())
        self._state: State | None = None
        self._factor = torch.zeros(0, 0, dtype=torch.float64)
        self._trail: list[Tensor] = []
        self._best: tuple[float, Tensor] | None = None
        self._accepted = 0.0
        self._drawn = 0
        self._length = 1.0

    def setup(self, warmup_steps: int, *args: Any, **kwargs: Any) -> None:
        """Trace the model, find an initial point and the first metric."""
        initial, potential, transforms, _ = initialize_model(self.model, model_args=args, model_kwargs=kwargs, transforms=self.transforms)
        self._reset(warmup_steps)
        self._potential = potential
        self.transforms = transforms
        if self._initial is None:
            self._initial = initial
        if not initial:
            raise DomainError("a model must have a continuous parameter to sample, got none")
        self._flat = FlatModel(self.model, args, kwargs, transforms, {name: value.shape for name, value in initial.items()})
        self._check_initial(self._initial)
        start = self._flat.join(self._initial).detach()
        self._dtype = start.dtype
        self._dual = start_dual_average(torch.full((1,), len(start) ** (-1.0 / 6.0), dtype=torch.float64))
        self._state = langevin.init(self._target, start.to(torch.float64)[None])
        if not bool(torch.isfinite(self._state.log_density).all()):
            raise DomainError(f"initial_params must have a finite log density, got {float(self._state.log_density[0])} at {start.tolist()}")
        self._gauss_newton = self.fisher is None and has_residuals(self._flat, start)
        self._best = (float(self._state.log_density[0]), self._state.position[0])
        self._factor = torch.eye(len(start), dtype=torch.float64)
        self._set_metric()

    def _check_initial(self, initial: Mapping[str, Tensor]) -> None:
        shapes = self._flat.shapes
        if set(initial) != set(shapes):
            raise DomainError(f"initial_params must give {', '.join(self._flat.names)}, got {', '.join(sorted(initial)) or 'none'}")
        for name, value in initial.items():
            if value.shape != shapes[name]:
                wanted, got = tuple(shapes[name]), tuple(value.shape)
                raise DomainError(f"initial_params of '{name}' must have the unconstrained shape {wanted}, got {got}")

    def cleanup(self) -> None:
        """Forget the run."""
        self._initial = None

    @property
    def initial_params(self) -> Mapping[str, Tensor]:
        """Unconstrained initial values by site."""
        return self._initial or {}

    @initial_params.setter
    def initial_params(self, params: Mapping[str, Tensor]) -> None:
        self._initial = dict(params)

    def sample(self, params: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """One step from unconstrained values."""
        position = self._flat.join(params).detach().to(torch.float64)[None]
        if self._state is None or not torch.equal(position, self._state.position.to(self._dtype).to(torch.float64)):
            self._state = langevin.init(self._target, position)
        adapting = self._step < self._warmup
        step_size = torch.exp(self._dual.log_step) if adapting else final_step(self._dual)
        numbers = Draw(
            torch.randn(position.shape, dtype=torch.float64),
            torch.rand(1, dtype=torch.float64),
            torch.rand(1, dtype=torch.float64),
            torch.rand(position.shape, dtype=torch.float64),
        )
        self._state, info = self._kernel.step(self._target, self._state, self._factor, step_size, numbers, self._length)
        self._step += 1
        if adapting:
            self._dual = update_dual_average(self._dual, info.acceptance, self._kernel.target_acceptance)
            self._adapt(self._state)
        else:
            self._drawn += 1
        if self._step == self._warmup + 1:
            self._accepted = 0.0
        self._accepted += float(info.acceptance[0])
        return {name: value.to(self._dtype) for name, value in self._flat.split(self._state.position[0]).items()}

    def _target(self, position: Tensor) -> tuple[Tensor, Tensor]:
        leaf = position[0].detach().to(self._dtype).clone().requires_grad_(True)
        nowhere = torch.full((1,), -torch.inf, dtype=torch.float64), torch.zeros_like(position)
        try:
            value = -self._potential(self._flat.split(leaf)).reshape(())
            (gradient,) = torch.autograd.grad(value, leaf)
        except MISTAKES:
            raise
        except FAILURES:
            # as a Cholesky factor that does not exist there; at the start it is the model's mistake, in its own words
            if self._state is None:
                raise
            return nowhere
        value, gradient = value.detach().to(torch.float64), gradient.to(torch.float64)
        if not (torch.isfinite(value) and torch.isfinite(gradient).all()):
            return nowhere
        return value[None], gradient[None]

    def _adapt(self, state: State) -> None:
        self._trail.append(state.position[0])
        if self._best is None or float(state.log_density[0]) > self._best[0]:
            self._best = (float(state.log_density[0]), state.position[0])
        if self._step in self._ends:
            self._set_metric()
            self._trail = []
            self._dual = start_dual_average(final_step(self._dual))

    def _set_metric(self) -> None:
        if self._best is None:
            return
        best = self._best[1].to(self._dtype)
        matrix = self._gauss_newton_or_none(best) if self._gauss_newton else None
        if self.fisher is not None:
            self._factor = factor_of_precision(add_ridge(checked_metric(self.fisher, best), ridge_frac=1e-10, ridge_min=1e-300))
        elif matrix is not None:
            self._factor = factor_of_precision(add_ridge(matrix))
        elif len(self._trail) > 2 * self._factor.shape[0]:
            recent = torch.stack(self._trail)[:, None, :]
            covariance = pooled_covariance(recent)
            self._factor = factor_of_covariance(
                shrink(covariance, torch.diag(covariance.diagonal()), effective=effective_draws(recent), prior=5.0)
            )
        if len(self._trail) > 2 * self._factor.shape[0]:
            self._length = widest_direction(torch.stack(self._trail)[:, None, :], self._factor)
        if self._state is not None:
            self._state = self._state._replace(momentum=torch.zeros_like(self._state.momentum))

    def _gauss_newton_or_none(self, best: Tensor) -> Tensor | None:
        """The Gauss-Newton matrix; None, for good and with a warning, where the model cannot be differentiated in forward mode."""
        try:
            matrix = gauss_newton_matrix(self._flat, best)
        except (RuntimeError, NotImplementedError) as error:
            self._gauss_newton = False
            why = (str(error).splitlines() or [type(error).__name__])[0][:200]
            warnings.warn(f"the metric is the covariance of the warm-up's draws: the model has no forward derivative ({why})", stacklevel=2)
            return None
        return matrix if bool(torch.isfinite(matrix).all()) else None

    def logging(self) -> OrderedDict[str, str]:
        """Step size and mean acceptance, for Pyro's progress bar."""
        found = self.diagnostics()
        return OrderedDict([("step size", f"{found['step size']:.2e}"), ("acc. prob", f"{found['acceptance rate']:.3f}")])

    def diagnostics(self) -> dict[str, Any]:
        """Mean acceptance since warm-up (before its end, of its steps), and the step size, frozen by then."""
        return {"acceptance rate": self._accepted / max(1, self._drawn or self._step), "step size": float(final_step(self._dual)[0])}


class PersistentMALA(MALA):
    """`MALA` that keeps part of its momentum from step to step and reverses it on rejection (Horowitz 1991)."""

    name = "persistent-mala"


class JitteredHMC(MALA):
    """Hamiltonian trajectories of jittered length, 1 to 2.6 times the posterior's widest direction, under `MALA`'s metric."""

    name = "hmc"


class Barker(MALA):
    """Barker's proposal (Livingstone & Zanella 2022) under `MALA`'s metric: robust where gradients vary by orders of magnitude."""

    name = "barker"
