"""What a person can correct.

Every error that bad input causes is an InputError: it says where, what, and how to correct it. The command
line prints it without a traceback and exits with code 2. Knows nothing of who raises it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any


class InputError(Exception):
    """Something the person gave cannot be used.

    Args:
        fault: what is wrong, as one sentence.
        place: where: a file, ``file:line``, a field, a command-line option. Empty when there is no place.
        hint: what to do about it, as one sentence. Empty only where nothing can be advised.
    """

    def __init__(self, fault: str, place: str = "", hint: str = "") -> None:
        super().__init__(fault, place, hint)
        self.fault, self.place, self.hint = fault, place, hint

    def __str__(self) -> str:
        text = f"{self.place}: {self.fault}" if self.place else self.fault
        return f"{text}\n  hint: {self.hint}" if self.hint else text


def check_type(value: object, types: type | tuple[type, ...], place: str, hint: str) -> None:
    """Refuse an argument of another type.

    Raises:
        InputError: it is of another type.
    """
    if not isinstance(value, types):
        raise InputError(f"a {type(value).__name__} cannot be used here", place, hint)


def as_list(value: Any, types: type | tuple[type, ...], place: str, hint: str) -> list[Any]:
    """The entries of a list or of anything else that can be read once, each of these types.

    Raises:
        InputError: it is one text, a mapping or no list, or an entry is of another type.
    """
    if isinstance(value, (str, bytes, Mapping)) or not isinstance(value, Iterable):
        raise InputError(f"a {type(value).__name__} cannot be used here", place, hint)
    entries = list(value)
    for number, entry in enumerate(entries, 1):
        check_type(entry, types, f"{place}, entry {number}", hint)
    return entries
