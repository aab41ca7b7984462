"""The prior on the stars' mass: one density by every way to it, its draws, and what a recipe says of it."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from astropy.table import Table
from pyro import poutine
from scipy import stats
from torch import Tensor

from supermage.constants import pc_per_arcsec
from supermage.errors import CheckpointError, RecipeError
from supermage.forward.enclosed_mass import UnitMass
from supermage.inference import langevin
from supermage.inference.fit import fit
from supermage.inference.mass_knowledge import MassKnowledge, read_mass_knowledge
from supermage.inference.mass_prior import StellarMassPrior, build_mass_prior, tell_mass_prior
from supermage.inference.model import Chart, GalaxyFit, PosteriorTarget, build_model
from supermage.inference.posterior import open_posterior
from supermage.inference.priors import Priors, build_priors, cautions
from supermage.models.out_of_distribution import OutOfDistributionWarning
from supermage.models.registry import load_model
from supermage.progress import SilentProgress
from supermage.recipe import FitSection, Recipe, load_recipe
from supermage.report.prior_curve import sampled_prior
from supermage.report.record import StoredMassPrior
from tests.data_reduction.factories import make_gridded
from tests.inference.toy import FREE, TRUTH, ToyFactory, held, tensors, toy_data, toy_fit, toy_recipe

MEAN, WIDTH = 10.0, 0.1
CHART = Chart(67.0, 0.8, 0.5, tuple(sorted(TRUTH.items())), (1.7, 0.3))


def toy_unit_mass(theta: Any) -> Tensor:
    """Depends on the shape as a real aperture's mass does: steeper stars hold less outside."""
    slope = theta["gamma"] - theta["gamma_minus_beta"]
    return 6.0 + 2.0 * torch.log10(theta["break_r"]) - 0.6 * slope + torch.log10(0.4 + 0.6 * theta["qintr"])


def normal_prior(mean: float = MEAN, width: float = WIDTH) -> StellarMassPrior:
    density = torch.distributions.Normal(torch.tensor(mean, dtype=torch.float64), width, validate_args=False)
    return StellarMassPrior(MassKnowledge(density, 5.0, "a sphere of 5 kpc", "numbers of the recipe"), toy_unit_mass)


DATA = toy_data(n_cell=30, n_channel=8)
PLAIN = toy_fit(DATA, priors=held(*FREE))
FIT = GalaxyFit(PLAIN.galaxy_model, PLAIN.noise, PLAIN.priors, mass_prior=normal_prior())
TARGET = PosteriorTarget(FIT, FIT.coordinates(CHART))
Z = TARGET.coordinates.from_theta(TRUTH)


def mass(values: dict[str, float]) -> float:
    return values["intensity_rb"] + float(toy_unit_mass(tensors(values)))


def test_the_density_of_the_mass_stands_for_the_uniform_one() -> None:
    """By hand: the other parameters' uniform densities, the normal one of m, the likelihood; no Jacobian."""
    theta = tensors({**TRUTH, "intensity_rb": 2.7})
    volume = sum(math.log(360.0 if p.name == "PA" else p.upper - p.lower) for p in FIT.priors.free if p.name != "intensity_rb")
    expected = float(FIT.log_likelihood(theta)) - volume + stats.norm.logpdf(mass({**TRUTH, "intensity_rb": 2.7}), MEAN, WIDTH)
    assert float(FIT.log_prob(theta)) == pytest.approx(expected, abs=1e-8)
    assert float(FIT.log_prob(tensors({**TRUTH, "intensity_rb": 5.2}))) == -math.inf
    trace = poutine.trace(FIT.pyro_model).get_trace()
    latent = [name for name, node in trace.nodes.items() if node["type"] == "sample" and not node["is_observed"]]
    assert tuple(latent) == FIT.names and "mass_prior" in trace.nodes


def test_every_way_to_the_density_is_one() -> None:
    """Pyro's trace, the sampler's own value and gradient, and all chains in one pass; the gradient by differences."""
    several = torch.stack([Z, Z + 0.1, Z - 0.2])
    value, gradient = TARGET.of_chains(several)
    for k, z in enumerate(several):
        alone = TARGET.value_and_gradient(z)
        assert float(alone[0]) == pytest.approx(float(TARGET.log_density(z)), abs=1e-8)
        assert float(value[k]) == pytest.approx(float(alone[0]), rel=1e-12)
        assert torch.allclose(gradient[k], alone[1], rtol=1e-9, atol=1e-9 * float(alone[1].abs().max()))
    step = 1e-5
    for i in range(len(Z)):
        away = torch.zeros_like(Z)
        away[i] = step
        numerical = float(TARGET.log_density(Z + away) - TARGET.log_density(Z - away)) / (2 * step)
        assert float(gradient[0, i]) == pytest.approx(numerical, rel=1e-4, abs=1e-3), FIT.names[i]
    without = PosteriorTarget(PLAIN, PLAIN.coordinates(CHART)).value_and_gradient(Z)[0]
    difference = stats.norm.logpdf(mass(TRUTH), MEAN, WIDTH) + math.log(4.0)
    assert float(value[0] - without) == pytest.approx(difference, abs=1e-8)


def test_fisher_matrix_gains_one_direction() -> None:
    """The outer product of dm/dz over the variance; not where the prior is left out, as the paper's metric does."""
    leaf = Z.clone().requires_grad_(True)
    (slope,) = torch.autograd.grad(FIT.mass_prior.log_mass(TARGET.coordinates.to_theta(leaf)[0]), leaf)  # type: ignore[union-attr]
    plain = PosteriorTarget(PLAIN, PLAIN.coordinates(CHART))
    gained = TARGET.fisher(Z) - plain.fisher(Z)
    assert torch.allclose(gained, torch.outer(slope, slope) / WIDTH**2, rtol=1e-8, atol=1e-6)
    assert torch.equal(TARGET.fisher(Z, with_prior=False), plain.fisher(Z, with_prior=False))


WIDE = {"alpha": {"fixed": 2.0}, "intensity_rb": {"lower": 0.0, "upper": 10.0}, "log10_mbh": {"fixed": 8.0}, "inclination": {"fixed": 80.0}}
GAS = ("scale_length", "PA", "line_broadening", "systemic_velocity", "x", "y", "Flux")
PRIORS = build_priors(FitSection.model_validate({
    "visibilities": "v.nc", "output": "p.nc", "priors": {**{name: {"fixed": TRUTH[name]} for name in GAS}, **WIDE}}))
"""Five of the stars' parameters, and so wide a prior of intensity_rb that no draw of m leaves it."""


class Blind(GalaxyFit):
    """A fit whose data say nothing."""

    def visibilities_of_chains(self, theta: Any) -> Tensor:
        return torch.zeros(len(theta["gamma"]), 1, dtype=torch.complex128)


def blind_target(prior: StellarMassPrior | None) -> PosteriorTarget:
    nothing: Any = SimpleNamespace(data=torch.zeros(1), residual=lambda item: item, log_likelihood_of=lambda item: 0.0 * item.real.sum())
    fit = Blind(PLAIN.galaxy_model, PLAIN.noise, PRIORS, mass_prior=prior)
    fit.noise = nothing
    return PosteriorTarget(fit, fit.coordinates(dataclasses.replace(CHART, stretch=None)))


def sample_prior(
    prior: StellarMassPrior, *, chains: int = 500, steps: int = 40, start: dict[str, np.ndarray] | None = None, least: float = 0.7
) -> dict[str, np.ndarray]:
    """Independent chains of the sampler's own kernel in its own coordinates, begun where the mass has no prior, or at ``start``."""
    target, generator = blind_target(prior), torch.Generator().manual_seed(3)
    rng = np.random.default_rng(4)
    if start is None:
        start = {p.name: rng.uniform(0.95 * p.lower + 0.05 * p.upper, 0.05 * p.lower + 0.95 * p.upper, chains) for p in PRIORS.free}
    z = torch.stack([target.coordinates.from_theta({name: float(values[k]) for name, values in start.items()}) for k in range(chains)])
    leaf = torch.zeros(len(PRIORS.free), dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(prior.residual(target.coordinates.to_theta(leaf)[0]), leaf)
    factor = torch.linalg.inv(torch.linalg.cholesky(torch.eye(len(leaf), dtype=torch.float64) + torch.outer(slope, slope))).mT.contiguous()
    state = langevin.init(target.of_chains, z)
    for _ in range(steps):
        normal = torch.randn(z.shape, generator=generator, dtype=torch.float64)
        uniform, jitter = torch.rand((2, chains), generator=generator, dtype=torch.float64)
        draw = langevin.Draw(normal, uniform, jitter, torch.sign(normal))
        step = 0.15 + 0.25 * jitter
        state, info = langevin.hmc(target.of_chains, state, factor, step, draw, n_steps=6)
    assert float(info.acceptance.mean()) > least
    vector = target.parameters_of_chains(state.position)[0].numpy()
    drawn = {name: vector[:, i] for i, name in enumerate(PRIORS.names)}
    theta = {name: torch.from_numpy(values.copy()) for name, values in drawn.items()} | {
        name: torch.full((chains,), value, dtype=torch.float64) for name, value in PRIORS.fixed.items()}
    return drawn | {"mass": prior.log_mass(theta).numpy()}


SHAPE = ("qintr", "gamma_minus_beta", "gamma", "break_r")


def p_values(drawn: dict[str, np.ndarray], mass_cdf: Any = None) -> dict[str, float]:
    """Kolmogorov and Smirnov's: the mass against its prior, the shape against its uniform ones."""
    edges = PRIORS.edges
    found = {name: stats.kstest(drawn[name], stats.uniform(edges[name][0], edges[name][1] - edges[name][0]).cdf).pvalue for name in SHAPE}
    mass_p = stats.kstest(drawn["mass"], mass_cdf or stats.norm(MEAN, 0.3).cdf).pvalue
    return {"mass": float(mass_p), **{name: float(p) for name, p in found.items()}}


def test_sampling_the_prior_alone_gives_the_prior() -> None:
    """500 independent chains in pivot coordinates: each of 5 tests at 1 % (seeded; false alarm 5 %), mass and shape independent."""
    drawn = sample_prior(normal_prior(width=0.3))
    found = p_values(drawn)
    assert min(found.values()) > 0.01, found
    for name in SHAPE:
        assert stats.spearmanr(drawn["mass"], drawn[name]).pvalue > 0.001, name


@pytest.mark.parametrize(("colour", "score", "begun"), [(1.8, 3.78, "afar"), (1.2, 1.82, "there")])
def test_the_shipped_estimators_mass_is_sampled_with_a_real_galaxys_aperture(colour: float, score: float, begun: str) -> None:
    """`tng-gbdt`'s own density and `UnitMass` of the emulator: each of 5 KS tests at 1 % (seeded; false alarm 5 % a case).

    A galaxy so red that the density is the population's, sampled from afar; and one where a peak of 0.02 dex stands on that, which six
    steps must leave as it is. As measured here, wrong Jacobians give p < 1e-16 in the first case, < 2e-4 in the second.
    """
    row = Table({"M_r": [-20.0], "g_r": [colour], "M_K": [-22.5]})
    for name in row.colnames:
        row[name].unit = "mag"
    with pytest.warns(OutOfDistributionWarning):
        predicted = load_model("tng-gbdt").predict(row)[0]
    assert float(predicted.out_of_distribution) == pytest.approx(score, abs=0.01)
    density = predicted.marginal("log_mstar")
    knowledge = MassKnowledge(density, 3.0, "a sphere of 3 kpc", predicted.source, "tng-gbdt")
    prior = StellarMassPrior(knowledge, UnitMass(load_model("nuker-mge"), pc_per_arcsec(11.4), 3000.0))
    if begun == "afar":
        drawn = sample_prior(prior, chains=300, steps=8)
    else:
        exact = prior.draw(PRIORS, 200, np.random.default_rng(5))
        assert exact.accepted == 1.0
        start = {p.name: exact.theta[p.name] for p in PRIORS.free}
        drawn = sample_prior(prior, chains=200, steps=6, start=start, least=0.4)
        assert np.median(np.abs(drawn["mass"] - exact.log_mass)) > 0.1
    found = p_values(drawn, lambda mass: density.cdf(torch.from_numpy(mass)).reshape(-1).numpy())
    assert min(found.values()) > 0.01, found


class WrongJacobian(StellarMassPrior):
    """As if the density were one of the mass in Msun, or of m at a fixed intensity_rb."""

    def __init__(self, kind: str) -> None:
        good = normal_prior(width=0.3)
        super().__init__(good.knowledge, good.unit_mass)
        self.kind = kind

    def log_density(self, theta: Any) -> Tensor:
        extra = self.log_mass(theta) if self.kind == "linear" else self.unit_mass(theta)
        return super().log_density(theta) + extra * math.log(10.0)


@pytest.mark.parametrize(("kind", "seen_in"), [("linear", ("mass",)), ("unit mass", ("gamma_minus_beta", "gamma", "break_r"))])
def test_a_wrong_jacobian_is_caught(kind: str, seen_in: tuple[str, ...]) -> None:
    found = p_values(sample_prior(WrongJacobian(kind)))
    assert max(found[name] for name in seen_in) < 1e-3, found


def test_drawing_the_mass_first_gives_the_same_prior() -> None:
    """The other way to say the prior, exact by construction: shape, mass, then intensity_rb; false alarm 5 %."""
    drawn = normal_prior(width=0.3).draw(PRIORS, 4000, np.random.default_rng(5))
    assert drawn.accepted == 1.0
    assert min(p_values({**drawn.theta, "mass": drawn.log_mass}).values()) > 0.01
    assert np.allclose(drawn.log_mass, [mass({name: float(v[k]) for name, v in drawn.theta.items()}) for k in range(4000)])


def test_draws_outside_the_prior_of_intensity_are_rejected() -> None:
    """As many as a quadrature of the two priors says; a contradiction of the two is refused."""
    narrow = dataclasses.replace(PRIORS, free=tuple(
        dataclasses.replace(p, lower=2.0, upper=5.0) if p.name == "intensity_rb" else p for p in PRIORS.free))
    prior = normal_prior(mean=9.4, width=0.3)
    drawn = prior.draw(narrow, 4000, np.random.default_rng(6))
    assert np.all((drawn.theta["intensity_rb"] >= 2.0) & (drawn.theta["intensity_rb"] <= 5.0))
    rng = np.random.default_rng(7)
    shape = {name: torch.from_numpy(rng.uniform(*PRIORS.edges[name], 20000)) for name in SHAPE}
    unit = toy_unit_mass(shape).numpy()
    expected = np.mean(stats.norm.cdf(5.0 + unit, 9.4, 0.3) - stats.norm.cdf(2.0 + unit, 9.4, 0.3))
    assert 0.2 < expected < 0.9 and drawn.accepted == pytest.approx(expected, abs=0.03)
    told = tell_mass_prior(prior, narrow, SilentProgress())
    assert told.accepted == pytest.approx(expected, abs=0.03) and len(told.unit_mass) == 4000
    assert "% of its draws leave the prior of intensity_rb" in prior.words(drawn.accepted)
    with pytest.raises(RecipeError, match=r"^fit.mass_prior must leave intensity_rb inside its prior, \[2, 5\], got 0 % of its draws"):
        tell_mass_prior(normal_prior(mean=20.0), narrow, SilentProgress())


def test_what_is_recorded_tells_the_mass_that_the_bounds_leave() -> None:
    """Tables of p_m and of log10 I against the accepted draws themselves, by Kolmogorov and Smirnov; the prior as given is refuted."""
    narrow = dataclasses.replace(PRIORS, free=tuple(
        dataclasses.replace(p, lower=2.0, upper=5.0) if p.name == "intensity_rb" else p for p in PRIORS.free))
    prior = normal_prior(mean=9.4, width=0.3)
    drawn = prior.draw(narrow, 4000, np.random.default_rng(6))
    notes = json.loads(json.dumps(prior.notes(drawn.accepted, drawn.unit_mass)))
    assert notes["normal"] and notes["tried"] == 4000 and len(json.dumps(notes)) < 20000
    mass, density = (np.asarray(values) for values in notes["density"])
    assert np.all(np.diff(mass) > 0) and density == pytest.approx(stats.norm.logpdf(mass, 9.4, 0.3), abs=1e-4)
    kept = prior.draw(narrow, 4000, np.random.default_rng(7)).log_mass.reshape(1, -1)
    kept = kept[:, : kept.size // 4 * 4].reshape(4, -1)
    stored = StoredMassPrior(notes, kept, stats.norm.logpdf(kept, 9.4, 0.3), (kept - 9.4) / 0.3)
    sampled = sampled_prior(stored, (2.0, 5.0))
    assert sampled.rejected and stats.kstest((sampled.below / (sampled.below + sampled.above)).ravel(), "uniform").pvalue > 0.01
    assert stats.kstest(stats.norm.cdf(stored.score).ravel(), "uniform").pvalue < 1e-3
    whole = prior.notes(1.0)
    assert "unit_mass" not in whole and whole["centre"] == notes["centre"]


def test_what_a_posterior_keeps_of_every_draw() -> None:
    rng = np.random.default_rng(8)
    draws = {name: TRUTH[name] + 0.01 * rng.standard_normal((2, 5)) for name in ("intensity_rb", "gamma")}
    fixed = {name: value for name, value in TRUTH.items() if name not in draws}
    kept = normal_prior().statistics(draws, fixed)
    for k in np.ndindex(2, 5):
        m = mass({**TRUTH, **{name: float(values[k]) for name, values in draws.items()}})
        assert kept["log_stellar_mass"][k] == pytest.approx(m)
        assert kept["log_mass_prior"][k] == pytest.approx(stats.norm.logpdf(m, MEAN, WIDTH))
        assert kept["mass_prior_score"][k] == pytest.approx(np.clip((m - MEAN) / WIDTH, -7.95, 7.95), abs=0.01)


class MassFactory(ToyFactory):
    """The toy with a prior on its stars' mass, as the recipe gives it."""

    def __call__(self) -> GalaxyFit:
        fit, section = super().__call__(), self.recipe.fit
        assert section is not None and section.mass_prior is not None
        knowledge = read_mass_knowledge(self.recipe, section.mass_prior)
        return GalaxyFit(fit.galaxy_model, fit.noise, fit.priors, mass_prior=StellarMassPrior(knowledge, toy_unit_mass))


def with_mass(folder: Path, **mass_prior: object) -> Recipe:
    recipe = toy_recipe(folder, priors=held("intensity_rb", "gamma", "Flux"), warmup=(20, 30, 30), draws=200, segment=200)
    table = recipe.model_dump(mode="json", exclude={"folder"})
    numbers = {"mean": mass(TRUTH), "width": 0.05, "radius": 5.0, **mass_prior}
    return Recipe.model_validate({**table, "folder": folder, "fit": {**table["fit"], "mass_prior": numbers}})


def test_a_fit_records_its_prior_and_goes_on_by_it_alone(tmp_path: Path) -> None:
    recipe = with_mass(tmp_path)
    told: list[str] = []
    posterior = fit(recipe, factory=MassFactory(recipe), progress=Told(told))
    found = open_posterior(posterior.path or "")
    notes = found.mass_prior
    assert notes["centre"] == pytest.approx(mass(TRUTH)) and notes["width"] == pytest.approx(0.05, rel=1e-6)
    assert notes["normal"] and len(notes["unit_mass"]) == 401 and notes["tried"] == 4000
    assert notes["aperture"] == "a sphere of 5 kpc" and not notes["seen_data"] and notes["accepted"] > 0.99
    assert any(line.startswith("log10 M* = ") and "inside a sphere of 5 kpc" in line for line in told)
    stored = found.to_arviz()["sample_stats"]
    assert stored["log_stellar_mass"].shape == found.draws("gamma").shape
    spread = np.asarray(stored["log_stellar_mass"]).std()
    assert spread < 0.07 and abs(float(np.asarray(stored["log_stellar_mass"]).mean()) - mass(TRUTH)) < 0.1
    again = fit(recipe, factory=MassFactory(recipe))
    assert np.array_equal(again.draws("gamma"), found.draws("gamma"))
    other = with_mass(tmp_path, width=0.06)
    with pytest.raises(CheckpointError):
        fit(other, factory=MassFactory(other))


class Told(SilentProgress):
    def __init__(self, lines: list[str]) -> None:
        self.lines = lines

    def done(self, note: str = "") -> None:
        self.lines.append(note)


def recipe_of(mass_prior: dict[str, object], **fit_section: object) -> Recipe:
    table = {"visibilities": "v.nc", "output": "p.nc", "mass_prior": mass_prior, **fit_section}
    return Recipe.model_validate({"folder": Path("/nowhere"), "galaxy": {"name": "toy", "distance": 11.4}, "fit": table})


NUMBERS: dict[str, object] = {"mean": 10.5, "width": 0.05, "radius": 5.0}


@pytest.mark.parametrize(("table", "message"), [
    ("mean = 10.5", "fit.mass_prior without a model needs radius and width, got none"),
    ('model = "tng-gbdt"', "fit.mass_prior by the model 'tng-gbdt' needs catalogue (a network maps), got none"),
    ('model = "mock-cnn"\nmaps = "a.nc"\ncolumns.a = "b"', "fit.mass_prior by the model 'mock-cnn' must leave out columns, got both"),
    ('model = "tng-gbdt"\ncatalogue = "a.fits"\nprojection = 1', "by the model 'tng-gbdt' must leave out projection, got both"),
    ('model = "tng-gbdt"\ncatalogue = "a.fits"\nwidth = 0.1', "fit.mass_prior by the model 'tng-gbdt' must leave out width, got both"),
    ('mean = 10.5\nwidth = 0.1\nradius = 5\ngalaxy_id = 3', "fit.mass_prior without a model must leave out galaxy_id, got both"),
    ("mean = 6e10\nwidth = 0.1\nradius = 5", "fit.mass_prior.mean: input should be less than or equal to 15, got 60000000000.0"),
    ("mean = 10.5\nwidth = -0.1\nradius = 5", "fit.mass_prior.width: input should be greater than 0, got -0.1"),
    ("mean = 10.5\nwidht = 0.1", "unknown key 'fit.mass_prior.widht'; did you mean 'width'"),
    ("mean = 10.5\nwidth = 0.1\nradius = 5\n[fit.priors.intensity_rb]\nfixed = 3.0", "needs a free intensity_rb, got it fixed at 3"),
])
def test_recipes_are_whole(tmp_path: Path, table: str, message: str) -> None:
    path = tmp_path / "recipe.toml"
    path.write_text(f'[fit]\nvisibilities = "v.nc"\noutput = "p.nc"\n[fit.mass_prior]\n{table}\n')
    with pytest.raises(RecipeError) as error:
        load_recipe(path)
    assert message in str(error.value) and "\n" not in str(error.value)


def test_a_prior_that_saw_the_data_is_warned_of() -> None:
    for seen, lines in ((True, 1), (False, 0)):
        section = recipe_of({**NUMBERS, "seen_data": seen}, priors={"alpha": {"lower": 0.5, "upper": 5.0}}).fit
        assert section is not None
        found = [line for line in cautions(build_priors(section), 11.4) if "has seen the fitted data" in line]
        assert len(found) == lines


def test_the_real_model_takes_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Loop and one pass give the same; an aperture beyond what the emulator holds is refused."""
    gridded = make_gridded(n_channel=4, n_cell=30)
    recipe = recipe_of(NUMBERS, model={"precision": "float64"})
    found = build_model(recipe, gridded)
    assert found.mass_prior is not None and isinstance(found.priors, Priors)
    target = PosteriorTarget(found, found.coordinates(Chart(67.0)))
    z = torch.stack([target.coordinates.from_theta(TRUTH), target.coordinates.from_theta({**TRUTH, "gamma": 0.4})])
    value, gradient = target.of_chains(z)
    expected = target(z)
    assert torch.allclose(value, expected[0], rtol=1e-9) and torch.allclose(gradient, expected[1], rtol=1e-6, atol=1e-6)
    least = found.priors.edges["break_r"][0] * 11.4 * math.pi / 0.648
    for radius, fine in ((4.99 * least, True), (5.01 * least, False), (1e-3, False)):
        changed = recipe_of({**NUMBERS, "radius": radius})
        if fine:
            build_mass_prior(changed, load_model("nuker-mge"), found.priors)
            continue
        with pytest.raises(RecipeError, match=r"^the aperture of fit.mass_prior must lie between 2 pc and 5000 times the least break"):
            build_mass_prior(changed, load_model("nuker-mge"), found.priors)
    assert build_mass_prior(Recipe(), load_model("nuker-mge"), found.priors) is None
