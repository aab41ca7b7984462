"""The Gauss-Newton matrix of any Pyro model with Normal or Student-t sites, in its unconstrained coordinates."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import pyro
import pyro.distributions as dist
import torch
from jaxtyping import Float
from pyro import poutine
from pyro.poutine.util import site_is_subsample
from torch import Tensor

from supermage.inference.metric import gauss_newton, jacobian

PRIOR_DRAWS = 200
"""Draws from a latent site that is neither Normal nor Student-t, to measure its precision in unconstrained coordinates."""


@dataclass(frozen=True)
class FlatModel:
    """A Pyro model as a function of one flat unconstrained vector.

    Attributes
    ----------
    model
        The program.
    arguments, keywords
        What it is called with.
    transforms
        From each latent site's support to the unconstrained space.
    shapes
        Unconstrained shape of each latent site; the vector holds them in the order of their names.
    """

    model: Callable[..., Any]
    arguments: tuple[Any, ...]
    keywords: Mapping[str, Any]
    transforms: Mapping[str, Any]
    shapes: Mapping[str, torch.Size]

    @property
    def names(self) -> list[str]:
        """Latent sites in the order of the vector."""
        return sorted(self.shapes)

    def split(self, flat: Float[Tensor, "param"]) -> dict[str, Tensor]:
        """Unconstrained values of the latent sites."""
        parts = torch.split(flat, [self.shapes[name].numel() for name in self.names])
        return {name: part.reshape(self.shapes[name]) for name, part in zip(self.names, parts, strict=True)}

    def join(self, params: Mapping[str, Tensor]) -> Float[Tensor, "param"]:
        """The vector of unconstrained values."""
        return torch.cat([params[name].reshape(-1) for name in self.names])

    def constrain(self, flat: Float[Tensor, "param"]) -> dict[str, Tensor]:
        """Values of the latent sites on their supports."""
        return {name: self.transforms[name].inv(value) if name in self.transforms else value for name, value in self.split(flat).items()}

    def trace(self, flat: Float[Tensor, "param"]) -> Any:
        """The model's trace with its latent sites set."""
        with pyro.validation_enabled(False):
            return poutine.trace(poutine.condition(self.model, data=self.constrain(flat))).get_trace(*self.arguments, **self.keywords)


def has_residuals(model: FlatModel, flat: Float[Tensor, "param"]) -> bool:
    """Whether every observed site is Normal, Student-t, or brings a ``whitened_residual`` of its own."""
    observed = [site for name, site in _sites(model.trace(flat)) if name not in model.shapes]
    return bool(observed) and all(_kind(site) is not None for site in observed)


def gauss_newton_matrix(model: FlatModel, flat: Float[Tensor, "param"]) -> Float[Tensor, "param param"]:
    """Fisher matrix of the Normal and Student-t sites, latent ones included, plus the priors' precision of the other latent sites.

    A Normal site adds ``J^T J`` of ``loc / scale`` and of ``sqrt(2) log scale``; for Student-t the two are weighted by
    ``(nu + 1) / (nu + 3)`` and ``nu / (nu + 3)``.
    """
    here = {name: _parts(site) for name, site in _sites(model.trace(flat)) if _kind(site) is not None}

    def features(vector: Tensor) -> Tensor:
        rows = []
        for name, site in _sites(model.trace(vector)):
            if name in here:
                rows += _features(site, here[name])
        return torch.cat(rows) if rows else vector.new_zeros(1)

    with pyro.validation_enabled(False):
        matrix = gauss_newton(jacobian(features, flat).to(torch.float64))
    return matrix + torch.diag(_prior_precision(model, flat, set(here)))


def _sites(trace: Any) -> list[tuple[str, Any]]:
    return [(name, node) for name, node in trace.nodes.items() if node["type"] == "sample" and not site_is_subsample(node)]


PLAIN = (torch.distributions.ExpTransform, torch.distributions.SigmoidTransform, torch.distributions.TanhTransform)
"""Bijections without parameters: what goes through them has the Fisher matrix of what went in. `AbsTransform` is none."""


class _Core(NamedTuple):
    """A site without its wrappings: innermost distribution, the value there, and how often each element counts."""

    base: Any
    value: Tensor
    repeat: Tensor


def _core(site: Any) -> _Core:
    fn, value, repeat = site["fn"], site["value"], torch.as_tensor(site["scale"])
    if site["mask"] is not None:
        repeat = repeat * torch.as_tensor(site["mask"])
    while True:
        if isinstance(fn, torch.distributions.Independent):
            repeat = repeat.reshape(*repeat.shape, *[1] * fn.reinterpreted_batch_ndims)
        elif isinstance(fn, dist.MaskedDistribution):
            repeat = repeat if fn._mask is None else repeat * torch.as_tensor(fn._mask)
        elif isinstance(fn, torch.distributions.TransformedDistribution) and all(isinstance(t, PLAIN) for t in fn.transforms):
            for transform in reversed(fn.transforms):
                value = transform.inv(value)
        elif not isinstance(fn, dist.ExpandedDistribution):
            return _Core(fn, value, repeat)
        fn = fn.base_dist


def _kind(site: Any) -> str | None:
    if hasattr(site["fn"], "whitened_residual"):
        return "whitened"
    base = _core(site).base
    if isinstance(base, torch.distributions.Normal):
        return "normal"
    return "student" if isinstance(base, dist.StudentT | torch.distributions.StudentT) else None


@dataclass(frozen=True)
class _Parts:
    """Scale, and the square roots of the weights of location and log scale, at the point of expansion."""

    scale: Tensor
    location_weight: Tensor
    scale_weight: Tensor


def _parts(site: Any) -> _Parts:
    kind = _kind(site)
    one = torch.ones(())
    if kind == "whitened":
        return _Parts(one, one, one)
    base, _, repeat = _core(site)
    scale = base.scale.detach()
    repeat = repeat.to(scale.dtype)
    nu = base.df.detach() if kind == "student" else torch.full_like(scale, math.inf)
    share = torch.where(torch.isinf(nu), torch.ones_like(nu), (nu + 1) / (nu + 3))
    scale_share = torch.where(torch.isinf(nu), torch.ones_like(nu), nu / (nu + 3))
    return _Parts(scale, torch.sqrt(share * repeat), torch.sqrt(2.0 * scale_share * repeat))


def _features(site: Any, parts: _Parts) -> list[Tensor]:
    if _kind(site) == "whitened":
        return [site["fn"].whitened_residual(site["value"]).reshape(-1)]
    base, value, _ = _core(site)
    location = (base.loc - value) / parts.scale * parts.location_weight
    return [location.reshape(-1), (torch.log(base.scale) * parts.scale_weight).expand(location.shape).reshape(-1)]


def _prior_precision(model: FlatModel, flat: Tensor, done: set[str]) -> Tensor:
    """One over the variance of prior draws, in unconstrained coordinates, of the latent sites that have no residual."""
    blocks = []
    sites = dict(_sites(model.trace(flat)))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        for name in model.names:
            size = model.shapes[name].numel()
            if name in done:
                blocks.append(torch.zeros(size, dtype=torch.float64))
                continue
            try:
                draws = torch.stack([sites[name]["fn"].sample() for _ in range(PRIOR_DRAWS)])
            except NotImplementedError:
                # an improper prior knows nothing
                blocks.append(torch.zeros(size, dtype=torch.float64))
                continue
            unconstrained = torch.stack([model.transforms[name](d) if name in model.transforms else d for d in draws])
            variance = unconstrained.reshape(PRIOR_DRAWS, -1).to(torch.float64).var(dim=0)
            blocks.append(1.0 / variance.clamp(min=1e-12))
    return torch.cat(blocks)
