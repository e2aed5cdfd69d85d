"""Settings: what goes in comes out, and every fault names the place and the hint."""

from __future__ import annotations

from typing import Literal

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field

from lmworks.base.errors import InputError
from lmworks.base.notation import parse_value, read_yaml, write_yaml
from lmworks.base.seeds import Seed
from lmworks.base.settings import (
    Overrides,
    Settings,
    build,
    describe,
    merge,
    nearest,
    parse_overrides,
    to_yaml,
)


class Window(Settings):
    size: int = 4


class Train(Settings):
    learning_rate: float = Field(2e-4, gt=0, description="Peak rate.")
    schedule: Literal["cosine", "linear"] = "cosine"
    epochs: int | None = None
    window: Window | None = None
    betas: tuple[float, float] = (0.9, 0.999)


class Recipe(Settings):
    model: str
    prompt: str = "Question: {question}\nAnswer:"
    train: Train = Train()


def fault(values: dict, origin: str = "here") -> str:
    with pytest.raises(InputError) as caught:
        build(Recipe, values, origin)
    return str(caught.value)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("2e-4", 2e-4),
        ("1e5", 1e5),
        (".5", 0.5),
        ("5.", 5.0),
        ("-3", -3),
        ("0x10", 16),
        ("007", 7),
        (".inf", float("inf")),
        ("-.inf", float("-inf")),
        ("true", True),
        ("no", "no"),
        ("on", "on"),
        ("1:30", "1:30"),
        ("2024-01-02", "2024-01-02"),
        ("null", None),
        ("~", None),
        ("[1, 2e-1, a]", [1, 0.2, "a"]),
        ("{a: 1}", {"a": 1}),
        ('"12"', "12"),
        ("'a: b'", "a: b"),
        ("", ""),
        # a prompt is the text that was typed
        ("Question: {question}", "Question: {question}"),
        ("{question}", "{question}"),
        ("{question}: {answer}", "{question}: {answer}"),
        ("### Input", "### Input"),
        ("[INST] {prompt} [/INST]", "[INST] {prompt} [/INST]"),
        ('"a" or "b"', '"a" or "b"'),
    ],
)
def test_a_value_typed_on_the_command_line(text, value):
    assert parse_value(text) == value
    assert type(parse_value(text)) is type(value)


def test_overrides_nest_and_take_both_forms():
    words = ["--train.learning_rate", "2e-4", "--train.window.size=8", "--quiet", "--train.epochs", "-1", "--last-flag"]
    assert parse_overrides(words) == {
        "train": {"learning_rate": 2e-4, "window": {"size": 8}, "epochs": -1},
        "quiet": True,
        "last_flag": True,
    }
    assert parse_overrides(["--a={b: 1}", "--a.c", "2"]) == {"a": {"b": 1, "c": 2}}


@pytest.mark.parametrize(
    "words", [["stray"], ["--=3"], ["--a..b", "1"], ["--a", "1", "--a.b", "2"], ["--a.b", "2", "--a", "1"]]
)
def test_overrides_that_make_no_sense(words):
    with pytest.raises(InputError):
        parse_overrides(words)


def test_an_unknown_key_names_the_nearest_known_one():
    assert "did you mean train.learning_rate?" in fault({"model": "m", "learning_rate": 1})
    assert "did you mean train.learning_rate?" in fault({"model": "m", "train": {"learnin_rate": 1}})
    assert "did you mean train.window.size?" in fault({"model": "m", "train": {"window": {"sise": 1}}})
    assert "did you mean train?" in fault({"model": "m", "trian": {}})
    assert "known here: learning_rate" not in fault({"model": "m", "qqqqq": 1})
    assert "known here: model, prompt, train" in fault({"model": "m", "qqqqq": 1})
    assert "known here: train.learning_rate, train.schedule" in fault({"model": "m", "train": {"qqqqq": 1}})


def test_every_fault_is_listed_with_its_dotted_name_and_line(tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text("model: m\ntrain:\n  # a remark\n  learning_rate: -1\n  schedule: cosin\n  betas: [0.9, x]\n")
    text = fault(read_yaml(path), str(path))
    assert "3 settings cannot be used" in text
    assert "train.learning_rate (line 4): input should be greater than 0, not -1" in text
    assert "train.schedule (line 5): input should be 'cosine' or 'linear', not 'cosin'" in text
    assert "train.betas[1] (line 6)" in text
    assert text.endswith("hint: correct each of these")
    path.write_text("model: m\ntrain:\n  epochs: many\n")
    assert fault(read_yaml(path), str(path)).startswith(f"{path}:3: train.epochs: ")
    assert "model: is missing" in fault({})


def test_a_value_that_took_precedence_is_not_said_of_the_file(tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text("model: m\ntrain:\n  epochs: many\n  schedule: cosine\n")
    values = read_yaml(path)

    def text(typed: dict) -> str:
        with pytest.raises(InputError) as caught:
            build(Recipe, merge(values, typed), str(path), Overrides(typed, "the command line"))
        return str(caught.value)

    assert text({"train": {"epochs": "x"}}).startswith("the command line: train.epochs: ")
    assert text({"train": {"epochs": 1, "schedul": "x"}}).startswith("the command line: train.schedul: is no known")
    assert text({"train": {"window": {"size": 1}}}).startswith(f"{path}:3: train.epochs: ")
    both = text({"train": {"betas": [0.9, "x"]}})
    assert both.startswith(f"{path}; the command line: 2 settings cannot be used")
    assert f"train.epochs (line 3 of {path}): " in both
    assert "train.betas[1] (the command line): " in both
    assert text({"train": 5}).startswith("the command line: train: is a group of settings")


@pytest.mark.parametrize(
    ("content", "line", "words"),
    [
        (b"a: 1\nb: [1, 2\nc: 3\n", 3, "not YAML"),
        (b"a: 1\n\na: 2\n", 3, "first on line 1"),
        (b"- 1\n- 2\n", 1, "a list stands here"),
        (b"a: 1\nb: caf\xe9\n", 2, "not UTF-8"),
        (b"a: 1\nb: !!python/object:os.system x\n", 2, "not YAML"),
    ],
)
def test_a_bad_yaml_file_names_its_line(tmp_path, content, line, words):
    path = tmp_path / "bad.yaml"
    path.write_bytes(content)
    with pytest.raises(InputError) as caught:
        read_yaml(path)
    assert f"{path}:{line}" in caught.value.place
    assert words in caught.value.fault


def _laughs(levels: int) -> str:
    """Lists of lists by aliases, each nine times the one before."""
    lists = [f"a{level}: &a{level} [{', '.join([f'*a{level - 1}'] * 9)}]" for level in range(1, levels)]
    return "\n".join(["a0: &a0 [1, 2, 3, 4, 5, 6, 7, 8, 9]", *lists])


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("a: " + "[" * 5000 + "]" * 5000, "more than 50 deep"),
        ("a: " + "[" * 60 + "]" * 60, "more than 50 deep"),
        ("a: &a [*a]", "more than 50 deep"),
        (_laughs(9), "aliases"),
        ('a: "\0"', "character 5 is U\\+0000"),
        ("a: " + "9" * 5000, "digits"),
    ],
)
def test_yaml_that_would_exhaust_the_reader_is_refused(tmp_path, content, words):
    path = tmp_path / "recipe.yaml"
    path.write_text(content)
    with pytest.raises(InputError, match=words):
        read_yaml(path)
    assert fault({"model": "m", "train": 3}, str(path))  # line numbers of such a file are none


def test_aliases_and_nesting_within_the_limits_are_read(tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text("a: &a [1, 2]\nb: *a\nc: " + "[" * 40 + "]" * 40)
    values = read_yaml(path)
    assert values["b"] == [1, 2]


@pytest.mark.parametrize("text", ["[a, \0]", "[" * 5000, "9" * 5000])
def test_a_typed_value_that_is_no_yaml_is_a_text(text):
    assert parse_value(text) == text


@pytest.mark.parametrize("value", ["inf", ".inf", "nan", "1e999"])
def test_numbers_are_finite(value):
    assert "finite number" in fault({"model": "m", "train": {"learning_rate": parse_value(value)}})


def test_a_group_that_is_given_a_value_is_said_to_be_one():
    text = fault({"model": "m", "train": 5})
    assert "train: is a group of settings, and not 5" in text
    assert "train.learning_rate, train.schedule" in text


def test_a_seed_is_one_that_the_generators_take():
    class Drawn(Settings):
        seed: Seed = 0

    assert build(Drawn, {"seed": 2**63 - 1}).seed == 2**63 - 1
    for seed in (-1, 2**63):
        with pytest.raises(InputError, match="seed"):
            build(Drawn, {"seed": seed})
    assert describe(Drawn)[0].kind == "int"


def test_a_missing_yaml_file(tmp_path):
    with pytest.raises(InputError, match="cannot be read"):
        read_yaml(tmp_path / "none.yaml")


plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text()
    | st.sampled_from(["no", "on", "2e-4", "1:30", "0x1", "~", "- a", "a\nb\n", "2024-01-02", "<<", "=", "a \nb"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(min_size=1), inner, max_size=3),
    max_leaves=6,
)


@given(st.dictionaries(st.text(min_size=1), plain, max_size=3))
def test_yaml_written_here_reads_back_here(tmp_path_factory, values):
    path = tmp_path_factory.getbasetemp() / "round.yaml"
    path.write_text(write_yaml(values), encoding="utf-8", newline="")
    assert read_yaml(path) == values


@given(st.text(), st.floats(min_value=1e-300, max_value=1e300), st.none() | st.integers())
def test_settings_survive_yaml(tmp_path_factory, prompt, rate, epochs):
    recipe = Recipe(model="m", prompt=prompt, train=Train(learning_rate=rate, epochs=epochs, window=Window(size=2)))
    path = tmp_path_factory.getbasetemp() / "recipe.yaml"
    path.write_text(to_yaml(recipe), encoding="utf-8", newline="")
    assert build(Recipe, read_yaml(path), path) == recipe


def test_other_readers_of_yaml_see_the_same_words():
    values = {"a": "no", "b": "2e-4", "c": 0.0001, "d": "1:30", "e": "line\nline\n"}
    assert yaml.safe_load(write_yaml(values)) == values


def test_merge_prefers_the_second_and_changes_neither():
    first, second = {"a": {"b": 1, "c": 2}, "d": [1]}, {"a": {"b": 3}, "d": [2]}
    assert merge(first, second) == {"a": {"b": 3, "c": 2}, "d": [2]}
    assert first == {"a": {"b": 1, "c": 2}, "d": [1]}


def test_describe_gives_each_setting_once_in_order():
    rows = {row.name: row for row in describe(Recipe)}
    assert list(rows)[:4] == ["model", "prompt", "train.learning_rate", "train.schedule"]
    assert "train.window.size" in rows
    assert rows["model"].default is None
    assert rows["train.learning_rate"][1:] == ("float", "0.0002", "Peak rate.")
    assert rows["train.schedule"].kind == "cosine | linear"
    assert rows["train.epochs"].kind == "int or null"
    assert rows["train.betas"].kind == "list of float"


def test_values_are_checked_when_set_later():
    train = Train()
    with pytest.raises(ValueError, match="greater than 0"):
        train.learning_rate = -1


def test_nearest_gives_nothing_for_something_far():
    assert nearest("zzz", ["train.epochs"]) == []


class Inner(Settings):
    """How the garden is watered."""

    litres: float = Field(2.5, description="Water for each bed, in litres; " + "more where it is hot and dry. " * 6)
    note: str = Field("", description="Written on the card.")
    silent: int = 3


class Outer(Settings):
    """A garden."""

    name: str = Field("bed", description="What it is called.")
    water: Inner = Field(default_factory=Inner)
    tools: list[str] = Field(default_factory=list, description="What is needed.")


def test_what_is_written_carries_its_comments_and_reads_back_equal(tmp_path):
    odd = Outer(
        name="# no comment: here", water=Inner(note="first\n# second\u2028third: 4\n\nlast"), tools=["a", "b: c"]
    )
    path = tmp_path / "garden.yaml"
    for settings in (Outer(), odd):
        text = to_yaml(settings)
        path.write_text(text, encoding="utf-8", newline="")
        assert build(Outer, read_yaml(path)) == settings
        lines = text.split("\n")
        assert lines[0] == "# What it is called."
        assert lines[lines.index("water:") - 1] == "# How the garden is watered."
        assert "  # Written on the card." in lines
        above = lines.index("  litres: 2.5")
        assert lines[above - 2].startswith("  # Water for each bed")
        assert all(len(line) <= 110 for line in lines if "#" in line)
        silent = next(index for index, line in enumerate(lines) if line.startswith("  silent"))
        assert "#" not in lines[silent - 1] or settings is odd


class Part(Settings):
    name: str
    weight: float = Field(1.0, gt=0, description="Its share.")
    window: Window = Field(default_factory=Window)


class Whole(Settings):
    parts: list[Part] = Field(default_factory=list)
    window: Window


@pytest.mark.parametrize(
    ("line", "name", "said"),
    [
        ("- {name: b, wieght: 2}", "parts[1].wieght", "did you mean weight?"),
        ("- {name: b, weight: 0}", "parts[1].weight", "give weight a value (float, by default 1.0): Its share."),
        ("- {weight: 2}", "parts[1].name", "give name a value (str)"),
        ("- {name: b, window: {sise: 3}}", "parts[1].window.sise", "did you mean window.size?"),
        ("- b", "parts[1]", "give parts a value"),
    ],
)
def test_a_fault_within_a_list_of_settings_names_its_entry_and_field(tmp_path, line, name, said):
    path = tmp_path / "recipe.yaml"
    path.write_text(f"window: {{}}\nparts:\n- name: a\n{line}\n")
    with pytest.raises(InputError) as refusal:
        build(Whole, read_yaml(path), path)
    assert refusal.value.fault.startswith(f"{name}: ")
    assert said in refusal.value.hint
    assert refusal.value.place == f"{path}:4"


def test_a_missing_group_is_said_with_its_settings():
    with pytest.raises(InputError, match="window: is missing") as refusal:
        build(Whole, {"parts": []})
    assert refusal.value.hint == "write its settings: window.size ..."
