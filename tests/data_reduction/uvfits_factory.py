"""Small synthetic UVFITS files."""

from __future__ import annotations

import io
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits

from supermage.constants import ARCSEC, SPEED_OF_LIGHT_M_S

CENTRE = (150.0, 2.0)
REFERENCE = 1.15e11
WIDTH = 4e5
EAST, NORTH, FLUX = 1.0, 2.0, 1.5
ARRAY_CENTRE = np.array([2225061.0, -5440057.0, -2481681.0])


@dataclass
class Layout:
    """What a file holds; a point source at (+1", +2") is in it, in the sign of UVFITS and measurement sets."""

    n_time: int = 6
    n_antenna: int = 5
    n_channel: int = 8
    n_if: int = 1
    selections: int = 1
    sources: tuple[tuple[str, float, float], ...] = (("target", *CENTRE),)
    stokes: tuple[float, float, int] = (-5.0, -1.0, 2)
    """Value of the first, step and number."""
    step: float = WIDTH
    keywords: dict[str, Any] = field(default_factory=lambda: {"SPECSYS": "TOPOCENT"})
    veltyp: str | None = None
    antenna_keywords: dict[str, Any] = field(default_factory=lambda: {"FRAME": "ITRF"})
    array_centre: tuple[float, float, float] = (0.0, 0.0, 0.0)
    diameters: tuple[float, ...] | None = (12.0,) * 5
    autocorrelations: bool = True
    uvw_names: tuple[str, str, str] = ("UU", "VV", "WW")
    bad_weight: bool = True
    nan: str = ""
    bitpix: int = -32
    scales: bool = False


def antenna_positions(layout: Layout) -> np.ndarray:
    return ARRAY_CENTRE + np.random.default_rng(2).uniform(-60, 60, (layout.n_antenna, 3))


def write_uvfits(path: Path, layout: Layout) -> Path:
    """Write the file; the groups in the order of time, then source, then baseline."""
    rng = np.random.default_rng(1)
    first, second = np.triu_indices(layout.n_antenna, 0 if layout.autocorrelations else 1)
    rows = [(time, source, a, b) for time in range(layout.n_time) for source in range(len(layout.sources)) for a, b in zip(first, second)]
    time, source, first, second = (np.array(column) for column in zip(*rows))
    uvw = np.where((first == second)[:, None], 0.0, rng.uniform(-90, 90, (len(rows), 3)))
    selection = 1 + time % layout.selections
    parameters = {**{name: uvw[:, i] / SPEED_OF_LIGHT_M_S for i, name in enumerate(("UU", "VV", "WW"))},
                  "DATE": np.full(len(rows), 2459000.5), "_DATE": 0.25 + time * 10.0 / 86400.0,
                  "BASELINE": 256.0 * (first + 1) + second + 1, "FREQSEL": selection, "SOURCE": source + 1,
                  "INTTIM": np.full(len(rows), 10.0)}
    frequency = _frequency(layout)[selection - 1]
    u, v = (np.float32(uvw[:, i] / SPEED_OF_LIGHT_M_S).astype(float)[:, None, None] for i in range(2))
    signal = FLUX * np.exp(2j * np.pi * ARCSEC * (u * EAST + v * NORTH) * frequency)
    n_hand = layout.stokes[2]
    noise = 1e-3 * (rng.standard_normal((*signal.shape, n_hand)) + 1j * rng.standard_normal((*signal.shape, n_hand)))
    visibilities = signal[..., None] + noise
    weight = rng.uniform(0.5, 2.0, visibilities.shape)
    if layout.bad_weight:
        weight[rng.uniform(size=weight.shape) < 0.05] *= -1.0
        weight[3, 0, 2, :], weight[4, 0, :, 0] = 0.0, -1.0
    if layout.nan:
        chosen = (6, 0, 1, 0)
        visibilities[chosen], weight[chosen] = np.nan, 0.0 if layout.nan == "flagged" else 1.0
    array = np.stack([visibilities.real, visibilities.imag, weight], axis=-1)
    _groups(path, layout, parameters, array)
    return path


def _frequency(layout: Layout) -> np.ndarray:
    """Channel centres, shape (selection, IF, chan)."""
    offset = 1e9 * np.arange(layout.n_if) + 5e6 * np.arange(layout.selections)[:, None]
    return REFERENCE + offset[..., None] + (np.arange(layout.n_channel) + 1 - 3.0) * layout.step


def _groups(path: Path, layout: Layout, parameters: dict[str, np.ndarray], array: np.ndarray) -> None:
    names = [*layout.uvw_names, *list(parameters)[3:]]
    shape = (array.shape[0], 1, 1, *array.shape[1:])
    axes = ("COMPLEX", 1.0, 1.0, 1.0), ("STOKES", layout.stokes[0], 1.0, layout.stokes[1]), ("FREQ", REFERENCE, 3.0, layout.step), \
        ("IF", 1.0, 1.0, 1.0), ("RA", layout.sources[0][1], 1.0, 1.0), ("DEC", layout.sources[0][2], 1.0, 1.0)
    header = fits.Header()
    header["SIMPLE"], header["BITPIX"], header["NAXIS"], header["NAXIS1"] = True, layout.bitpix, 7, 0
    for i, size in enumerate(reversed(shape[1:]), start=2):
        header[f"NAXIS{i}"] = size
    header["EXTEND"], header["GROUPS"], header["PCOUNT"], header["GCOUNT"] = True, True, len(names), len(array)
    header["EPOCH"], header["OBJECT"], header["TELESCOP"], header["DATE-OBS"] = 2000.0, layout.sources[0][0], "ALMA", "2020-05-31"
    for i, (kind, value, pixel, step) in enumerate(axes, start=2):
        header[f"CTYPE{i}"], header[f"CRVAL{i}"], header[f"CRPIX{i}"], header[f"CDELT{i}"] = kind, value, pixel, step
    kind = {-32: ">f4", -64: ">f8"}[layout.bitpix]
    columns = []
    for i, (name, values) in enumerate(zip(names, parameters.values()), start=1):
        scale, zero = (0.5, 1.0) if layout.scales and name in ("FREQSEL", "SOURCE") else (1.0, 0.0)
        header[f"PTYPE{i}"], header[f"PSCAL{i}"], header[f"PZERO{i}"] = name.lstrip("_"), scale, zero
        columns.append((values - zero) / scale)
    header.update(layout.keywords)
    if layout.scales:
        header["BSCALE"], header["BZERO"] = 0.5, 0.25
        array = (array - 0.25) / 0.5
    raw = np.concatenate([np.stack(columns, axis=1), array.reshape(len(array), -1)], axis=1).astype(kind).tobytes()
    tables = [_frequencies(layout), _antennas(layout), *([_sources(layout)] if len(layout.sources) > 1 else [])]
    with path.open("wb") as file:
        file.write(header.tostring().encode("ascii"))
        file.write(raw + b"\0" * (-len(raw) % 2880))
        for table in tables:
            whole = io.BytesIO()
            fits.HDUList([fits.PrimaryHDU(), table]).writeto(whole)
            file.write(whole.getvalue()[2880:])


def _table(name: str, columns: list[fits.Column], **keywords: Any) -> fits.BinTableHDU:
    table = fits.BinTableHDU.from_columns(columns, name=f"AIPS {name}")
    table.header.update(keywords)
    return table


def _frequencies(layout: Layout) -> fits.BinTableHDU:
    n, rows = layout.n_if, layout.selections
    offset = (1e9 * np.arange(n) + 5e6 * np.arange(rows)[:, None]).reshape(rows, *([n] if n > 1 else []))
    width = np.full(offset.shape, layout.step)
    return _table("FQ", [
        fits.Column("FRQSEL", "1J", array=np.arange(rows) + 1), fits.Column("IF FREQ", f"{n}D", array=offset, unit="HZ"),
        fits.Column("CH WIDTH", f"{n}E", array=width, unit="HZ"), fits.Column("TOTAL BANDWIDTH", f"{n}E", array=width * layout.n_channel),
        fits.Column("SIDEBAND", f"{n}J", array=np.ones(offset.shape))], NO_IF=n)


def _antennas(layout: Layout) -> fits.BinTableHDU:
    n, centre = layout.n_antenna, np.array(layout.array_centre)
    place = antenna_positions(layout) - centre
    if centre.any() and "FRAME" not in layout.antenna_keywords:
        longitude = np.arctan2(centre[1], centre[0])
        east, north = place[:, 0].copy(), place[:, 1].copy()
        place[:, 0] = np.cos(longitude) * east + np.sin(longitude) * north
        place[:, 1] = -np.sin(longitude) * east + np.cos(longitude) * north
    zero = np.zeros(n)
    columns = [fits.Column("ANNAME", "8A", array=[f"A{i:02d}" for i in range(n)]), fits.Column("STABXYZ", "3D", array=place, unit="METERS"),
               fits.Column("NOSTA", "1J", array=np.arange(n) + 1), fits.Column("MNTSTA", "1J", array=zero),
               fits.Column("STAXOF", "1E", array=zero)]
    for hand, feed in (("A", "X"), ("B", "Y")):
        columns += [fits.Column(f"POLTY{hand}", "1A", array=[feed] * n), fits.Column(f"POLA{hand}", "1E", array=zero),
                    fits.Column(f"POLCAL{hand}", "1E", array=zero)]
    if layout.diameters is not None:
        columns.append(fits.Column("DIAMETER", "1E", array=layout.diameters))
    keywords = {f"ARRAY{axis}": value for axis, value in zip("XYZ", layout.array_centre)}
    return _table("AN", columns, **keywords, GSTIA0=200.0, DEGPDY=360.9856, FREQ=REFERENCE, RDATE="2020-05-31", TIMSYS="UTC", ARRNAM="ALMA",
                  XYZHAND="RIGHT", **layout.antenna_keywords)


def _sources(layout: Layout) -> fits.BinTableHDU:
    n = len(layout.sources)
    names, right_ascension, declination = zip(*layout.sources)
    zero = np.zeros(n)
    per_if = np.zeros((n, layout.n_if) if layout.n_if > 1 else n)
    columns = [fits.Column("ID. NO.", "1J", array=np.arange(n) + 1), fits.Column("SOURCE", "16A", array=names),
               fits.Column("QUAL", "1J", array=zero), fits.Column("CALCODE", "4A", array=[""] * n),
               *(fits.Column(f"{kind}FLUX", f"{layout.n_if}E", array=per_if) for kind in "IQUV"),
               fits.Column("FREQOFF", f"{layout.n_if}D", array=per_if), fits.Column("BANDWIDTH", "1D", array=zero),
               fits.Column("RAEPO", "1D", array=right_ascension), fits.Column("DECEPO", "1D", array=declination),
               fits.Column("EPOCH", "1D", array=np.full(n, 2000.0)), fits.Column("RAAPP", "1D", array=right_ascension),
               fits.Column("DECAPP", "1D", array=declination), fits.Column("LSRVEL", f"{layout.n_if}D", array=per_if),
               fits.Column("RESTFREQ", f"{layout.n_if}D", array=per_if), fits.Column("PMRA", "1D", array=zero),
               fits.Column("PMDEC", "1D", array=zero)]
    return _table("SU", columns, NO_IF=layout.n_if, **({} if layout.veltyp is None else {"VELTYP": layout.veltyp}))
