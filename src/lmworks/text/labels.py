"""Labels of rows as text: numbers, texts and booleans that mean the same label get one name, and it is said.

Knows no file and no token.
"""

from __future__ import annotations

import json
import math
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence

SHOWN = 3
"""Labels shown in a note about several."""
LEAST_ROWS, UNIQUE_SHARE = 50, 0.9
"""From so many rows on, and from so many different labels per row on, labels are no classes."""
MOST_NUMBERS = 20
"""Of more numbers than these, of which some have a fraction, labels are no classes."""
FEWEST_ROWS = 5
"""Of a label; of a label with fewer, little is learned, and hardly any row is held out."""


class LabelNames:
    """Gives each label value its name and remembers in which ways each name was written.

    JSON's ``0``, ``0.0`` and ``"0"`` are one label, ``0``: a number that is whole is written without a fraction as soon
    as the same label stands somewhere without one. Texts are never changed but for white space at their ends.

    Args:
        names: names of labels from the settings, by the label as it is written.
    """

    def __init__(self, names: dict[str, str]) -> None:
        self.names = names
        self.forms: dict[str, Counter[str]] = {}
        self.used: set[str] = set()  # of the names from the settings: the labels that occurred
        self.numbers: set[str] = set()  # names that came from numbers with a fraction of zero, such as 0.0

    def name(self, value: object) -> str | None:
        """The label's name; None where the value is no label (null, NaN, empty, a list or an object)."""
        if value is None or isinstance(value, (list, dict)) or (isinstance(value, float) and math.isnan(value)):
            return None
        written = str(value).strip()
        if not written:
            return None
        whole = _whole(value)
        key = next((form for form in (written, whole) if form is not None and self.names.get(form)), None)
        name = None if key is None else self.names[key]
        if key is not None:
            self.used.add(key)
        if name is None:
            name = written
            if whole is not None and whole != written:
                self.numbers.add(written)
        form = json.dumps(value, ensure_ascii=False) if isinstance(value, (str, int, float)) else str(value)
        self.forms.setdefault(name, Counter())[form] += 1
        return name

    def unused(self) -> list[str]:
        """Labels that the settings name and that no row has."""
        return [label for label in self.names if label not in self.used]

    def merged(self) -> dict[str, str]:
        """Names to be replaced -> what replaces them: the number ``0.0`` by ``0``, where that occurs too."""
        pairs = {name: str(int(float(name))) for name in self.numbers}
        return {name: whole for name, whole in pairs.items() if whole in self.forms}

    def notes(self) -> list[str]:
        """What a person should know: labels written in several ways, and different labels that look alike."""
        merged = self.merged()
        forms = {name: Counter(counts) for name, counts in self.forms.items() if name not in merged}
        for name, whole in merged.items():
            forms[whole].update(self.forms[name])
        several = [f"{name!r} ({_counted(counts)})" for name, counts in sorted(forms.items()) if len(counts) > 1]
        notes = [f"labels written in several ways are one label: {_listed(several)}"] if several else []
        alike: dict[str, list[str]] = {}
        for name in sorted(forms):
            alike.setdefault(_rough(name), []).append(name)
        groups = [" and ".join(_distinct(names)) for names in alike.values() if len(names) > 1]
        if groups:
            hint = "if they mean the same, give them one name with --data.label_names"
            notes.append(f"labels that look alike but are different: {_listed(groups)}; {hint}")
        return notes


def are_nearly_unique(labels: int, rows: int) -> bool:
    """Whether nearly every row has a label of its own, in enough rows to know: such labels are no classes."""
    return rows >= LEAST_ROWS and labels >= UNIQUE_SHARE * rows


def are_continuous(labels: Sequence[str]) -> bool:
    """Whether labels are numbers on a scale rather than classes: more than a few, some of them with a fraction."""
    try:
        numbers = [float(label) for label in labels]
    except ValueError:
        return False
    return len(numbers) > MOST_NUMBERS and not all(number.is_integer() for number in numbers)


def _whole(value: object) -> str | None:
    """A number that is whole, without a fraction: 2.0 -> "2". None for everything else."""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return None


def _rough(name: str) -> str:
    """Equal for labels that differ in case, in white space, in how a number or an accent is written (Unicode's
    compatibility forms), or in signs that are not seen, such as a zero-width space."""
    try:
        return repr(float(name)) if len(name) < 16 else name
    except ValueError:
        seen = "".join(sign for sign in unicodedata.normalize("NFKC", name) if unicodedata.category(sign) != "Cf")
        return " ".join(seen.casefold().split())


def _distinct(names: Sequence[str]) -> list[str]:
    """Labels in quotes; with escapes where they would be printed alike."""
    printed = {unicodedata.normalize("NFC", name) for name in names}
    return [repr(name) if len(printed) == len(names) else ascii(name) for name in names]


def _counted(forms: Counter[str]) -> str:
    return ", ".join(f"{form} {count} times" for form, count in forms.most_common())


def _listed(parts: Iterable[str]) -> str:
    parts = list(parts)
    more = len(parts) - SHOWN
    return ", ".join(parts[:SHOWN]) + (f" and {more} more" if more > 0 else "")


def rare_labels(counts: Counter[str], labels: Iterable[str]) -> list[str]:
    """Labels of some rows, but of fewer than FEWEST_ROWS, each with their number: ``spam (3)``."""
    return [f"{label} ({counts[label]})" for label in labels if 0 < counts[label] < FEWEST_ROWS]
