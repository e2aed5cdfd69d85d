"""Corpus: what is read from which file, what is refused with which place and hint, how it is divided."""

import gzip
import json
import os
import random
import re

import pytest

from lmworks.base.errors import InputError
from lmworks.text import corpus
from lmworks.text.rows import DataSettings, Row, Table

QA = [{"question": f"What is {n} + 1?", "answer": str(n + 1)} for n in range(30)]


_WHOLE = gzip.compress(b'{"text": "a"}\n' * 1000, mtime=0)
DAMAGED_GZIP = _WHOLE[:20] + b"\xff" * 10 + _WHOLE[30:]


def write(path, content):
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def lines(rows):
    return "".join(json.dumps(row) + "\n" for row in rows)


def read(source, **settings):
    return corpus.read(source, DataSettings(**settings))


def values(table):
    return [row.values for row in table.rows]


PAIRS = [{"prompt": row["question"], "completion": row["answer"]} for row in QA]


def test_every_format_gives_the_same_rows(tmp_path):
    import pyarrow
    from pyarrow import parquet

    csv = "question,answer\n" + "".join(f'"{row["question"]}",{row["answer"]}\n' for row in QA)
    parquet.write_table(pyarrow.Table.from_pylist(QA), tmp_path / "a.parquet")
    files = [
        write(tmp_path / "a.jsonl", lines(QA)),
        write(tmp_path / "a.json", json.dumps(QA, indent=2)),
        write(tmp_path / "held.json", json.dumps({"version": 1, "data": QA})),
        write(tmp_path / "lines.json", lines(QA)),
        write(tmp_path / "a.csv", csv),
        write(tmp_path / "bom.csv", b"\xef\xbb\xbf" + csv.replace("\n", "\r\n").encode()),
        write(tmp_path / "a.tsv", csv.replace(",", "\t").replace('"', "")),
        write(tmp_path / "a.jsonl.gz", gzip.compress(lines(QA).encode())),
        tmp_path / "a.parquet",
    ]
    for file in files:
        table = corpus.read(file)
        assert (table.kind, values(table)) == ("completion", PAIRS), file
        assert str(file) in table.rows[0].place
    assert values(corpus.read(QA)) == PAIRS
    folder = tmp_path / "both"
    folder.mkdir()
    write(folder / "1.jsonl", lines(QA[:10]))
    write(folder / "2.jsonl", lines(QA[10:]))
    assert values(corpus.read(folder)) == PAIRS


@pytest.mark.parametrize(
    ("row", "kind", "expected"),
    [
        (
            {"instruction": "Add", "input": "1 2", "output": "3"},
            "completion",
            {"prompt": "Add\n\n1 2", "completion": "3"},
        ),
        ({"instruction": "Go", "context": "", "response": "ok"}, "completion", {"prompt": "Go", "completion": "ok"}),
        ({"Prompt": "a", "Completion": "b", "id": 3}, "completion", {"prompt": "a", "completion": "b"}),
        ({"text": "a", "label": 1}, "labels", {"text": "a", "label": "1"}),
        ({"sentence": "a", "label": True}, "labels", {"text": "a", "label": "True"}),
        ({"content": "a"}, "text", {"text": "a"}),
        (
            {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b", "weight": 1}]},
            "chat",
            {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]},
        ),
        (
            {"conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]},
            "chat",
            {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]},
        ),
    ],
)
def test_columns_are_recognised_by_their_usual_names(row, kind, expected):
    table = corpus.read([row])
    assert (table.kind, values(table)) == (kind, [expected])
    assert any(kind in note for note in table.notes)


def test_columns_kinds_and_patterns_can_be_set():
    row = {"a": "one", "b": "two", "text": "three", "label": "x"}
    assert values(read([row], columns={"prompt": "a", "completion": "b"})) == [{"prompt": "one", "completion": "two"}]
    assert values(read([row], kind="text")) == [{"text": "three"}]
    assert values(read([row], prompt="Q: {a}\\nA:", completion=" {b}")) == [
        {"prompt": "Q: one\nA:", "completion": " two"}
    ]
    assert values(read([row], text="{a} {b}")) == [{"text": "one two", "label": "x"}]
    assert values(read([row], label_names={"x": "yes"})) == [{"text": "three", "label": "yes"}]
    table = read([row], columns={"text": "a"})
    assert table.kind == "text"
    assert any("columns not used: b, text, label" in note for note in table.notes)


@pytest.mark.parametrize(
    ("settings", "fault"),
    [
        ({"columns": {"text": "bodi"}}, "no column 'bodi'.*\n.*did you mean 'body'"),
        ({"columns": {"txt": "body"}}, "unknown field 'txt'"),
        ({"prompt": "{bodi}", "completion": "{body}"}, "no column 'bodi'.*\n.*did you mean 'body'"),
        ({"text": "{body"}, "not a pattern"),
        ({"kind": "labels"}, "needs label"),
        ({"kind": "chat"}, "needs messages"),
    ],
)
def test_a_wrong_setting_names_the_nearest(settings, fault):
    with pytest.raises(InputError, match=fault):
        read([{"body": "a", "other": "b"}], **settings)


TALKS = [{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}] * 2
BAD = {
    "cut": ("a.jsonl", lines(QA[:2]) + '{"question": "What', "a.jsonl:3: JSON that ends in the middle"),
    "no object": ("a.jsonl", lines(QA[:2]) + "[1]\n", "a.jsonl:3: a JSON list, not an object"),
    "encoding": ("a.jsonl", lines(QA[:2]).encode() + b'{"question": "\xe9"}\n', "a.jsonl:3: not UTF-8: byte 15.*0xe9"),
    "missing": ("a.jsonl", lines([*QA[:2], {"question": "a"}]), "a.jsonl:3: field 'answer' is missing"),
    "null": ("a.jsonl", lines([*QA[:2], {"question": None, "answer": "a"}]), "a.jsonl:3: field 'question' is null"),
    "empty": ("a.jsonl", lines([*QA[:2], {"question": " ", "answer": "a"}]), "a.jsonl:3: field 'question' is empty"),
    "number": ("a.jsonl", lines([*QA[:2], {"question": "a", "answer": 5}]), "a.jsonl:3: field 'answer' is a int"),
    "ragged": ("a.csv", "question,answer\na,b\nc,d\ne\n", "a.csv:4: 1 fields where 2 are expected"),
    "ragged after lines": ("a.csv", 'question,answer\n"a\nb",b\nc,d\ne,f,g\n', "a.csv:5: 3 fields where 2"),
    "quote": ("a.csv", 'question,answer\na,b\nc,d\n"e,f\n', "a.csv:4: not a CSV record"),
    "messages": ("a.jsonl", lines([*TALKS, {"messages": [{"role": "usr", "content": "a"}]}]), ":3: .* unknown role"),
    "silent": ("a.jsonl", lines([*TALKS, {"messages": [{"role": "user", "content": "a"}]}]), ":3: .* no assistant"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_a_bad_row_stops_with_its_place_or_is_skipped_and_counted(name, tmp_path):
    file, content, fault = BAD[name]
    path = write(tmp_path / file, content)
    with pytest.raises(InputError, match=fault) as caught:
        corpus.read(path)
    assert "--data.on_bad_row skip" in str(caught.value)
    table = read(path, on_bad_row="skip")
    assert len(table) == 2
    assert len(table.skipped) == 1
    assert any(re.match(rf"1 bad row skipped \(first: .*{fault}", note) for note in table.notes)


@pytest.mark.parametrize(
    ("file", "content", "fault"),
    [
        ("a.jsonl", "", "the file is empty"),
        ("a.txt", " \n", "no usable row"),
        ("a.csv", "question,answer\n", "no usable row"),
        ("a.json", "[{]", "a.json:1: not JSON"),
        ("a.json", '{"a": 1}', "not a list of objects"),
        ("a.xyz", "a", "does not say what format"),
        ("a.csv", "question,question\na,b\n", "names 'question' twice"),
        ("a.csv", b"\xff\xfea\x00", "UTF-16"),
        ("a.csv", "a".encode("utf-32"), "iconv -f UTF-32"),
        ("a.jsonl", gzip.compress(b"{}", mtime=0), "mv a.jsonl a.jsonl.gz"),
        ("a.jsonl", json.dumps(QA), "a.jsonl:1: a JSON list.*\n.*--data.format json"),
        ("a.jsonl", json.dumps(QA, indent=1), "a.jsonl:1: a JSON list.*\n.*--data.format json"),
        ("a.jsonl.gz", b"no gzip", "not a whole gzip file"),
        ("a.jsonl.gz", DAMAGED_GZIP, "not a whole gzip file"),
        ("a.jsonl", "{}\n{}\n", "a.jsonl:1: the rows are empty"),
        ("a.csv", "text;label\na;b\n", "--data.delimiter ';'"),
        ("a.csv", "text\tlabel\na\tb\n", "--data.format tsv"),
        ("a.tsv", "text,label\na,b\n", "--data.delimiter ,"),
        ("a.parquet", b"PAR1", "not a Parquet file"),
        ("a.tsv", "ham\tGo until jurong point, crazy..\nspam\tFree entry in 2 a weekly comp\n", "--data.header false"),
        ("a.jsonl", lines([{"chosen": "a", "rejected": "b"}]), "preferences"),
        ("a.jsonl", lines([{"given": "a", "follows": "b"}]), "do not say what a row is"),
    ],
)
def test_files_that_cannot_be_used_are_refused(file, content, fault, tmp_path):
    with pytest.raises(InputError, match=fault):
        corpus.read(write(tmp_path / file, content))


def test_a_path_that_is_neither_file_nor_folder_says_what_it_is(tmp_path):
    (tmp_path / "dead.txt").symlink_to("gone.txt")
    (tmp_path / "loop.txt").symlink_to("loop.txt")
    os.mkfifo(tmp_path / "pipe.jsonl")
    for name, fault in (
        ("dead.txt", "is a link to gone.txt, which is not there"),
        ("loop.txt", "is a link to loop.txt, which is not there or leads back"),
        ("pipe.jsonl", "is no regular file"),
    ):
        with pytest.raises(InputError, match=fault):
            corpus.read(tmp_path / name)
    with pytest.raises(InputError, match="is no regular file"):
        corpus.read(os.devnull)


def test_one_column_may_hold_another_delimiter_where_the_delimiter_is_set(tmp_path):
    path = write(tmp_path / "a.csv", "text;label\na;b\n")
    assert values(read(path, delimiter=";"))[0] == {"text": "a", "label": "b"}
    assert values(read(path, delimiter=",", columns={"text": "text;label"}))[0] == {"text": "a;b"}


def test_notes_about_many_columns_are_short(tmp_path):
    path = write(tmp_path / "wide.jsonl", lines([{"text": "a", **{f"column_{n}": 1 for n in range(10_000)}}]))
    note = next(note for note in read(path).notes if "not used" in note)
    assert len(note) < 300
    assert note.endswith("… and 9,990 more")


@pytest.mark.parametrize(
    "settings",
    [{}, {"kind": "labels"}, {"columns": {"text": "x"}}, {"text": "{x}"}, {"text": "plain"}],
)
def test_errors_about_many_columns_are_short(settings):
    with pytest.raises(InputError) as caught:
        read([{f"field_{n}": "a b" for n in range(10_000)}] * 2, **settings)
    assert len(str(caught.value)) < 700
    assert "… and 9,990 more" in str(caught.value)


def test_a_missing_source_names_the_nearest(tmp_path):
    write(tmp_path / "train.jsonl", lines(QA))
    with pytest.raises(InputError, match=r"did you mean .*train\.jsonl"):
        corpus.read(tmp_path / "trian.jsonl")
    with pytest.raises(InputError, match="did you mean python-help"):
        corpus.read("python-hlep")
    write(tmp_path / "b.csv", "text\na\n")
    with pytest.raises(InputError, match="mixes formats"):
        corpus.read(tmp_path)


def test_without_header_columns_have_numbers(tmp_path):
    path = write(tmp_path / "a.tsv", 'ham\tHe said "hi\nspam\t"Free" entry\n')
    table = read(path, header=False, columns={"text": 2, "label": 1})
    assert values(table) == [{"text": 'He said "hi', "label": "ham"}, {"text": '"Free" entry', "label": "spam"}]
    assert table.labels == ["ham", "spam"]


def test_a_text_that_looks_like_rows_is_refused_unless_it_is_said_to_be_text(tmp_path):
    path = write(tmp_path / "a.txt", "what a fine day\t1\nbad weather\t0\n" * 3)
    with pytest.raises(InputError, match="lines look like rows") as caught:
        corpus.read(path)
    assert "--data.format tsv --data.header false --data.columns '{text: 1, label: 2}'" in caught.value.hint
    assert read(path, format="tsv", header=False, columns={"text": 1, "label": 2}).labels == ["0", "1"]
    assert values(read(path, kind="text")) == [{"text": path.read_text().rstrip()}]
    assert len(read(path, document="line")) == 6
    with pytest.raises(InputError, match="lines look like rows"):
        corpus.read(write(tmp_path / "two.txt", "fine\t1\nbad\t0\n"))
    assert values(corpus.read(write(tmp_path / "b.txt", "def f():\n\treturn 1\n\n\nx\ty\n"))) != []


def test_documents_of_a_text(tmp_path):
    path = write(tmp_path / "a.txt", "one\ntwo\n\n\nthree\x85still\n")
    assert [(row.values["text"], row.place[-2:]) for row in corpus.read(path).rows] == [
        ("one\ntwo\n\n\nthree\x85still", ":1")
    ]
    result = [(row.values["text"], row.place[-2:]) for row in read(path, document="paragraph").rows]
    assert result == [("one\ntwo", ":1"), ("three\x85still", ":5")]
    result = [(row.values["text"], row.place[-2:]) for row in read(path, document="line").rows]
    assert result == [("one", ":1"), ("two", ":2"), ("three\x85still", ":5")]


def test_limit_reads_no_further(tmp_path):
    path = write(tmp_path / "a.jsonl", lines(QA[:5]) + "not JSON\n")
    assert values(read(path, limit=5)) == PAIRS[:5]


def test_hub_tables_name_their_classes():
    hub = pytest.importorskip("datasets")
    features = hub.Features({"text": hub.Value("string"), "label": hub.ClassLabel(names=["neg", "pos"])})
    table = hub.Dataset.from_list([{"text": "a", "label": 1}, {"text": "b", "label": 0}], features=features)
    rows = list(corpus.hub_rows(table, "hub:made/up"))
    assert [row.values for row in rows] == [{"text": "a", "label": "pos"}, {"text": "b", "label": "neg"}]


# Division


def sides(table, **settings):
    train, held = corpus.split(table, DataSettings(**settings))
    return [json.dumps(row.values) for row in train.rows], [json.dumps(row.values) for row in held.rows]


def test_a_split_is_whole_disjoint_and_independent_of_order():
    table = corpus.read(QA)
    train, held = sides(table)
    assert len(held) == 3
    assert sorted(train + held) == sorted(json.dumps(row) for row in PAIRS)
    random.Random(0).shuffle(table.rows)
    again, held_again = sides(table)
    assert (set(again), held_again) == (set(train), held)
    assert [len(side) for side in sides(table, held_out=7)] == [23, 7]
    assert [len(side) for side in sides(table, held_out=0.5, held_out_max=4)] == [26, 4]
    assert [len(side) for side in sides(table, held_out=0)] == [30, 0]
    with pytest.raises(InputError, match="takes all"):
        sides(table, held_out=30)


def test_duplicates_and_rows_of_one_key_stay_together():
    train, held = sides(corpus.read(QA * 3), held_out=0.3)
    assert not set(train) & set(held)
    assert len(held) == 27
    rows = [Row({"text": str(number)}, "", f"module {number % 12}") for number in range(60)]
    train, held = sides(Table("made", "text", rows), held_out=0.25)
    assert len(held) == 15
    assert not {int(json.loads(row)["text"]) % 12 for row in train} & {
        int(json.loads(row)["text"]) % 12 for row in held
    }


def test_one_long_text_is_divided_at_a_paragraph(tmp_path):
    path = write(tmp_path / "a.txt", "\n\n".join(f"Paragraph {number} of many." for number in range(100)))
    train, held = corpus.split(corpus.read(path))
    assert train.rows[0].values["text"] + held.rows[0].values["text"] == path.read_text()
    assert held.rows[0].values["text"].startswith("Paragraph ")
    assert 0.05 < len(held.rows[0].values["text"]) / len(path.read_text()) < 0.15
    number = int(held.rows[0].place.rpartition(":")[2])
    assert path.read_text().split("\n")[number - 1] == held.rows[0].values["text"].split("\n")[0]
    with pytest.raises(InputError, match="so few texts"):
        corpus.split(corpus.read(path), DataSettings(held_out=2))


def test_labels_are_known_to_both_sides():
    rows = [{"text": f"text {n}", "label": "rare" if n == 0 else "common"} for n in range(20)]
    train, held = corpus.split(corpus.read(rows))
    assert train.labels == held.labels == ["common", "rare"]


# Sources and targets


def test_sources_and_targets(tmp_path):
    rows = [{"source": "the cat", "target": "le chat"}, {"source": "a dog", "target": "un chien"}]
    table = corpus.read(rows)
    assert (table.kind, values(table)) == ("pairs", rows)
    path = write(tmp_path / "a.tsv", "id\ten\tfr\n1\tthe cat\tle chat\n2\ta dog\tun chien\n")
    table = read(path, columns={"source": "en", "target": "fr"})
    assert (table.kind, values(table)) == ("pairs", rows)
    assert "columns not used: id" in table.notes
    with pytest.raises(InputError, match="kind pairs needs target"):
        read(path, columns={"source": "en"})
    several = [{"source": ["One.", "Two."], "target": ["Short.", "Brief."]}]
    assert any("the first is learned" in note for note in corpus.read(several).notes)
    assert values(corpus.read(several)) == [
        {"source": "One. Two.", "target": "Short.", "references": ["Short.", "Brief."]}
    ]


@pytest.mark.parametrize("line", ["2\ta dog\t", "2\t \tun chien"])
def test_a_side_that_is_missing_is_named_with_its_line(line, tmp_path):
    path = write(tmp_path / "a.tsv", f"id\ten\tfr\n1\tthe cat\tle chat\n{line}\n")
    with pytest.raises(InputError, match=r"a\.tsv:3: field '(fr|en)' is empty"):
        read(path, columns={"source": "en", "target": "fr"})
    table = read(path, columns={"source": "en", "target": "fr"}, on_bad_row="skip")
    assert (len(table), len(table.skipped)) == (1, 1)


def test_a_source_column_with_a_text_is_no_translation():
    rows = [{"text": "good", "source": "web", "target": "1"}, {"text": "bad", "source": "web", "target": "0"}]
    assert corpus.read(rows).kind == "labels"


def test_validation_leaves_the_held_out_rows_out_and_holds_out_others():
    table = corpus.read([{"prompt": f"question {n}", "completion": f"answer {n}"} for n in range(100)])
    settings = DataSettings(held_out=0.2, held_out_max=15)
    train, test = corpus.split(table, settings)
    rest, validation = corpus.split(table, settings.model_copy(update={"validation": 0.1}))
    assert (len(train), len(test)) == (85, 15)
    assert (len(rest), len(validation)) == (77, 8)
    sides = [{row.values["prompt"] for row in side.rows} for side in (rest, validation, test)]
    assert sides[0] | sides[1] == {row.values["prompt"] for row in train.rows}
    assert not (sides[0] & sides[1])
    assert not (sides[1] & sides[2])
    assert not (sides[0] & sides[2])
    assert any("15 rows" in note for note in rest.notes)


def test_additional_rows_are_trained_on_and_never_held_out(tmp_path):
    more = tmp_path / "more.jsonl"
    more.write_text("".join(json.dumps({"prompt": f"more {n}", "completion": "yes"}) + "\n" for n in range(5)))
    table = corpus.read([{"prompt": f"question {n}", "completion": f"answer {n}"} for n in range(50)])
    plain = corpus.split(table, DataSettings())
    train, held_out = corpus.split(table, DataSettings(additional=str(more)))
    assert held_out.rows == plain[1].rows
    assert train.rows[: len(plain[0])] == plain[0].rows
    assert [row.values["prompt"] for row in train.rows[len(plain[0]) :]] == [f"more {n}" for n in range(5)]
    assert any("5 additional rows" in note for note in train.notes)


@pytest.mark.parametrize(
    ("name", "content", "fault"),
    [
        ("more.csv", "prompt,completion\nsay 1,one\n", "needs text and label"),
        ("more.txt", "a text alone\n", "needs label"),
    ],
)
def test_additional_rows_of_another_kind_are_told_which_columns_they_need(name, content, fault, tmp_path):
    path, more = tmp_path / "rows.csv", tmp_path / name
    path.write_text("review,stars\n" + "".join(f"row {n},{n % 3}\n" for n in range(50)))
    more.write_text(content)
    settings = DataSettings(columns={"text": "review", "label": "stars"}, additional=[str(more)])
    with pytest.raises(InputError, match=fault) as caught:
        corpus.split(corpus.read(path, settings), settings)
    assert caught.value.hint == "give rows of kind labels, as the others are: with the columns text, label"
    more = tmp_path / "named.csv"
    more.write_text("text,label\nas the hint says,1\n")
    train, _ = corpus.split(corpus.read(path, settings), settings.model_copy(update={"additional": [str(more)]}))
    assert train.rows[-1].values == {"text": "as the hint says", "label": "1"}


def test_additional_rows_with_unknown_labels_are_refused(tmp_path):
    more = tmp_path / "more.jsonl"
    more.write_text(
        json.dumps({"text": "so so", "label": "middling"}) + "\n" + json.dumps({"text": "x", "label": "good"}) + "\n"
    )
    table = corpus.read([{"text": f"film {n}", "label": ["good", "bad"][n % 2]} for n in range(50)])
    with pytest.raises(InputError, match="middling"):
        corpus.split(table, DataSettings(additional=str(more)))
