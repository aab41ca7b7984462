"""Eight posteriors of posteriordb as torch densities on an unconstrained scale, with their reference draws.

posteriordb (Magnusson, Bürkner & Vehtari 2023, BSD-3): the models are written here from its Stan files, the draws are its own, ten chains
of a thousand. Every density takes one (d,) float64 vector and can be vmapped; Jacobians of the transforms are included.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from supermage.inference.arviz_access import ess, rhat

FloatArray = NDArray[np.float64]
Parameters = dict[str, Tensor]
Model = Callable[[Parameters], Tensor]
Data = Mapping[str, Tensor]

YEARS = 20
STEPS_A_YEAR = 2
"""Of the Runge-Kutta solution of Lotka-Volterra's equations."""


# -- parameters and their scales ---------------------------------------------------------------------------------------------------------


class Transform(NamedTuple):
    """From the unconstrained scale, with the log of the Jacobian determinant, and back."""

    constrain: Callable[[Tensor], tuple[Tensor, Tensor]]
    unconstrain: Callable[[Tensor], Tensor]


def _ordered(u: Tensor) -> tuple[Tensor, Tensor]:
    return torch.cat([u[:1], u[:1] + torch.cumsum(torch.exp(u[1:]), dim=0)]), u[1:].sum()


def _unit(u: Tensor) -> tuple[Tensor, Tensor]:
    return torch.sigmoid(u), (torch.nn.functional.logsigmoid(u) + torch.nn.functional.logsigmoid(-u)).sum()


REAL = Transform(lambda u: (u, torch.zeros((), dtype=u.dtype)), lambda x: x)
POSITIVE = Transform(lambda u: (torch.exp(u), u.sum()), torch.log)
ORDERED = Transform(_ordered, lambda x: torch.cat([x[:1], torch.log(torch.diff(x))]))
UNIT = Transform(_unit, torch.logit)


class Block(NamedTuple):
    """Parameters of one name."""

    name: str
    size: int
    transform: Transform = REAL


def _all_in_order(parameters: Parameters) -> Tensor:
    return torch.cat(list(parameters.values()))


@dataclass(frozen=True)
class Posterior:
    """A density, what the draws file names, and its draws.

    Parameters
    ----------
    blocks
        The parameters, in the order of the unconstrained vector.
    model
        Log prior and log likelihood of constrained parameters, up to a constant.
    draws
        (chain, draw, quantity) of posteriordb.
    quantities
        From constrained parameters to what the file holds, and ``parameters`` back.
    pool
        Starts are the best of so many random points a chain.
    start
        Starts from (point, d) standard normal numbers, which they are without it.
    chart
        From the coordinates that are sampled to the unconstrained scale, with the log of the Jacobian determinant.
    """

    blocks: tuple[Block, ...]
    model: Model
    draws: FloatArray
    quantities: Callable[[Parameters], Tensor] = _all_in_order
    parameters: Callable[[Tensor], Parameters] | None = None
    pool: int = 1
    start: Callable[[Tensor], Tensor] = lambda noise: noise
    chart: Callable[[Tensor], tuple[Tensor, Tensor]] = REAL.constrain

    @property
    def sizes(self) -> list[int]:
        return [block.size for block in self.blocks]

    def constrain(self, u: Tensor) -> tuple[Parameters, Tensor]:
        """Constrained parameters and the log of the Jacobian determinant."""
        pairs = {block.name: block.transform.constrain(part) for block, part in zip(self.blocks, self._parts(u))}
        return {name: x for name, (x, _) in pairs.items()}, torch.stack([log for _, log in pairs.values()]).sum()

    def _parts(self, vector: Tensor) -> list[Tensor]:
        return list(torch.tensor_split(vector, np.cumsum(self.sizes)[:-1].tolist()))

    def log_density(self, u: Tensor, *, jacobian: bool = True) -> Tensor:
        """On the unconstrained scale."""
        parameters, log_jacobian = self.constrain(u)
        return self.model(parameters) + (log_jacobian if jacobian else 0.0)

    def sampled_density(self, v: Tensor) -> Tensor:
        """In the coordinates of the chart."""
        u, log_jacobian = self.chart(v)
        return self.log_density(u) + log_jacobian

    def named(self, u: Tensor) -> Tensor:
        """What the draws file names, (..., quantity) of (..., d)."""
        flat = torch.func.vmap(lambda one: self.quantities(self.constrain(one)[0]))(u.reshape(-1, u.shape[-1]))
        return flat.reshape(*u.shape[:-1], -1)

    def unconstrain(self, quantities: Tensor) -> Tensor:
        """From one draw of the file."""
        names = [block.name for block in self.blocks]
        values = self.parameters(quantities) if self.parameters is not None else dict(zip(names, self._parts(quantities)))
        return torch.cat([block.transform.unconstrain(values[block.name]) for block in self.blocks])

    def reference(self) -> Tensor:
        """The file's draws on the unconstrained scale, (chain, draw, d)."""
        flat = torch.from_numpy(self.draws).reshape(-1, self.draws.shape[-1])
        return torch.func.vmap(self.unconstrain)(flat).reshape(*self.draws.shape[:-1], -1)

    def starts(self, chains: int, seed: int) -> Tensor:
        """Where chains begin: random points that know nothing of the draws."""
        generator = torch.Generator().manual_seed(seed)
        points = self.start(torch.randn(chains * self.pool, sum(self.sizes), dtype=torch.float64, generator=generator))
        if self.pool == 1:
            return points
        value = torch.func.vmap(self.sampled_density)(points).nan_to_num(nan=-torch.inf)
        return points[value.topk(chains).indices]


# -- models ------------------------------------------------------------------------------------------------------------------------------


def normal(value: Tensor, mean: Tensor | float, width: Tensor | float) -> Tensor:
    """Sum of log densities, up to what does not depend on tensors, as are all below."""
    square = -0.5 * ((value - mean) / width).square()
    return (square - torch.log(width)).sum() if isinstance(width, Tensor) else square.sum()


def lognormal(value: Tensor, mean: Tensor | float, width: Tensor | float) -> Tensor:
    """``mean`` and ``width`` are the logarithm's."""
    logarithm = torch.log(value)
    return normal(logarithm, mean, width) - logarithm.sum()


def cauchy(value: Tensor, width: float) -> Tensor:
    """About zero."""
    return -torch.log1p((value / width).square()).sum()


def gamma(value: Tensor, shape: float, rate: float) -> Tensor:
    """``shape`` and ``rate``."""
    return ((shape - 1.0) * torch.log(value) - rate * value).sum()


def beta(value: Tensor, a: float, b: float) -> Tensor:
    """Between 0 and 1."""
    return ((a - 1.0) * torch.log(value) + (b - 1.0) * torch.log1p(-value)).sum()


def poisson(count: Tensor, log_rate: Tensor) -> Tensor:
    """Of counts."""
    return (count * log_rate - torch.exp(log_rate)).sum()


def _at_the_scale_of(y: Tensor) -> Callable[[Tensor], Tensor]:
    """Starts of a regression: coefficients about zero, a width like the data's own."""
    scale = float(0.5 * torch.log(y.square().mean()))
    return lambda noise: torch.cat([noise[:, :-1], scale + noise[:, -1:]], dim=1)


def _autoregression(data: Data, draws: FloatArray, widen: float) -> Posterior:
    y, order = data["y"], int(data["K"])
    lagged = torch.stack([y[order - k : len(y) - k] for k in range(1, order + 1)], dim=1)

    def model(p: Parameters) -> Tensor:
        prior = normal(p["alpha"], 0.0, 10.0 * widen) + normal(p["beta"], 0.0, 10.0 * widen) + cauchy(p["sigma"], 2.5 * widen)
        return prior + normal(y[order:], p["alpha"] + lagged @ p["beta"], p["sigma"])

    return Posterior((Block("alpha", 1), Block("beta", order), Block("sigma", 1, POSITIVE)), model, draws)


def _eight_schools(data: Data, draws: FloatArray, widen: float) -> Posterior:
    y, error = data["y"], data["sigma"]

    def theta(p: Parameters) -> Tensor:
        return p["mu"] + p["tau"] * p["z"]

    def model(p: Parameters) -> Tensor:
        prior = normal(p["z"], 0.0, 1.0) + normal(p["mu"], 0.0, 5.0 * widen) + cauchy(p["tau"], 5.0 * widen)
        return prior + normal(y, theta(p), error)

    def parameters(q: Tensor) -> Parameters:
        mu, tau = q[8:9], q[9:10]
        return {"z": (q[:8] - mu) / tau, "mu": mu, "tau": tau}

    blocks = (Block("z", 8), Block("mu", 1), Block("tau", 1, POSITIVE))
    return Posterior(blocks, model, draws, lambda p: torch.cat([theta(p), p["mu"], p["tau"]]), parameters)


def _gaussian_process(data: Data, draws: FloatArray, widen: float) -> Posterior:
    square, counts = (data["x"][:, None] - data["x"]).square(), data["k"]
    jitter = 1e-10 * torch.eye(len(counts), dtype=torch.float64)

    def factor(rho: Tensor, alpha: Tensor) -> Tensor:
        lower, info = torch.linalg.cholesky_ex(alpha.square() * torch.exp(-0.5 * square / rho.square()) + jitter)
        return torch.where(info == 0, lower, torch.nan)

    def rates(p: Parameters) -> Tensor:
        return factor(p["rho"], p["alpha"]) @ p["f_tilde"]

    def model(p: Parameters) -> Tensor:
        prior = gamma(p["rho"], 25.0, 4.0 / widen)
        prior = prior + normal(p["alpha"], 0.0, 2.0 * widen) + normal(p["f_tilde"], 0.0, 1.0)
        return prior + poisson(counts, rates(p))

    def parameters(q: Tensor) -> Parameters:
        rho, alpha = q[:1], q[1:2]
        return {"rho": rho, "alpha": alpha, "f_tilde": torch.linalg.solve_triangular(factor(rho, alpha), q[2:, None], upper=False)[:, 0]}

    def chart(v: Tensor) -> tuple[Tensor, Tensor]:
        # the likelihood's Gaussian, N(log k; f, 1 / k), is taken out: with f_tilde alone no single step size suits every rho
        lower = factor(*torch.exp(v[:2]))
        root, _ = torch.linalg.cholesky_ex(torch.eye(len(counts), dtype=v.dtype) + lower.mT @ (counts[:, None] * lower))
        centre = torch.cholesky_solve((lower.mT @ (counts * torch.log(counts)))[:, None], root)
        f_tilde = centre + torch.linalg.solve_triangular(root.mT, v[2:, None], upper=True)
        return torch.cat([v[:2], f_tilde[:, 0]]), -torch.log(root.diagonal()).sum()

    def start(noise: Tensor) -> Tensor:
        return torch.cat([torch.log(6.25 + 1.25 * noise[:, :1]), torch.log(2.0 * noise[:, 1:2].abs()), noise[:, 2:]], dim=1)

    blocks = (Block("rho", 1, POSITIVE), Block("alpha", 1, POSITIVE), Block("f_tilde", len(counts)))
    return Posterior(blocks, model, draws, lambda p: torch.cat([p["rho"], p["alpha"], rates(p)]), parameters, start=start, chart=chart)


def log_populations(theta: Tensor, initial: Tensor, *, steps: int = STEPS_A_YEAR) -> Tensor:
    """Log of prey and predator after each year, (year, 2): classical Runge-Kutta in the logarithms, ``steps`` a year."""
    rate = torch.stack([theta[0], -theta[2]]) / steps
    coupling = torch.stack([-theta[1], theta[3]]) / steps

    def slope(w: Tensor) -> Tensor:
        return torch.addcmul(rate, coupling, torch.exp(w).flip(0))

    w, out = torch.log(initial), []
    for _ in range(YEARS):
        for _ in range(steps):
            k1 = slope(w)
            k2 = slope(torch.add(w, k1, alpha=0.5))
            k3 = slope(torch.add(w, k2, alpha=0.5))
            k4 = slope(w + k3)
            w = torch.add(w, torch.add(k1 + k4, k2 + k3, alpha=2.0), alpha=1.0 / 6.0)
        out.append(w)
    return torch.stack(out)


def _lotka_volterra(data: Data, draws: FloatArray, widen: float) -> Posterior:
    centre = torch.tensor([1.0, 0.05, 1.0, 0.05], dtype=torch.float64)
    width = widen * torch.tensor([0.5, 0.05, 0.5, 0.05], dtype=torch.float64)
    observed = torch.cat([data["y_init"][None], data["y"]])

    def model(p: Parameters) -> Tensor:
        z = torch.cat([torch.log(p["z_init"])[None], log_populations(p["theta"], p["z_init"])])
        prior = normal(p["theta"], centre, width) + lognormal(p["sigma"], -1.0, widen)
        prior = prior + lognormal(p["z_init"], float(np.log(10.0)), widen)
        return prior + lognormal(observed, z, p["sigma"])

    def start(noise: Tensor) -> Tensor:
        theta = (centre + width * noise[:, :4]).abs()
        return torch.cat([torch.log(theta), torch.log(data["y_init"]) + 0.3 * noise[:, 4:6], -1.0 + noise[:, 6:]], dim=1)

    blocks = (Block("theta", 4, POSITIVE), Block("z_init", 2, POSITIVE), Block("sigma", 2, POSITIVE))
    return Posterior(blocks, model, draws, pool=2500, start=start)


def _test_scores(data: Data, draws: FloatArray, widen: float) -> Posterior:
    school, iq = data["mom_hs"], data["mom_iq"]
    design = torch.stack([torch.ones_like(iq), school, iq, school * iq], dim=1)

    def model(p: Parameters) -> Tensor:
        return cauchy(p["sigma"], 2.5 * widen) + normal(data["kid_score"], design @ p["beta"], p["sigma"])

    return Posterior((Block("beta", 4), Block("sigma", 1, POSITIVE)), model, draws, start=_at_the_scale_of(data["kid_score"]))


def _mixture(data: Data, draws: FloatArray, widen: float) -> Posterior:
    y = data["y"]

    def model(p: Parameters) -> Tensor:
        prior = normal(p["sigma"], 0.0, 2.0 * widen) + normal(p["mu"], 0.0, 2.0 * widen)
        prior = prior + beta(p["theta"], 5.0, 5.0)
        each = -0.5 * ((y - p["mu"][:, None]) / p["sigma"][:, None]).square() - torch.log(p["sigma"])[:, None]
        return prior + torch.logaddexp(torch.log(p["theta"]) + each[0], torch.log1p(-p["theta"]) + each[1]).sum()

    def start(noise: Tensor) -> Tensor:
        mu = 2.0 * noise[:, :2].sort(dim=1).values
        return torch.cat([mu[:, :1], torch.log(torch.diff(mu)), torch.log(2.0 * noise[:, 2:4].abs()), 0.63 * noise[:, 4:]], dim=1)

    blocks = (Block("mu", 2, ORDERED), Block("sigma", 2, POSITIVE), Block("theta", 1, UNIT))
    return Posterior(blocks, model, draws, pool=50, start=start)


def _bushes(data: Data, draws: FloatArray, widen: float) -> Posterior:
    sizes = [torch.log(data[name]) for name in ("diam1", "diam2", "canopy_height", "total_height", "density")]
    design = torch.stack([torch.ones_like(data["group"]), *sizes, data["group"]], dim=1)

    def model(p: Parameters) -> Tensor:
        return normal(torch.log(data["weight"]), design @ p["beta"], p["sigma"])

    return Posterior((Block("beta", 7), Block("sigma", 1, POSITIVE)), model, draws)


def _regression(data: Data, draws: FloatArray, widen: float) -> Posterior:
    def model(p: Parameters) -> Tensor:
        prior = normal(p["beta"], 0.0, 10.0 * widen) + normal(p["sigma"], 0.0, 10.0 * widen)
        return prior + normal(data["y"], data["X"] @ p["beta"], p["sigma"])

    blocks = (Block("beta", data["X"].shape[1]), Block("sigma", 1, POSITIVE))
    return Posterior(blocks, model, draws, start=_at_the_scale_of(data["y"]))


POSTERIORS: dict[str, tuple[str, Callable[[Data, FloatArray, float], Posterior]]] = {
    "arK": ("arK-arK", _autoregression),
    "eight_schools": ("eight_schools-eight_schools_noncentered", _eight_schools),
    "gp_pois_regr": ("gp_pois_regr-gp_pois_regr", _gaussian_process),
    "lotka_volterra": ("hudson_lynx_hare-lotka_volterra", _lotka_volterra),
    "kidscore_interaction": ("kidiq-kidscore_interaction", _test_scores),
    "low_dim_gauss_mix": ("low_dim_gauss_mix-low_dim_gauss_mix", _mixture),
    "logmesquite": ("mesquite-logmesquite", _bushes),
    "blr": ("sblrc-blr", _regression),
}
"""Name, stem of the files in posteriordb's folder, and builder."""


def load(folder: Path, name: str, *, widen: float = 1.0) -> Posterior:
    """A posterior from posteriordb's folder; the scales of its priors may be multiplied by ``widen``."""
    stem, build = POSTERIORS[name]
    data = json.loads((folder / f"{stem}.data.json").read_text(encoding="utf-8"))
    with np.load(folder / f"{stem}.draws.npz") as file:
        draws = file["draws"]
    return build({key: torch.tensor(value, dtype=torch.float64) for key, value in data.items()}, draws, widen)


# -- comparison --------------------------------------------------------------------------------------------------------------------------


class Agreement(NamedTuple):
    """Draws against the reference: deviations of each quantity in standard errors of both, and how well the draws are mixed."""

    mean: FloatArray
    spread: FloatArray
    rhat: float
    ess: float


def _deviation(values: FloatArray, reference: FloatArray) -> float:
    # both widths are the reference's: a short run's own goes with its mean where a tail is long
    error = np.sqrt(reference.var() * (1.0 / ess(values, method="mean") + 1.0 / ess(reference, method="mean")))
    return float((values.mean() - reference.mean()) / error)


def compare(posterior: Posterior, v: Tensor) -> Agreement:
    """Draws (chain, draw, d) against the file's: means, mean squares about the reference mean, worst R-hat, smallest ESS."""
    u = torch.func.vmap(lambda one: posterior.chart(one)[0])(v.reshape(-1, v.shape[-1])).reshape(v.shape)
    values = posterior.named(u).numpy()
    pairs = [(values[..., k], posterior.draws[..., k]) for k in range(values.shape[-1])]
    squares = [((x - r.mean()) ** 2, (r - r.mean()) ** 2) for x, r in pairs]
    return Agreement(
        np.array([_deviation(x, r) for x, r in pairs]),
        np.array([_deviation(x, r) for x, r in squares]),
        max(rhat(x) for x, _ in pairs),
        min(ess(x, method=method) for some, method in ((pairs, "bulk"), (pairs, "mean"), (squares, "mean")) for x, _ in some),
    )
