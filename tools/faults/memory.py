"""How much memory something takes at its peak."""

from __future__ import annotations

import re
import resource
import sys
from contextlib import suppress
from pathlib import Path


class Peak:
    """The most memory that the process has taken since this was made, in bytes, beside what it had then."""

    def __init__(self) -> None:
        with suppress(OSError):  # else the peak counts from the start, and from the process that started this one
            Path("/proc/self/clear_refs").write_text("5")
        self.before = _peak()

    def grown(self) -> int:
        return _peak() - self.before


def _peak() -> int:
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return int(re.findall(r"VmHWM:\s*(\d+) kB", status)[0]) * 1024
