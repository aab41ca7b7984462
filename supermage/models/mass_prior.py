"""Joint densities of galaxy masses, as torch distributions: what an estimator predicts, and what a fit takes as its prior."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.distributions import Distribution, constraints

from supermage.errors import DomainError, nearest_name
from supermage.models.mass_coordinates import (
    DEFAULT,
    NAMES,
    Chart,
    chart_of_pair,
    chart_of_targets,
    check_targets,
    log_sum,
    target_of_latents,
)
from supermage.models.warped_mixture import LineMixture, WarpedMixture

NODES = {1: 201, 2: 27}
"""Of the integral over each coordinate that a marginal integrates out, for every component: one coordinate, or two."""

NODE_REACH = 7.5
"""Standard deviations that the nodes reach; 6e-14 of a Gaussian lies beyond."""

PAIR_NODES = 401
"""Of the integral in the joint density of two targets that do not fix their coordinates."""


def nodes_of_gaussian(count: int, reach: float = NODE_REACH) -> tuple[Tensor, Tensor]:
    """Points and weights of the trapezoid rule under a unit normal, spectrally accurate; weights sum to 1."""
    points = torch.linspace(-reach, reach, count, dtype=torch.float64)
    return points, torch.softmax(-0.5 * points**2, dim=0)


def line_of_target(
    name: str, mixture: WarpedMixture, log_light: Float[Tensor, "..."], *, nodes: tuple[Tensor, Tensor] | None = None
) -> LineMixture:
    """The exact marginal of a target, up to the rule of the integral: a mixture on a line.

    log M*, log M*/L and log f* are functions of one coordinate. Of the others one coordinate is left under the integral and the rest stand
    at its nodes: u2 for log Mtot, u3 for log fdm, u1 and u3 for log Mdm. What is left is a coordinate of which the
    target is never nearly independent, so that a marginal is as smooth as the components behind it.

    Parameters
    ----------
    name
        Target.
    mixture
        Latent coordinates.
    log_light
        log10 of the light within the aperture, Lsun.
    nodes
        Points and weights under a unit normal; :func:`nodes_of_gaussian` by default.
    """
    if name in ("log_mstar", "log_ml"):
        line = mixture.line(0)
        offset = -log_light[..., None].expand(line.offset.shape) if name == "log_ml" else line.offset
        return _with(line, offset, None)
    if name == "log_fstar":
        line = mixture.line(1)
        return _with(line, line.offset, (-1, 1))
    outer, inner, link = _ORDER[name]
    points, weights = nodes_of_gaussian(NODES[len(outer)]) if nodes is None else nodes
    ordered = mixture.only((*outer, inner))
    grid = torch.cartesian_prod(*[points] * len(outer)).reshape(-1, len(outer))
    weight = torch.cartesian_prod(*[weights] * len(outer)).reshape(-1, len(outer)).prod(-1)
    mean, factor = ordered.mean[..., None, :], ordered.factor[..., None, :, :]
    raw = [mean[..., row] + sum(factor[..., row, column] * grid[:, column] for column in range(row + 1)) for row in range(len(outer))]
    location = mean[..., -1] + sum(factor[..., -1, column] * grid[:, column] for column in range(len(outer)))
    outside = torch.stack(raw, dim=-1)
    head = ordered.only(tuple(range(len(outer))))
    bent = head.warp.forward(outside, head.centre[..., None, None, :], head.scale[..., None, None, :])
    bent = torch.where(mixture.warped[:, None, None], bent, outside)
    offset = log_sum(bent[..., 0]) if name == "log_mtot" else -log_sum(bent[..., -1])
    if name == "log_mdm":
        offset = offset + bent[..., 0]
    flat = (*mixture.batch_shape, -1)
    return LineMixture(
        (mixture.log_weight[..., None] + torch.log(weight)).reshape(flat), location.reshape(flat),
        factor[..., -1, -1].expand(location.shape).reshape(flat), offset.reshape(flat), mixture.warped.repeat_interleave(len(grid)),
        ordered.centre[..., -1], ordered.scale[..., -1], ordered.warp.coordinate(len(outer)), link,
    )  # fmt: skip


_ORDER: dict[str, tuple[tuple[int, ...], int, tuple[int, int] | None]] = {
    "log_mtot": ((1,), 0, None), "log_fdm": ((2,), 1, (-1, -1)), "log_mdm": ((0, 2), 1, None),
}  # fmt: skip
"""Of each target: coordinates at the integral's nodes, the one left, and the link (see `LineMixture`)."""


def _with(line: LineMixture, offset: Tensor, link: tuple[int, int] | None) -> LineMixture:
    return LineMixture(line.log_weight, line.location, line.spread, offset, line.warped, line.centre, line.scale, line.warp, link)


class Marginal(Distribution):
    """Density of one target: batch shape (*batch,), event shape ().

    Parameters
    ----------
    prior
        The joint density.
    name
        Target.
    """

    arg_constraints: dict[str, Any] = {}  # noqa: RUF012 - as torch has it
    support = constraints.real
    has_rsample = True

    def __init__(self, prior: MassPrior, name: str) -> None:
        self.name = name
        self.prior = prior
        self._line = line_of_target(name, prior.mixture, prior.log_light)
        super().__init__(prior.batch_shape, torch.Size(), validate_args=False)

    def log_prob(self, value: Tensor) -> Tensor:
        """Natural logarithm of the density per dex, shape (*sample, *batch); smooth."""
        return self._line.log_density(_float64(value))

    def cdf(self, value: Tensor) -> Tensor:
        """Probability of less, shape (*sample, *batch); its derivative is the density to the last digits."""
        return self._line.cdf(_float64(value))

    def icdf(self, value: Tensor) -> Tensor:
        """Quantile of a probability, shape (*sample, *batch); differentiable.

        Raises
        ------
        DomainError
            If a probability lies outside 0 - 1.
        """
        value = _float64(value)
        if not bool(((value >= 0) & (value <= 1)).all()):
            raise DomainError("a probability must lie in [0, 1], got one outside")
        return self._line.quantile(value)

    def quantiles(self, probabilities: Sequence[float]) -> Tensor:
        """Quantiles on a last axis, shape (*batch, len(probabilities)), to the last digits; of log Mtot 75 ms a row on one core.

        For many rows :func:`supermage.models.mass_quantiles.fast_quantiles`, to 2e-4 dex, which ``supermage predict`` uses.
        """
        points = torch.tensor(probabilities, dtype=torch.float64).reshape(-1, *[1] * len(self.batch_shape))
        return self.icdf(points.expand(-1, *self.batch_shape)).movedim(0, -1)

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """Draws, differentiable: the joint density's, of which this target is kept."""
        latents = self.prior.draw_latents(sample_shape)
        return target_of_latents(self.name, latents, self.prior.log_light)

    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """Draws as of :meth:`rsample`, faster and not differentiable."""
        return target_of_latents(self.name, self.prior.mixture.draw_quickly(tuple(sample_shape)), self.prior.log_light)

    @property
    def mean(self) -> Tensor:
        """Mean, shape (*batch,)."""
        return self._line.moments()[0]

    @property
    def variance(self) -> Tensor:
        """Variance, shape (*batch,)."""
        return self._line.moments()[1]


class MassPrior(Distribution):
    """Joint density of targets within one sphere: batch shape (*batch,), event shape (target,).

    A mixture of Gaussians in the coordinates of :mod:`supermage.models.mass_coordinates`, seen through a monotone recalibration of each,
    plus the training population's own density with a weight that grows as a row leaves the training set. Every order among masses (Mtot >=
    M*, Mtot >= M* + Mdm) holds by construction; where it does not, the density is zero. What is asked for the same rows in different sets
    of targets is the same distribution.

    Parameters
    ----------
    mixture
        Density of the coordinates.
    targets
        Names, see :data:`supermage.models.columns.TARGETS`; not functions of one another.
    aperture
        Sphere: ``1rhsm`` or ``2rhsm``.
    log_light
        log10 of the r-band light that ``log_ml`` divides by, Lsun, shape (*batch,); NaN where unknown.
    out_of_distribution
        Score of each row, shape (*batch,): at most 1 inside the training set; NaN for a row of which the model knows nothing.
    source
        Model and version.

    Raises
    ------
    DomainError
        If a target is unknown or a function of the others.
    """

    arg_constraints: dict[str, Any] = {}  # noqa: RUF012 - as torch has it
    support = constraints.real_vector
    has_rsample = True

    def __init__(
        self,
        mixture: WarpedMixture,
        targets: Sequence[str] = DEFAULT,
        *,
        aperture: str = "1rhsm",
        log_light: Float[Tensor, "..."] | None = None,
        out_of_distribution: Float[Tensor, "..."] | None = None,
        source: str = "",
    ) -> None:
        self.mixture = mixture
        self.targets = check_targets(targets, mixture.latents)
        self.aperture = aperture
        self.source = source
        batch = mixture.batch_shape
        self.log_light = torch.full(batch, torch.nan, dtype=torch.float64) if log_light is None else log_light.expand(batch)
        score = torch.zeros(batch, dtype=torch.float64) if out_of_distribution is None else out_of_distribution
        self.out_of_distribution = score.expand(batch)
        super().__init__(batch, torch.Size([len(self.targets)]), validate_args=False)

    def __getitem__(self, index: Any) -> MassPrior:
        """The density of some rows, as a tensor is indexed along the batch."""
        return self._rebuilt(self.mixture.map(lambda tensor, axes: tensor[index]), self.log_light[index], self.out_of_distribution[index])

    def __len__(self) -> int:
        if not self.batch_shape:
            raise TypeError("a density of one row has no length")
        return self.batch_shape[0]

    def __iter__(self) -> Iterator[MassPrior]:
        return (self[row] for row in range(len(self)))

    def __call__(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """A draw, as ``pyro.sample`` asks for one."""
        return self.rsample(sample_shape)

    @property
    def event_dim(self) -> int:
        """Axes of an event, under the name that Pyro has for it."""
        return len(self.event_shape)

    def expand(self, batch_shape: Sequence[int], _instance: Distribution | None = None) -> MassPrior:
        """The same density with a larger batch."""
        shape = tuple(batch_shape)
        mixture = self.mixture.map(lambda tensor, axes: tensor.expand(*shape, *tensor.shape[tensor.dim() - axes :]))
        return self._rebuilt(mixture, self.log_light.expand(shape), self.out_of_distribution.expand(shape))

    def with_targets(self, targets: Sequence[str]) -> MassPrior:
        """The same rows' density of other targets."""
        return self._rebuilt(self.mixture, self.log_light, self.out_of_distribution, targets)

    def marginal(self, name: str) -> Marginal:
        """Density of one target, which need not be among :attr:`targets`.

        Raises
        ------
        DomainError
            If the model does not know the target.
        """
        if name not in NAMES:
            raise DomainError(f"a target must be one of {', '.join(NAMES)}, got {name!r}{nearest_name(name, NAMES)}")
        check_targets((name,), self.mixture.latents)
        return Marginal(self, name)

    def log_prob(self, value: Tensor) -> Tensor:
        """Natural logarithm of the joint density per dex of each target, shape (*sample, *batch); minus infinity where masses cannot be.

        Raises
        ------
        DomainError
            If the last axis is not of one number for each target.
        """
        value = _float64(value)
        if value.shape[-1:] != self.event_shape:
            raise DomainError(f"a point must have {len(self.targets)} numbers on its last axis, got shape {tuple(value.shape)}")
        if len(self.targets) == 1:
            return self.marginal(self.targets[0]).log_prob(value[..., 0])
        chart = chart_of_targets(self.targets, value, self.log_light)
        return self._integrated(value) if chart is None else self._on_chart(chart)

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """Draws of all targets together, shape (*sample, *batch, target); differentiable by the parameters of the mixture."""
        latents = self.draw_latents(sample_shape)
        return torch.stack([target_of_latents(name, latents, self.log_light) for name in self.targets], dim=-1)

    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """Draws as of :meth:`rsample`, faster and not differentiable."""
        latents = self.mixture.draw_quickly(tuple(sample_shape))
        return torch.stack([target_of_latents(name, latents, self.log_light) for name in self.targets], dim=-1)

    def draw_latents(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """Draws of the latent coordinates, shape (*sample, *batch, latent)."""
        shape = (*sample_shape, *self.batch_shape, self.mixture.latents)
        return self.mixture.draw(torch.rand(shape, dtype=torch.float64).clamp_(1e-15, 1.0 - 1e-15))

    @property
    def mean(self) -> Tensor:
        """Means, shape (*batch, target)."""
        return torch.stack([self.marginal(name).mean for name in self.targets], dim=-1)

    @property
    def variance(self) -> Tensor:
        """Variances, shape (*batch, target)."""
        return torch.stack([self.marginal(name).variance for name in self.targets], dim=-1)

    def _rebuilt(self, mixture: WarpedMixture, log_light: Tensor, score: Tensor, targets: Sequence[str] | None = None) -> MassPrior:
        return MassPrior(mixture, self.targets if targets is None else targets, aperture=self.aperture, log_light=log_light,
                         out_of_distribution=score, source=self.source)  # fmt: skip

    def _on_chart(self, chart: Chart) -> Tensor:
        log_density = self.mixture.only(chart.latents).log_density(chart.value) + chart.log_jacobian
        return torch.where(chart.inside, log_density, torch.full_like(log_density, -torch.inf))

    def _integrated(self, value: Tensor) -> Tensor:
        """The joint density of two targets, one of them of dark matter: an integral over u3."""
        low, high = self.mixture.line(2).bracket()
        step = torch.linspace(0.0, 1.0, PAIR_NODES, dtype=torch.float64).reshape(-1, *[1] * (value.dim() - 1))
        grid = (low + (high - low) * step).expand(PAIR_NODES, *torch.broadcast_shapes(value.shape[:-1], low.shape))
        chart = chart_of_pair(self.targets, value.expand(*grid.shape, value.shape[-1]), grid, self.log_light)
        return torch.logsumexp(self._on_chart(chart), dim=0) + torch.log((high - low) / (PAIR_NODES - 1))


def _float64(value: Tensor | float) -> Tensor:
    return torch.as_tensor(value, dtype=torch.float64)
