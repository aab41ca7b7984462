"""Check the rules of the house that no linter knows: the direction of imports, the size of files and functions.

Usage: python .ci/house.py [ROOT]. Prints one line for each breach; exit code 1 if there is any.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

# A module may import its own layer and those before it. The longest matching prefix decides the layer of a module.
LAYERS = {
    "supermage.constants": 0, "supermage.shapes": 0, "supermage.errors": 0, "supermage.physical": 0,
    "supermage.recipe": 1, "supermage.recipe_sections": 1, "supermage.recipe_fit": 1, "supermage.progress": 1,
    "supermage.data_reduction.grid": 2,
    "supermage.forward": 3,
    "supermage.models": 4,
    "supermage.inference": 5,
    "supermage.plots": 6,
    "supermage.report": 7,
    "supermage.cli": 8,
}
REDUCTION = "supermage.data_reduction"
GRID = "supermage.data_reduction.grid"
MEETING_POINT = "supermage.inference.model"
FORBIDDEN = {"jampy", "kinms", "kinms_fitter", "pickle", "plotbin", "mgefit"}
MAY = {("supermage.inference.chains", "pickle")}
"""Exceptions: messages between a fit's own processes, which no file holds."""
LATE_ONLY = {"casatools", "casatasks", "casadata", "casaconfig", "dask", "distributed", "dask_jobqueue"}
FILE_LINES, FUNCTION_LINES = 400, 60


def main(root: Path) -> int:
    """Print every breach below ``root``; return the exit code."""
    breaches = [breach for path in sorted((root / "supermage").rglob("*.py")) for breach in check_file(path, root)]
    for breach in breaches:
        print(breach)
    return 1 if breaches else 0


def check_file(path: Path, root: Path) -> Iterator[str]:
    """Yield one line for each breach in a file."""
    parts = path.relative_to(root).with_suffix("").parts
    module = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
    text = path.read_text(encoding="utf-8")
    tree = ast.parse(text)
    where = path.relative_to(root)
    if (lines := text.count("\n")) > FILE_LINES:
        yield f"{where}:1: a file must have at most {FILE_LINES} lines, got {lines}"
    yield from (f"{where}:{line}: {what}" for line, what in check_sizes(tree))
    yield from (f"{where}:{line}: {what}" for line, what in check_imports(tree, module))


def check_sizes(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Yield functions that are too long; a docstring does not count."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            first = node.body[0]
            words = first.end_lineno - first.lineno + 1 if ast.get_docstring(node) is not None and first.end_lineno else 0
            length = (node.end_lineno or node.lineno) - node.lineno + 1 - words
            if length > FUNCTION_LINES:
                yield node.lineno, f"a function must have at most {FUNCTION_LINES} lines, {node.name} has {length}"


def check_imports(tree: ast.Module, module: str) -> Iterator[tuple[int, str]]:
    """Yield imports against the direction, forbidden ones, and heavy ones at the head of a module."""
    arrows: dict[str, int] = {}
    head = {id(node) for node in tree.body}
    for node, target in imported(tree):
        top = target.partition(".")[0]
        if top.lower() in FORBIDDEN and (module, top) not in MAY:
            yield node.lineno, f"{top} must not be imported"
        if top in LATE_ONLY and id(node) in head:
            yield node.lineno, f"{top} must be imported inside the function that needs it"
        if top == "supermage" and not may_import(module, target):
            yield node.lineno, f"{module} must not import {target}"
        if target.startswith("supermage.forward"):
            arrows["forward"] = node.lineno
        if is_reduction(target):
            arrows["data_reduction"] = node.lineno
    if module.startswith("supermage.inference") and module != MEETING_POINT and len(arrows) > 1:
        yield max(arrows.values()), f"only {MEETING_POINT} may know both forward and data_reduction, got {module}"


def imported(tree: ast.Module) -> Iterator[tuple[ast.stmt, str]]:
    """Yield every import, inside functions too, with the absolute name of the module."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            if node.level:
                yield node, "supermage.<relative import>"
            elif node.module in {"supermage", *(f"supermage.{package}" for package in PACKAGES)}:
                yield from ((node, f"{node.module}.{alias.name}") for alias in node.names)
            else:
                yield node, node.module or ""


PACKAGES = ("data_reduction", "forward", "models", "inference", "plots", "report")


def is_reduction(target: str) -> bool:
    """Whether a module belongs to the data reduction, its grid apart."""
    return below(target, REDUCTION) and not below(target, GRID)


def below(target: str, package: str) -> bool:
    """Whether a name is a package or lies inside it."""
    return target == package or target.startswith(package + ".")


def layer(target: str) -> int | None:
    """Layer of a module; None for the data reduction's own and for what has no place."""
    if is_reduction(target):
        return None
    matches = [prefix for prefix in LAYERS if below(target, prefix)]
    return LAYERS[max(matches, key=len)] if matches else None


def may_import(module: str, target: str) -> bool:
    """Whether the direction of imports allows ``module`` to import ``target``."""
    if module == "supermage" or target in {"supermage", "supermage.__version__"}:
        return True
    if is_reduction(module):
        return below(target, REDUCTION) or layer(target) in {0, 1}
    own, other = layer(module), layer(target)
    if is_reduction(target):
        return own is not None and own >= LAYERS["supermage.inference"]
    return own is not None and other is not None and other <= own


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).resolve().parents[1]))
