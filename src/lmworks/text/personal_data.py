"""Personal data in texts, by pattern: e-mail addresses, phone numbers, IBANs, cards, IP addresses, dates of birth.

A pattern knows only forms. What has a check is checked: IBANs by their remainder and their country's length (ISO
13616), cards by Luhn's sum (ISO/IEC 7812), addresses of networks by the library. Names, places and all that has no
form of its own are not found; a number of a form may mean something else.
"""

from __future__ import annotations

import ipaddress
import re
from collections import Counter
from collections.abc import Callable, Iterator
from typing import NamedTuple

FEWEST_DIGITS, MOST_DIGITS = 8, 15
"""Digits of a phone number: with its country at most 15 (ITU-T E.164)."""
IBAN_LENGTHS = {
    "AD": 24, "AE": 23, "AL": 28, "AT": 20, "AZ": 28, "BA": 20, "BE": 16, "BG": 22, "BH": 22, "BR": 29, "CH": 21,
    "CR": 22, "CY": 28, "CZ": 24, "DE": 22, "DK": 18, "DO": 28, "EE": 20, "EG": 29, "ES": 24, "FI": 18, "FO": 18,
    "FR": 27, "GB": 22, "GE": 22, "GI": 23, "GL": 18, "GR": 27, "GT": 28, "HR": 21, "HU": 28, "IE": 22, "IL": 23,
    "IQ": 23, "IS": 26, "IT": 27, "JO": 30, "KW": 30, "KZ": 20, "LB": 28, "LI": 21, "LT": 20, "LU": 20, "LV": 21,
    "MC": 27, "MD": 24, "ME": 22, "MK": 19, "MR": 27, "MT": 31, "MU": 30, "NL": 18, "NO": 15, "PK": 24, "PL": 28,
    "PS": 29, "PT": 25, "QA": 29, "RO": 24, "RS": 22, "SA": 24, "SE": 24, "SI": 19, "SK": 24, "SM": 27, "TN": 24,
    "TR": 26, "UA": 29, "VG": 24, "XK": 20,
}  # fmt: skip
"""Characters of an IBAN by its country."""
_MONTH = r"(?:jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)[a-z]*\.?"
_DATE = (
    r"(?:\d{4}-\d\d-\d\d|\d{1,2}[./-]\d{1,2}[./-]\d{2,4}"
    rf"|\d{{1,2}}\.? {_MONTH},? \d{{4}}|{_MONTH} \d{{1,2}},? \d{{4}})"
)
_BORN = r"\b(?:born|birth|birthday|birthdate|dob|geboren|geburtsdatum|née?|nacid[oa])\b"


class Detected(NamedTuple):
    """Something in a text that has the form of personal data.

    Attributes:
        kind: one of KINDS.
        begin, end: characters of the text.
        text: these characters.
    """

    kind: str
    begin: int
    end: int
    text: str


class _Pattern(NamedTuple):
    """A form: its expression, whose group ``it`` is what is meant, and the check of that."""

    kind: str
    form: re.Pattern[str]
    is_one: Callable[[str], bool] = lambda text: True


def is_iban(text: str) -> bool:
    """Whether a text is an IBAN: its country's length, and 1 as the remainder by 97 (ISO 7064)."""
    compact = re.sub(r"\s", "", text).upper()
    if IBAN_LENGTHS.get(compact[:2]) != len(compact) or not compact.isalnum() or not compact.isascii():
        return False
    return int("".join(str(int(sign, 36)) for sign in compact[4:] + compact[:4])) % 97 == 1


def is_card(text: str) -> bool:
    """Whether digits are the number of a payment card: 13 to 19 of them, not all alike, Luhn's sum divisible by 10."""
    digits = [int(sign) for sign in text if sign.isdigit()]
    if not 13 <= len(digits) <= 19 or len(set(digits)) == 1:
        return False
    doubled = [digit if place % 2 == 0 else 2 * digit - 9 * (digit > 4) for place, digit in enumerate(digits[::-1])]
    return sum(doubled) % 10 == 0


def is_address(text: str) -> bool:
    """Whether a text is an address of the internet protocol, but none of this machine or of no machine."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return False
    return not (address.is_loopback or address.is_unspecified)


def _is_phone(text: str) -> bool:
    digits = sum(sign.isdigit() for sign in text)
    return FEWEST_DIGITS <= digits <= MOST_DIGITS and not re.fullmatch(r"\d{4}-\d\d-\d\d", text)


_IPV6 = r"(?<![\w.:])(?P<it>(?:[0-9A-Fa-f]{1,4}:|:){2,7}(?:[0-9A-Fa-f]{1,4}|:))(?![\w:])"
_PHONES = (
    r"(?<![\w.,+-])(?P<it>(?:\+|00)[1-9]\d{0,2}[ ./-]?"
    r"(?:\(0?\d{1,4}\)[ ./-]?)?\d(?:[ ./-]?\d){5,11})(?![\w])",  # with the country
    r"(?<![\w.,+-])(?P<it>\(?[2-9]\d\d\)?[ .-]{1,2}\d{3}[ .-]\d{4})(?![\w.-]\d|\w)",  # of North America
    r"(?<![\w.,+-])(?P<it>\(?0[1-9]\d{1,3}\)?(?: ?[/-] ?| )\d(?:[ /-]?\d){4,9})(?!\w)",  # with an area
)
_PATTERNS = (
    _Pattern("email", re.compile(r"(?<![\w.+-])(?P<it>[\w.+%-]+@[\w-]+(?:\.[\w-]+)*\.[A-Za-z]{2,})(?![\w@])")),
    _Pattern("iban", re.compile(r"(?<!\w)(?P<it>[A-Z]{2}\d\d(?: ?[A-Z0-9]){11,27})(?!\w)"), is_iban),
    _Pattern("card", re.compile(r"(?<![\w.-])(?P<it>[2-6]\d(?:[ -]?\d){11,17})(?![\w-])"), is_card),
    _Pattern("us_ssn", re.compile(r"(?<![\w-])(?P<it>(?!000|666|9)\d{3}-(?!00)\d\d-(?!0000)\d{4})(?![\w-])")),
    _Pattern("ip_address", re.compile(r"(?<![\w.:])(?P<it>\d{1,3}(?:\.\d{1,3}){3})(?![\w]|\.\d)"), is_address),
    _Pattern("ip_address", re.compile(_IPV6), is_address),
    _Pattern("date_of_birth", re.compile(rf"{_BORN}[^.\n]{{0,40}}?(?P<it>(?<!\d){_DATE})(?!\d)", re.IGNORECASE)),
    *(_Pattern("phone", re.compile(form), _is_phone) for form in _PHONES),
)  # fmt: skip
KINDS = {
    "email": "e-mail addresses",
    "phone": "phone numbers",
    "iban": "IBANs (checked)",
    "card": "payment cards (checked)",
    "ip_address": "IP addresses",
    "date_of_birth": "dates of birth",
    "us_ssn": "US social security numbers",
}
"""What is found, by kind."""


def detect(text: str) -> list[Detected]:
    """What has the form of personal data, in the order of the text; of two that overlap the more certain kind."""
    found: list[Detected] = []
    for pattern in _PATTERNS:
        for one in _matches(pattern, text):
            if not any(one.begin < other.end and other.begin < one.end for other in found):
                found.append(one)
    return sorted(found, key=lambda one: one.begin)


def _matches(pattern: _Pattern, text: str) -> Iterator[Detected]:
    """The places of a form; what fails the check with words behind it may pass without them."""
    place = 0
    while (match := pattern.form.search(text, place)) is not None:
        begin, end = match.span("it")
        while end > begin and not pattern.is_one(text[begin:end]):
            shorter = text.rfind(" ", begin, end)
            end = shorter if shorter > begin else begin
        if end > begin:
            yield Detected(pattern.kind, begin, end, text[begin:end])
        place = max(end, match.start() + 1)


def mask(text: str) -> tuple[str, Counter[str]]:
    """A text with ``[EMAIL]``, ``[PHONE]`` ... in place of what :func:`detect` finds, and how often each kind was."""
    found = detect(text)
    parts, place = [], 0
    for one in found:
        parts += [text[place : one.begin], f"[{one.kind.upper()}]"]
        place = one.end
    return "".join([*parts, text[place:]]), Counter(one.kind for one in found)


def hint_at(text: str) -> str:
    """What was found, for a report: its first and last two signs alone."""
    return f"{text[:2]}…{text[-2:]}" if len(text) > 6 else "…"
