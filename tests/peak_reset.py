"""Resets the peak of this process's memory, which only tests need."""

from __future__ import annotations

from pathlib import Path


def reset_peak_memory() -> bool:
    """Let ``process_memory.peak_memory`` start again from the current memory; returns whether the system permits it."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    return True
