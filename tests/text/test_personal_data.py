"""What has the form of personal data is found, and what only looks like it is not."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmworks.text.cleaning import clean, steps_of
from lmworks.text.personal_data import detect, is_card, is_iban, mask

FOUND = [
    ("email", "Write to anna.berg+x@mail.example.co.uk, please", "anna.berg+x@mail.example.co.uk"),
    ("iban", "IBAN DE89 3704 0044 0532 0130 00 please", "DE89 3704 0044 0532 0130 00"),
    ("iban", "GB82WEST12345698765432.", "GB82WEST12345698765432"),
    ("iban", "to DE89 3704 0044 0532 0130 00 EUR 50", "DE89 3704 0044 0532 0130 00"),
    ("card", "card 4111 1111 1111 1111, ok", "4111 1111 1111 1111"),
    ("card", "5500-0000-0000-0004", "5500-0000-0000-0004"),
    ("ip_address", "from 203.0.113.7 at noon", "203.0.113.7"),
    ("ip_address", "from 2001:db8:85a3:0:0:8a2e:370:7334 at noon", "2001:db8:85a3:0:0:8a2e:370:7334"),
    ("phone", "call +49 170 1234567 now", "+49 170 1234567"),
    ("phone", "call +44 (0)20 7946 0958.", "+44 (0)20 7946 0958"),
    ("phone", "call (555) 123-4567 now", "(555) 123-4567"),
    ("phone", "Tel. 030 / 123456-78", "030 / 123456-78"),
    ("date_of_birth", "Anna, born on 12 March 1987 in Rome", "12 March 1987"),
    ("date_of_birth", "geboren am 03.04.1991", "03.04.1991"),
    ("us_ssn", "SSN 219-09-9999", "219-09-9999"),
]


@pytest.mark.parametrize(("kind", "text", "found"), FOUND)
def test_each_kind_is_found_at_its_place(kind, text, found):
    (one,) = detect(text)
    assert (one.kind, one.text) == (kind, found)
    assert text[one.begin : one.end] == found


@pytest.mark.parametrize(
    "text",
    [
        "GB82 WEST 1234 5698 7654 33",  # the check fails
        "GB82 WEST 1234",
        "4111 1111 1111 1112",  # Luhn's sum fails
        "0000 0000 0000 0000",
        "version 300.1.2.3 of 127.0.0.1",
        "on 12 March 1987",  # nobody is born
        "the year 2024-11-28 and 12345",
        "a @ b and @name",
        "std::vector and 10:30:45",
        "pi is 3.14159265358979",
    ],
)
def test_what_only_looks_like_it_is_not_found(text):
    assert detect(text) == []


def test_checks_are_those_of_the_standards():
    assert is_iban("FR14 2004 1010 0505 0001 3M02 606")
    assert not is_iban("FR14 2004 1010 0505 0001 3M02 607")
    assert not is_iban("ZZ82WEST12345698765432")
    assert is_card("378282246310005")
    assert not is_card("79927398713")  # Luhn's own example, but too short


def test_masks_say_the_kind_and_are_counted():
    text, counts = mask("a@b.org or c@d.org, +49 170 1234567")
    assert text == "[EMAIL] or [EMAIL], [PHONE]"
    assert counts == {"email": 2, "phone": 1}


def test_masking_is_a_step_of_cleaning():
    assert clean("Write to A@B.ORG now", steps_of(["personal-data", "case"])) == "write to [email] now"


@given(st.lists(st.sampled_from([text for _, text, _ in FOUND] + ["no data", "x", "12"]), max_size=4))
def test_nothing_is_left_after_masking(texts):
    masked, counts = mask(" and ".join(texts))
    assert mask(masked) == (masked, {})
    assert sum(counts.values()) >= sum(text in [t for _, t, _ in FOUND] for text in texts)
