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
  profiles; loss: power mean (exponent {norm:g}) over radii of the relative errors of surface density and of the mass inside spheres,
  and, with weight {slope:g}, of their derivatives by the three parameters (relative to the largest exact one).
- `nuker-mge-step` is the network followed by one exact step, a ridged least-squares solve of what it leaves; `nuker-mge-solve` is such
  a solve alone, on the same Gaussians. The paper's own recipe: `models/nuker-mge-paper`. A recipe's `emulator` names the one that a fit
  uses, and the posterior records it; the demo uses the network alone.

Errors are the maximum over radii: surface density relative, 2 pc - 10 kpc; circular velocity 2 pc - 5 kpc, divided by the larger of
v and 5 % of the curve's maximum, against direct deprojection (Abel inversion and the spheroid integral), for intrinsic axis ratios
1, 0.3 and 0.1. Gradients: of ln(surface density) and ln(velocity) by alpha, beta - gamma and gamma, the error divided by the largest
exact gradient over the same radii, worst of the three.
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


PAPER_HEAD = """# nuker-mge-paper: the emulator of Yantovski-Barth et al. by their own recipe

Trained and measured for comparison; no fit uses it. Written by `supermage train models/nuker-mge-paper/recipe.toml`.

**Not converged.** {steps} steps at a rate of {learning_rate:g} are a quarter of an hour, and the errors below are those of a run that was
stopped there, not of the published recipe trained to its end, for which ten hours on a graphics card were taken.

- As in the paper (sec. 2.1, Appendices A and B): {gaussians} Gaussians on a log-uniform grid of widths from 1 pc to 10 kpc, inputs
  alpha, gamma, beta - gamma and break radius, symexp output, mean squared error of the surface density, Adam with a rate of
  {learning_rate:g}, profiles of a uniform grid of 50^4.
- Ours, where the paper prints nothing: {depth} hidden layers of {hidden} SiLU units, float64, batches of {batch} profiles at {radii}
  log-uniform radii from 2 pc to 10 kpc, outputs that start at symexp(12) = 1.
- {steps} steps, seed {seed}, weights sha256 `{sha256}`.
  The paper trained about 10 hours on a graphics card and states a fractional error of the mass profile below 3 %; how much of that
  this run reaches is the table below. Its loss is the density's own square, to which the faint profiles and the faint ends of all
  others are nothing, and its widths end at 1 pc, inside which the mass is free.

Errors as on the card of nuker-mge: the maximum over radii.

"""


def write_paper_card(path: Path, description: dict[str, Any], table: dict[str, Any]) -> None:
    """Write the card of the emulator trained by the paper's recipe; arguments as :func:`write_card`."""
    facts = {**description["training"], **{key: description[key] for key in ("sha256", "seed", "hidden", "depth")}}
    write_atomically(path, (PAPER_HEAD.format(**facts) + error_table(table)).encode())


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
