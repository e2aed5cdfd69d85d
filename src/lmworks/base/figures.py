"""Numbers as a person reads them: units that fit, three digits that count, signs that are signs; long lists cut short.

Terminal, page and commands write their numbers through it, so that the same number looks the same everywhere.
``None`` is a number that was not measured.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

UNKNOWN = "–"
NATS_PER_BIT = math.log(2)
LISTED, LONGEST = 10, 40
"""Names of a list that are printed, and characters of each."""
_SECONDS = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0}
_DURATION = r"\s*(\d+(?:\.\d+)?)\s*(s(?:ec(?:ond)?s?)?|m(?:in(?:ute)?s?)?|h(?:(?:ou)?rs?)?|)\s*"
DURATION_FORMS = "90s, 20m or 1h"
"""For hints: how a person may write a duration."""
_DECIMAL = ("", "k", "M", "G", "T", "P", "E", "Z")


def number(value: float | None, digits: int = 3) -> str:
    """So many significant digits, written out: 1234.5 -> ``1,230``; 0.01234 -> ``0.0123``."""
    if value is None or math.isnan(value):
        return UNKNOWN
    if value == 0 or math.isinf(value):
        return "0" if value == 0 else "∞"
    places = digits - 1 - math.floor(math.log10(abs(value)))
    if places > 9 or places < -12:
        return f"{value:.{digits - 1}e}"
    rounded = round(value, places)
    return f"{rounded:,.{max(places, 0)}f}"


def signed(value: float | None, digits: int = 3) -> str:
    """The same with its sign, for changes: ``+0.12``, ``−0.12``."""
    if value is None or math.isnan(value):
        return UNKNOWN
    text = number(abs(value), digits)
    return f"±{text}" if value == 0 else f"{'+' if value > 0 else '−'}{text}"


def interval(low: float, high: float, sign: bool = False) -> str:
    """Both ends to the two digits that their distance leaves meaning: ``13.1 … 16.8``, ``−0.88 … −0.84``.

    An end that these digits would show as zero without being it gets its first digit: ``+0.002 … +0.50``.
    """
    if low == high == 0:
        return "0 … 0"
    places = min(max(0, 1 - math.floor(math.log10(high - low))), 9) if high > low else 3
    ends = [number(abs(end), 1) if end and not round(end, places) else f"{abs(end):,.{places}f}" for end in (low, high)]
    signs = [("−" if end < 0 else "+" if sign else "") for end in (low, high)]
    return f"{signs[0]}{ends[0]} … {signs[1]}{ends[1]}"


def count(value: float | None) -> str:
    """A whole number in full below a million, else scaled: ``134.5 M``."""
    if value is None:
        return UNKNOWN
    return f"{int(value):,}" if abs(value) < 1e6 else scaled(value)


def count_of(number: int, noun: str) -> str:
    """A number in full with what is counted: ``1 row``, ``1,200 rows``."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def scaled(value: float | None, unit: str = "", digits: int = 4) -> str:
    """With a decimal prefix: 1.345e8 -> ``134.5 M``; with a unit, ``134.5 Mtok``."""
    if value is None:
        return UNKNOWN
    power = 0
    while abs(value) >= 999.95 and power < len(_DECIMAL) - 1:
        value, power = value / 1000, power + 1
    return f"{number(value, digits)} {_DECIMAL[power]}{unit}".rstrip()


def byte_size(value: float | None) -> str:
    """Bytes with decimal units: ``98.1 MB``."""
    return UNKNOWN if value is None else scaled(value, "B", 3)


def parse_byte_size(text: str) -> int:
    """Bytes of a size as a person writes it: ``2GB``, ``1500 MB``, ``1.5GiB``.

    Raises:
        ValueError: it is no size.
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([kmgt])?(i)?b?\s*", text, re.IGNORECASE)
    size = 0
    if match and (match[2] or not match[3]):
        power = " kmgt".index((match[2] or " ").lower())
        size = int(float(match[1]) * (1024 if match[3] else 1000) ** power)
    if size < 1:
        raise ValueError(f"{text!r} is no size of memory: write for example 2GB, 1500MB or 1.5GiB")
    return size


def duration(seconds: float | None) -> str:
    """``8.2 s``, ``3 min 05 s``, ``2 h 04 min``."""
    if seconds is None:
        return UNKNOWN
    if seconds < 100:
        return f"{number(seconds, 2 if seconds < 10 else 3)} s"
    if seconds < 3600:
        minutes, rest = divmod(round(seconds), 60)
        return f"{minutes} min {rest:02d} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes:02d} min"


def parse_duration(text: str) -> float:
    """Seconds of a duration as a person writes it: ``90s``, ``10m``, ``1.5 h``, ``2 minutes``; a number alone: seconds.

    Raises:
        ValueError: it is no duration, or zero.
    """
    match = re.fullmatch(_DURATION, text, re.IGNORECASE)
    if match is None or not float(match[1]):
        raise ValueError(f"{text!r} is no duration: write for example {DURATION_FORMS}")
    return float(match[1]) * _SECONDS[match[2][:1].lower()]


def percent(share: float | None, digits: int = 3) -> str:
    """A fraction as percent: 0.0123 -> ``1.23 %``."""
    return UNKNOWN if share is None else f"{number(100 * share, digits)} %"


def energy(joules: float | None) -> str:
    """Joules, and watt-hours from ten of them on."""
    if joules is None:
        return UNKNOWN
    return f"{number(joules / 3600)} Wh" if joules >= 36_000 else f"{scaled(joules, 'J', 3)}"


def list_names(names: Sequence[str], most: int = LISTED) -> str:
    """The first names, each cut where it is long, and how many more there are: ``a, b, c … and 40 more``."""
    more = f" … and {len(names) - most:,} more" if len(names) > most else ""
    return ", ".join(map(shorten, names[:most])) + more


def shorten(text: str, most: int = LONGEST) -> str:
    """A name or a text in one line of at most ``most`` characters; what is cut off is an ellipsis."""
    line = " ".join(text.split())
    return line if len(line) <= most else f"{line[: most - 1]}…"
