"""Whether two posteriors are of one model, as far as their files tell."""

from __future__ import annotations

import math
from collections.abc import Iterator

from supermage.report.record import Record, Sampled

MOST_TOLD = 3
"""Differences that are named; of more their number is given."""

NO_MODEL = ("emulator", "precision")
"""Keys of ``[fit.model]`` that are left out: one is compared with its version, the other changes numbers by less than the draws tell."""


def difference(one: Record, other: Record) -> str:
    """What differs between two fits of the same data, in a line without end mark; empty where nothing does.

    Compared are the galaxy's distance, the emulator and the likelihood, the keys of ``[fit.model]``, the sampled parameters with their
    priors, and the values of the fixed ones. What one file does not tell is not compared.
    """
    found = [*_facts(one, other), *_model(one, other), *_parameters(one, other), *_fixed(one, other)]
    beyond = f" and {len(found) - MOST_TOLD} more" if len(found) > MOST_TOLD else ""
    return f"{'; '.join(found[:MOST_TOLD])}{beyond}"


def _said(what: str, here: object, there: object) -> str:
    return f"{what} is {there} there, {here} here"


def _facts(one: Record, other: Record) -> Iterator[str]:
    if not _equal(one.distance, other.distance):
        yield _said("the distance", f"{one.distance:g} Mpc", f"{other.distance:g} Mpc")
    here, there = one.facts.get("emulator"), other.facts.get("emulator")
    if here is not None and there is not None and str(here) != str(there):
        yield _said("the emulator", here, there)


def _model(one: Record, other: Record) -> Iterator[str]:
    if one.recipe.fit is None or other.recipe.fit is None:
        return
    here, there = (record.recipe.fit.model.model_dump(exclude=set(NO_MODEL)) for record in (one, other) if record.recipe.fit is not None)
    yield from (_said(f"fit.model.{key}", here[key], there[key]) for key in here if here[key] != there[key])


def _parameters(one: Record, other: Record) -> Iterator[str]:
    here, there = ({p.name: p for p in record.parameters} for record in (one, other))
    for name in sorted(here.keys() ^ there.keys()):
        yield _said(name, *("sampled" if name in record else "not sampled" for record in (one, other)))
    for name, parameter in here.items():
        if name in there and not _same_prior(parameter, there[name]):
            yield _said(f"the prior of {name}", _prior(parameter), _prior(there[name]))


def _fixed(one: Record, other: Record) -> Iterator[str]:
    for name, value in one.fixed.items():
        if name in other.fixed and not _equal(value, other.fixed[name]):
            yield _said(f"the fixed {name}", f"{value:g}", f"{other.fixed[name]:g}")


def _same_prior(here: Sampled, there: Sampled) -> bool:
    if here.normal is not None and there.normal is not None:
        return all(_equal(a, b) for a, b in zip(here.normal, there.normal, strict=True))
    return (here.normal is None) == (there.normal is None) and _equal(here.lower, there.lower) and _equal(here.upper, there.upper)


def _prior(parameter: Sampled) -> str:
    if parameter.normal is not None:
        return f"{parameter.normal[0]:g} ± {parameter.normal[1]:g}"
    return f"{parameter.lower:g} to {parameter.upper:g}"


def _equal(one: float, other: float) -> bool:
    return math.isclose(one, other, rel_tol=1e-9, abs_tol=1e-12) or (math.isnan(one) and math.isnan(other))
