"""CSV: a quote that is never closed, or closed late, costs the row in which it opens and no other; it is said."""

import time

import pytest

from lmworks.base.errors import InputError
from lmworks.text import corpus
from lmworks.text.rows import DataSettings

HEAD = "question,answer\n"


def write(path, text):
    path.write_bytes(text.encode())
    return path


def read(path, **settings):
    return corpus.read(path, DataSettings(**settings))


def rows(*numbers):
    return "".join(f"Where is shelf {n}?,In hall {n}.\n" for n in numbers)


def answers(table):
    return [row.values["completion"] for row in table.rows]


@pytest.mark.parametrize(
    ("bad", "fault", "remaining"),
    [
        ('Which key?,"the brass one\n', "a.csv:4: .* nothing closes it", 9),
        ('"Which key?,the brass one\n', "a.csv:4: .* nothing closes it", 9),
        ('"Which\nkey?","the brass one\n', "a.csv:5: .* nothing closes it", 9),
    ],
)
def test_a_quote_that_nothing_closes(tmp_path, bad, fault, remaining):
    path = write(tmp_path / "a.csv", HEAD + rows(1, 2) + bad + rows(*range(3, 10)))
    with pytest.raises(InputError, match=fault) as caught:
        read(path)
    assert "--data.quotes false" in caught.value.hint
    table = read(path, on_bad_row="skip")
    assert len(table) == remaining
    assert answers(table)[2:] == [f"In hall {n}." for n in range(3, 10)]
    assert len(table.skipped) == 1


def test_a_quote_that_a_later_row_closes_wrongly(tmp_path):
    later = 'Who said "stop" there?,the "guard" of hall 7\n'
    path = write(tmp_path / "a.csv", HEAD + rows(1) + 'Which key?,"brass\n' + rows(2, 3) + later + rows(4))
    with pytest.raises(InputError, match=r"a\.csv:3: .*quote opens in this line, and line 6 closes it wrongly"):
        read(path)
    table = read(path, on_bad_row="skip")
    assert answers(table) == ["In hall 1.", "In hall 2.", "In hall 3.", 'the "guard" of hall 7', "In hall 4."]


def test_a_quote_that_a_later_row_closes_well_is_said(tmp_path):
    path = write(tmp_path / "a.csv", HEAD + 'Which key?,"brass\n' + rows(2, 3) + 'How wide?,5"\n' + rows(4))
    assert any("lines 2 to 5" in note for note in read(path).notes)
    three = "n,question,answer\n" + '1,Which?,"brass\n' + "2,How?,so\n3,Who?,he\n" + '4,"far",off\n5,Why?,so\n'
    path = write(tmp_path / "b.csv", three)
    with pytest.raises(InputError, match=r"b\.csv:2: .*line 5 closes it"):
        read(path)
    assert len(read(path, on_bad_row="skip")) == 4


def test_fields_of_several_lines_are_whole_and_raise_no_alarm(tmp_path):
    path = write(tmp_path / "a.csv", 'question,answer\n"Say\nit,\nall","One\r\n\r\n""two"", three"\nA,B\n')
    table = read(path)
    assert [row.values for row in table.rows] == [
        {"prompt": "Say\nit,\nall", "completion": 'One\n\n"two", three'},
        {"prompt": "A", "completion": "B"},
    ]
    assert [row.place[-2:] for row in table.rows] == [":2", ":7"]
    assert not any("quote" in note for note in table.notes)


def test_a_header_that_cannot_be_read_is_never_skipped(tmp_path):
    path = write(tmp_path / "a.csv", '"question,answer\n' + rows(1, 2))
    with pytest.raises(InputError, match=r"a\.csv:1: .*nothing closes it"):
        read(path, on_bad_row="skip")


def test_a_wide_header_takes_no_longer_than_its_row(tmp_path):
    names = ",".join(["prompt", "completion", *(f"c{n}" for n in range(60_000))])
    path = write(tmp_path / "a.csv", f"{names}\n" + ",".join(map(str, range(60_002))) + "\n")
    seconds = time.process_time()
    assert len(read(path).rows) == 1
    assert time.process_time() - seconds < 8  # counting each name in all the others takes thrice as long


def test_lines_end_with_carriage_returns_too(tmp_path):
    path = write(tmp_path / "a.csv", (HEAD + rows(1, 2)).replace("\n", "\r"))
    assert answers(read(path)) == ["In hall 1.", "In hall 2."]
