"""The exceptions of the package: every one says the rule, then what was got, in one line."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class SupermageError(Exception):
    """Parent of every error that a user can cause. The command line prints it as one line and exits with 1."""


class RecipeError(SupermageError):
    """A recipe breaks a rule: unknown key, wrong type, lower >= upper, GHz for Hz."""


class DataError(SupermageError):
    """A data set cannot be used: missing, truncated, empty, flagged, a mosaic, NaN."""


class DomainError(SupermageError, ValueError):
    """A number lies outside the domain of a formula or of a trained model."""


class CheckpointError(SupermageError):
    """A checkpoint is damaged, or belongs to another recipe, data set or version."""


class ModelFileError(SupermageError):
    """A trained model's files are missing, altered or of another version."""


class ConvergenceFailure(SupermageError):  # noqa: N818 - a verdict, not a mistake of the user
    """A fit ran to its end and did not converge. The command line exits with 2."""


class ConvergenceWarning(UserWarning):
    """Chains disagree; the draws are returned all the same."""


def nearest_name(got: str, known: Iterable[str]) -> str:
    """Return ``"; did you mean 'x'?"`` for the closest known name, or an empty string."""
    match = difflib.get_close_matches(got, list(known), n=1, cutoff=0.5)
    return f"; did you mean '{match[0]}'?" if match else ""
