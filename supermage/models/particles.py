"""Particles of one simulated galaxy: stars, dark matter, gas, black holes."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from supermage.errors import DataError

FloatArray = NDArray[np.float64]


def _none() -> FloatArray:
    return np.empty(0)


@dataclass(frozen=True)
class Kind:
    """Particles of one kind.

    Attributes
    ----------
    position, velocity
        Shape (particle, 3): kpc, km/s; physical, without h or scale factors.
    mass
        Msun, shape (particle,).
    potential
        Specific potential energy, (km/s)^2, or empty where the file has none.
    age, metallicity
        Of stars: Gyr, and mass fraction of metals; of gas the metallicity; else empty.
    initial_mass
        Of stars: mass at birth, Msun, or empty.
    sfr
        Of gas: Msun/yr, or empty.
    magnitude
        Of stars: absolute magnitudes by band, without dust, where the file has them.
    neutral_hydrogen
        Of gas: mass of neutral hydrogen, Msun, or empty: what dust goes with.
    """

    position: FloatArray
    velocity: FloatArray
    mass: FloatArray
    potential: FloatArray = field(default_factory=_none)
    age: FloatArray = field(default_factory=_none)
    metallicity: FloatArray = field(default_factory=_none)
    initial_mass: FloatArray = field(default_factory=_none)
    sfr: FloatArray = field(default_factory=_none)
    magnitude: dict[str, FloatArray] = field(default_factory=dict)
    neutral_hydrogen: FloatArray = field(default_factory=_none)

    def __post_init__(self) -> None:
        n = len(self.mass)
        if self.position.shape != (n, 3) or self.velocity.shape != (n, 3) or self.mass.shape != (n,):
            shapes = f"{self.position.shape}, {self.velocity.shape}, {self.mass.shape}"
            raise DataError(f"particles need positions and velocities of shape (n, 3) and masses of shape (n,), got {shapes}")
        extra = {"potential": self.potential, "age": self.age, "metallicity": self.metallicity, "initial_mass": self.initial_mass,
                 "sfr": self.sfr, "neutral_hydrogen": self.neutral_hydrogen, **self.magnitude}  # fmt: skip
        for name, value in extra.items():
            if value.shape not in ((0,), (n,)):
                raise DataError(f"particles need one {name} each, or none, got shape {value.shape} for {n} particles")
        for name, value in (("position", self.position), ("velocity", self.velocity), ("mass", self.mass), *extra.items()):
            if not np.isfinite(value).all():
                raise DataError(f"particles need finite numbers, got {np.count_nonzero(~np.isfinite(value))} others in {name}")

    def __len__(self) -> int:
        return len(self.mass)

    @classmethod
    def none(cls) -> Kind:
        """No particles of a kind."""
        return cls(np.empty((0, 3)), np.empty((0, 3)), np.empty(0))


@dataclass(frozen=True)
class Particles:
    """A galaxy.

    Attributes
    ----------
    stars, dark_matter, gas, black_holes
        Its particles.
    galaxy_id, group_id
        Numbers, -1 where unknown.
    source
        Where they come from, in a few words; ``mock`` in those that a generator made.
    """

    stars: Kind
    dark_matter: Kind = field(default_factory=Kind.none)
    gas: Kind = field(default_factory=Kind.none)
    black_holes: Kind = field(default_factory=Kind.none)
    galaxy_id: int = -1
    group_id: int = -1
    source: str = ""

    def __post_init__(self) -> None:
        if not len(self.stars):
            raise DataError("a galaxy needs stars, got none")

    @property
    def kinds(self) -> dict[str, Kind]:
        """Every kind by name, the empty ones too."""
        return {"stars": self.stars, "dark_matter": self.dark_matter, "gas": self.gas, "black_holes": self.black_holes}

    def moved(self, centre: FloatArray, velocity: FloatArray) -> Particles:
        """The galaxy seen from a centre (kpc) that moves with a velocity (km/s)."""
        shifted: dict[str, Any] = {
            name: replace(kind, position=kind.position - centre, velocity=kind.velocity - velocity)
            for name, kind in self.kinds.items()
            if len(kind)
        }
        return replace(self, **shifted)

    def half_mass_radius(self) -> float:
        """Radius about the origin that holds half of the stars' mass, kpc."""
        radius = np.linalg.norm(self.stars.position, axis=1)
        order = np.argsort(radius)
        mass = np.cumsum(self.stars.mass[order])
        return float(np.interp(0.5 * mass[-1], mass, radius[order]))
