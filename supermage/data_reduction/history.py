"""What was done to a measurement set before it came to us, as far as its HISTORY and its channels tell."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from supermage.data_reduction.casa import import_casatools
from supermage.data_reduction.measurement_set_tables import casacore_errors
from supermage.data_reduction.visibilities import SpectralWindow

AVERAGE, SMOOTH, REGRID = "average", "smooth", "regrid"
Operation = tuple[str, int]
"""`AVERAGE` and the number of channels, `SMOOTH` and 1, `REGRID` and the new width in old channels (0 where it is not known)."""

WIDTHS_DIFFER = 1e-6
"""Relative: channels of a correlator are equally wide to rounding."""

PIPELINE_ORDER = 1
"""Polynomial order of the continuum that ALMA's pipeline fits where it keeps the fit as a calibration table."""


@dataclass(frozen=True)
class Processing:
    """What was done to the channels of a set, in order. Without arguments: nothing is known.

    Attributes
    ----------
    operations
        On the channels, in order.
    interpolation
        Of the last regridding; empty where it is not known or there was none.
    continuum_order
        Highest order n of a polynomial that was fitted to each visibility's channels and subtracted; None where none is known.
    steps
        The same in words.

    Notes
    -----
    A likelihood that marginalises polynomials of order n or more along the channels needs no other account of a subtraction: whatever was
    fitted, over whichever channels, a polynomial of order n was subtracted, noise of the fit and all, and contrasts of the channels that
    are orthogonal to such polynomials are what they were, bit for bit but for rounding. Averaging leaves a polynomial one of its order,
    linear interpolation one of order 1. It is not exact in cells where the channels' weights or flags differ: a mean over unlike
    visibilities in each channel is no polynomial.
    """

    operations: tuple[Operation, ...] = ()
    interpolation: str = ""
    continuum_order: int | None = None
    steps: tuple[str, ...] = ()

    @property
    def averaged(self) -> int:
        """Channels averaged into one, after the correlator."""
        return int(np.prod([amount for kind, amount in self.operations if kind == AVERAGE], dtype=int))

    @property
    def smoothed(self) -> int:
        """How often the channels were Hanning-smoothed, after the correlator."""
        return sum(amount for kind, amount in self.operations if kind == SMOOTH)

    @property
    def regridded(self) -> bool:
        """Whether the channels were interpolated onto new ones, or look so."""
        return any(kind == REGRID for kind, _ in self.operations)

    @property
    def new_width(self) -> int:
        """Width of the regridded channels in old ones; 0 where it is not known."""
        widths = [amount for kind, amount in self.operations if kind == REGRID]
        return int(np.prod(widths, dtype=int)) if widths else 1

    def then(self, other: Processing) -> Processing:
        """Both, one after the other."""
        orders = [one.continuum_order for one in (self, other) if one.continuum_order is not None]
        return Processing(self.operations + other.operations, other.interpolation or self.interpolation, max(orders, default=None),
                          self.steps + other.steps)


def read_processing(path: str | Path, window: SpectralWindow) -> Processing:
    """Read what was done to a window of a measurement set.

    HISTORY is written by casatasks: ``taskname=...`` and one row a parameter; what is not written has the task's default. It is not
    complete: casatasks 6.7 write no history of ``mstransform`` where ``chanaverage`` or ``spw`` was given (measured), so channels in
    another frame than TOPO, or of unequal widths, count as regridded even where the history is silent, and averaging is also looked for in
    RESOLUTION (`detect_response`). Sets that were concatenated bring their histories along; only the first one's is followed.

    Parameters
    ----------
    path
        Folder of the set. A UVFITS file, which has no HISTORY table, is told by its channels alone.
    window
        The spectral window.

    Raises
    ------
    DataError
        If HISTORY is there and cannot be read.
    """
    known = processing_of_calls(_calls(_history_rows(Path(path))), window.number)
    return known if known.regridded else known.then(_signs(window))


@dataclass
class Call:
    """One call of a casatask: its name and the arguments that were written."""

    task: str
    arguments: dict[str, Any] = field(default_factory=dict)

    def get(self, name: str, default: Any) -> Any:
        """An argument, or its default where none was written."""
        value = self.arguments.get(name, default)
        return default if value is None else value

    @property
    def output(self) -> str:
        """Name of the set that it wrote or changed."""
        written = self.get("outputvis", "") or self.get("concatvis", "")
        beside = ".contsub" if self.task.startswith("uvcontsub") and not written else ""
        return _name(written or self.get("vis", "")) + beside

    @property
    def inputs(self) -> list[str]:
        """Names of the sets that it read."""
        value = self.get("vislist", self.get("vis", ""))
        return [_name(one) for one in (value if isinstance(value, list | tuple) else [value])]


def _name(path: Any) -> str:
    return str(path).rstrip("/").rpartition("/")[2]


def processing_of_calls(calls: Iterable[Call], window: int = 0) -> Processing:
    """What a sequence of calls did to the channels of a window."""
    done = Processing()
    for call in _line_of_descent(list(calls)):
        effect = _EFFECTS.get(call.task)
        if effect is not None:
            done = done.then(effect(call, window))
    return done


def _history_rows(path: Path) -> list[tuple[str, str, str]]:
    """Origin, message and command line of each row of HISTORY; none where the table is missing or empty."""
    if not (path / "HISTORY" / "table.dat").is_file():
        return []
    table = import_casatools().table()
    with casacore_errors(path):
        table.open(str(path / "HISTORY"), lockoptions={"option": "usernoread"}, nomodify=True)
        try:
            if table.nrows() == 0:
                return []
            origins, messages = ([str(text) for text in table.getcol(name)] for name in ("ORIGIN", "MESSAGE"))
            return [(origin.strip(), message, _command(table, row) if origin.startswith("ms::") else "")
                    for row, (origin, message) in enumerate(zip(origins, messages))]
        finally:
            table.close()


def _command(table: Any, row: int) -> str:
    return "\n".join(str(line) for line in np.ravel(table.getcell("CLI_COMMAND", row))) if table.iscelldefined("CLI_COMMAND", row) else ""


def _calls(rows: Iterable[tuple[str, str, str]]) -> list[Call]:
    """Calls of tasks, and of the tool ``ms`` where no task stands behind it."""
    calls: list[Call] = []
    current: Call | None = None
    for origin, message, command in rows:
        named = re.match(r"\s*taskname\s*=\s*(\w+)", message)
        written = re.match(r"(\w+)\s*=\s?(.*)", message, re.DOTALL)
        if named:
            current = Call(named[1])
            calls.append(current)
        elif origin.startswith("ms::"):
            calls.append(_tool_call(origin, message, command))
        elif current is not None and written and origin == current.task:
            current.arguments[written[1]] = _value(written[2])
    return [call for place, call in enumerate(calls) if not _is_part_of_a_task(calls, place)]


def _tool_call(origin: str, message: str, command: str) -> Call:
    names = re.match(r"(\S+) split from (\S+)", message)
    step = re.search(r"step=(\[[^\]]*\])", command)
    method = re.search(r"Interpolation Method = (\w+)", command)
    found = {"outputvis": names[1] if names else None, "vis": names[2] if names else None, "width": _value(step[1]) if step else None,
             "interpolation": method[1] if method else None}
    return Call(origin.removesuffix("()"), {name: value for name, value in found.items() if value is not None})


def _is_part_of_a_task(calls: list[Call], place: int) -> bool:
    """Whether a tool's row only repeats what the task beside it says."""
    tasks = _TOOLS.get(calls[place].task, ())
    return any(call.task in tasks for call in calls[max(place - 1, 0):place + 2])


def _value(text: str) -> Any:
    try:
        return ast.literal_eval(text.strip())
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return text.strip().strip("\"'")


def _line_of_descent(calls: list[Call]) -> list[Call]:
    """The calls that led to the last set: what was done to sets that were only concatenated with it is left out.

    A set of an unknown name is the one before it under another name, but before a concatenation it is another set.
    """
    joined = max((place for place, call in enumerate(calls) if call.task in _JOINING), default=-1)
    made: dict[str, list[Call]] = {}
    latest: list[Call] = []
    for place, call in enumerate(calls):
        known = next((name for name in call.inputs if name in made), None)
        before = made[known] if known is not None else [] if place < joined or call.task.startswith("import") else latest
        for name in call.inputs:
            made.setdefault(name, before)
        latest = [*before, call]
        made[call.output] = latest
    return latest


def _whole_numbers(value: Any, window: int) -> int:
    """A number of channels, which may be given for each window."""
    numbers = [int(text) for text in re.findall(r"\d+", re.sub(r"\w+\(([\d.]+)\)", r"\1", str(value)))] or [1]
    return numbers[window] if window < len(numbers) else numbers[0]


def _average(call: Call, window: int) -> Processing:
    count = _whole_numbers(call.get("chanbin" if call.task == "mstransform" else "width", 1), window)
    if count <= 1:
        return Processing()
    return Processing(((AVERAGE, count),), steps=(f"averaged over {count} channels ({call.task})",))


def _smooth(call: Call, window: int) -> Processing:
    return Processing(((SMOOTH, 1),), steps=(f"Hanning-smoothed ({call.task})",))


def _regrid(call: Call, window: int) -> Processing:
    mode, interpolation = str(call.get("mode", "channel")), str(call.get("interpolation", "linear"))
    told = re.fullmatch(r"-?(\d+)", str(call.get("width", 1)))
    count = int(told[1]) if told and mode.startswith("channel") and call.task != "ms::cvel" else 0
    frame = str(call.get("outframe", "")) or "the same frame"
    widths = {0: "", 1: ", as wide as before"}.get(count, f", {count} old ones wide")
    words = f"regridded to channels in {frame}{widths}, by {interpolation} interpolation ({call.task})"
    operations: tuple[Operation, ...] = ((REGRID, count),)
    if call.get("preaverage", False) is True and count > 1:
        operations = ((AVERAGE, count), (REGRID, 1))
    return Processing(operations, interpolation=interpolation, steps=(words,))


def _subtract(call: Call, window: int) -> Processing:
    """Any order of the fit: that of the call, or one in a ``fitspec`` for each field and window."""
    orders = [int(text) for text in re.findall(r"fitorder['\"]?\s*:\s*(\d+)", str(call.get("fitspec", "")))]
    order = max(_whole_numbers(call.get("fitorder", 0), 0), *orders, 0)
    return Processing(continuum_order=order, steps=(f"continuum subtracted, polynomial of order {order} ({call.task})",))


def _cvel(call: Call, window: int) -> Processing:
    smoothed = _smooth(call, window) if call.get("hanning", False) is True else Processing()
    return smoothed.then(_regrid(call, window))


def _mstransform(call: Call, window: int) -> Processing:
    """In the order in which mstransform works (measured): continuum, average, Hanning, regrid.

    With ``douvcontsub`` alone version 6.7 subtracts nothing (measured); to marginalise more than was subtracted does no harm.
    """
    done = Processing()
    for switch, effect in (("douvcontsub", _subtract), ("chanaverage", _average), ("hanning", _smooth), ("regridms", _regrid)):
        if call.get(switch, False) is True:
            done = done.then(effect(call, window))
    return done


def _apply(call: Call, window: int) -> Processing:
    """ALMA's pipeline applies the fitted continuum like a calibration, from a table that is named for it."""
    if "uvcont" not in str(call.get("gaintable", "")):
        return Processing()
    words = f"continuum subtracted as a calibration, order not given, {PIPELINE_ORDER} assumed ({call.task})"
    return Processing(continuum_order=PIPELINE_ORDER, steps=(words,))


_EFFECTS: dict[str, Callable[[Call, int], Processing]] = {
    "mstransform": _mstransform, "split": _average, "ms::split": _average, "split2": _average, "hanningsmooth": _smooth,
    "hanningsmooth2": _smooth, "cvel": _cvel, "cvel2": _cvel, "ms::cvel": _cvel, "uvcontsub": _subtract,
    "uvcontsub_old": _subtract, "uvcontsub2": _subtract, "uvcontsub3": _subtract, "applycal": _apply}
_TOOLS = {"ms::split": ("split", "uvcontsub", "uvcontsub_old", "uvcontsub2", "uvcontsub3", "cvel"), "ms::cvel": ("cvel",)}
_JOINING = ("concat", "virtualconcat")


def _signs(window: SpectralWindow) -> Processing:
    """What the channels themselves tell: only a correlator's are in TOPO and equally wide."""
    words = []
    if window.frame != "TOPO":
        words.append(f"frequencies are {window.frame}, not TOPO, and the history does not say why: regridded, or Doppler-tracked")
    spacing = np.abs(np.diff(window.frequency))
    if spacing.size and np.ptp(spacing) > WIDTHS_DIFFER * spacing.max():
        words.append("channels are not equally spaced, and the history does not say why: regridded")
    return Processing(((REGRID, 0),), steps=tuple(words)) if words else Processing()
