"""Sphinx directives that write tables from the code, so that they cannot grow old."""

from __future__ import annotations

import importlib
import pkgutil
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, ClassVar, Literal, Union, get_args, get_origin

from docutils import nodes
from docutils.statemachine import StringList
from pydantic import BaseModel
from pydantic_core import PydanticUndefined
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective
from typer.main import get_command
from typer.testing import CliRunner

from supermage import cli, recipe
from supermage.inference.parameters import GAS_MASS, ML_GRADIENT, NFW_HALO, TABLE_1


class Table(SphinxDirective):
    """A table whose rows come from the code; cells are Markdown."""

    optional_arguments = 1

    def rows(self) -> list[tuple[str, ...]]:
        """Heading and rows."""
        raise NotImplementedError

    def run(self) -> list[nodes.Node]:
        """Parse the table in place."""
        heading, *rows = self.rows()
        lines = ["| " + " | ".join(cells) + " |" for cells in (heading, tuple("---" for _ in heading), *rows)]
        box = nodes.container()
        self.state.nested_parse(StringList(lines, source=str(self.env.docname)), self.content_offset, box)
        return box.children


class RecipeKeys(Table):
    """Keys of a recipe's table: name, kind and default, what it is."""

    required_arguments = 1
    optional_arguments = 0

    def rows(self) -> list[tuple[str, ...]]:
        """One row a key."""
        model: type[BaseModel] = getattr(recipe, self.arguments[0])
        rows = [("key", "kind", "default", "what it is")]
        for name, field in model.model_fields.items():
            cells = (f"`{name}`", kind(field.annotation, field.metadata), default(field), field.description or "")
            rows.append(tuple(cell.replace("|", "\\|") for cell in cells))
        return rows


class Parameters(Table):
    """The parameters of Table 1, or of what the argument names: name, unit, prior, what each is."""

    added: ClassVar = {"halo": NFW_HALO, "mass": (GAS_MASS, ML_GRADIENT)}

    def rows(self) -> list[tuple[str, ...]]:
        """One row a parameter."""
        rows = [("name", "unit", "uniform prior", "what it is")]
        for p in self.added[self.arguments[0]] if self.arguments else TABLE_1:
            rows.append((f"`{p.name}`", p.unit or "-", f"{p.lower:g} to {p.upper:g}", p.description))
        return rows


class CommandHelp(SphinxDirective):
    """What a command's `--help` prints."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """A literal block."""
        words = [] if self.arguments[0] == "supermage" else [self.arguments[0]]
        assert words == [] or words[0] in get_command(cli.app).commands
        text = CliRunner().invoke(cli.app, [*words, "--help"], prog_name="supermage", env={"COLUMNS": "100"}).output
        return [nodes.literal_block(text, text, language="text")]


WORDS = {float: "number", int: "whole number", str: "text", bool: "true or false"}
TABLES = {float: "numbers by parameter", recipe.Prior: "tables by parameter"}


def kind(annotation: Any, constraints: Iterable[Any] = ()) -> str:
    """A type in words, with the bounds that pydantic keeps beside it."""
    words, bounds = _kind(annotation, constraints)
    return f"{words}, {bounds}" if bounds else words


def _kind(annotation: Any, constraints: Iterable[Any]) -> tuple[str, str]:
    """The type and its bounds, each in words."""
    origin, parts = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _kind(parts[0], [*constraints, *parts[1:]])
    if origin in {Union, UnionType}:
        kinds = [_kind(part, constraints) for part in parts if part is not NoneType]
        return " or ".join(words for words, _ in kinds), kinds[0][1]
    bounds = " and ".join(_bounds(constraints))
    if origin is Literal:
        return "one of " + ", ".join(repr(part) for part in parts), bounds
    if origin is dict:
        return TABLES.get(parts[1], "table"), bounds
    if origin is tuple and parts[-1] is not Ellipsis:
        return "two numbers", bounds
    if origin is tuple:
        words, each = _kind(parts[0], ())
        some = {TABLE: "tables", "text": "text"}.get(words, f"{words}s")
        return f"list of {some}" + (f", each {each}" if each else ""), bounds
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return TABLE, bounds
    return WORDS[annotation], bounds


TABLE = "table, see below"
LIMITS = {"ge": "at least {:,}", "gt": "above {:,}", "le": "at most {:,}", "lt": "below {:,}", "min_length": "with at least {} item"}


def _bounds(constraints: Iterable[Any]) -> Iterator[str]:
    """Each bound in words; a field keeps some in a list of its own."""
    for constraint in constraints:
        yield from _bounds(getattr(constraint, "metadata", ()))
        known = {name: getattr(constraint, name, None) for name in LIMITS}
        yield from (LIMITS[name].format(limit) for name, limit in known.items() if limit is not None)


def default(field: Any) -> str:
    """A default as it would stand in TOML."""
    if field.default is PydanticUndefined:
        return "" if field.default_factory is not None else "*needed*"
    value = field.default
    if value is None or isinstance(value, BaseModel):
        return ""
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, tuple):
        value = list(value)
    if isinstance(value, float):
        return f"`{value:g}`"
    return f"`{value}`" if not isinstance(value, str) else f'`"{value}"`'


PACKAGES = {"common": "The common ground", "data_reduction": "supermage.data_reduction", "forward": "supermage.forward",
            "models": "supermage.models", "inference": "supermage.inference", "plots": "supermage.plots", "report": "supermage.report"}
COMMON = ("constants", "errors", "physical", "shapes", "recipe", "recipe_sections", "recipe_fit", "progress", "cli")


def write_reference(app: Sphinx, _: object) -> None:
    """Write one page a package into `reference/`, with every module in it."""
    for name, title in PACKAGES.items():
        if name == "common":
            modules = [f"supermage.{module}" for module in COMMON]
            words = ""
        else:
            package = importlib.import_module(f"supermage.{name}")
            modules = [f"supermage.{name}.{module.name}" for module in pkgutil.iter_modules(package.__path__)]
            words = f"{package.__doc__}\n"
        sections = [f"## {module}\n\n```{{eval-rst}}\n.. automodule:: {module}\n```\n" for module in modules]
        page = "\n".join([f"# {title}\n", words, *sections])
        path = Path(app.srcdir) / "reference" / f"{name}.md"
        if not path.is_file() or path.read_text(encoding="utf-8") != page:
            path.write_text(page, encoding="utf-8")


def escape_prose(_app: Sphinx, _what: str, _name: str, _object: object, _options: object, lines: list[str]) -> None:
    """Stars and bars in a docstring's prose are multiplication and norms, not markup."""
    for i, line in enumerate(lines):
        parts = re.split(r"(`+[^`]*`+)", line)
        lines[i] = "".join(part if part.startswith("`") else re.sub(r"(?<!\\)([*|])", r"\\\1", part) for part in parts)


def skip_field_numbers(_app: Sphinx, _what: str, _name: str, thing: object, _skip: bool, _options: object) -> bool | None:
    """Leave out what Python says of a named tuple's fields."""
    return True if str(getattr(thing, "__doc__", "")).startswith("Alias for field number") else None


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the directives and the generated pages."""
    app.connect("config-inited", write_reference)
    app.connect("autodoc-skip-member", skip_field_numbers)
    app.connect("autodoc-process-docstring", escape_prose, priority=100)
    app.add_directive("recipe-keys", RecipeKeys)
    app.add_directive("parameters", Parameters)
    app.add_directive("command-help", CommandHelp)
    return {"parallel_read_safe": True}
