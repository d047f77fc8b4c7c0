"""Which cores to pin measured processes to."""

from __future__ import annotations

import os
from pathlib import Path


def choose_cores(threads: int, topology: str = "/sys/devices/system/cpu") -> list[int]:
    """As many logical CPUs as `threads`, on different physical cores where there are enough; the last ones,
    as systems tend to serve interrupts on the first. Empty (do not pin) where that cannot be known or
    done."""
    if not hasattr(os, "sched_getaffinity"):
        return []
    available = sorted(os.sched_getaffinity(0))
    if len(available) < threads:
        return []
    core_of = {}
    for cpu in available:
        try:
            core_of[cpu] = (Path(topology) / f"cpu{cpu}/topology/thread_siblings_list").read_text()
        except OSError:
            core_of[cpu] = str(cpu)
    first_of_core = list({core: cpu for cpu, core in reversed(core_of.items())}.values())
    chosen = sorted(first_of_core)[-threads:]
    return chosen if len(chosen) == threads else available[-threads:]
