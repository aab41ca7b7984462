"""Run casatasks calls one after the other; a script of its own, started by ``calibrate`` so that casatasks never enters our process.

Standard input is a JSON list of ``{"task": name, "arguments": {...}}``; a line that begins with ``MARK`` tells what happens.
"""

from __future__ import annotations

import importlib
import json
import sys

MARK = "@supermage"
LOG = "casatasks.log"


def _say(text: str) -> None:
    sys.stdout.write(f"{MARK} {text}\n")
    sys.stdout.flush()


def main() -> int:
    """Run the calls. The exit status is 0 only if all of them ran."""
    steps = json.load(sys.stdin)
    del sys.argv[1:]  # casaconfig parses the command line
    casatasks = importlib.import_module("casatasks")
    casatasks.casalog.setlogfile(LOG)
    for number, step in enumerate(steps, start=1):
        _say(f"start {number} {step['task']}({', '.join(f'{k}={v!r}' for k, v in step['arguments'].items())})")
        try:
            result = getattr(casatasks, step["task"])(**step["arguments"])
        except Exception as error:  # noqa: BLE001 - whatever a task raises is told to the parent
            _say(f"failed {' '.join(str(error).split()) or type(error).__name__}")
            return 1
        if result is False:
            _say("failed the task returned False")
            return 1
        _say(f"done {number}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
