"""Reading the particles of one galaxy: Illustris and TNG cutouts, EAGLE's layout, and plain HDF5 tables."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from supermage.errors import DataError
from supermage.models.particles import FloatArray, Kind, Particles

GROUPS = {"gas": "PartType0", "dark_matter": "PartType1", "stars": "PartType4", "black_holes": "PartType5"}
TABLES = ("stars", "dark_matter", "gas", "black_holes")
PHOTOMETRIC_BANDS = ("U", "B", "V", "K", "g", "r", "i", "z")
"""Columns of ``GFM_StellarPhotometrics``: UBVK Vega, griz AB."""

HYDROGEN_FRACTION = 0.76
"""Of gas whose composition the file does not give."""

IN_CGS = {"position": 3.085678e21, "velocity": 1e5, "mass": 1.989e33, "potential": 1e10, "sfr": 1.989e33 / 3.15576e7}
"""kpc, km/s, Msun, (km/s)^2 and Msun/yr as the simulations define them: a code unit of mass is then 1e10 Msun/h to the last digit."""


@dataclass(frozen=True)
class Layout:
    """How a simulation names and scales its datasets.

    Attributes
    ----------
    name
        Simulation.
    scaling
        Attributes of a dataset: factor to cgs, exponent of the scale factor, exponent of h.
    datasets
        Names by quantity, the first that is there counts.
    units
        Where a dataset lacks those attributes: kpc, km/s, Msun, (km/s)^2 or Msun/yr in a unit of the file, and the two exponents.
    """

    name: str
    scaling: tuple[str, str, str]
    datasets: Mapping[str, tuple[str, ...]]
    units: Mapping[str, tuple[float, float, float]]


TNG = Layout(
    "Illustris/TNG",
    ("to_cgs", "a_scaling", "h_scaling"),
    {"position": ("Coordinates",), "velocity": ("Velocities",), "mass": ("Masses",), "potential": ("Potential",),
     "initial_mass": ("GFM_InitialMass",), "sfr": ("StarFormationRate",), "metallicity": ("GFM_Metallicity",),
     "formation": ("GFM_StellarFormationTime",)},
    {"position": (1.0, 1.0, -1.0), "velocity": (1.0, 0.5, 0.0), "mass": (1e10, 0.0, -1.0), "potential": (1.0, -1.0, 0.0),
     "sfr": (1.0, 0.0, 0.0)},
)  # fmt: skip
"""https://www.tng-project.org/data/docs/specifications: ckpc/h, km sqrt(a)/s, 1e10 Msun/h, (km/s)^2/a."""

EAGLE = Layout(
    "EAGLE",
    ("CGSConversionFactor", "aexp-scale-exponent", "h-scale-exponent"),
    {"position": ("Coordinates",), "velocity": ("Velocity",), "mass": ("Mass",), "potential": ("Potential",),
     "initial_mass": ("InitialMass",), "sfr": ("StarFormationRate",), "metallicity": ("SmoothedMetallicity", "Metallicity"),
     "formation": ("StellarFormationTime",)},
    {"position": (1000.0, 1.0, -1.0), "velocity": (1.0, 0.5, 0.0), "mass": (1e10, 0.0, -1.0), "potential": (1.0, -1.0, 0.0),
     "sfr": (1.0, 0.0, 0.0)},
)  # fmt: skip
"""The EAGLE team 2017 (arXiv:1706.09899): cMpc/h, km sqrt(a)/s, 1e10 Msun/h."""


def read_particles(
    path: Path | str,
    *,
    centre: FloatArray | None = None,
    velocity: FloatArray | None = None,
    velocity_radius: float | None = None,
    galaxy_id: int = -1,
    group_id: int = -1,
) -> Particles:
    """Read one galaxy, in kpc, km/s and Msun, centred.

    The layout is detected: PartType groups of an Illustris or TNG cutout (all scalings by h, a and sqrt(a) undone; wind particles, whose
    formation time is not positive, count as gas), of EAGLE, or tables ``stars``, ``dark_matter``, ``gas`` with columns m, x, y, z, vx, vy,
    vz and perhaps potential, in Msun, kpc, km/s and (km/s)^2. Ages follow from the file's own cosmology, without radiation.

    Neutral hydrogen, for the dust: all hydrogen of star-forming gas, whose cold phase the simulations do not resolve; of the other
    gas what ``NeutralHydrogenAbundance`` says, else one less the electrons per hydrogen nucleus, else nothing.

    Parameters
    ----------
    path
        HDF5 file of one galaxy.
    centre
        kpc without h or scale factor, in the file's frame, shape (3,). By default the particle of lowest potential within the stars'
        half-mass radius of the centre of a shrinking sphere (Power et al. 2003) of stars; where the file has no potential, that centre.
    velocity
        km/s, shape (3,). By default the stars' mass-weighted mean within ``velocity_radius`` of the centre.
    velocity_radius
        kpc; by default the radius that holds half of the stars' mass.
    galaxy_id, group_id
        Numbers to keep with the galaxy.

    Returns
    -------
    Particles
        A galaxy may straddle the edge of the box: its particles are brought together first.

    Raises
    ------
    DataError
        No file, none of these layouts, truncated, a dataset missing or of another length, numbers that are not finite, no stars.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(f"particles need an HDF5 file, got none at {path}")
    try:
        with h5py.File(path, "r") as file:
            particles, box = _snapshot(file) if any(group in file for group in GROUPS.values()) else _tables(file)
    except OSError as error:
        raise DataError(f"particles need a whole HDF5 file, got {path}: {' '.join(str(error).split())}") from error
    except DataError as error:
        raise DataError(f"{path}: {error}") from error
    numbers: dict[str, Any] = {"galaxy_id": galaxy_id if galaxy_id >= 0 else particles.galaxy_id, "group_id": group_id}
    return centred(replace(particles, **numbers), box=box, centre=centre, velocity=velocity, velocity_radius=velocity_radius)


def centred(
    particles: Particles,
    *,
    box: float | None = None,
    centre: FloatArray | None = None,
    velocity: FloatArray | None = None,
    velocity_radius: float | None = None,
) -> Particles:
    """The galaxy about its centre and at rest, by the rules of `read_particles`; ``box`` is the length of a periodic box, kpc."""
    if box is not None:
        particles = _unwrapped(particles, box, particles.stars.position[0] if centre is None else centre)
    particles = particles.moved(find_centre(particles) if centre is None else np.asarray(centre, np.float64), np.zeros(3))
    if velocity is None:
        radius = particles.half_mass_radius() if velocity_radius is None else velocity_radius
        stars = particles.stars
        near = np.linalg.norm(stars.position, axis=1) <= radius
        if not near.any():
            raise DataError(f"the galaxy's velocity needs stars near its centre, got none within {radius:g} kpc")
        velocity = np.average(stars.velocity[near], axis=0, weights=stars.mass[near])
    return particles.moved(np.zeros(3), np.asarray(velocity, np.float64))


def find_centre(particles: Particles) -> FloatArray:
    """Centre in kpc, shape (3,): see `read_particles`."""
    centre = shrinking_sphere(particles.stars.position, particles.stars.mass)
    if not particles.stars.potential.size:
        return centre
    radius = particles.moved(centre, np.zeros(3)).half_mass_radius()
    lowest = np.inf
    deepest = centre
    for kind in particles.kinds.values():
        if kind.potential.size:
            potential = np.where(np.linalg.norm(kind.position - centre, axis=1) <= radius, kind.potential, np.inf)
            if (least := potential.min()) < lowest:
                lowest, deepest = least, kind.position[potential.argmin()]
    return deepest.copy()


def shrinking_sphere(position: FloatArray, mass: FloatArray, *, factor: float = 0.8) -> FloatArray:
    """Centre of mass of a sphere that shrinks about it by ``factor`` while it holds 100 particles and 1 % of them."""
    fewest = max(100, len(mass) // 100)
    centre = np.average(position, axis=0, weights=mass)
    distance = np.linalg.norm(position - centre, axis=1)
    radius = distance.max()
    while True:
        radius *= factor
        near = distance <= radius
        if radius == 0.0 or np.count_nonzero(near) < fewest:
            return centre
        centre = np.average(position[near], axis=0, weights=mass[near])
        distance = np.linalg.norm(position - centre, axis=1)


def _unwrapped(particles: Particles, box: float, about: FloatArray) -> Particles:
    def nearest(kind: Kind) -> Kind:
        offset = kind.position - about
        return replace(kind, position=about + offset - box * np.round(offset / box))

    brought: dict[str, Any] = {name: nearest(kind) for name, kind in particles.kinds.items() if len(kind)}
    return replace(particles, **brought)


def _tables(file: h5py.File) -> tuple[Particles, None]:
    """Plain tables; there is no box to wrap around."""
    if "stars" not in file:
        known = "groups PartType4 (Illustris, TNG, EAGLE) or a table 'stars'"
        raise DataError(f"a galaxy's file needs {known}, got {', '.join(sorted(file)) or 'nothing'}")
    kinds: dict[str, Any] = {name: _table(file, name) for name in TABLES if name in file}
    number = file.attrs.get("id", -1)
    return Particles(**kinds, galaxy_id=int(np.ravel(number)[0]), source=f"table {Path(file.filename).name}"), None


def _table(file: h5py.File, name: str) -> Kind:
    table = file[name]
    names = table.dtype.names if hasattr(table, "dtype") else tuple(table)
    missing = [column for column in ("m", "x", "y", "z", "vx", "vy", "vz") if column not in (names or ())]
    if missing:
        raise DataError(f"table {name} needs columns m, x, y, z, vx, vy, vz, got none named {', '.join(missing)}")
    rows = table[()] if hasattr(table, "dtype") else {column: table[column][()] for column in names}

    def columns(*wanted: str) -> FloatArray:
        return np.stack([np.asarray(rows[column], np.float64) for column in wanted], axis=-1)

    potential = columns("potential")[:, 0] if "potential" in names else np.empty(0)
    return Kind(columns("x", "y", "z"), columns("vx", "vy", "vz"), columns("m")[:, 0], potential=potential)


@dataclass(frozen=True)
class _Header:
    scale_factor: float
    hubble: float
    matter: float
    vacuum: float
    box: float
    mass_table: FloatArray

    @classmethod
    def of(cls, file: h5py.File) -> _Header:
        header = file["Header"].attrs if "Header" in file else {}
        wanted = ("Redshift", "HubbleParam", "Omega0", "OmegaLambda", "BoxSize")
        missing = [name for name in wanted if name not in header]
        if missing:
            raise DataError(f"a snapshot's Header needs {', '.join(wanted)}, got none named {', '.join(missing)}")
        redshift, hubble, matter, vacuum, box = (float(np.ravel(header[name])[0]) for name in wanted)
        return cls(1.0 / (1.0 + redshift), hubble, matter, vacuum, box, np.ravel(header.get("MassTable", np.zeros(6))).astype(np.float64))

    def ages(self, formation: FloatArray) -> FloatArray:
        """Gyr since a scale factor, by the file's cosmology."""
        from astropy.cosmology import FlatLambdaCDM, LambdaCDM

        expansion, flat = 100.0 * self.hubble, abs(self.matter + self.vacuum - 1.0) < 1e-6
        cosmology = FlatLambdaCDM(expansion, self.matter) if flat else LambdaCDM(expansion, self.matter, self.vacuum)
        grid = np.linspace(0.0, self.scale_factor, 4001)[1:]
        elapsed = np.concatenate([[0.0], cosmology.age(1.0 / grid - 1.0).to_value("Gyr")])
        return np.maximum(elapsed[-1] - np.interp(formation, np.concatenate([[0.0], grid]), elapsed), 0.0)


class _Snapshot:
    """One file in one of the simulations' layouts."""

    def __init__(self, file: h5py.File) -> None:
        self.file, self.header = file, _Header.of(file)
        group = file["PartType4"]
        self.layout = EAGLE if "Mass" in group or ("Coordinates" in group and EAGLE.scaling[0] in group["Coordinates"].attrs) else TNG

    def raw(self, kind: str, *names: str) -> NDArray[Any] | None:
        """The first dataset that is there."""
        group = self.file[GROUPS[kind]]
        return next((np.asarray(group[name][()], np.float64) for name in names if name in group), None)

    def read(self, kind: str, quantity: str, unit: str | None = None) -> FloatArray:
        """A quantity in its unit, or an empty array."""
        group = self.file[GROUPS[kind]]
        name = next((name for name in self.layout.datasets[quantity] if name in group), None)
        if name is None:
            return np.empty(0)
        value = np.asarray(group[name][()], np.float64)
        if (unit := unit or quantity) not in IN_CGS:
            return value
        return value * self.factor(unit, group[name].attrs)

    def factor(self, unit: str, attributes: Mapping[str, Any]) -> float:
        if all(name in attributes for name in self.layout.scaling):
            to_cgs, a, h = (float(np.ravel(attributes[name])[0]) for name in self.layout.scaling)
            to_unit = to_cgs / IN_CGS[unit]
        else:
            to_unit, a, h = self.layout.units[unit]
        return to_unit * self.header.scale_factor**a * self.header.hubble**h

    def kinds(self) -> Iterator[tuple[str, dict[str, Any]]]:
        for kind, name in GROUPS.items():
            group = self.file.get(name, {})
            if len(group) and ("Coordinates" not in group or len(group["Coordinates"])):
                yield kind, self.kind(kind)

    def kind(self, kind: str) -> dict[str, FloatArray]:
        """What every kind has; an empty potential where there is none."""
        found = {quantity: self.read(kind, quantity) for quantity in ("position", "velocity", "mass", "potential")}
        number = int(GROUPS[kind][-1])
        if not found["mass"].size and number < len(self.header.mass_table) and self.header.mass_table[number] > 0.0:
            found["mass"] = np.full(len(found["position"]), self.header.mass_table[number] * self.factor("mass", {}))
        for quantity in ("position", "velocity", "mass"):
            if not found[quantity].size:
                raise DataError(f"{GROUPS[kind]} needs {' or '.join(self.layout.datasets[quantity])}, got {self.layout.name} without it")
        return found


def _snapshot(file: h5py.File) -> tuple[Particles, float]:
    """A cutout, and the length of its box."""
    if "PartType4" not in file:
        raise DataError(f"a galaxy needs stars, got no PartType4 beside {', '.join(sorted(file))}")
    snapshot = _Snapshot(file)
    kinds = dict(snapshot.kinds())
    if "stars" not in kinds:
        raise DataError("a galaxy needs stars, got an empty PartType4")
    wind = _add_stars(snapshot, kinds["stars"])
    if "gas" in kinds:
        _add_gas(snapshot, kinds["gas"])
    made: dict[str, Any] = {name: Kind(**values) for name, values in kinds.items() if name != "stars"}
    stars, blown = _without_wind(kinds["stars"], wind)
    made["gas"] = blown if "gas" not in made else _joined(made["gas"], blown)
    name = snapshot.layout.name
    box = snapshot.header.box * snapshot.factor("position", file["PartType4/Coordinates"].attrs)
    return Particles(stars, **made, source=f"{name} {Path(file.filename).name}"), box


def _add_stars(snapshot: _Snapshot, stars: dict[str, Any]) -> NDArray[np.bool_]:
    """Add ages, metals and magnitudes in place; return which are wind."""
    stars["metallicity"] = snapshot.read("stars", "metallicity")
    stars["initial_mass"] = snapshot.read("stars", "initial_mass", "mass")
    magnitudes = snapshot.raw("stars", "GFM_StellarPhotometrics") if snapshot.layout is TNG else None
    if magnitudes is not None:
        if magnitudes.shape[1:] != (len(PHOTOMETRIC_BANDS),):
            raise DataError(f"GFM_StellarPhotometrics needs the bands {' '.join(PHOTOMETRIC_BANDS)}, got shape {magnitudes.shape}")
        stars["magnitude"] = dict(zip(PHOTOMETRIC_BANDS, magnitudes.T.copy()))
    formation = snapshot.read("stars", "formation")
    if not formation.size:
        return np.zeros(len(stars["mass"]), np.bool_)
    if formation.shape != stars["mass"].shape:
        raise DataError(f"PartType4 needs one formation time for each star, got {len(formation)} for {len(stars['mass'])}")
    stars["age"] = snapshot.header.ages(formation)
    return formation <= 0.0


def _without_wind(stars: dict[str, Any], wind: NDArray[np.bool_]) -> tuple[Kind, Kind]:
    """Stars, and wind as gas that forms none and hides nothing."""
    if not wind.any():
        return Kind(**stars), Kind.none()
    everything = Kind(**{**stars, "magnitude": {}})
    n = int(np.count_nonzero(wind))

    def taken(value: FloatArray, which: NDArray[np.bool_]) -> FloatArray:
        return value[which] if value.size else value

    blown = Kind(everything.position[wind], everything.velocity[wind], everything.mass[wind],
                 potential=taken(everything.potential, wind), metallicity=taken(everything.metallicity, wind),
                 sfr=np.zeros(n), neutral_hydrogen=np.zeros(n))  # fmt: skip
    kept: dict[str, Any] = {name: taken(value, ~wind) for name, value in stars.items() if name != "magnitude"}
    return Kind(**kept, magnitude={band: value[~wind] for band, value in stars.get("magnitude", {}).items()}), blown


def _add_gas(snapshot: _Snapshot, gas: dict[str, Any]) -> None:
    """Add metals, star formation and neutral hydrogen in place."""
    gas["metallicity"], gas["sfr"] = snapshot.read("gas", "metallicity"), snapshot.read("gas", "sfr")
    hydrogen = np.full(gas["mass"].shape, HYDROGEN_FRACTION)
    if (metals := snapshot.raw("gas", "GFM_Metals")) is not None and metals.ndim == 2:
        hydrogen = metals[:, 0]
    elif (single := snapshot.raw("gas", "SmoothedElementAbundance/Hydrogen", "ElementAbundance/Hydrogen")) is not None:
        hydrogen = single
    neutral, electrons = snapshot.raw("gas", "NeutralHydrogenAbundance"), snapshot.raw("gas", "ElectronAbundance")
    if neutral is None and electrons is not None:
        neutral = np.maximum(1.0 - electrons, 0.0)
    if neutral is None and not gas["sfr"].size:
        return
    neutral = np.zeros_like(gas["mass"]) if neutral is None else neutral
    if not neutral.shape == hydrogen.shape == gas["mass"].shape or gas["sfr"].shape not in ((0,), gas["mass"].shape):
        raise DataError(f"PartType0 needs one value for each of its {len(gas['mass'])} particles, got datasets of other lengths")
    cold = gas["sfr"] > 0.0 if gas["sfr"].size else np.zeros(neutral.shape, np.bool_)
    gas["neutral_hydrogen"] = gas["mass"] * hydrogen * np.where(cold, 1.0, neutral)


def _joined(first: Kind, second: Kind) -> Kind:
    """Both kinds; what one of them lacks is left out."""
    if not len(second):
        return first
    names = ("position", "velocity", "mass", "potential", "metallicity", "sfr", "neutral_hydrogen")
    both = {name: (getattr(first, name), getattr(second, name)) for name in names}
    joined: dict[str, Any] = {name: np.concatenate(pair) for name, pair in both.items() if pair[0].size and pair[1].size}
    return Kind(**joined)
