"""Memory of this process: what there is, what it holds and has held, and when freed blocks go back to the system."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import sys
from pathlib import Path

from lmworks.base.control_groups import control_groups


def memory() -> tuple[int, int]:
    """Bytes of memory that this process may use in all, and that are free for it now; control groups counted."""
    import psutil

    whole = psutil.virtual_memory()
    total, free = whole.total, whole.available
    for group in control_groups("memory"):
        for limit, used in (("memory.max", "memory.current"), ("memory.limit_in_bytes", "memory.usage_in_bytes")):
            try:
                most = int((group / limit).read_text())
                free = min(free, max(0, most - int((group / used).read_text())))
                total = min(total, most)
            except (OSError, ValueError):
                continue
    return total, free


def peak_memory() -> int:
    """The most bytes of memory that this process has held since it began."""
    try:
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    try:
        import resource
    except ImportError:  # Windows
        import psutil

        return int(getattr(psutil.Process().memory_info(), "peak_wset", 0))
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024


def resident_memory() -> int:
    """Bytes of memory that this process holds now."""
    import psutil

    return int(psutil.Process().memory_info().rss)


def release_memory() -> None:
    """Gives freed memory back to the system, where the C library can; after :func:`keep_memory` it is kept else."""
    gc.collect()
    with contextlib.suppress(OSError, AttributeError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)


def trim_memory(limit: int) -> bool:
    """Gives freed pages back to the system where the process holds more than so many bytes; whether it did.

    Blocks of many sizes leave free pages between them, which :func:`keep_memory` keeps for the next step: a fifth of
    the heap and more. Faulting them in again takes a few hundredths of a second.
    """
    if resident_memory() <= limit:
        return False
    with contextlib.suppress(OSError, AttributeError, TypeError):
        return bool(ctypes.CDLL(None).malloc_trim(0))
    return False


def keep_memory() -> bool:
    """Makes glibc keep big blocks that were freed for the next step, instead of giving them back and faulting them in.

    Returns:
        whether it held; it cannot where another C library is used.
    """
    try:
        library = ctypes.CDLL(None)
        library.gnu_get_libc_version()
        mallopt = library.mallopt
    except (OSError, AttributeError, TypeError):
        return False
    trim, pad, threshold = -1, -2, -3  # M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD of malloc.h
    held = [mallopt(threshold, 1 << 30), mallopt(trim, (1 << 31) - 1), mallopt(pad, 64 << 20)]
    return all(held)
