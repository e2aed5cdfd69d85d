"""Memory of this process: what there is, what it holds and has held, and when freed blocks go back to the system."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import mmap
import sys
from collections.abc import Iterable
from pathlib import Path

from lmworks.base.control_groups import control_groups

PAGE_OUT = 21
"""MADV_PAGEOUT of Linux 5.4 and later: reclaims pages; unlike MADV_DONTNEED it never loses what was written to them."""


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


def reset_peak_memory() -> bool:
    """Let :func:`peak_memory` begin again from the current memory; returns whether the system permits it (Linux)."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    return True


def resident_memory() -> int:
    """Bytes of memory that this process holds now."""
    import psutil

    return int(psutil.Process().memory_info().rss)


def release_memory() -> None:
    """Gives freed memory back to the system, where the C library can. It is needed after :func:`keep_memory`, which
    makes the C library keep freed memory."""
    gc.collect()
    with contextlib.suppress(OSError, AttributeError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)


def trim_memory(limit: int) -> None:
    """Gives freed pages back to the system if the process holds more than ``limit`` bytes.

    Blocks of many sizes leave free pages between them, which :func:`keep_memory` keeps for the next step: a fifth of
    the heap and more. Faulting them in again takes a few hundredths of a second.
    """
    if resident_memory() > limit:
        with contextlib.suppress(OSError, AttributeError, TypeError):
            ctypes.CDLL(None).malloc_trim(0)


def are_mapped(blocks: Iterable[tuple[int, int]]) -> bool:
    """Whether all these blocks, address and bytes of each, lie in mapped files (Linux; False elsewhere)."""
    files = _mapped_files()
    return all(any(begin <= address and address + size <= end for begin, end in files) for address, size in blocks)


def release_mapped(blocks: Iterable[tuple[int, int]]) -> int:
    """Lets the system take pages of mapped files out of memory; they are read again when they are used.

    Args:
        blocks: address and bytes of each. Those outside of mapped files stay as they are.

    Returns:
        bytes of the blocks that lie in mapped files; 0 where the system cannot take them.
    """
    return _advise_mapped(blocks, PAGE_OUT)


def drop_mapped(blocks: Iterable[tuple[int, int]]) -> int:
    """Takes pages of mapped files that were only read out of this process; they stay in the system's cache of files.

    Args:
        blocks: address and bytes of each. What was written to them is lost.

    Returns:
        bytes of the blocks that lie in mapped files; 0 where the system has no such call.
    """
    return _advise_mapped(blocks, getattr(mmap, "MADV_DONTNEED", None))


def _advise_mapped(blocks: Iterable[tuple[int, int]], advice: int | None) -> int:
    """Tells the system what is to become of the whole pages of blocks that lie in mapped files; returns their bytes."""
    released, page, files = 0, mmap.PAGESIZE, _mapped_files() if advice is not None else []
    for address, size in blocks:
        begin, end = -(-address // page) * page, (address + size) // page * page  # whole pages
        is_inside = any(first <= address and address + size <= last for first, last in files)
        if advice is not None and is_inside and begin < end and _madvise(begin, end - begin, advice):
            released += size
    return released


def _madvise(address: int, size: int, advice: int) -> bool:
    return int(ctypes.CDLL(None).madvise(ctypes.c_void_p(address), ctypes.c_size_t(size), advice)) == 0


def _mapped_files() -> list[tuple[int, int]]:
    """Addresses, begin and end, of mapped files."""
    try:
        lines = Path("/proc/self/maps").read_text().splitlines()
    except OSError:
        return []
    places = [line.split()[0].split("-") for line in lines if line.split()[4] != "0"]  # the inode
    return [(int(begin, 16), int(end, 16)) for begin, end in places]


def keep_memory() -> bool:
    """Makes glibc keep big blocks that were freed for the next step, instead of giving them back and faulting them in.

    Returns:
        whether it held; it cannot where another C library is used.
    """
    return _set_malloc(mmap_threshold=1 << 30, trim_threshold=(1 << 31) - 1, top_pad=64 << 20)


def stop_keeping_memory() -> None:
    """Undoes :func:`keep_memory`: the thresholds are the highest that glibc would reach by itself (mallopt(3))."""
    _set_malloc(mmap_threshold=32 << 20, trim_threshold=64 << 20, top_pad=128 << 10)


def _set_malloc(mmap_threshold: int, trim_threshold: int, top_pad: int) -> bool:
    """Bytes, as explained by mallopt(3); whether glibc took them."""
    try:
        library = ctypes.CDLL(None)
        library.gnu_get_libc_version()
        mallopt = library.mallopt
    except (OSError, AttributeError, TypeError):
        return False
    trim, pad, threshold = -1, -2, -3  # M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD of malloc.h
    return all([mallopt(threshold, mmap_threshold), mallopt(trim, trim_threshold), mallopt(pad, top_pad)])
