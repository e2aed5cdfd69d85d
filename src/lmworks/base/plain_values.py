"""Plain values as the core schema of YAML 1.2 reads them: null, booleans, integers, floats. Imports no library.

https://yaml.org/spec/1.2.2/, 10.3.2: ``2e-4`` is a number, ``no`` and ``on`` are words, and ``1:30`` is not ninety.
"""

from __future__ import annotations

import re
from typing import Any

PATTERNS = {
    "null": re.compile(r"^(?:~|null|Null|NULL|)$"),
    "bool": re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$"),
    "int": re.compile(r"^(?:[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+)$"),
    "float": re.compile(
        r"^(?:[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$"
    ),
}
"""Kind -> the texts of it; of several that match, the first counts."""


def kind_of(text: str) -> str | None:
    """The kind of a plain value; None of a word."""
    return next((kind for kind, pattern in PATTERNS.items() if pattern.match(text)), None)


def value_of(kind: str, text: str) -> Any:
    """The value of a text of a known kind.

    Raises:
        ValueError: a number of thousands of digits.
    """
    if kind == "null":
        return None
    if kind == "bool":
        return text.lower() == "true"
    if kind == "int":
        return int(text, 0) if text[:2] in ("0o", "0x") else int(text)
    word = text.lower().lstrip("+-")
    return float(text.replace(".", "", 1) if word in (".inf", ".nan") else text)
