from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate, stats

from supermage.errors import DomainError
from supermage.models.mock_relations import GROUPS, Relations, draw_groups, draw_halo_mass, draw_stellar_mass


def test_stellar_masses_of_haloes_are_mosters():
    relations = Relations(halo_pivot=11.59, halo_norm=0.0351, halo_low=1.376, halo_high=0.608)
    halo = np.array([11.0, 12.0, 13.5])
    x = 10.0 ** (halo - 11.59)
    assert relations.stellar_of_halo(halo) == pytest.approx(halo + np.log10(2 * 0.0351 / (x**-1.376 + x**0.608)))


def test_stellar_masses_follow_schechter():
    """KS at 1e-4 on 20 000 masses: a false alarm in one of 10^4 seeds."""
    relations = Relations(log_mass_range=(9.5, 12.0), schechter_knee=10.9, schechter_slope=-1.2)
    drawn = draw_stellar_mass(relations, np.random.default_rng(1).uniform(size=20_000))

    def density(log_mass: float) -> float:
        x = 10.0 ** (log_mass - 10.9)
        return x**-0.2 * np.exp(-x)

    grid = np.linspace(9.5, 12.0, 60)
    below = np.array([integrate.quad(density, 9.5, value)[0] for value in grid])
    assert stats.kstest(drawn, lambda value: np.interp(value, grid, below / below[-1])).pvalue > 1e-4
    steeper = draw_stellar_mass(replace(relations, schechter_slope=-1.3), np.random.default_rng(1).uniform(size=20_000))
    assert stats.kstest(steeper, lambda value: np.interp(value, grid, below / below[-1])).pvalue < 1e-4


def test_haloes_are_what_the_forward_relation_leaves():
    """Haloes of a mass function, given stars with scatter, chosen by their stars. Mean and deviation within 4 errors: false alarm 1e-4."""
    relations, rng = Relations(halo_scatter=0.2), np.random.default_rng(2)
    halo = np.linspace(10.5, 15.0, 20_001)
    abundance = 10.0 ** (-0.9 * (halo - 12)) * np.exp(-(10.0 ** (0.7 * (halo - 14.2))))
    below = np.cumsum(abundance)
    haloes = np.interp(rng.uniform(size=4_000_000) * below[-1], below, halo)
    stars = relations.stellar_of_halo(haloes) + 0.2 * rng.standard_normal(len(haloes))
    for log_stars in (9.7, 10.9):
        kept = haloes[np.abs(stars - log_stars) < 0.01]
        drawn = draw_halo_mass(relations, np.full(20_000, log_stars), rng.standard_normal(20_000))
        error = kept.std() * np.sqrt(1 / len(kept) + 1 / 20_000)
        assert abs(kept.mean() - drawn.mean()) < 4 * error
        assert drawn.std() == pytest.approx(kept.std(), rel=4 * np.sqrt(0.5 / len(kept) + 0.5 / 20_000) + 0.01)
    inverse = np.interp(10.9, relations.stellar_of_halo(halo), halo)
    assert drawn.mean() < inverse - 0.05  # the rare massive haloes


@settings(max_examples=50)
@given(st.integers(1, 60), st.integers(0, 2**31), st.floats(0.0, 1.0))
def test_satellites_have_a_heavier_central(n, seed, share):
    rng = np.random.default_rng(seed)
    stars, halo, satellite = rng.uniform(9, 12, n), rng.uniform(11, 14, n), rng.uniform(size=n) < share
    host = draw_groups(stars, halo, satellite, rng.uniform(size=n))
    joined = host != np.arange(n)
    assert np.array_equal(host[host], host)
    assert not (joined & ~satellite).any()
    assert (stars[host[joined]] > stars[joined]).all()
    lonely = satellite & ~joined
    assert not lonely.any() or not (~satellite).any() or stars[lonely].min() >= stars[~satellite].max()


def test_heavy_haloes_have_more_satellites():
    """Two hosts with haloes 1 : 3 share 40 000 satellites; 4 binomial errors."""
    n = 40_000
    stars = np.concatenate([[11.0, 11.2], np.full(n, 9.0)])
    halo = np.concatenate([[12.0, 12.0 + np.log10(3.0)], np.full(n, 11.0)])
    satellite = np.concatenate([[False, False], np.ones(n, dtype=bool)])
    host = draw_groups(stars, halo, satellite, np.random.default_rng(3).uniform(size=n + 2))
    assert np.mean(host[2:] == 1) == pytest.approx(0.75, abs=4 * np.sqrt(0.75 * 0.25 / n))


def test_shares_and_medians_have_the_form_that_is_written():
    relations = Relations()
    low, high = np.array([9.0]), np.array([12.0])
    no, yes = np.array([False]), np.array([True])
    assert relations.quenched(high, no)[0] == pytest.approx(relations.quenched_share, abs=1e-3)
    assert relations.quenched(low, no)[0] < 1e-3 < relations.quenched(low, yes)[0]
    for quenched in (no, yes):
        slope = relations.half_mass_radius(high + 0.1, quenched) - relations.half_mass_radius(high, quenched)
        assert slope[0] == pytest.approx(0.1 * relations.size_high[int(quenched[0])], rel=1e-2)
    assert relations.satellites(low)[0] == pytest.approx(relations.satellite_share, rel=1e-3)
    assert GROUPS.satellites(low)[0] > 0.99
    assert relations.disc_logit(np.array([10.5]), yes)[0] == relations.disc_peak[1]
    assert relations.red(np.array([10.5]))[0] == relations.colour_red
    assert relations.black_hole(np.array([1e11]))[0] == pytest.approx(0.49e9)


@pytest.mark.parametrize(("change", "rule"), [({"log_mass_range": (11.0, 10.0)}, "lower bound first, got 11 .. 10"),
                                              ({"satellite_share": 1.2}, r"satellite_share must lie in \[0, 1\], got 1.2"),
                                              ({"size_scatter": -0.1}, "size_scatter must not be negative, got -0.1")])  # fmt: skip
def test_relations_that_cannot_be(change, rule):
    with pytest.raises(DomainError, match=rule):
        Relations(**change)
