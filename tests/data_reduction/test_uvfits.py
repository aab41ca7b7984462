"""Reading UVFITS: bit for bit what importuvfits and the reader of measurement sets give; a known source; spoilt files in one line."""

from __future__ import annotations

import shutil
import tracemalloc
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy import units
from astropy.coordinates import GCRS, ITRS, CartesianRepresentation
from astropy.io import fits
from astropy.time import Time
from astropy.utils import iers

from supermage.constants import ARCSEC, SPEED_OF_LIGHT_M_S
from supermage.data_reduction import measurement_set_tables, uvfits_tables
from supermage.data_reduction.calibrate import run_casatasks
from supermage.data_reduction.casa import casadata_folder, import_casatools
from supermage.data_reduction.measurement_set import MeasurementSet
from supermage.data_reduction.reduce import reduce
from supermage.data_reduction.sources import VisibilitySource, open_source
from supermage.data_reduction.uvfits import UVFITS
from supermage.data_reduction.visibilities import VisibilityChunk
from supermage.errors import DataError
from supermage.recipe import Recipe
from tests.data_reduction.uvfits_factory import (
    ARRAY_CENTRE,
    CENTRE,
    EAST,
    FLUX,
    NORTH,
    REFERENCE,
    WIDTH,
    Layout,
    antenna_positions,
    write_uvfits,
)

TWO = (("target", *CENTRE), ("other", 151.0, 3.0))
REST = 1.152712e11
VARIANTS = {
    "plain": Layout(),
    "rich": Layout(n_if=2, selections=2, sources=TWO, stokes=(-5.0, -1.0, 4)),
    "descending": Layout(step=-WIDTH, sources=TWO),
    "left": Layout(stokes=(-2.0, -1.0, 1)),
    "right after left": Layout(stokes=(-2.0, 1.0, 2)),
    "radio velocity": Layout(keywords={"VELREF": 257, "RESTFREQ": REST, "ALTRVAL": 7e5, "ALTRPIX": 5.0}),
    "optical velocity": Layout(keywords={"VELREF": 1, "RESTFREQ": REST, "ALTRVAL": 7e5, "ALTRPIX": 1.0}, step=-WIDTH),
    "barycentre": Layout(keywords={"VELREF": 258}),
    "VELTYP": Layout(keywords={}, sources=TWO, veltyp="LSR"),
    "SPECSYS": Layout(keywords={"SPECSYS": "BARYCENT"}),
    "no frame": Layout(keywords={}),
    "scales": Layout(scales=True, sources=TWO, selections=2),
    "centre": Layout(array_centre=(2225061.0, -5440057.0, -2481681.0)),
}


def ngc5921() -> Path:
    return casadata_folder() / "demo" / "NGC5921.fits"


def put_source(path: Path) -> None:
    """A point source of 2 Jy at (+1", +2") in a measurement set, in CASA's sign (measured against its own predict)."""
    table = import_casatools().table()
    table.open(str(path / "SPECTRAL_WINDOW"))
    frequency = table.getcell("CHAN_FREQ", 0)
    table.close()
    table.open(str(path), nomodify=False)
    uvw = np.random.default_rng(1).uniform(-80, 80, (3, table.nrows()))
    table.putcol("UVW", uvw)
    turns = ARCSEC * (uvw[0] * 1.0 + uvw[1] * 2.0)[None, :] * frequency[:, None] / SPEED_OF_LIGHT_M_S
    table.putcol("DATA", np.repeat(2.0 * np.exp(2j * np.pi * turns)[None], 2, axis=0))
    table.close()


@pytest.fixture(scope="module")
def casa(tmp_path_factory: pytest.TempPathFactory, alma_set: Path) -> Path:
    """A folder with UVFITS files and what importuvfits makes of them, and a measurement set with what exportuvfits makes of it."""
    folder = tmp_path_factory.mktemp("uvfits")
    shutil.copytree(alma_set, folder / "known.ms")
    put_source(folder / "known.ms")
    steps = [{"task": "importuvfits", "arguments": {"fitsfile": str(ngc5921()), "vis": str(folder / "ngc5921.ms")}}]
    for name, layout in VARIANTS.items():
        write_uvfits(folder / f"{name}.fits", layout)
        steps.append({"task": "importuvfits", "arguments": {"fitsfile": str(folder / f"{name}.fits"), "vis": str(folder / f"{name}.ms")}})
    steps.append({"task": "exportuvfits", "arguments": {"vis": str(folder / "known.ms"), "fitsfile": str(folder / "known.uvfits"),
                                                        "datacolumn": "data"}})
    run_casatasks(steps, folder / "casa", folder / "log")
    return folder


def everything(source: VisibilitySource, **options: Any) -> list[VisibilityChunk]:
    return [chunk for block in source.blocks for chunk in source.chunks(block, **options)]


def assert_same(wanted: MeasurementSet, got: UVFITS) -> None:
    """Equal to the last bit, frequencies to rounding."""
    assert (wanted.field_name, wanted.telescope, wanted.data_column) == (got.field_name, got.telescope, got.data_column)
    assert wanted.dish_diameters == got.dish_diameters
    np.testing.assert_allclose(wanted.phase_centre, got.phase_centre, rtol=1e-14)
    np.testing.assert_allclose(wanted.observatory, got.observatory, rtol=1e-14)
    for one, other in zip(wanted.blocks, got.blocks, strict=True):
        for name in ("name", "observation", "data_description", "hands", "fields", "start", "stop", "rows", "autocorrelations"):
            assert getattr(one, name) == getattr(other, name), name
        for name in ("number", "width", "resolution", "frame", "descending"):
            assert getattr(one.window, name) == getattr(other.window, name), name
        np.testing.assert_allclose(one.window.frequency, other.window.frequency, rtol=1e-15)
        for options in ({}, {"channels": slice(2, 6), "rows": 7}):
            for chunk, twin in zip(wanted.chunks(one, **options), got.chunks(other, **options), strict=True):
                for name in ("uvw", "data", "weight", "antenna1", "antenna2", "time"):
                    np.testing.assert_array_equal(getattr(chunk, name), getattr(twin, name), err_msg=name, strict=True)
                assert (chunk.flagged, chunk.unweighted) == (twin.flagged, twin.unweighted)


@pytest.mark.parametrize("field", ["1331+30500002_0", "1445+09900002_0", "N5921_2", 2])
def test_the_demo_is_read_as_importuvfits_reads_it(casa: Path, field: str | int) -> None:
    with MeasurementSet(casa / "ngc5921.ms", field=field) as wanted, UVFITS(ngc5921(), field=field) as got:
        assert_same(wanted, got)
        assert got.blocks[0].window.frame == "LSRK"


@pytest.mark.parametrize("name", VARIANTS)
def test_synthetic_files_are_read_as_importuvfits_reads_them(casa: Path, name: str) -> None:
    for field in [None] if len(VARIANTS[name].sources) == 1 else ["target", "other"]:
        with MeasurementSet(casa / f"{name}.ms", field=field) as wanted, UVFITS(casa / f"{name}.fits", field=field) as got:
            assert_same(wanted, got)
            if name == "rich":
                assert [block.window.number for block in got.blocks] == [0, 1, 2, 3]
                assert sum(chunk.flagged for chunk in everything(got)) > 0


def test_what_casa_exports_comes_back_in_the_in_house_sign(casa: Path) -> None:
    """The same visibilities through exportuvfits: no sign is lost on the way, and the source is where it was put."""
    with MeasurementSet(casa / "known.ms") as source:
        (wanted,) = everything(source)
    with UVFITS(casa / "known.uvfits") as source:
        (got,) = everything(source)
        frequency = source.blocks[0].window.ascending_frequency
    np.testing.assert_allclose(got.uvw, wanted.uvw, rtol=1e-7)
    np.testing.assert_array_equal(got.data, wanted.data)
    np.testing.assert_array_equal(got.antenna1, wanted.antenna1)
    turns = ARCSEC * (got.uvw[:, 0] * 1.0 + got.uvw[:, 1] * 2.0)[:, None] * frequency / SPEED_OF_LIGHT_M_S
    np.testing.assert_allclose(got.data[..., 0], 2.0 * np.exp(-2j * np.pi * turns), atol=1e-4)


def geometric_uvw(first: np.ndarray, second: np.ndarray, centre: tuple[float, float], time: Time) -> np.ndarray:
    """The first antenna as seen from the second, towards east, north and the source, m; shape (row, 3)."""
    with warnings.catch_warnings(), iers.conf.set_temp("auto_download", False), iers.conf.set_temp("iers_degraded_accuracy", "ignore"):
        warnings.simplefilter("ignore")
        first, second = (ITRS(CartesianRepresentation(*place.T, unit=units.m), obstime=time).transform_to(GCRS(obstime=time))
                         .cartesian.xyz.to_value(units.m).T for place in (first, second))
    right_ascension, declination = np.radians(centre)
    source = np.array([np.cos(declination) * np.cos(right_ascension), np.cos(declination) * np.sin(right_ascension), np.sin(declination)])
    east = np.array([-np.sin(right_ascension), np.cos(right_ascension), 0.0])
    return (first - second) @ np.stack([east, np.cross(source, east), source], axis=1)


def test_baselines_point_the_same_way_in_uvfits_and_in_measurement_sets(alma_set: Path) -> None:
    """From the antennas' positions: u, v, w are the first antenna's place less the second's in the VLA's UVFITS and in ALMA's set alike."""
    with UVFITS(ngc5921(), field="N5921_2") as source, fits.open(ngc5921()) as hdus:
        chunk = next(source.chunks(source.blocks[0]))
        place, _ = uvfits_tables.read_antennas(source.path, uvfits_tables.find_tables(hdus, "AN"))
        rows = chunk.time == chunk.time[0]
        wanted = geometric_uvw(place[chunk.antenna1[rows]], place[chunk.antenna2[rows]], source.phase_centre,
                               Time(chunk.time[0] / 86400.0, format="mjd", scale="utc"))
        np.testing.assert_allclose(chunk.uvw[rows], wanted, atol=5.0)  # AIPS's are those of the date
        assert np.abs(wanted).max() > 900.0
    with MeasurementSet(alma_set) as source:
        chunk = next(source.chunks(source.blocks[0]))
        place, _ = measurement_set_tables.read_antennas(alma_set)
        wanted = geometric_uvw(place[chunk.antenna1[:1]], place[chunk.antenna2[:1]], source.phase_centre,
                               Time(chunk.time[0] / 86400.0, format="mjd", scale="utc"))
        np.testing.assert_allclose(chunk.uvw[:1], wanted, atol=0.1)


@pytest.mark.parametrize("layout", [
    Layout(bitpix=-64), Layout(step=-WIDTH), Layout(n_if=2, selections=2), Layout(uvw_names=("UU---SIN", "VV---SIN", "WW---SIN"))])
def test_a_known_source_is_where_it_is(tmp_path: Path, layout: Layout) -> None:
    with UVFITS(write_uvfits(tmp_path / "a.fits", layout)) as source:
        assert len(source.blocks) == layout.n_if * layout.selections
        for number, block in enumerate(source.blocks):
            frequency = block.window.ascending_frequency
            assert np.all(np.diff(frequency) == pytest.approx(WIDTH))
            offset = (number % layout.n_if) * 1e9 + (number // layout.n_if) * 5e6
            assert block.window.frequency[2] == pytest.approx(REFERENCE + offset)
            for chunk in source.chunks(block, rows=11):
                assert np.all(chunk.antenna1 != chunk.antenna2)
                turns = ARCSEC * (chunk.uvw[:, 0] * EAST + chunk.uvw[:, 1] * NORTH)[:, None] * frequency / SPEED_OF_LIGHT_M_S
                model = np.repeat(FLUX * np.exp(-2j * np.pi * turns)[..., None], 2, axis=-1)
                assert np.abs(chunk.data - model)[chunk.weight > 0].max() < 1e-2
                assert np.all(chunk.data[chunk.weight == 0] == 0)


def make_recipe(path: Path, **changes: Any) -> Recipe:
    section = {"measurement_set": path.name, "output": "out/visibilities.nc", "grid": {"n_pixel": 64, "pixel_scale": 1.0}, "frame": "TOPO",
               "velocity_range": (703.0, 707.5), **changes}
    galaxy = {"name": "a", "distance": 10.0, "rest_frequency": REST}
    return Recipe.model_validate({"folder": path.parent, "galaxy": galaxy, "reduce": section})


@pytest.mark.parametrize("step", [WIDTH, -WIDTH])
def test_reduce_takes_a_uvfits_file(tmp_path: Path, step: float) -> None:
    layout = Layout(step=step, sources=TWO, n_antenna=8, n_time=10, diameters=(12.0,) * 8)
    gridded = reduce(make_recipe(write_uvfits(tmp_path / "a.uvfits", layout), field="target"))
    u, v = gridded.uv_wavelengths()
    filled = np.isfinite(gridded.standard_error) & (gridded.count > 0)
    assert gridded.n_cell > 100
    assert gridded.dish_diameter == 12.0
    assert np.abs(gridded.mean - FLUX * np.exp(-2j * np.pi * ARCSEC * (u * EAST + v * NORTH)))[filled].max() < 2e-2


def test_a_file_without_diameters_asks_for_one(tmp_path: Path) -> None:
    path = write_uvfits(tmp_path / "a.uvfits", Layout(diameters=None, n_time=8))
    with UVFITS(path) as source:
        assert source.dish_diameters == ()
    with pytest.raises(DataError, match=r"one known diameter unless reduce\.dish_diameter says otherwise, got none"):
        reduce(make_recipe(path))
    assert reduce(make_recipe(path, dish_diameter=12.0)).dish_diameter == 12.0


@pytest.mark.parametrize("frame", [{}, {"FRAME": "????"}, {"FRAME": "ITRF"}])
def test_stations_around_a_centre_are_turned_unless_the_frame_is_told(tmp_path: Path, frame: dict[str, str]) -> None:
    """AIPS Memo 117: without FRAME the x axis is in the meridian of an array centre that is not zero, else in Greenwich's."""
    for centre in ((0.0, 0.0, 0.0), tuple(ARRAY_CENTRE)):
        layout = Layout(array_centre=centre, antenna_keywords=frame if frame.get("FRAME") != "????" else {})
        path = write_uvfits(tmp_path / "a.fits", layout)
        if frame.get("FRAME") == "????":
            with fits.open(path, mode="update") as hdus:
                hdus["AIPS AN"].header["FRAME"] = "????"
        with fits.open(path) as hdus:
            place, _ = uvfits_tables.read_antennas(path, uvfits_tables.find_tables(hdus, "AN"))
        np.testing.assert_allclose(place, antenna_positions(layout), atol=1e-6)


def test_antennas_in_parameters_of_their_own(tmp_path: Path) -> None:
    """Arrays of more than 255 antennas have no BASELINE."""
    path = write_uvfits(tmp_path / "a.fits", Layout())
    with UVFITS(path) as source:
        (wanted,) = everything(source)
    content = path.read_bytes()
    path.write_bytes(content.replace(b"'BASELINE'", b"'ANTENNA1'").replace(b"'INTTIM  '", b"'ANTENNA2'"))
    with fits.open(path, mode="update") as hdus:
        place = hdus[0].data.field("ANTENNA1").astype(int)
        hdus[0].data.field("ANTENNA1")[:], hdus[0].data.field("ANTENNA2")[:] = place // 256, place % 256
    with UVFITS(path) as source:
        (got,) = everything(source)
    np.testing.assert_array_equal(got.antenna1, wanted.antenna1)
    np.testing.assert_array_equal(got.antenna2, wanted.antenna2)
    np.testing.assert_array_equal(got.data, wanted.data)


def test_memory_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("supermage.data_reduction.uvfits._SLICE_BYTES", 200_000)
    path = write_uvfits(tmp_path / "a.fits", Layout(n_time=200, n_channel=256, n_antenna=8, diameters=(12.0,) * 8))
    size = path.stat().st_size
    assert size > 40e6
    tracemalloc.start()
    with UVFITS(path) as source:
        rows = sum(chunk.time.size for block in source.blocks for chunk in source.chunks(block, rows=100))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert rows == 200 * 28
    assert peak < 0.15 * size


def edit(name: str, value: Any, extension: int | str = 0) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        if extension:
            with fits.open(path, mode="update") as hdus:
                hdus[extension].header[name] = value
            return
        content = bytearray(path.read_bytes())
        at = next(at for at in range(0, 2880 * 4, 80) if content[at:at + 8].decode() == f"{name:8}")
        content[at:at + 80] = fits.Card(name, value).image.encode()
        path.write_bytes(bytes(content))
    return change


def cut(share: float) -> Callable[[Path], None]:
    return lambda path: path.write_bytes(path.read_bytes()[:int(share * path.stat().st_size)]) and None


def without(name: str) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        path.write_bytes(path.read_bytes().replace(f"'AIPS {name}".encode(), b"'AIPS ??"))
    return change


def parameter(name: str, value: float, row: int = 7) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        with fits.open(path, mode="update") as hdus:
            hdus[0].data.field(name)[row] = value
    return change


def image(path: Path) -> None:
    fits.PrimaryHDU(np.zeros((4, 4))).writeto(path, overwrite=True)


def to_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


SAME_NAME = (("target", *CENTRE), ("target", 150.01, 2.0))
NO_AN = "a UVFITS file must hold the table AIPS AN, got <here>/a.fits without it, or cut short"
NO_FITS = "a UVFITS file must be FITS, got <here>/a.fits, which does not begin with SIMPLE"
NO_HAND = "a data description must hold a parallel hand (RR, LL, XX, YY), got "
NO_WHOLE = "a UVFITS file must be whole and readable, got <here>/a.fits (No SIMPLE card found"


@pytest.mark.parametrize(("layout", "change", "options", "words"), [
    ({}, Path.unlink, {}, "a UVFITS file must exist, got <here>/a.fits"),
    ({}, to_folder, {}, "a UVFITS file must be a file, got the folder <here>/a.fits"),
    ({}, lambda path: path.write_bytes(b"hello"), {}, NO_FITS),
    ({}, lambda path: path.write_bytes(b""), {}, NO_FITS),
    ({}, lambda path: path.write_bytes(b"SIMPLE  ="), {}, NO_WHOLE),
    ({}, image, {}, "a UVFITS file must hold random groups, got <here>/a.fits without them: an image, a table or FITS-IDI"),
    ({}, cut(0.3), {}, "a UVFITS file must be whole, got <here>/a.fits with "),
    ({}, cut(0.9), {}, NO_AN),
    ({}, lambda path: path.write_bytes(path.read_bytes()[:-2881]), {}, NO_AN),
    ({}, edit("GCOUNT", 0), {}, "a UVFITS file must hold rows, got none in <here>/a.fits"),
    ({}, edit("CTYPE4", "WAVE"), {}, "a UVFITS file must have an axis FREQ, got COMPLEX, STOKES, WAVE, IF, RA, DEC in <here>/a.fits"),
    ({}, edit("CTYPE3", "RA"), {}, "a UVFITS file must have an axis STOKES, got COMPLEX, RA, FREQ, "),
    ({"n_if": 3}, edit("CTYPE5", "BEAM"), {}, "only the axes IF, FREQ, STOKES, COMPLEX may be longer than 1, got COMPLEX, STOKES, "),
    ({}, edit("NAXIS2", 2), {}, "the axis COMPLEX must hold real part, imaginary part and weight, got 2 numbers in <here>/a.fits"),
    ({"uvw_names": ("UU---NCP", "VV---NCP", "WW---NCP")}, None, {}, "a UVFITS file must hold the parameter UU, got UU---NCP, VV---NCP"),
    ({}, edit("PTYPE6", "BASE"), {}, "a UVFITS file must hold the parameter BASELINE, got UU, VV, WW, DATE, DATE, BASE, "),
    ({}, without("AN"), {}, NO_AN),
    ({"n_if": 2}, without("FQ"), {}, "a UVFITS file of several IFs must hold the table AIPS FQ, got 2 IFs in <here>/a.fits without it"),
    ({}, edit("CRVAL4", 115.0), {}, "channel frequencies must be in Hz and above 1 MHz, got -799885 in window 0 of <here>/a.fits: "),
    ({}, edit("EPOCH", 1983.5), {}, "positions must be of the epoch 2000 or 1950, got 1983.5 in <here>/a.fits"),
    ({"sources": TWO}, None, {}, "a set with several fields needs a choice by name, got none for other, target in <here>/a.fits"),
    ({"sources": TWO}, None, {"field": "targte"}, "the field must be one of other, target, got 'targte'; did you mean 'target'?"),
    ({"sources": SAME_NAME}, None, {"field": "target"}, "a field must have one phase centre: mosaics are not supported, got 2 "),
    ({"sources": TWO}, parameter("SOURCE", 9.0), {"field": "target"},
     "rows must point into the table AIPS SU (less 1), which has numbers 0 to 1, got 8 in <here>/a.fits"),
    ({"selections": 2}, parameter("FREQSEL", 5.0), {},
     "rows must point into the table DATA_DESCRIPTION, which has numbers 0 to 1, got 4 in <here>/a.fits"),
    ({}, parameter("BASELINE", 9 * 256 + 1.0), {},
     "rows must point into the table AIPS AN (less 1), which has numbers 0 to 4, got 8 in <here>/a.fits"),
    ({}, parameter("BASELINE", np.nan), {}, "the parameter BASELINE must be finite, got NaN or infinite in <here>/a.fits"),
    ({}, parameter("DATE", np.nan), {}, "times of a UVFITS file must be finite, got 1 NaN or infinite in <here>/a.fits"),
    ({}, parameter("UU", np.nan), {}, "baselines (UVW) of unflagged visibilities must be finite, got 1 NaN or infinite in 60 rows "),
    ({}, None, {"spectral_window": 3}, "the spectral window must be one of 0 for field 'target', got 3"),
    ({"stokes": (-7.0, -1.0, 2)}, None, {}, NO_HAND + "XY, YX in <here>/a.fits"),
    ({"stokes": (1.0, 1.0, 4)}, None, {}, NO_HAND + "I, Q, U, V in <here>/a.fits"),
    ({"nan": "kept"}, None, {}, "unflagged visibilities must be finite, got 1 NaN or infinite in 60 rows of 2020-05-31T06:00 "
     "observation 0 window 0; give them a weight of zero first"),
])
def test_spoilt_files_are_one_clear_line(tmp_path: Path, layout: dict[str, Any], change: Callable[[Path], object] | None,
                                         options: dict[str, Any], words: str, capfd: pytest.CaptureFixture[str]) -> None:
    path = write_uvfits(tmp_path / "a.fits", Layout(**layout))
    if change is not None:
        change(path)
    with pytest.raises(DataError) as caught, UVFITS(path, **options) as source:
        everything(source)
    line = str(caught.value).replace(str(tmp_path), "<here>")
    assert line.startswith(words)
    assert "\n" not in line
    assert capfd.readouterr().err == ""


def test_only_autocorrelations(tmp_path: Path) -> None:
    path = write_uvfits(tmp_path / "a.fits", Layout(n_antenna=1, diameters=(12.0,)))
    with pytest.raises(DataError, match="field 'target' must hold cross-correlations, got none in"):
        UVFITS(path)


def test_flagged_nan_and_parameters_that_may_lack(tmp_path: Path) -> None:
    path = write_uvfits(tmp_path / "a.fits", Layout(nan="flagged"))
    path.write_bytes(path.read_bytes().replace(b"'FREQSEL '", b"'FILLER  '").replace(b"'SOURCE  '", b"'FILLER  '"))
    with UVFITS(path, field=0) as source:
        assert all(np.isfinite(chunk.data).all() for chunk in everything(source))


def test_two_dates_are_two_blocks(tmp_path: Path) -> None:
    path = write_uvfits(tmp_path / "a.fits", Layout())
    with fits.open(path, mode="update") as hdus:
        hdus[0].data.field("_DATE")[60:] += 3.0
    with UVFITS(path) as source:
        assert [block.name[:10] for block in source.blocks] == ["2020-05-31", "2020-06-03"]
        assert [sum(chunk.time.size for chunk in source.chunks(block)) for block in source.blocks] == [40, 20]


def test_a_closed_file_and_one_cut_while_open(tmp_path: Path) -> None:
    path = write_uvfits(tmp_path / "a.fits", Layout())
    source = UVFITS(path)
    source.close()
    with pytest.raises(DataError, match="whole and readable"):
        everything(source)
    with UVFITS(path) as source:
        path.write_bytes(path.read_bytes()[:9000])
        with pytest.raises(DataError, match="whole and readable"):
            everything(source)


def test_a_path_finds_its_reader(tmp_path: Path, alma_set: Path) -> None:
    path = write_uvfits(tmp_path / "a.fits", replace(Layout(), n_if=2))
    shutil.copy(path, tmp_path / "without-suffix")
    for kind, place in ((UVFITS, path), (UVFITS, tmp_path / "without-suffix"), (MeasurementSet, alma_set)):
        with open_source(place, spectral_window=0) as source:
            assert type(source) is kind
            assert len(source.blocks) == 1
    (tmp_path / "notes").write_text("hello")
    (tmp_path / "folder.fits").mkdir()
    for name, words in (("notes", "a measurement set must be a folder, got the file"), ("a.ms", "a measurement set must exist"),
                        ("b.uvfits", "a UVFITS file must exist"), ("folder.fits", "without it: truncated, or not a measurement set")):
        with pytest.raises(DataError, match=words):
            open_source(tmp_path / name)
