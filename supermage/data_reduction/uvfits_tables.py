"""The random groups of a UVFITS file, in slices, and its small tables (AIPS Memo 117)."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from astropy.io import fits
from numpy.typing import NDArray

from supermage.constants import SPEED_OF_LIGHT_M_S
from supermage.data_reduction.measurement_set_tables import Field, Hands, check_frequencies, hands_of, to_icrs
from supermage.data_reduction.spectral import frequency_of_velocity
from supermage.data_reduction.visibilities import SpectralWindow
from supermage.errors import DataError

FloatArray = NDArray[np.float64]

MJD_ZERO = 2_400_000.5
"""Julian date at which the modified one begins."""

_NUMBERS = {8: "u1", 16: ">i2", 32: ">i4", -32: ">f4", -64: ">f8"}
_CASACORE_HANDS = {-1: 5, -2: 8, -3: 6, -4: 7, -5: 9, -6: 12, -7: 10, -8: 11}
_AXES = ("IF", "FREQ", "STOKES", "COMPLEX")
_PROJECTED = ("", "-SIN", "---SIN", "-L", "-L-SIN")
"""What may follow UU, VV and WW where w points to the phase centre; -NCP, say, is another projection."""

_VELREF = {1: "LSRK", 2: "BARY", 3: "TOPO", 4: "LSRD", 5: "GEO", 6: "REST", 7: "GALACTO"}
_SPECSYS = {"LSRK": "LSRK", "BARYCENT": "BARY", "LSRD": "LSRD", "GEOCENTR": "GEO", "SOURCE": "REST", "GALACTOC": "GALACTO",
            "LOCALGRP": "LGROUP", "CMBDIPOL": "CMB", "TOPOCENT": "TOPO", "BARY": "BARY", "GEO": "GEO", "TOPO": "TOPO"}
_VELTYP = (("LSRD", "LSRD"), ("LSR", "LSRK"), ("REST", "REST"), ("BARY", "BARY"), ("GEO", "GEO"), ("TOPO", "TOPO"), ("GALAC", "GALACTO"),
           ("LGROUP", "LGROUP"), ("LOCAL", "LGROUP"), ("CMB", "CMB"))


@contextmanager
def fits_errors(path: Path) -> Iterator[None]:
    """Turn astropy's and numpy's exceptions into one line that names the file; silence what astropy says of old conventions."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except DataError:
        raise
    except (OSError, ValueError, KeyError, IndexError, TypeError, EOFError, MemoryError, fits.VerifyError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise DataError(f"a UVFITS file must be whole and readable, got {path} ({reason})") from None


@dataclass(frozen=True)
class Axis:
    """A regular axis of the groups' arrays: number of pixels, and the value at pixel ``i`` (from 0), ``value + (i + 1 - pixel) step``."""

    size: int
    value: float
    pixel: float
    step: float


@dataclass(frozen=True, eq=False)
class Groups:
    """The random groups: where they are in the file, and how to read some of them.

    Attributes
    ----------
    path, offset, count
        File, first byte and number of groups.
    number
        How a number is stored.
    parameter_names, scale, zero
        Of the parameters before each array.
    array_scale
        BSCALE and BZERO.
    shape
        Of the arrays, as stored, the slowest axis first.
    axes
        By name.
    order
        Where IF, FREQ, STOKES and COMPLEX are in ``shape``; without IFs, an axis of one behind it stands for them.
    """

    path: Path
    offset: int
    count: int
    number: np.dtype[Any]
    parameter_names: tuple[str, ...]
    scale: tuple[float, ...]
    zero: tuple[float, ...]
    array_scale: tuple[float, float]
    shape: tuple[int, ...]
    axes: dict[str, Axis]
    order: tuple[int, ...]

    @property
    def width(self) -> int:
        """Numbers in a group."""
        return len(self.parameter_names) + int(np.prod(self.shape))

    @property
    def n_if(self) -> int:
        """IFs, which are spectral windows."""
        return self.axes["IF"].size if "IF" in self.axes else 1

    def slice(self, file: BinaryIO, start: int, count: int) -> NDArray[Any]:
        """Some groups as they are stored, shape (group, ``width``), mapped from the file: only what is used is read."""
        return np.memmap(file, dtype=self.number, mode="r", offset=self.offset + start * self.width * self.number.itemsize,
                         shape=(count, self.width))

    def parameters(self, raw: NDArray[Any], name: str) -> list[FloatArray]:
        """Values of the parameters of a name (AIPS splits a DATE in two), shape (group,) each; none where there is none."""
        found = [i for i, one in enumerate(self.parameter_names) if one == name]
        return [raw[:, i].astype(np.float64) * self.scale[i] + self.zero[i] for i in found]

    def integers(self, raw: NDArray[Any], name: str, default: int) -> NDArray[np.int64]:
        """A parameter that numbers something, shape (group,); the default where there is none."""
        values = next(iter(self.parameters(raw, name)), np.full(len(raw), float(default)))
        if not np.isfinite(values).all():
            raise DataError(f"the parameter {name} must be finite, got NaN or infinite in {self.path}")
        return np.trunc(values).astype(np.int64)

    def baselines(self, raw: NDArray[Any]) -> FloatArray:
        """u, v, w, m, shape (group, 3)."""
        seconds = [np.sum(self.parameters(raw, name), axis=0) for name in ("UU", "VV", "WW")]
        return np.stack(seconds, axis=1) * SPEED_OF_LIGHT_M_S

    def time(self, raw: NDArray[Any]) -> FloatArray:
        """Time stamps, s (modified Julian date times 86400), shape (group,)."""
        first, *others = self.parameters(raw, "DATE")
        days = first - MJD_ZERO
        for other in others:
            days = days + other
        return days * 86400.0

    def antennas(self, raw: NDArray[Any]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Numbers of the two antennas, from 0; from BASELINE (256 a + b) or ANTENNA1 and ANTENNA2."""
        baseline = self.integers(raw, "BASELINE", 0)
        if "BASELINE" in self.parameter_names:
            return baseline // 256 - 1, baseline % 256 - 1
        return self.integers(raw, "ANTENNA1", 0) - 1, self.integers(raw, "ANTENNA2", 0) - 1

    def arrays(self, raw: NDArray[Any]) -> NDArray[Any]:
        """The arrays of some groups, not scaled, shape (group, IF, chan, hand, 3)."""
        arrays = raw[:, len(self.parameter_names):].reshape(len(raw), *self.shape, 1)
        wanted = [1 + place for place in self.order]
        others = [axis for axis in range(1, arrays.ndim) if axis not in wanted]
        ordered = arrays.transpose(0, *wanted, *others)
        return ordered.reshape(ordered.shape[:5])

    def scaled(self, array: NDArray[Any]) -> NDArray[np.float32]:
        """Stored numbers, as they are meant."""
        scale, zero = self.array_scale
        if (scale, zero) == (1.0, 0.0):
            return array.astype(np.float32)
        return (array.astype(np.float64) * scale + zero).astype(np.float32)


def read_groups(path: Path, hdu: Any) -> Groups:
    """Understand the primary header, and refuse what holds no visibilities or is shorter than it says.

    Raises
    ------
    DataError
        If there are no random groups or no rows, an axis or a parameter is lacking, or the file is truncated.
    """
    header = hdu.header
    if not (header.get("GROUPS", False) and header.get("NAXIS", 0) > 1 and header.get("NAXIS1") == 0):
        raise DataError(f"a UVFITS file must hold random groups, got {path} without them: an image, a table or FITS-IDI")
    sizes = [int(header[f"NAXIS{i}"]) for i in range(2, header["NAXIS"] + 1)]
    kinds = [str(header.get(f"CTYPE{i}", "")).strip().upper() for i in range(2, header["NAXIS"] + 1)]
    axes = {kind: Axis(size, *(float(header.get(f"{key}{i}", default)) for key, default in (("CRVAL", 0), ("CRPIX", 1), ("CDELT", 1))))
            for i, (kind, size) in enumerate(zip(kinds, sizes), start=2)}
    for kind in _AXES[1:]:
        if kind not in kinds:
            raise DataError(f"a UVFITS file must have an axis {kind}, got {', '.join(kinds)} in {path}")
    if axes["COMPLEX"].size != 3:
        raise DataError(f"the axis COMPLEX must hold real part, imaginary part and weight, got {axes['COMPLEX'].size} numbers in {path}")
    if any(size != 1 for kind, size in zip(kinds, sizes) if kind not in _AXES):
        raise DataError(f"only the axes {', '.join(_AXES)} may be longer than 1, got {', '.join(kinds)} with {sizes} in {path}")
    place = {kind: len(kinds) - 1 - i for i, kind in enumerate(kinds)}
    number, n_parameters = np.dtype(_NUMBERS[int(header["BITPIX"])]), int(header["PCOUNT"])
    names = tuple(_parameter_name(str(header.get(f"PTYPE{i}", ""))) for i in range(1, n_parameters + 1))
    groups = Groups(
        path=path, offset=int(hdu.fileinfo()["datLoc"]), count=int(header["GCOUNT"]), number=number, parameter_names=names,
        scale=tuple(float(header.get(f"PSCAL{i}", 1.0)) for i in range(1, n_parameters + 1)),
        zero=tuple(float(header.get(f"PZERO{i}", 0.0)) for i in range(1, n_parameters + 1)),
        array_scale=(float(header.get("BSCALE", 1.0)), float(header.get("BZERO", 0.0))), shape=tuple(reversed(sizes)), axes=axes,
        order=tuple(place.get(kind, len(kinds)) for kind in _AXES))
    _check_groups(groups)
    return groups


def _parameter_name(text: str) -> str:
    name = text.strip().upper()
    return name[:2] if name[:2] in ("UU", "VV", "WW") and name[2:] in _PROJECTED else name


def _check_groups(groups: Groups) -> None:
    lacking = [name for name in ("UU", "VV", "WW", "DATE") if name not in groups.parameter_names]
    if "BASELINE" not in groups.parameter_names and not {"ANTENNA1", "ANTENNA2"} <= set(groups.parameter_names):
        lacking.append("BASELINE")
    if lacking:
        raise DataError(f"a UVFITS file must hold the parameter {lacking[0]}, got {', '.join(groups.parameter_names)} in {groups.path}")
    if groups.count * groups.width == 0:
        raise DataError(f"a UVFITS file must hold rows, got none in {groups.path}")
    need, size = groups.offset + groups.count * groups.width * groups.number.itemsize, groups.path.stat().st_size
    if size < need:
        raise DataError(f"a UVFITS file must be whole, got {groups.path} with {size} of at least {need} bytes: truncated")


def find_tables(hdus: Any, name: str) -> list[Any]:
    """All extensions ``AIPS <name>``, by their version."""
    found = [hdu for hdu in hdus[1:] if hdu.header.get("EXTNAME", "").strip() in (f"AIPS {name}", name)]
    return sorted(found, key=lambda hdu: int(hdu.header.get("EXTVER", 1)))


def read_antennas(path: Path, tables: list[Any]) -> tuple[FloatArray, FloatArray]:
    """Geocentric positions (antenna, 3) and dish diameters (antenna,), m, by number; NaN where unknown.

    Where a number stands in the tables of several subarrays, the first counts. Without the keyword FRAME, the x axis of stations around a
    centre that is not zero lies in its meridian.
    """
    if not tables:
        raise DataError(f"a UVFITS file must hold the table AIPS AN, got {path} without it, or cut short")
    count = max(int(np.max(table.data["NOSTA"], initial=0)) for table in tables)
    positions, diameters = np.full((count, 3), np.nan), np.full(count, np.nan)
    for table in reversed(tables):
        header, rows = table.header, np.asarray(table.data["NOSTA"], dtype=np.int64) - 1
        centre = np.array([float(header.get(f"ARRAY{axis}", 0.0)) for axis in "XYZ"])
        place = np.array(table.data["STABXYZ"], dtype=np.float64)
        if str(header.get("XYZHAND", "")).strip().upper() == "LEFT":
            place[:, 1] *= -1.0
        if centre.any() and str(header.get("FRAME", "")).strip(" ?") == "":
            longitude = np.arctan2(centre[1], centre[0])
            cos, sin = np.cos(longitude), np.sin(longitude)
            place = place @ np.array([[cos, sin, 0.0], [-sin, cos, 0.0], [0.0, 0.0, 1.0]])
        positions[rows] = centre + place
        diameters[rows] = np.nan
        if "DIAMETER" in table.columns.names:
            diameter = np.asarray(table.data["DIAMETER"], dtype=np.float64)
            diameters[rows] = np.where(diameter > 0, diameter, np.nan)
    return positions, diameters


def read_fields(path: Path, header: Any, groups: Groups, tables: list[Any]) -> list[Field]:
    """The sources, numbered from 0 as importuvfits does; the one of the header where there is no table of them."""
    if not tables:
        right_ascension, declination = (next((axis.value for kind, axis in groups.axes.items() if kind.partition("-")[0] == name), None)
                                        for name in ("RA", "DEC"))
        if right_ascension is None or declination is None:
            raise DataError(f"a UVFITS file must hold the table AIPS SU, or axes RA and DEC, got {path} with neither")
        epoch = header.get("EPOCH", header.get("EQUINOX", 2000.0))
        return [Field(0, _text(header.get("OBJECT", "unknown")), _direction(right_ascension, declination, epoch, path))]
    table = tables[0]
    if "FREQOFF" in table.columns.names and np.any(np.abs(table.data["FREQOFF"]) > 0):
        raise DataError(f"sources must have no frequency offset of their own (FREQOFF of the table AIPS SU), got one in {path}")
    columns = [table.data[name].tolist() for name in ("ID. NO.", "SOURCE", "QUAL", "RAEPO", "DECEPO", "EPOCH")]
    several = len(set(columns[2])) > 1
    return [Field(number - 1, f"{_text(name)}_{qualifier}" if several else _text(name), _direction(right, declination, epoch, path))
            for number, name, qualifier, right, declination, epoch in zip(*columns)]


def _text(value: Any) -> str:
    return str(value).partition("\0")[0].strip()


def _direction(right_ascension: float, declination: float, epoch: float, path: Path) -> tuple[float, float]:
    frames = {2000.0: "J2000", 1950.0: "B1950"}
    frame = frames.get(round(float(epoch), 2))
    if frame is None:
        raise DataError(f"positions must be of the epoch 2000 or 1950, got {epoch:g} in {path}")
    return to_icrs(float(np.radians(right_ascension)), float(np.radians(declination)), frame, path)


def read_hands(groups: Groups, windows: dict[int, SpectralWindow]) -> dict[int, Hands]:
    """Hands of every window, in casacore's order: RR before LL, XX before YY."""
    axis = groups.axes["STOKES"]
    codes = [int(np.floor(axis.value + (i + 1 - axis.pixel) * axis.step + 0.5)) for i in range(axis.size)]
    unsorted = hands_of(0, [_CASACORE_HANDS.get(code, code) for code in codes])
    first = sorted(range(len(unsorted.index)), key=lambda i: -codes[unsorted.index[i]])
    return {number: Hands(number, tuple(unsorted.names[i] for i in first), tuple(unsorted.index[i] for i in first), unsorted.all_names)
            for number in windows}


def frequency_frame(header: Any, sources: list[Any]) -> str:
    """Frame by its name in casacore: VELTYP of the table AIPS SU, SPECSYS, VELREF, else TOPO, as importuvfits chooses."""
    told = str(sources[0].header.get("VELTYP", "")).upper() if sources else ""
    named = next((frame for word, frame in _VELTYP if word in told), None)
    if named is not None:
        return named
    if "SPECSYS" in header:
        return _SPECSYS.get(str(header["SPECSYS"]).strip().upper(), "TOPO")
    return _VELREF.get(int(header.get("VELREF", 3)) % 256, "TOPO")


def read_windows(path: Path, header: Any, groups: Groups, tables: list[Any], frame: str) -> dict[int, SpectralWindow]:
    """Spectral windows by number: (FREQSEL - 1) times the number of IFs, plus the IF from 0."""
    axis, n_if = groups.axes["FREQ"], groups.n_if
    if tables:
        selections = np.asarray(tables[0].data["FRQSEL"], dtype=np.int64)
        offsets, widths = (np.asarray(tables[0].data[name], dtype=np.float64).reshape(selections.size, n_if)
                           for name in ("IF FREQ", "CH WIDTH"))
    elif n_if > 1:
        raise DataError(f"a UVFITS file of several IFs must hold the table AIPS FQ, got {n_if} IFs in {path} without it")
    else:
        selections, offsets, widths = np.array([1]), np.zeros((1, 1)), np.full((1, 1), axis.step)
    shift = _shift(header, axis)
    windows = {}
    for row, selection in enumerate(selections.tolist()):
        for one in range(n_if):
            number, width = (selection - 1) * n_if + one, float(widths[row, one])
            steps = np.arange(axis.size) + 1 - axis.pixel
            frequency = (axis.value + offsets[row, one]) * shift + steps * width
            check_frequencies(frequency, number, path)
            windows[number] = SpectralWindow(number=number, frequency=frequency, width=abs(width), resolution=abs(width), frame=frame)
    return windows


def _shift(header: Any, axis: Axis) -> float:
    """Factor from the stored frequencies to those of VELREF's frame, where the header gives a velocity there (ALTRVAL) and no SPECSYS."""
    velref = int(header.get("VELREF", 3))
    rest = header.get("RESTFREQ", header.get("RESTFRQ"))
    if "SPECSYS" in header or "ALTRVAL" not in header or rest is None or _VELREF.get(velref % 256, "TOPO") == "TOPO":
        return 1.0
    there = frequency_of_velocity(float(header["ALTRVAL"]) / 1e3, float(rest), "radio" if velref > 256 else "optical")
    pixel = float(header.get("ALTRPIX", axis.pixel))
    return (there + (axis.pixel - pixel) * axis.step) / axis.value
