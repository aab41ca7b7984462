"""Sphinx directives that write tables from the code, so that they cannot grow old."""

from __future__ import annotations

import importlib
import pkgutil
import re
from pathlib import Path
from typing import Any, ClassVar

from docutils import nodes
from docutils.statemachine import StringList
from pydantic import BaseModel
from pydantic_core import PydanticUndefined
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective
from sphinx.util.typing import stringify_annotation
from typer.main import get_command
from typer.testing import CliRunner

from supermage import cli, recipe_sections
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
        model: type[BaseModel] = getattr(recipe_sections, self.arguments[0])
        rows = [("key", "kind", "default", "what it is")]
        for name, field in model.model_fields.items():
            rows.append((f"`{name}`", f"{kind(field.annotation)}", default(field), (field.description or "").replace("|", "\\|")))
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


def kind(annotation: Any) -> str:
    """A type in words."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return "table, see below"
    text = stringify_annotation(annotation, "smart").replace("~", "")
    for pattern, words in ((r" \| None", ""), (r"typing\.|supermage\.recipe_sections\.|Annotated", ""), (r"Literal\[(.*)\]", r"one of \1"),
                           (r"tuple\[CalibrateStep, \.\.\.\]", "list of tables"), (r"tuple\[(\w+), \.\.\.\]", r"list of \1"),
                           (r"tuple\[float, float\]", "two numbers"), (r"dict\[str, Prior\]", "tables by parameter"),
                           (r"dict\[str, float\]", "numbers by parameter"), (r"dict\[str, Any\]", "table"), (r"\bfloat\b", "number"),
                           (r"\bint\b", "whole number"), (r"\bstr\b", "text"), (r"\bbool\b", "true or false")):
        text = re.sub(pattern, words, text)
    return text.replace("|", "\\|")


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
COMMON = ("constants", "errors", "shapes", "recipe", "recipe_sections", "progress", "cli")


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
