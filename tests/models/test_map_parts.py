"""Making maps in parts: what a folder was begun with, what is still to make, a galaxy that fails halfway."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from supermage.errors import DataError
from supermage.models import targets_of_particles
from supermage.models.map_parts import MEASURED, Rows, begin, make_parts, part_names
from supermage.models.particles import Particles
from supermage.progress import SilentProgress
from tests.models.analytic_galaxies import plummer


def test_names_cover_all_galaxies() -> None:
    assert part_names(5, 2) == ["part-00000.nc", "part-00001.nc", "part-00002.nc"] and part_names(4, 2)[-1] == "part-00001.nc"
    assert part_names(1, 2, ".ecsv") == ["part-00000.ecsv"]


def test_a_folder_belongs_to_one_request(tmp_path: Path) -> None:
    begin(tmp_path, {"seed": 1})
    begin(tmp_path, {"seed": 1})
    with pytest.raises(DataError, match="with seed = 1, got 2; take another folder"):
        begin(tmp_path, {"seed": 2})
    begin(tmp_path / "more", {"seed": 1, "old": True})
    with pytest.raises(DataError, match="with old = True, got None"):
        begin(tmp_path / "more", {"seed": 1})
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=r"must go to a folder that can be written, got .*file"):
        begin(tmp_path / "file" / "maps", {"seed": 1})


def test_only_what_is_not_whole_is_made(tmp_path: Path) -> None:
    made: list[int] = []
    make_parts(tmp_path, part_names(6, 2), lambda path, request, number: made.append(number), None, processes=1, progress=SilentProgress(),
               title="parts", whole=lambda path: path.name == "part-00001.nc")  # fmt: skip
    assert made == [0, 2]


def test_a_galaxy_that_fails_halfway_adds_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    rows, whole = Rows(), targets_of_particles.targets_of_particles

    def fails(particles: Particles, axis: int, **options: object) -> dict[str, float]:
        if axis == 2:
            raise DataError("no third side")
        return whole(particles, axis, luminosity_r=None)

    monkeypatch.setattr(targets_of_particles, "targets_of_particles", fails)
    with pytest.raises(DataError, match="no third side"):
        rows.add(Particles(plummer(200, 1)), image_pixels=16, map_pixels=8)
    assert not rows.maps and not rows.columns


def test_a_galaxy_of_too_few_stars_has_maps_and_no_features() -> None:
    """Within two half-mass radii there are fewer stars than features need: the columns are there, empty."""
    rows = Rows()
    rows.add(Particles(plummer(40, 1), plummer(200, 2, scale=9.0), galaxy_id=3), image_pixels=16, map_pixels=8)
    assert len(rows.maps) == 3 and all(math.isnan(item[name]) for item in rows.columns for name in MEASURED)
