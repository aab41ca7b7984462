"""What the documentation says of the code: recipe keys in words, and Python that runs."""

from __future__ import annotations

import importlib.util
import re
import tomllib
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any, Literal

import pytest
from pydantic import Field

from supermage import recipe

pytest.importorskip("sphinx")

ROOT = Path(__file__).resolve().parents[1]
SECTIONS = [value for value in vars(recipe).values()
            if isinstance(value, type) and issubclass(value, recipe.Section) and value not in (recipe.Section, recipe.Recipe)]
FIELDS = [pytest.param(field, id=f"{section.__name__}.{name}") for section in SECTIONS for name, field in section.model_fields.items()]


@pytest.fixture(scope="module")
def from_code() -> ModuleType:
    spec = importlib.util.spec_from_file_location("from_code", ROOT / "docs" / "from_code.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("field", FIELDS)
def test_every_key_has_a_kind_in_words(from_code: ModuleType, field: Any) -> None:
    words = from_code.kind(field.annotation, field.metadata)
    assert re.fullmatch(r"one of .+|[a-z0-9,. -]+", words), words
    assert not re.search(r"FieldInfo|annotation=|Annotated|Optional|tuple|None|metadata", words)


@pytest.mark.parametrize(("annotation", "metadata", "words"), [
    (Annotated[int, Field(ge=1)] | None, [], "whole number, at least 1"),
    (Annotated[float, Field(gt=0, lt=1)], [], "number, above 0 and below 1"),
    (tuple[Annotated[int, Field(ge=1)], ...], [Field(min_length=1)], "list of whole numbers, each at least 1, with at least 1 item"),
    (tuple[str, ...], [], "list of text"), (tuple[float, float], [], "two numbers"), (Literal["a", "b"] | None, [], "one of 'a', 'b'"),
    (dict[str, float] | None, [], "numbers by parameter"), (dict[str, Any], [], "table"), (bool | None, [], "true or false"),
])
def test_types_in_words(from_code: ModuleType, annotation: Any, metadata: list[Any], words: str) -> None:
    assert from_code.kind(annotation, metadata) == words


@pytest.mark.parametrize("page", ["README.md", "docs/start.md"])
def test_a_summary_is_printed_whole(page: str) -> None:
    """Pandas leaves columns out of a table that it prints by itself."""
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(encoding="utf-8"), flags=re.DOTALL)
    assert blocks
    for block in blocks:
        compile(block, page, "exec")
        assert "posterior.summary().to_string()" in block
        assert block.count("summary()") == 1


def test_the_systems_are_the_same_everywhere() -> None:
    classifiers = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["classifiers"]
    assert {name for name in classifiers if name.startswith("Operating System")} == {
        "Operating System :: MacOS", "Operating System :: POSIX :: Linux"}
    assert "Linux x86-64 or macOS" in (ROOT / "README.md").read_text(encoding="utf-8")
