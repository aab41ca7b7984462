"""The empty mock measurement set: antennas, execution blocks, TOPO channels and uvw, laid down by casatools' own simulator."""

from __future__ import annotations

import datetime
import math
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from supermage.constants import SPEED_OF_LIGHT
from supermage.data_reduction.casa import import_casatools
from supermage.errors import DataError, RecipeError, nearest_name
from supermage.recipe import GalaxySection, SimulateSection

SIDEREAL_DAY = 86164.0905
MJD_ZERO = datetime.date(1858, 11, 17).toordinal()
LOWEST_ELEVATION = 15.0
HOUR_ANGLE_STEP = 2400.0
"""Seconds between the hour angles of successive blocks: near transit, yet with uv tracks of their own."""

EFFECTIVE_RESOLUTION = {1: 2.0, 2: 1.156, 4: 1.005}
"""Width of a Hanning-smoothed channel in units of its spacing, by online averaging (ALMA Technical Handbook)."""


@dataclass(frozen=True)
class Antennas:
    """An array: names, local positions east, north, up (m), dish diameters (m); shapes (antenna,), (antenna, 3), (antenna,)."""

    names: tuple[str, ...]
    position: NDArray[np.float64]
    diameter: NDArray[np.float64]


@dataclass(frozen=True)
class Block:
    """One execution block: start and middle (UTC, MJD seconds), channel centres as observed (Hz), factor from TOPO to LSRK."""

    start: float
    middle: float
    frequency: NDArray[np.float64]
    topo_to_lsrk: float


@cache
def _quiet_casatools() -> ModuleType:
    """Import casatools and mute the simulator; the packaged leap seconds are complete for any date up to their release."""
    tools = import_casatools()
    tools.logger.setglobal(True)
    tools.logger.filter("SEVERE")
    tools.logger.filterMsg(["Exception Report", "QuantumHolder", "in converting quantity", "Leap second table",
                            "Until the table is updated", "times and coordinates derived from UTC"])
    return tools


def read_array(name: str, casadata_folder: Path) -> Antennas:
    """Read one of casadata's ALMA configuration files by its name, such as ``alma.cycle6.4``.

    Raises
    ------
    RecipeError
        If there is no such file, or its coordinates are not local ones.
    """
    folder = casadata_folder / "alma" / "simmos"
    path = folder / f"{name}.cfg"
    if not path.is_file():
        near = nearest_name(name, sorted(item.stem for item in folder.glob("*.cfg")))
        raise RecipeError(f"simulate.array must name a file of casadata's alma/simmos, got '{name}'{near}")
    lines = path.read_text(encoding="utf-8").splitlines()
    if not any("coordsys" in line and "LOC" in line for line in lines if line.startswith("#")):
        raise RecipeError(f"simulate.array must be given in local coordinates (coordsys=LOC), got '{name}'")
    rows = [line.split() for line in lines if line.strip() and not line.startswith("#")]
    numbers = np.array([[float(word) for word in row[:4]] for row in rows])
    return Antennas(tuple(row[4] for row in rows), numbers[:, :3], numbers[:, 3])


def plan_blocks(section: SimulateSection, galaxy: GalaxySection) -> list[Block]:
    """Choose each block's time, around transit on its date, and its channels: centred on the line as it is observed that day.

    Frequencies and the factor to LSRK are casacore's (``measures``), which the reduction, done with astropy, does not share.

    Raises
    ------
    RecipeError
        If a date or the direction cannot be read, or the field is too low.
    """
    systemic = section.truth["systemic_velocity"]
    if not abs(systemic) < SPEED_OF_LIGHT:
        raise RecipeError(f"simulate.truth.systemic_velocity must be below the speed of light, {SPEED_OF_LIGHT:g} km/s, got {systemic:g}")
    line = galaxy.rest_frequency * (1.0 - systemic / SPEED_OF_LIGHT)
    blocks = []
    for k, date in enumerate(section.dates):
        middle = _transit(section, date) + HOUR_ANGLE_STEP * (k - 0.5 * (len(section.dates) - 1))
        measures = _framed(section, middle)
        elevation = math.degrees(measures.measure(_direction(measures, section), "AZEL")["m1"]["value"])
        if elevation < LOWEST_ELEVATION:
            raise RecipeError(f"the field must stand at least {LOWEST_ELEVATION:g} deg high, got {elevation:.1f} deg on {date}")
        observed = _lsrk_to_topo(section, line, middle)
        centre = 1e6 * round(observed / 1e6)
        frequency = centre + section.channel_width * (np.arange(section.channels, dtype=np.float64) - 0.5 * (section.channels - 1))
        if not frequency[0] > 0:
            raise RecipeError(f"simulate.channel_width must leave every channel above 0 Hz, got {section.channel_width:g} Hz for "
                              f"{section.channels} channels around {centre:g} Hz")
        blocks.append(Block(middle - 30.0 * section.minutes, middle, frequency, line / observed))
    return blocks


def write_empty_set(path: Path, section: SimulateSection, galaxy: GalaxySection, antennas: Antennas, blocks: list[Block]) -> None:
    """Write a measurement set with every row of every block in place, and neither signal, noise nor flags in it.

    One spectral window, one OBSERVATION row and one scan a block.

    Raises
    ------
    DataError
        If casatools cannot write it.
    """
    tools = _quiet_casatools()
    simulator, measures = tools.simulator(), tools.measures()
    try:
        simulator.open(str(path))
        east, north, up = antennas.position.T.tolist()
        simulator.setconfig(
            telescopename="ALMA", x=east, y=north, z=up, dishdiameter=antennas.diameter.tolist(), mount=["alt-az"],
            antname=list(antennas.names), padname=list(antennas.names), coordsystem="local", referencelocation=measures.observatory("ALMA"))
        for k, block in enumerate(blocks):
            simulator.setspwindow(
                spwname=f"block{k}", freq=f"{block.frequency[0]:.3f}Hz", deltafreq=f"{section.channel_width}Hz",
                freqresolution=f"{section.channel_width}Hz", nchannels=section.channels, stokes="XX YY", refcode="TOPO")
        simulator.setfeed("perfect X Y")
        simulator.setfield(sourcename=galaxy.name, sourcedirection=_direction(measures, section))
        simulator.setlimits(shadowlimit=0.01, elevationlimit="1deg")
        simulator.setauto(0.0)
        for k, block in enumerate(blocks):
            # The simulator turns an epoch into TAI and writes that number as UTC, uvw and all (measured): 37 s late unless told TAI.
            simulator.settimes(integrationtime=f"{section.integration}s", usehourangle=False,
                               referencetime=measures.epoch("TAI", f"{block.start / 86400.0:.10f}d"))
            simulator.observe(galaxy.name, f"block{k}", starttime="0s", stoptime=f"{60.0 * section.minutes}s", add_observation=True,
                              observer="supermage", project="mock")
    except RuntimeError as error:
        raise DataError(f"casatools could not write the mock measurement set {path}: {str(error).splitlines()[0]}") from None
    finally:
        simulator.close()
    _finish_tables(path, section, blocks)


def _finish_tables(path: Path, section: SimulateSection, blocks: list[Block]) -> None:
    """Drop the simulator's empty scratch columns, which readers would prefer to DATA, and say how wide a channel really is."""
    table = _quiet_casatools().table()
    try:
        table.open(str(path), nomodify=False)
        table.removecols([name for name in ("MODEL_DATA", "CORRECTED_DATA") if name in table.colnames()])
        table.close()
        table.open(str(path / "SPECTRAL_WINDOW"), nomodify=False)
        width = np.full(section.channels, EFFECTIVE_RESOLUTION[section.averaging] * section.channel_width)
        for k, block in enumerate(blocks):
            table.putcell("RESOLUTION", k, width)
            table.putcell("EFFECTIVE_BW", k, width)
            table.putcell("REF_FREQUENCY", k, block.frequency[0])
    finally:
        table.close()


def _direction(measures: Any, section: SimulateSection) -> Any:
    direction = measures.direction("J2000", section.right_ascension, section.declination)
    if not direction:
        raise RecipeError("simulate.right_ascension and declination must read like '12h48m35.9s' and '-05d48m03s', "
                          f"got '{section.right_ascension}' and '{section.declination}'")
    return direction


def _framed(section: SimulateSection, seconds: float) -> Any:
    """A measures tool that knows the place, the field and the time (UTC, MJD seconds)."""
    measures = _quiet_casatools().measures()
    measures.doframe(measures.observatory("ALMA"))
    measures.doframe(measures.epoch("UTC", f"{seconds / 86400.0:.10f}d"))
    measures.doframe(_direction(measures, section))
    return measures


def _transit(section: SimulateSection, date: str) -> float:
    """UTC (MJD seconds) at which the field crosses the meridian on a date, ``YYYY-MM-DD``."""
    try:
        midnight = 86400.0 * (datetime.date.fromisoformat(date).toordinal() - MJD_ZERO)
    except ValueError:
        raise RecipeError(f"simulate.dates must read like '2018-11-20', got '{date}'") from None
    measures = _framed(section, midnight)
    hour_angle = measures.measure(_direction(measures, section), "HADEC")["m0"]["value"]
    return float(midnight + (-hour_angle) % (2 * math.pi) / (2 * math.pi) * SIDEREAL_DAY)


def _lsrk_to_topo(section: SimulateSection, frequency: float, seconds: float) -> float:
    measures = _framed(section, seconds)
    return float(measures.measure(measures.frequency("LSRK", f"{frequency}Hz"), "TOPO")["m0"]["value"])
