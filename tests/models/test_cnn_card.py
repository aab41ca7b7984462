"""Cards of networks: the folder's name, limits, and the licence of the maps."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from supermage.models.cnn_card import write_cnn_card

MOCK = {"mock": True, "source": "mock galaxies", "maps_provenance": {}}
TNG = {"mock": False, "source": "TNG100-1 cutouts", "maps_provenance": {"licence": "none stated, cite Nelson et al. 2019"}}


def described(**entries: Any) -> dict[str, Any]:
    scatter = {"log_mstar": {"mean": 0.001, "sigma": 0.05, "rows": 30}}
    scaling = {"pixels": 32, "stretch": "log", "soft": 1e5}
    return {"version": "1", "sha256": "0" * 64, "seed": 1, "width": 2, "inputs": ["r_light"], "scaling": {"r_light": scaling},
            "targets": ["log_mstar"], "training": {"epochs": 3}, "history": {"best_epoch": 2}, "split": "by group", "leaking_split": False,
            "left_out": {}, "scatter": {"test": scatter, "training": scatter}, **MOCK, **entries}  # fmt: skip


def card_of(folder: Path, about: dict[str, Any], **options: Any) -> str:
    artefact = folder / "artefact"
    artefact.mkdir(parents=True)
    (artefact / "model.json").write_text(json.dumps(about))
    write_cnn_card(folder / "card.md", artefact, **options)
    return (folder / "card.md").read_text()


@pytest.mark.parametrize(("name", "call"), [("mock-cnn", "mock-cnn"), ("box-50", "path/to/box-50")])
def test_the_name_is_the_folders(name: str, call: str, tmp_path: Path) -> None:
    card = card_of(tmp_path / name, described(), tables={"test part": {}})
    assert card.startswith(f"# {name}: masses") and f'`supermage.load_model("{call}").predict(maps)`' in card
    assert "products/loss.png" in card and card.index("| training |") < card.index("| test |")


def test_generated_maps_bring_no_licence_of_others(tmp_path: Path) -> None:
    card = card_of(tmp_path / "mock-cnn", described())
    limits, licence = card.partition("## Limits")[2].split("## Licence")
    assert "Generated galaxies" in limits and "Maps of other pixels" in limits
    assert "No data of others is in these files" in licence and "BSD 3-Clause" in licence


def test_the_licence_of_maps_is_what_their_source_states(tmp_path: Path) -> None:
    stated = card_of(tmp_path / "stated", described(**TNG))
    assert "Galaxies of TNG100-1 cutouts; none of them" in stated
    assert "Their source states: none stated, cite Nelson et al. 2019." in stated and "Generated" not in stated
    silent = card_of(tmp_path / "silent", described(**{**TNG, "maps_provenance": {}}))
    assert "Nothing was stated of their licence" in silent and "BSD" not in silent


def test_tables_of_the_density_in_the_artefact_are_taken(tmp_path: Path) -> None:
    prior = tmp_path / "net" / "artefact" / "prior"
    prior.mkdir(parents=True)
    (prior / "model.json").write_text(json.dumps({"scores": {"test part": {}}}))
    (prior.parent / "model.json").write_text(json.dumps(described()))
    write_cnn_card(tmp_path / "net" / "card.md", prior.parent)
    assert "### On the test part" in (tmp_path / "net" / "card.md").read_text()


def test_rows_that_the_density_does_not_know_are_counted_and_explained(tmp_path: Path) -> None:
    """Beside the tables whose scatter they make; with the scatter of the others where that was measured."""
    prior = tmp_path / "net" / "artefact" / "prior"
    prior.mkdir(parents=True)
    (prior.parent / "model.json").write_text(json.dumps(described()))
    about = {"scores": {"test part": {}}, "test_rows_widened": 13, "rows": {"test": 366}}
    for more, said in (({}, "scatter below.\n"), ({"test_scatter_inside": {"log_mstar": 0.0644, "log_mtot": 0.11}},
                        "Without them the scatter is 0.0644 dex (`log_mstar`) and 0.1100 dex (`log_mtot`).\n")):  # fmt: skip
        (prior / "model.json").write_text(json.dumps({**about, **more}))
        write_cnn_card(tmp_path / "net" / "card.md", prior.parent)
        card = (tmp_path / "net" / "card.md").read_text()
        assert "13 of the 366 rows of the test part (3.6 %) lie outside" in card and said in card
    (prior / "model.json").write_text(json.dumps({**about, "test_rows_widened": 0}))
    write_cnn_card(tmp_path / "net" / "card.md", prior.parent)
    assert "lie outside" not in (tmp_path / "net" / "card.md").read_text()


def test_the_shipped_card_is_of_the_shipped_density() -> None:
    folder = Path(__file__).parents[2] / "models" / "mock-cnn"
    about = json.loads((folder / "artefact" / "prior" / "model.json").read_text())
    assert f"{about['test_rows_widened']} of the {about['rows']['test']} rows of the test part (3.6 %)" in (folder / "card.md").read_text()


def test_what_cuts_took_away_is_on_the_card(tmp_path: Path) -> None:
    cuts = ["not n_sersic <= 100: 3 of 60 rows left out, 0 without a value stay"]
    card = card_of(tmp_path / "net", described(cuts=cuts, left_out={"log_mtot unknown": 2}))
    assert f"- Left out: {cuts[0]}; 2 rows (log_mtot unknown)." in card
    assert "- Left out: nothing." in card_of(tmp_path / "other", described())
