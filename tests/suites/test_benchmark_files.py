"""Files of benchmarks are found wherever they lie below a folder; what is missing is named with its place."""

from __future__ import annotations

import json

import pytest
from published_rows import AI2, Published

from lmworks.base.errors import InputError
from lmworks.suites.files import Unavailable, find_files, read_items
from lmworks.suites.registry import choose, read_suite

OWN = """\
about: mine
benchmarks:
  colours:
    about: which colour a thing has
    form: choices
    layouts:
      - file: colours.jsonl
        where: colour != "clear"
    prompt: "The {{ thing }} is"
    choices: '["blue", "green"]'
    answer: colour
    metrics: [accuracy]
"""


def test_a_file_is_found_below_the_folder_and_in_it(tmp_path) -> None:
    Published("", "a/b/ARC-Easy/ARC-Easy-Test.jsonl", [AI2], "", [], []).write(tmp_path)
    (arc,) = choose("arc-easy")
    for folder in (tmp_path, tmp_path / "a" / "b", tmp_path / "a" / "b" / "ARC-Easy"):
        files = find_files("arc-easy", arc.benchmark, folder)
        assert [path.relative_to(tmp_path).as_posix() for path in files.paths] == ["a/b/ARC-Easy/ARC-Easy-Test.jsonl"]
        assert files.example_paths == []


def test_the_copy_nearest_to_the_top_is_taken(tmp_path) -> None:
    for name in ("z/arc_easy.jsonl", "a/b/arc_easy.jsonl"):
        Published("", name, [AI2], "", [], []).write(tmp_path)
    (arc,) = choose("arc-easy")
    files = find_files("arc-easy", arc.benchmark, tmp_path)
    assert [path.relative_to(tmp_path).as_posix() for path in files.paths] == ["z/arc_easy.jsonl"]


def test_all_files_of_a_pattern_are_read_with_their_names(tmp_path) -> None:
    for subject in ("art", "law"):
        Published("", f"data/test/{subject}_test.csv", "1+1?,1,2,3,4,B\n", "", [], []).write(tmp_path)
    (mmlu,) = choose("mmlu")
    files = find_files("mmlu", mmlu.benchmark, tmp_path)
    items = read_items(files, files.paths)
    assert [item.values["subject"] for item in items] == ["art", "law"]
    assert [item.number for item in items] == [0, 1]


def test_a_missing_file_is_named_with_where_to_put_it(tmp_path) -> None:
    (arc,) = choose("arc-easy")
    with pytest.raises(Unavailable) as error:
        find_files("arc-easy", arc.benchmark, tmp_path)
    assert "ARC-Easy/ARC-Easy-Test.jsonl, ARC-Easy/test-*.parquet, arc_easy.jsonl" in error.value.fault
    assert f"put ARC-Easy/ARC-Easy-Test.jsonl anywhere below {tmp_path}" in error.value.hint
    assert "https://allenai.org/data/arc" in error.value.hint
    assert "hub:allenai/ai2_arc" in error.value.hint


def test_what_is_on_no_hub_is_said(tmp_path) -> None:
    (sentiment,) = choose("sentiment")
    with pytest.raises(Unavailable, match="not on the hub"):
        find_files("sentiment", sentiment.benchmark, None)
    with pytest.raises(Unavailable, match="cannot be fetched"):
        find_files("arc-easy", choose("arc-easy")[0].benchmark, None, offline=True)
    with pytest.raises(InputError, match="no such folder"):
        find_files("sentiment", sentiment.benchmark, tmp_path / "nowhere")


def test_another_split_is_another_file(tmp_path) -> None:
    for split in ("train", "test"):
        Published("", f"gsm8k/{split}.jsonl", [{"question": split, "answer": "1"}], "", [], []).write(tmp_path)
    (gsm8k,) = choose("gsm8k")
    files = find_files("gsm8k", gsm8k.benchmark, tmp_path, "train")
    assert (files.split, read_items(files, files.paths)[0].values["question"]) == ("train", "train")


def test_lines_beside_a_file_must_be_as_many_as_its_rows(tmp_path) -> None:
    Published("", "valid.jsonl", [{"goal": "a", "sol1": "b", "sol2": "c"}] * 2, "", [], [],
              {"valid-labels.lst": "0\n"}).write(tmp_path)  # fmt: skip
    (piqa,) = choose("piqa")
    files = find_files("piqa", piqa.benchmark, tmp_path)
    with pytest.raises(InputError, match=r"1 line, and valid.jsonl has 2 rows"):
        read_items(files, files.paths)
    (tmp_path / "valid-labels.lst").unlink()
    with pytest.raises(Unavailable, match=r"no valid-labels\.lst beside"):
        read_items(files, files.paths)


def test_a_suite_of_the_users_own(tmp_path) -> None:
    (tmp_path / "mine.yaml").write_text(OWN)
    rows = [{"thing": "sky", "colour": "blue"}, {"thing": "glass", "colour": "clear"}]
    (tmp_path / "colours.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (chosen,) = choose(str(tmp_path / "mine.yaml"))
    files = find_files(chosen.name, chosen.benchmark, tmp_path)
    assert [item.values["thing"] for item in read_items(files, files.paths)] == ["sky"]


@pytest.mark.parametrize(
    ("before", "after", "fault"),
    [
        ("answer: colour", "answer: colour |", "unexpected"),
        ('"The {{ thing }} is"', '"The {{ thing is"', "unexpected end of template"),
        ("    answer: colour\n", "", "needs answer"),
        ("form: choices", "form: chosen", "form"),
        ("    metrics: [accuracy]\n", "", "metrics: is missing"),
        ("prompt:", "promt:", "promt"),
    ],
)
def test_a_suite_that_cannot_be_used_is_refused(before: str, after: str, fault: str, tmp_path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(OWN.replace(before, after))
    with pytest.raises(InputError) as error:
        read_suite(str(path))
    assert fault in str(error.value)


def test_names_that_there_are_none_of() -> None:
    with pytest.raises(InputError, match="did you mean hellaswag"):
        choose("helaswag")
    with pytest.raises(InputError, match="names no suite"):
        choose(" , ")
    assert [entry.name for entry in choose("piqa,arc,piqa")] == ["piqa", "arc-easy", "arc-challenge"]
