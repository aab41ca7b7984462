"""Cards of mass priors: licence, citation and limits are those of the galaxies that they were trained on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from supermage.models.mass_card import licence_of, write_mass_card

MODELS = Path(__file__).parents[2] / "models"


def described(name: str) -> dict[str, Any]:
    about: dict[str, Any] = json.loads((MODELS / name / "artefact" / "model.json").read_text())
    return about


def of_own_table(**entries: Any) -> dict[str, Any]:
    about = described("tng-gbdt")
    return {**about, "name": "mine", "source": "survey.fits", "training": {**about["training"], "sample": "catalogue"}, **entries}


def card_of(about: dict[str, Any], folder: Path) -> str:
    folder.mkdir(parents=True, exist_ok=True)
    write_mass_card(folder / "card.md", about)
    return (folder / "card.md").read_text()


@pytest.mark.parametrize("name", ["tng-gbdt", "tng-shared"])
def test_shipped_cards_are_written_as_they_are(name: str, tmp_path: Path) -> None:
    assert card_of(described(name), tmp_path / "models" / name) == (MODELS / name / "card.md").read_text()


def test_a_recipe_is_named_as_it_lies(tmp_path: Path) -> None:
    """Under models/ by its path from there; elsewhere, and under another's name, by its own name alone."""
    assert "Written by `supermage train models/mine/recipe.toml`." in card_of(of_own_table(), tmp_path / "models" / "mine")
    for folder in ("elsewhere/mine", "models/other", "models/mine/products"):
        assert "Written by `supermage train recipe.toml`." in card_of(of_own_table(), tmp_path / folder)


def test_a_users_own_table_has_no_licence_of_tng(tmp_path: Path) -> None:
    card = card_of(of_own_table(), tmp_path)
    ending = card.partition("## Limits")[2]
    for word in ("TNG", "Nelson", "Jagvaral", "no complete box", "Simulated galaxies", "BSD"):
        assert word not in ending
    assert "Galaxies of survey.fits; none of them is in these files" in ending and "Nothing was stated of their licence" in ending
    assert 'load_model("path/to/mine").predict(table)' in card and "`supermage train recipe.toml`" in card


def test_a_density_on_a_network_of_generated_galaxies_says_so(tmp_path: Path) -> None:
    card = card_of(of_own_table(name="toy-cnn-prior", of_network="ab12", mock=True, licence=""), tmp_path)
    assert 'supermage.load_model("path/to/toy-cnn").predict(maps)' in card and "recipe.toml" not in card
    assert "Generated galaxies, made from scaling relations" in card and "whose licence (BSD 3-Clause) holds for them" in card
    assert "Nelson" not in card.partition("## Limits")[2]


def test_what_a_source_states_is_on_the_card(tmp_path: Path) -> None:
    card = card_of(of_own_table(of_network="ab12", mock=False, licence="CC BY 4.0, cite Foo 2020"), tmp_path)
    assert "Their source states: CC BY 4.0, cite Foo 2020." in card and "Nothing was stated" not in card
    assert licence_of(source="", mock=False, stated="").startswith("Galaxies of a source without a name;")
