"""What rows are is recognised by many of them: a column may appear late, or hold something else in the first row."""

import json
import re

import pytest

from lmworks.base.errors import InputError
from lmworks.base.settings import Settings, build, parse_overrides
from lmworks.text import corpus
from lmworks.text.rows import DataSettings


class Group(Settings):
    """Settings that hold those of data."""

    data: DataSettings = DataSettings()


TALK = [{"role": "user", "content": "Open?"}, {"role": "assistant", "content": "Until nine."}]


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def options_in(hint):
    """The data settings in a hint: those of its first proposal."""
    import shlex

    words = shlex.split(hint.partition("; or")[0])
    pairs = [f"{word}={words[place + 1]}" for place, word in enumerate(words) if word.startswith("--data.")]
    return DataSettings(**parse_overrides(pairs)["data"])


def test_a_label_that_appears_late_makes_all_rows_labelled(tmp_path):
    rows = [{"text": f"Hall {n}"} for n in range(50)] + [{"text": "Hall 50", "label": "open"}]
    path = write(tmp_path / "a.jsonl", rows)
    with pytest.raises(InputError, match=r"a\.jsonl:1: field 'label' is missing[^$]*a\.jsonl:51") as caught:
        corpus.read(path)
    assert options_in(caught.value.hint.partition(",")[0]).kind == "text"
    assert len(corpus.read(path, DataSettings(kind="text"))) == 51
    table = corpus.read(path, DataSettings(on_bad_row="skip"))
    assert (table.kind, len(table), len(table.skipped)) == ("labels", 1, 50)


def test_a_context_that_appears_late_is_part_of_the_prompts_that_have_it():
    rows = [{"instruction": f"Add {n}", "output": "Done."} for n in range(50)]
    table = corpus.read([*rows, {"instruction": "Add", "output": "3", "input": "1 2"}])
    assert [row.values["prompt"] for row in table.rows][-2:] == ["Add 49", "Add\n\n1 2"]


def test_conversations_that_begin_late_are_seen(tmp_path):
    rows = [{"prompt": "Hall?", "completion": "Two.", "messages": None}] * 9
    table = corpus.read(write(tmp_path / "a.jsonl", rows))
    assert table.kind == "completion"
    path = write(tmp_path / "b.jsonl", [*rows, {"messages": TALK}])
    with pytest.raises(InputError, match=r"b\.jsonl:1: field 'messages' is null"):
        corpus.read(path)
    assert len(corpus.read(path, DataSettings(on_bad_row="skip"))) == 1


def test_a_column_of_texts_and_lists_is_of_conversations(tmp_path):
    path = write(tmp_path / "a.jsonl", [{"conversation": "none yet"}, {"conversation": TALK}])
    with pytest.raises(InputError, match=r"a\.jsonl:1: field 'conversation': messages must be a list"):
        corpus.read(path)
    assert len(corpus.read(path, DataSettings(on_bad_row="skip"))) == 1


def test_columns_that_are_null_everywhere_do_not_count():
    rows = [{"text": f"Hall {n}", "label": None, "prompt": None, "completion": None} for n in range(3)]
    assert corpus.read(rows).kind == "text"


def test_a_column_that_appears_after_the_sample_is_refused_where_it_matters(tmp_path):
    rows = [{"text": f"Hall {n}"} for n in range(corpus.SAMPLE_ROWS)]
    path = write(tmp_path / "a.jsonl", [*rows, {"text": "Hall", "label": "open"}])
    with pytest.raises(InputError, match=rf"a\.jsonl:{len(rows) + 1}: column 'label' appears first") as caught:
        corpus.read(path)
    assert len(corpus.read(path, options_in(caught.value.hint.rpartition("say ")[2]))) == len(rows) + 1
    late = write(tmp_path / "b.jsonl", [*rows, {"text": "Hall", "note": "x"}])
    assert "columns not used: note" in corpus.read(late).notes


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize(
    "row", [{"text": "a"}, {"text": "a", "label": 1}, {"messages": TALK}, {"source": "a", "target": "b"}]
)
def test_one_row_and_two_rows(row, count):
    table = corpus.read([row] * count)
    train, held_out = corpus.split(table)
    assert len(table) == count
    assert len(train) >= 1
    assert len(train) + len(held_out) >= count


@pytest.mark.parametrize(
    ("rows", "kind"),
    [
        ([{"given": "It rains", "follows": "It is dry"}, {"given": "b b", "follows": "c"}], "completion"),
        ([{"utterance": f"Hall {n} is far from here", "topic": "ab"[n % 2]} for n in range(12)], "labels"),
        ([{"chosen": "a", "rejected": "b"}], "text"),
        ([{"prompt": "q", "chosen": "a", "rejected": "b"}], "completion"),
        ([{"chosen": TALK, "rejected": TALK}], "chat"),
        ([{"note 1: long": "a b c"}], "text"),
    ],
)
def test_a_hint_about_columns_works(rows, kind):
    with pytest.raises(InputError) as caught:
        corpus.read(rows)
    table = corpus.read(rows, options_in(caught.value.hint))
    assert (table.kind, len(table)) == (kind, len(rows))


@pytest.mark.parametrize("kind", ["labels", "completion", "pairs", "chat", "text"])
def test_a_hint_about_a_kind_names_columns_that_exist(kind):
    row = {"says": "a", "means": "b", "talk": TALK}
    with pytest.raises(InputError, match=f"kind {kind} needs") as caught:
        corpus.read([row], DataSettings(kind=kind))
    columns = options_in(caught.value.hint).columns
    assert len(corpus.read([row], DataSettings(kind=kind, columns=columns))) == 1


SUPPORT = [
    {"Kundenfrage": f"When is parcel {n} due?", "Our Reply (final)": f"On day {n}.", "Queue/Category": "ab"[n % 2]}
    for n in range(12)
]


def test_a_pattern_that_is_the_name_of_a_column_is_refused_and_its_hint_works():
    patterns = {"prompt": "Kundenfrage", "completion": "Our Reply (final)"}
    for field in patterns:
        with pytest.raises(InputError, match=r"holds no \{column\}, so that all rows are alike") as caught:
            corpus.read(SUPPORT, DataSettings(**patterns))
        assert caught.value.place == f"--data.{field}"
        patterns[field] = re.fullmatch(r"did you mean (.*)\?", caught.value.hint)[1]
    assert corpus.read(SUPPORT, DataSettings(**patterns)).rows[3].values == {
        "prompt": "When is parcel 3 due?",
        "completion": "On day 3.",
    }


def test_columns_with_signs_in_their_names_can_be_used_in_patterns_or_are_named():
    rows = [{"Ticket.body": f"Parcel {n}", "tags[0]": "post", "Queue: now": "a"} for n in range(3)]
    settings = DataSettings(prompt="{tags[0]}: {Ticket.body}", completion="{Ticket.body}")
    assert corpus.read(rows, settings).rows[1].values == {"prompt": "post: Parcel 1", "completion": "Parcel 1"}
    with pytest.raises(InputError, match="all rows are alike") as caught:
        corpus.read(rows, DataSettings(prompt="{Ticket.body}", completion="Queue: now"))
    columns = options_in(caught.value.hint).columns
    assert corpus.read(rows, DataSettings(prompt="{Ticket.body}", columns=columns)).rows[0].values["completion"] == "a"


def test_a_pattern_without_columns_is_refused_where_nothing_else_differs():
    reply = "{Our Reply (final)}"
    for settings in (
        {"text": "always"},
        {"prompt": "always", "completion": "so"},
        {"prompt": "{Kundenfrage}", "completion": "so"},
    ):
        with pytest.raises(InputError, match="all rows are alike"):
            corpus.read(SUPPORT, DataSettings(**settings))
    assert len(corpus.read(SUPPORT, DataSettings(prompt="Write a reply.", completion=reply))) == 12


def test_unknown_columns_are_proposed_by_what_they_hold(tmp_path):
    path = tmp_path / "support.csv"
    path.write_text("".join(",".join(row) + "\n" for row in [list(SUPPORT[0]), *(row.values() for row in SUPPORT)]))
    with pytest.raises(InputError, match=r"'Kundenfrage', 'Our Reply .final.', 'Queue/Category'") as caught:
        corpus.read(path)
    assert "header" not in caught.value.hint
    labels, answers, *_ = caught.value.hint.split("; or ")
    assert options_in(labels).columns == {"text": "Kundenfrage", "label": "Queue/Category"}
    assert options_in(answers).columns == {"prompt": "Kundenfrage", "completion": "Our Reply (final)"}
    assert {corpus.read(path, options_in(hint)).kind for hint in (labels, answers)} == {"labels", "completion"}


@pytest.mark.parametrize("first", ["1,Are you open", "ham,Go on", "x,It is closed on all of these days"])
def test_a_first_row_of_data_is_taken_for_no_header(first, tmp_path):
    path = tmp_path / "a.csv"
    path.write_text(f"{first}\nham,Yes we are\nspam,Win\n")
    with pytest.raises(InputError) as caught:
        corpus.read(path)
    assert len(corpus.read(path, options_in(caught.value.hint))) == 3


def test_only_a_table_has_a_header(tmp_path):
    table, objects = tmp_path / "a.csv", tmp_path / "a.jsonl"
    table.write_text("\n1,Are you open\nham,Yes we are\n")  # its header is not in the first line
    objects.write_text('\n{"1": "ham", "Are you open": "Yes we are"}\n')  # its first row is in the second line
    hints = []
    for path in (table, objects):
        with pytest.raises(InputError) as caught:
            corpus.read(path)
        hints.append(caught.value.hint)
    assert "--data.header false" in hints[0]
    assert "header" not in hints[1]


@pytest.mark.parametrize("name", ["label", "messages", "source", "target"])
def test_fields_that_are_no_settings_are_explained(name):
    with pytest.raises(InputError, match="is no known setting") as caught:
        build(DataSettings, {name: "Queue"})
    assert name in options_in(caught.value.hint).columns
    with pytest.raises(InputError) as nested:
        build(Group, {"data": {name: "Queue"}})
    assert nested.value.hint == caught.value.hint


@pytest.mark.parametrize(
    ("first", "hint"),
    [("question\tanswer", "--data.format tsv; or"), ("Q 0\tA 0", "--data.header false")],
)
def test_a_tabbed_text_is_read_as_the_hint_says(first, hint, tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("\n".join([first, *(f"Q {n}\tA {n}" for n in range(1, 30))]))
    with pytest.raises(InputError, match=hint) as caught:
        corpus.read(path)
    table = corpus.read(path, options_in(caught.value.hint.partition("; or")[0]))
    assert {"Q 29"} <= {row.values["prompt"] for row in table.rows}
    assert len(table) == (29 if "question" in first else 30)


def test_a_first_row_that_is_no_header_is_written_out_once(tmp_path):
    path = tmp_path / "sms.tsv"
    first = "ham\tGo until the point, it is open in the great world only\n"
    path.write_text(first + "".join(f"{'ham' if n % 2 else 'spam'}\tWord {n} of nobody\n" for n in range(40)))
    with pytest.raises(InputError, match="do not say what a row is") as caught:
        corpus.read(path)
    assert options_in(caught.value.hint) == DataSettings(header=False, columns={"text": "2", "label": "1"})
    assert caught.value.hint.count("Go until the point") == 1
