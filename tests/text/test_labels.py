"""Labels: what means the same has one name, what does not stays apart, and both are said."""

import pytest

from lmworks.base.errors import InputError
from lmworks.text import corpus
from lmworks.text.corpus import DataSettings


def read(labels, **settings):
    rows = [{"text": f"Letter {n}", "label": label} for n, label in enumerate(labels)]
    return corpus.read(rows, DataSettings(**settings))


@pytest.mark.parametrize(
    ("labels", "names", "note"),
    [
        ([3, "3", 3.0, 4, 4.0], ["3", "4"], "'3' (3 1 times, \"3\" 1 times, 3.0 1 times)"),
        ([3.0, 4.0], ["3.0", "4.0"], ""),
        ([3.0, 4.5, 3], ["3", "4.5"], "'3' (3 1 times, 3.0 1 times)"),
        (["pos ", "pos", "neg"], ["neg", "pos"], "written in several ways"),
        ([True, False, True], ["False", "True"], ""),
        (["spam", "Spam"], ["Spam", "spam"], "look alike but are different: 'Spam' and 'spam'"),
        (["1", "1.0", "2"], ["1", "1.0", "2"], "'1' and '1.0'"),
        ([2**53, 2**53 + 1], [str(2**53), str(2**53 + 1)], ""),
        (["007", "null", "NA"], ["007", "NA", "null"], ""),
    ],
)
def test_labels(labels, names, note):
    table = read(labels)
    assert table.labels == names
    assert {row.values["label"] for row in table.rows} == set(names)
    notes = [text for text in table.notes if "labels" in text and not text[0].isdigit() and "kind" not in text]
    assert any(note in text for text in notes) if note else notes == []


def test_names_of_labels_hold_for_every_way_of_writing():
    assert read([0, "0", 0.0, 1], label_names={"0": "no", "1": "yes"}).labels == ["no", "yes"]
    assert read(["Spam", "spam", "ham"], label_names={"Spam": "spam"}).labels == ["ham", "spam"]


@pytest.mark.parametrize("label", [None, "", " ", float("nan"), [1], {}])
def test_what_is_no_label_is_refused_with_its_row(label):
    with pytest.raises(InputError, match="row 2: field 'label' holds no label"):
        read(["a", label])
