"""Card of a trained mass prior, in Markdown, from its own description."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from supermage.models.columns import TARGETS
from supermage.models.training import write_atomically

PARTS = ("train", "validation", "calibration", "test")
"""As they are listed: descriptions read from JSON have lost the order."""

SPHERES = {"1rhsm": "the sphere of R_hsm, the radius of half of the stars in space",
           "2rhsm": "the sphere of 2 R_hsm, R_hsm the radius of half of the stars in space",
           "ratio": "a sphere whose radius in units of R50 a column `aperture_ratio` says"}  # fmt: skip

HEAD = """# {name}: joint densities of galaxy masses from catalogue columns

Predicts the joint density of stellar, dark and total mass within {sphere}: a `MassPrior`, that is
{use}

- Version {version}, weights sha256 `{sha256}`, seed {seed}.
- Galaxies: {source}.
- Left out: {cuts}.
- Features: {features}.
  One of {needs} must be there, any other may be missing: gaps are filled by the conditional mean and flagged, and the density widens,
  because part of the training rows lost features by chance.
- Split: {split};
  rows: {rows}. The calibration part serves the recalibration alone, the test part the tables below alone.
- Density: trees (LightGBM, {rounds} with 5 leaves; cross-fitted by group) on a linear fit give first guesses; {members}
  networks of {depth} hidden layers of {hidden} SiLU units, trained {steps} steps, give {components} Gaussians each in log M*,
  log(Mtot/M* - 1) and log(gas and black holes / dark matter); a sinh-arcsinh map of each coordinate recalibrates. Mtot >= M* and
  Mtot >= M* + Mdm hold by construction.
- Outside the training set (score above 1, the distance within which {edge:.0%} of its rows stay when left out) the density goes over to
  the population's, and a warning says so. Of the test rows {test_rows_widened} are widened.
- Validation: {validation}.
"""

TAIL = """
Coverage: share of central intervals that hold the truth. By tercile: 68 % intervals, by true value, lowest first. KS: largest distance of
the distribution of probability integral transforms from uniform, with the p-value of a two-sample test of
n = n_cal n_test / (n_cal + n_test), Holm over the targets. CRPS: continuous ranked probability score; bias and scatter: mean and standard
deviation of median minus truth. `log_mdm` and `log_fdm`: galaxies with dark matter. The recalibration stays whatever these tables say of
it: a choice made on them would spoil them.
"""

AS_TABLE = '`supermage.load_model("{call}").predict(table)`. Written by `supermage train {recipe}`.'
AS_NETWORK = '`supermage.load_model("{call}").predict(maps)`: the features are predictions of that network. Trained with it.'

SIMULATED = """\
- Simulated galaxies: their structure is not quite that of real ones, and their features are the simulation's own: magnitudes without dust,
  dispersion, spin and radii of particles in space. On observations the intervals mean what they say as far as the simulation does, and no
  score tells how far that is.
- The rows are no complete box: the most massive groups and some others are missing.
"""
OF_LIGHT = """\
- `log_ml` is the stellar mass within R_hsm over half of the whole galaxy's r light, without dust: the ratio within R_hsm only where light
  follows mass.
"""
WITHIN_30_KPC = """\
- `m_star_total`, `m_gas_total` and `r50_3d` mean stars and gas within 30 kpc and the radius of half of those stars, as EAGLE's tables have
  them. TNG's group catalogue has all three of the whole subhalo: above 10^11.5 Msun of stars that biases Mtot by +0.14 dex. R50 of all
  stars beside a mass within 30 kpc biases M* by -0.12 dex from 10^11 to 10^11.5 Msun and by -0.22 dex above.
"""
"""Of ``tng-shared``."""

OWN = """\
- The galaxies are those of the source above, selected and measured as there. On others the intervals mean what they say as far as those
  are like them, and no score tells how far that is.
- Which galaxies the source itself leaves out is not known here.
"""
MOCK = """\
- Generated galaxies, made from scaling relations: no simulation and no observation is in these files. They are for running and testing
  everything offline; masses predicted with them say nothing about real galaxies.
"""
SAME_GALAXIES = """\
- Each galaxy is in the tables with {spheres} spheres, which are not independent: the p-values come out too small, and the shares of
  intervals that hold the truth are known as well as {galaxies} galaxies tell them.
"""
ON_AVERAGE = "- Coverage holds on average over galaxies like these, not for each kind of them.\n"

LICENCE_OF_TNG = """\
The rows were found in a repository that states no licence; no row is in these files, only what was fitted to them. Cite Nelson et al. 2019
(Computational Astrophysics and Cosmology 6, 2) for TNG100-1 and Jagvaral et al. 2021 for the kinematic decompositions.
"""
LICENCE_OF_MOCK = "No data of others is in these files: the generator is the project's, whose licence (BSD 3-Clause) holds for them.\n"


def write_mass_card(path: Path, about: dict[str, Any]) -> None:
    """Write the card.

    Parameters
    ----------
    path
        The card.
    about
        The artefact's description, scores of the test part among them; of a density on a network's predictions with ``of_network``,
        ``mock`` and ``licence``.
    """
    from supermage.models.out_of_distribution import EDGE

    network, training = about["network"], about["training"]
    text = HEAD.format(
        **{key: about[key] for key in ("name", "version", "sha256", "seed", "source", "split", "validation", "test_rows_widened")},
        **{key: network[key] for key in ("members", "components", "hidden", "depth")},
        use=_use(about, path), sphere=SPHERES[about["aperture"]], cuts="; ".join(about["cuts"]) or "nothing",
        features=", ".join(about["features"]), edge=EDGE, needs=", ".join(about["needs"]),
        rows=", ".join(f"{name} {about['rows'][name]}" for name in PARTS), steps=training["steps"], rounds=training["rounds"],
    )  # fmt: skip
    for title, table in about["scores"].items():
        text += f"\n## On the {title}\n\n{calibration_table(table)}"
    write_atomically(path, (text + TAIL + _ending(about)).encode())


def licence_of(*, source: str, mock: bool, stated: str) -> str:
    """What a card says of the licence of galaxies that are not the project's reference rows.

    Parameters
    ----------
    source
        Where they come from.
    mock
        Whether the project's generator made them.
    stated
        What their source says of licence and citation; empty if that was not told.
    """
    if mock:
        return LICENCE_OF_MOCK
    told = f"Their source states: {stated}." if stated else "Nothing was stated of their licence, nor of whom to cite: ask their source."
    return f"Galaxies of {source or 'a source without a name'}; none of them is in these files, only what was fitted to them. {told}\n"


def _use(about: dict[str, Any], path: Path) -> str:
    """How the density is called, a network's has no name of its own; and the recipe as it lies seen from above a folder ``models``."""
    name = str(about["name"])
    if "of_network" in about:
        return AS_NETWORK.format(call=callable_name(name.removesuffix("-prior")))
    folder = path.parent.resolve()
    recipe = f"models/{name}/recipe.toml" if (folder.parent.name, folder.name) == ("models", name) else "recipe.toml"
    return AS_TABLE.format(call=callable_name(name), recipe=recipe)


def callable_name(name: str) -> str:
    """What :func:`supermage.load_model` takes for a model of that folder: the name alone only where the package knows it."""
    from supermage.models.registry import MODELS

    return name if name in MODELS else f"path/to/{name}"


def limits_of(*, mock: bool) -> str:
    """The same for the limits, as a list in Markdown."""
    return (MOCK if mock else OWN) + ON_AVERAGE


def _ending(about: dict[str, Any]) -> str:
    """Limits and licence by what the galaxies are: rows of TNG, generated ones, or anyone's."""
    shared = {"tng-shared": WITHIN_30_KPC, "tng": OF_LIGHT}.get(about["training"]["sample"], "")
    limits, licence = SIMULATED + shared + ON_AVERAGE, LICENCE_OF_TNG
    if about["training"]["sample"] not in ("tng", "tng-shared"):
        mock = bool(about.get("mock", False))
        limits, licence = limits_of(mock=mock), licence_of(source=about["source"], mock=mock, stated=about.get("licence", ""))
    if about["training"]["sample"] == "tng-shared":
        spheres = about["training"]["apertures"]
        limits += SAME_GALAXIES.format(spheres=spheres, galaxies=about["rows"]["test"] // spheres)
    return f"\n## Limits\n\n{limits}\n## Licence and citation\n\n{licence}"


def calibration_table(table: dict[str, Any]) -> str:
    """Markdown table of what :func:`supermage.models.mass_scores.score_table` gives."""
    lines = ["| target | rows | 50 % | 68 % | 95 % | 68 % by tercile | KS | p (Holm) | CRPS dex | bias dex | scatter dex |",
             "|---|---|---|---|---|---|---|---|---|---|---|"]  # fmt: skip
    for name, entry in ((name, table[name]) for name in TARGETS if name in table):
        coverage = " | ".join(f"{value:.3f}" for value in entry["coverage"].values())
        terciles = " ".join(f"{value:.2f}" for value in entry["tercile_coverage"])
        lines.append(f"| {TARGETS[name].split(',')[0]} (`{name}`) | {entry['rows']} | {coverage} | {terciles} | "
                     f"{entry['pit_distance']:.3f} | {entry['pit_p_holm']:.2g} | {entry['crps']:.4f} | {entry['bias']:+.4f} | "
                     f"{entry['scatter']:.4f} |")  # fmt: skip
    return "\n".join(lines) + "\n"
