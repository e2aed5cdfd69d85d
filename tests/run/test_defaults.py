"""What is chosen where nobody says: how long is trained, how much is measured."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from lmworks.adapt.lora import LoRASettings
from lmworks.base.errors import InputError
from lmworks.base.settings import Settings, build, describe, parse_overrides, to_yaml
from lmworks.data.batch import Example
from lmworks.data.examples import Examples, Report, count
from lmworks.evaluate.metrics import FEWEST_ROWS
from lmworks.run import recipe as recipes
from lmworks.run.defaults import ENOUGH_STEPS, MOST_EPOCHS, note_few_held_out, settle_evaluation, settle_length
from lmworks.text import corpus
from lmworks.text.rows import DataSettings, Table
from lmworks.train.settings import TrainSettings


def _examples(number: int, tokens: int = 10) -> Examples:
    items = [Example(np.arange(tokens, dtype=np.int32), np.ones(tokens, dtype=bool)) for _ in range(number)]
    report = Report("completion", "", rows=number)
    count(items, report)
    return Examples(items, report)


def _recipe(**settings: object) -> recipes.Recipe:
    return recipes.resolve({"model": "x", "data": "y", **settings})


def test_a_small_file_is_seen_until_the_held_out_loss_stops_falling():
    recipe = _recipe()
    notes = settle_length(recipe, _examples(57), held_out=6)
    assert recipe.train.epochs == 12
    assert recipe.train.patience == 2
    assert f"at most {MOST_EPOCHS} epochs" in notes[0]
    guide = " ".join((Path(__file__).parents[2] / "docs/guide.md").read_text(encoding="utf-8").split())
    assert f"as make {ENOUGH_STEPS} steps, and never more than {MOST_EPOCHS};" in guide


def test_a_large_file_is_seen_once():
    recipe = _recipe()
    assert settle_length(recipe, _examples(5000), held_out=100) == []
    assert (recipe.train.epochs, recipe.train.patience) == (1.0, None)


@pytest.mark.parametrize("train", [{"epochs": 1}, {"steps": 5}])
def test_what_is_asked_for_is_done(train):
    recipe = _recipe(train=train)
    assert settle_length(recipe, _examples(57), held_out=6) == []
    assert recipe.train.patience is None


def test_without_held_out_rows_one_epoch_is_trained():
    recipe = _recipe()
    assert settle_length(recipe, _examples(2), held_out=0) == []
    assert recipe.train.epochs == 1.0


def test_a_recipe_that_is_read_again_is_what_it_was(tmp_path):
    from lmworks.base.settings import to_yaml

    recipe = _recipe()
    settle_length(recipe, _examples(57), held_out=6)
    (tmp_path / "recipe.yaml").write_text(to_yaml(recipe))
    again = recipes.read(tmp_path / "recipe.yaml")
    assert settle_length(again, _examples(570), held_out=60) == []
    assert again.train == recipe.train


def test_a_short_run_is_measured_on_less_and_says_so():
    recipe = _recipe(train={"steps": 10})
    notes = settle_evaluation(recipe, _examples(1000, 250), _examples(200, 250))  # 20,000 tokens are trained
    assert recipe.evaluate.task_rows == 24
    assert recipe.evaluate.general_bytes == 12_000
    assert recipe.evaluate.measured == 48
    assert "48 of 200 held-out examples (evaluate.measured)" in notes[0]
    assert "answers to 24 of 200 held-out rows (evaluate.task_rows)" in notes[0]
    assert "12,000 of 24,000 bytes of a text that shows what is forgotten (evaluate.general_bytes)" in notes[0]


def test_the_note_of_a_short_run_says_only_what_is_less():
    recipe = _recipe(train={"steps": 10}, evaluate={"general_bytes": 5})
    assert settle_evaluation(recipe, _examples(1000, 250), _examples(4, 250)) == []  # all four are evaluated


def test_the_note_of_a_head_says_nothing_of_answers_and_forgetting():
    recipe = _recipe(train={"steps": 10})
    (note,) = settle_evaluation(recipe, _examples(1000, 250), _examples(200, 250), writes=False)
    assert "evaluate.measured" in note
    assert "task_rows" not in note
    assert "forgotten" not in note


def test_a_whole_run_and_what_is_asked_for_are_measured_whole():
    recipe = _recipe(train={"steps": 100})
    assert settle_evaluation(recipe, _examples(1000, 250), _examples(200, 250)) == []
    assert (recipe.evaluate.task_rows, recipe.evaluate.measured) == (48, None)
    recipe = _recipe(train={"steps": 1}, evaluate={"task_rows": 7, "general_bytes": 0, "measured": 200})
    assert settle_evaluation(recipe, _examples(1000, 250), _examples(200, 250)) == []
    assert (recipe.evaluate.task_rows, recipe.evaluate.measured) == (7, 200)


def test_patience_without_held_out_rows_is_said():
    recipe = _recipe(train={"patience": 2})
    assert "never stops early" in settle_length(recipe, _examples(57), held_out=0)[0]
    assert recipe.train.epochs == 1


def test_two_lengths_of_training_are_refused_and_the_later_one_wins(tmp_path):
    values = {"model": "some/model", "data": "faq.jsonl"}
    with pytest.raises(InputError, match=r"train.steps 5 and train.epochs 2 both say") as caught:
        recipes.resolve({**values, "train": {"epochs": 2, "steps": 5}})
    assert "leave one" in caught.value.hint
    remaining = tmp_path / "recipe.yaml"
    remaining.write_text(to_yaml(recipes.resolve({**values, "train": {"steps": 5}})), encoding="utf-8")
    assert recipes.read(remaining).train.steps == 5
    longer = recipes.read(remaining, {"train": {"epochs": 3}}).train
    assert (longer.steps, longer.epochs) == (None, 3)
    remaining.write_text(to_yaml(recipes.resolve({**values, "train": {"epochs": 2}})), encoding="utf-8")
    assert recipes.read(remaining, {"train": {"steps": 7}}).train.steps == 7


def test_the_rows_examples_and_tokens_of_a_run_are_said():
    from lmworks.run.task_data import data_note

    examples, held_out = _examples(30), _examples(2)
    expected = "30 rows to train on in 30 examples of 300 tokens; 2 rows held out in 2 examples of 20 tokens"
    assert data_note(examples, held_out, is_inside=False) == expected
    assert "held out" not in data_note(examples, _examples(0), is_inside=False)


@pytest.mark.parametrize(("texts", "said"), [(1, "1 text: "), (3, "3 texts: ")])
def test_a_text_whose_end_is_held_out_is_said_once(texts, said):
    from lmworks.run.task_data import data_note

    examples, held_out = _examples(30), _examples(2)
    examples.report.rows = held_out.report.rows = texts
    end = "the end of it" if texts == 1 else "the end of each"
    expected = f"{said}30 examples of 300 tokens to train on; {end}, 2 examples of 20 tokens, held out"
    assert data_note(examples, held_out, is_inside=True) == expected


def _questions(number: int) -> Table:
    return corpus.read([{"prompt": f"What is {n}?", "completion": f"It is {n}."} for n in range(number)])


@pytest.mark.parametrize("settings", [{}, {"held_out_max": 3}, {"held_out": 2}])
def test_too_few_held_out_rows_for_a_verdict_are_said_before_the_run(settings: dict) -> None:
    recipe, table = _recipe(data={"source": "y", **settings}), _questions(40)
    assert note_few_held_out(recipe, _examples(FEWEST_ROWS), table, False) == []
    assert note_few_held_out(recipe, _examples(0), table, False) == []
    (note,) = note_few_held_out(recipe, _examples(4), table, False)
    assert note.startswith("4 held-out examples: ")
    options = note.partition("; ")[2].removesuffix(" holds out enough").split()
    data = build(DataSettings, parse_overrides([*_options(settings), *options])["data"], "options")
    assert len(corpus.split(table, data)[1]) == FEWEST_ROWS


def _options(settings: dict) -> list[str]:
    return [word for name, value in settings.items() for word in (f"--data.{name}", str(value))]


def test_no_option_is_advised_that_these_rows_cannot_follow() -> None:
    (note,) = note_few_held_out(_recipe(), _examples(1), _questions(5), False)
    assert note.endswith("; give more rows")
    (note,) = note_few_held_out(_recipe(), _examples(1), _questions(5), True)
    assert note.endswith("; give more text")


def test_enough_held_out_rows_of_which_too_few_are_evaluated() -> None:
    recipe = _recipe(evaluate={"measured": 3})
    (note,) = note_few_held_out(recipe, _examples(20), _questions(200), False)
    assert note.startswith("3 held-out examples: ")
    assert f"--evaluate.measured {FEWEST_ROWS}" in note
    (note,) = note_few_held_out(recipe, _examples(4), _questions(40), False)
    assert f"--data.held_out {FEWEST_ROWS} --evaluate.measured {FEWEST_ROWS}" in note


@pytest.mark.parametrize("group", [TrainSettings, LoRASettings, DataSettings])
def test_what_is_said_of_a_name_from_elsewhere_is_a_setting(group: type[Settings]) -> None:
    names = {row.name for row in describe(recipes.Recipe)}
    for name, hint in group.hints.items():
        assert name not in group.model_fields
        for option in re.findall(r"--([\w.]+)", hint):
            assert option in names, hint
