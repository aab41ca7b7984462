"""Wall time and peak memory of a command with all its processes, as JSON; memory is the sum of their proportional set sizes (Linux).

python benchmarks/command.py make demo
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path


def family(process: int) -> list[int]:
    """A process and all that it started."""
    out = [process]
    try:
        for task in Path(f"/proc/{process}/task").iterdir():
            for child in (task / "children").read_text().split():
                out += family(int(child))
    except OSError:
        pass  # ended meanwhile
    return out


def memory(process: int) -> int:
    """Proportional set size, KiB; shared pages count in parts."""
    try:
        lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("Pss:")), 0)


def main() -> int:
    """Run the command, print the figures, return its exit code."""
    if len(sys.argv) == 1 or sys.argv[1] in ("-h", "--help"):
        print(__doc__, file=sys.stderr if len(sys.argv) == 1 else sys.stdout)
        return int(len(sys.argv) == 1)
    began, peak = time.monotonic(), 0
    with subprocess.Popen(sys.argv[1:]) as process:
        while process.poll() is None:
            peak = max(peak, sum(memory(number) for number in family(process.pid)))
            time.sleep(1.0)
    figures = {"command": sys.argv[1:], "exit": process.returncode, "wall_s": round(time.monotonic() - began, 1), "peak_MiB": peak // 1024}
    print(json.dumps(figures))
    return process.returncode


if __name__ == "__main__":
    raise SystemExit(main())
