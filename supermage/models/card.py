"""Model cards: what a trained model is and how wrong it is, in Markdown, written by the command that trains it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from supermage.models.training import write_atomically

HEAD = """# nuker-mge: from a Nuker profile to Gaussians

A frozen neural network that gives the weights of Gaussians with fixed widths in units of the break radius (scale-free: its inputs
are alpha, gamma and beta - gamma). Written by `supermage train models/nuker-mge/recipe.toml`; the table below is printed by
`python benchmarks/emulator.py`.

- Domain: alpha 0.1 - 10, gamma 0.001 - 1.2, beta - gamma 0.3 - 3, break radius 2 pc - 2 kpc; edges inclusive; refused outside.
- Radii: 2 pc - 10 kpc. Inside 2 pc (0.001 break radii for the largest break radius) the profile goes on to about 0.03 pc without a promise.
- Version {version}, sha256 `{sha256}`, seed {seed}.
- Network: {depth} hidden layers of {hidden} SiLU units, float64. Training: {steps} steps of SOAP on batches of {batch} out of {samples}
  profiles; loss: power mean (exponent {norm:g}) over radii of the relative errors of surface density and of the mass inside spheres.
- `nuker-mge-solve` is the exact ridged least-squares solve on the same Gaussians, for comparison and as the network's preconditioner.
- Not here: a final exact step after the network, and the original paper's own training recipe.

Errors are the maximum over radii: surface density relative, 2 pc - 10 kpc; circular velocity 2 pc - 5 kpc, divided by the larger of
v and 5 % of the curve's maximum, against direct deprojection (Abel inversion and the spheroid integral), for intrinsic axis ratios
1, 0.3 and 0.1.
"""


def write_card(path: Path, description: dict[str, Any], tables: dict[str, dict[str, Any]]) -> None:
    """Write a card with one table of errors per model.

    Parameters
    ----------
    path
        The card.
    description
        The artefact's description, with its training options.
    tables
        Name of a model -> what :func:`supermage.models.nuker_errors.measure` returned.
    """
    text = HEAD.format(**{**description["training"], **{key: description[key] for key in ("version", "sha256", "seed", "hidden", "depth")}})
    for name, table in tables.items():
        text += f"\n## Errors of {name}\n\n{error_table(table)}"
    write_atomically(path, text.encode())


def error_table(table: dict[str, Any]) -> str:
    """Markdown table of measured errors, in per cent."""
    lines = ["| profiles | quantity | median % | 99 % of profiles % | max % | worst (alpha, beta, gamma, break radius pc) |",
             "|---|---|---|---|---|---|"]
    notes = []
    for group, entry in table.items():
        if not isinstance(entry, dict):
            continue
        for key, values in entry.items():
            if key == "not_positive":
                notes.append(f"{group} {values}")
                continue
            numbers = " | ".join(f"{100.0 * values[column]:.2g}" for column in ("median", "99%", "max"))
            worst = ", ".join(f"{item:g}" for item in values["worst"].values())
            lines.append(f"| {group} | {key.replace('_', ' ')} | {numbers} | {worst} |")
    size = f"{table['profiles']} random profiles (seed {table['seed']}), 16 corners, {table['profiles'] // 4} on faces of the box"
    return "\n".join(lines) + f"\n\n{size}. Profiles whose density or v^2 is not positive in the stated radii: {', '.join(notes)}.\n"
