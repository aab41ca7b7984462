"""A population of mock galaxies: rows of a catalogue with every canonical column, drawn from scaling relations, fast and seeded."""

from __future__ import annotations

from typing import Any

import numpy as np
from astropy.table import Table
from numpy.typing import NDArray
from scipy.special import expit

from supermage.errors import DomainError
from supermage.models.columns import APERTURES, COLUMNS
from supermage.models.columns import MOCK as MOCK
from supermage.models.mock_features import dimming, motions, other_bands, sersic_index
from supermage.models.mock_mass import BARYON_FRACTION, GRAVITY, MassModel, half_mass_scale, nfw, thin_disc, virial_radius
from supermage.models.mock_relations import Relations, draw_groups, draw_halo_mass, draw_stellar_mass

FloatArray = NDArray[np.float64]

SOLAR_R = 4.65
"""Absolute r magnitude of the Sun, AB (Willmer 2018)."""

_UNITS = {"mass": "Msun", "scale": "kpc", "height": "kpc", "edge": "kpc"}
_CHUNK = 20_000
_NFW_RADIUS = np.geomspace(1e-3, 1e3, 4001)


def draw_population(n: int, seed: int, *, relations: Relations | None = None, projections: int = 1, dust: bool = False) -> Table:
    """Draw galaxies.

    Parameters
    ----------
    n
        Number of galaxies.
    seed
        Of everything; the same numbers with the same seed.
    relations
        Constants of the population; `Relations`' own where not given.
    projections
        1, or 3 rows a galaxy, as seen along x, y and z; then adjacent rows.
    dust
        Whether all magnitudes are dimmed and g_r is reddened (`supermage.models.mock_features.dimming`); ``mock_M_r`` and ``mock_g_r``
        never are.

    Returns
    -------
    astropy.table.Table
        All canonical columns with units, and the structure of each galaxy in columns ``mock_*``, which `make_galaxy` reads;
        ``meta["mock"]`` says what the rows are.

    Raises
    ------
    DomainError
        No galaxies asked for, or another number of projections.

    Notes
    -----
    Masses within spheres are those of one mass model of disc, bulge, gas, black hole and a halo that has contracted
    (`supermage.models.mock_mass.MassModel`); half of the stars lie within ``r_hsm``. Satellites share the ``group_id`` of their central.

    Colours and disc fractions scatter together as those of TNG100's rows do: of `Relations`' own population 0.5 % lie outside the training
    set of ``tng-gbdt`` (score above 1), with dust 36 %, for it reddens the colours and those rows have none.
    """
    if n < 1:
        raise DomainError(f"a population needs at least one galaxy, got {n}")
    if projections not in (1, 3):
        raise DomainError(f"projections must be 1 or 3, got {projections}")
    rng = np.random.default_rng(seed)
    drawn = _draw(n, relations or Relations(), rng)
    model = MassModel(**{name: drawn[f"mock_{name}"] for name in MassModel.__dataclass_fields__})
    axis = np.stack([drawn[f"mock_axis_{name}"] for name in "xyz"], axis=1)
    cosine = np.abs(axis[:, :projections])
    columns, seen = dict(drawn), _light(drawn, cosine, rng, dust=dust)
    parts = [_measured(model[i : i + _CHUNK], drawn["r_hsm"][i : i + _CHUNK], cosine[i : i + _CHUNK]) for i in range(0, n, _CHUNK)]
    for name in parts[0]:
        columns[name] = np.concatenate([part[name] for part in parts])
    columns.update(seen, spin=_spin(columns, drawn))
    columns["projection"] = np.broadcast_to(np.arange(projections), (n, projections))
    return _table(columns, projections, seed, dust)


def _draw(n: int, relations: Relations, rng: np.random.Generator) -> dict[str, Any]:
    """Identity, structure, gas and light, (galaxy,)."""
    log_stars = draw_stellar_mass(relations, rng.uniform(size=n))
    log_halo = draw_halo_mass(relations, log_stars, rng.standard_normal(n))
    host = draw_groups(log_stars, log_halo, rng.uniform(size=n) < relations.satellites(log_stars), rng.uniform(size=n))
    is_satellite = host != np.arange(n)
    is_quenched = rng.uniform(size=n) < relations.quenched(log_stars, is_satellite)
    size = 10.0 ** (relations.half_mass_radius(log_stars, is_quenched) + relations.size_scatter * rng.standard_normal(n))
    direction = rng.standard_normal((3, n))
    direction /= np.linalg.norm(direction, axis=0)
    known = {"galaxy_id": np.arange(n), "group_id": host, "m_star_total": 10.0**log_stars, "r_hsm": size, "r50_3d": size,
             "mock_is_satellite": is_satellite, "mock_is_quenched": is_quenched, "mock_halo_mass": 10.0**log_halo}  # fmt: skip
    known.update({f"mock_axis_{name}": part for name, part in zip("xyz", direction, strict=True)})
    return known | _draw_stars(known, relations, rng) | _draw_halo(known, relations, rng) | _draw_light(known, relations, rng)


def _draw_stars(known: dict[str, Any], relations: Relations, rng: np.random.Generator) -> dict[str, FloatArray]:
    """Disc, bulge and black hole."""
    stars, n = known["m_star_total"], len(known["m_star_total"])
    log_stars = np.log10(stars)
    logit = relations.disc_logit(log_stars, known["mock_is_quenched"]) + relations.disc_spread(log_stars) * rng.standard_normal(n)
    disc_share = np.clip(expit(logit), 0.02, 0.98)
    height = np.clip(relations.height * 10.0 ** (relations.height_scatter * rng.standard_normal(n)), 0.06, 0.75)
    edge = 10.0 ** np.clip(0.78 + 0.55 * (log_stars - 9.5), 0.78, 1.6)
    half = np.sqrt(0.5) * edge / (1.0 + edge)
    ratio = 10.0 ** (relations.bulge_size + relations.bulge_size_scatter * rng.standard_normal(n))
    bulge_scale = 1.678 * ratio * (1.0 - half) / half
    disc_scale = known["r_hsm"] / half_mass_scale(disc_share, height, bulge_scale, edge)
    n_sersic = np.clip(sersic_index(disc_share, edge) * 10.0 ** (0.08 * rng.standard_normal(n)), 0.4, 10.0)
    error = 0.05 * rng.standard_normal((2, n))  # of decompositions: two of one galaxy differ by less than either from the truth
    return {
        "n_sersic": n_sersic,
        "f_disk_2d": np.clip(disc_share + error[0], 0.0, 1.0),
        "f_disk_1d": np.clip(0.9 * disc_share + 0.6 * error[0] + 0.8 * error[1], 0.0, 1.0),
        "bulge_index": (2.0 + 3.4 * np.log10(edge / 6.0)) * 10.0 ** (0.12 * rng.standard_normal(n)),
        "mock_disc_mass": stars * disc_share,
        "mock_disc_scale": disc_scale,
        "mock_disc_height": height * disc_scale,
        "mock_bulge_mass": stars * (1.0 - disc_share),
        "mock_bulge_scale": bulge_scale * disc_scale,
        "mock_bulge_edge": edge,
        "mock_black_hole_mass": relations.black_hole(stars) * 10.0 ** (relations.black_hole_scatter * rng.standard_normal(n)),
    }


def _draw_halo(known: dict[str, Any], relations: Relations, rng: np.random.Generator) -> dict[str, FloatArray]:
    """Halo, its edge and its answer to the galaxy, and its hot gas."""
    halo, is_satellite, n = known["mock_halo_mass"], known["mock_is_satellite"], len(known["mock_halo_mass"])
    concentration = relations.concentration(halo) * 10.0 ** (relations.concentration_scatter * rng.standard_normal(n))
    stripping = np.where(known["mock_is_quenched"], relations.stripping[1], relations.stripping[0])
    stripping = np.minimum(stripping + relations.stripping_scatter * rng.standard_normal(n), -0.02)
    kept = np.where(is_satellite, 10.0**stripping, 1.0)
    edge = np.interp(kept * nfw(concentration), nfw(_NFW_RADIUS), _NFW_RADIUS) / concentration * virial_radius(halo)
    response = relations.response + relations.response_slope * np.maximum(np.log10(known["m_star_total"]) - 9.8, 0.0)
    hot = (0.15 + 0.45 * expit((np.log10(halo) - 13.2) / 0.3)) * BARYON_FRACTION * halo
    spin = np.where(is_satellite, relations.halo_spin[1], relations.halo_spin[0])
    return {
        "mock_concentration": concentration,
        "mock_halo_edge": np.maximum(edge, 2.5 * known["r_hsm"]),
        "mock_response": np.clip(response + relations.response_scatter * rng.standard_normal(n), 0.0, 1.75),
        "mock_hot_mass": np.where(known["mock_is_quenched"] & is_satellite, 0.0, hot),
        "mock_halo_spin": spin * 10.0 ** (relations.halo_spin_scatter * rng.standard_normal(n)),
    }


def _draw_light(known: dict[str, Any], relations: Relations, rng: np.random.Generator) -> dict[str, FloatArray]:
    """Star formation, cold gas, colour and luminosity."""
    is_quenched, stars, n = known["mock_is_quenched"], known["m_star_total"], len(known["m_star_total"])
    log_stars, activity = np.log10(stars), rng.standard_normal(n)
    bend = relations.main_sequence_bent(log_stars)
    ssfr = np.where(is_quenched, -12.0, relations.main_sequence + relations.main_sequence_slope * (log_stars - 10.5) + bend)
    ssfr = ssfr + relations.main_sequence_scatter * activity
    is_dead = is_quenched & (rng.uniform(size=n) < np.where(known["mock_is_satellite"], 0.8, 0.3))
    gas_scale = 0.85 * known["r_hsm"] * 10.0 ** (0.1 * rng.standard_normal(n))
    scatter = relations.gas_scatter * (0.5 * activity + np.sqrt(0.75) * rng.standard_normal(n))
    gas = stars * 10.0 ** (relations.gas + relations.gas_slope * (log_stars - 10.5) + 1.2 * bend + scatter)
    blue = relations.colour_blue + relations.colour_sfr * (ssfr + 10.2) + relations.colour_blue_scatter * rng.standard_normal(n)
    red = relations.red(log_stars) + relations.colour_red_scatter * rng.standard_normal(n)
    colour = np.where(is_quenched, red, blue)
    log_ratio = relations.light + relations.light_colour * (colour - 0.6) + relations.light_scatter * rng.standard_normal(n)
    return {
        "sfr": np.where(is_dead, 0.0, stars * 10.0**ssfr),
        "mock_gas_mass": np.where(is_quenched, 0.0, gas / thin_disc(known["r_hsm"] / gas_scale)),
        "mock_gas_scale": gas_scale,
        "mock_g_r": colour,
        "mock_M_r": SOLAR_R - 2.5 * (log_stars - log_ratio),
        "mock_metallicity": 10.0 ** (-1.62 + 0.2 * np.minimum(log_stars - 10.7, 0.0) + 0.06 * rng.standard_normal(n)),
    }


def _measured(model: MassModel, size: FloatArray, cosine: FloatArray) -> dict[str, FloatArray]:
    """Masses within spheres, and motions."""
    radius = np.stack([size, 2.0 * size, np.full(len(size), 30.0), np.maximum(model.halo_edge, 20.0 * size)], axis=1)
    within = model.components(radius)
    stars, dark, hot = within["disc"] + within["bulge"], within["dark"], within["hot"]
    gas = within["cold"] + hot
    columns = {"m_star_30kpc": stars[:, 2], "m_gas_total": model.gas_mass + hot[:, 3]}
    for i, aperture in enumerate(APERTURES):
        parts = {"star": stars[:, i], "dm": dark[:, i], "gas": gas[:, i], "bh": model.black_hole_mass}
        columns.update({f"m_{kind}_{aperture}": mass for kind, mass in parts.items()})
        columns[f"m_tot_{aperture}"] = sum(parts.values(), np.zeros(len(size)))
    whole = model.disc_mass + model.bulge_mass
    columns["m_subhalo"] = whole + columns["m_gas_total"] + dark[:, 3] + model.black_hole_mass
    return columns | vars(motions(model, size, cosine))


def _spin(columns: dict[str, Any], drawn: dict[str, Any]) -> FloatArray:
    """Specific angular momentum of everything bound, kpc km/s: ``sqrt2 lambda' R V`` (Bullock et al. 2001, eq. 5)."""
    edge = drawn["mock_halo_edge"]
    return np.sqrt(2.0) * drawn["mock_halo_spin"] * np.sqrt(GRAVITY * columns["m_subhalo"] * edge)


def _light(drawn: dict[str, Any], cosine: FloatArray, rng: np.random.Generator, *, dust: bool) -> dict[str, FloatArray]:
    """Magnitudes and colours, (galaxy,) or (galaxy, projection)."""
    m_r, colour, metals = drawn["mock_M_r"], drawn["mock_g_r"], drawn["mock_metallicity"]
    bands = {**other_bands(m_r + colour, colour, metals, rng), "g": m_r + colour, "r": m_r}
    if not dust:
        return {**{f"M_{band}": value for band, value in bands.items()}, "g_r": colour}
    density = drawn["mock_gas_mass"] / (2.0 * np.pi * (1000.0 * drawn["mock_gas_scale"]) ** 2)
    dimmed = {f"M_{band}": bands[band][:, None] + by for band, by in dimming(density[:, None], metals[:, None], cosine).items()}
    return {**dimmed, "g_r": dimmed["M_g"] - dimmed["M_r"]}


def _table(columns: dict[str, Any], projections: int, seed: int, dust: bool) -> Table:
    order = [*(name for name in COLUMNS if name in columns), *(name for name in columns if name not in COLUMNS)]
    rows = {name: columns[name].reshape(-1) if columns[name].ndim == 2 else np.repeat(columns[name], projections) for name in order}
    table = Table(rows, meta={"mock": MOCK, "source": "mock", "seed": seed, "dust": dust})
    for name in order:
        unit = COLUMNS[name].unit if name in COLUMNS else _UNITS.get(name.rpartition("_")[2], "")
        if name == "mock_bulge_edge":
            unit = ""
        if unit:
            table[name].unit = unit
        table[name].description = COLUMNS[name].description if name in COLUMNS else "structure of the mock galaxy"
    return table
