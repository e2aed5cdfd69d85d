"""Which contender is recommended, from figures that were made by hand."""

from __future__ import annotations

import pytest

from lmworks.comparisons import comparison_table, results
from lmworks.comparisons.comparison_settings import CompareSettings
from lmworks.comparisons.comparison_state import Result, State
from lmworks.comparisons.recommendation import recommend

KINDS = {
    "majority": "classical",
    "tfidf-logreg": "classical",
    "zero-shot": "prompted",
    "lora": "trained",
    "full": "trained",
}


def recommended(rows: dict[str, list[float]], seconds: dict[str, float] | None = None) -> tuple[dict, State]:
    """The recommendation of contenders with these figures by row, and the state."""
    state = compared(rows, seconds)
    state.recommendation = recommend(state, results.settle(state))
    return state.recommendation, state


def compared(rows: dict[str, list[float]], seconds: dict[str, float] | None = None) -> State:
    """A comparison of contenders with these figures by row."""
    listed = []
    for name, values in rows.items():
        cost = {"all_seconds": (seconds or {}).get(name, 1.0)}
        own = Result(
            name, name, KINDS[name], state="done", numerators=values, denominators=[1.0] * len(values), cost=cost
        )
        own.value = sum(values) / len(values)
        listed.append(own)
    measure = {"title": "Accuracy", "better": "higher", "signature": "accuracy"}
    counts = {"training": 100, "validation": 10, "test": len(listed[0].numerators)}
    return State(CompareSettings(model="m", source="d"), listed, row_counts=counts, measure=measure)


def test_the_cheapest_of_those_that_the_rows_cannot_tell_from_the_best():
    good, poor = [1.0] * 90 + [0.0] * 10, [0.0] * 60 + [1.0] * 40
    nearly = [0.0, *good[1:]]
    found, _ = recommended({"tfidf-logreg": poor, "full": good, "lora": nearly}, {"full": 60.0, "lora": 20.0})
    assert found["name"] == "lora"
    assert any("tfidf-logreg 0.5" in reason for reason in found["reasons"])
    assert recommended({"tfidf-logreg": nearly, "full": good, "lora": good})[0]["name"] == "tfidf-logreg"
    assert recommended({"zero-shot": nearly, "full": good, "tfidf-logreg": poor})[0]["name"] == "zero-shot"


def test_of_simple_ones_the_first_of_the_list_however_they_were_added():
    equal = [1.0, 0.0] * 30
    assert recommended({"tfidf-logreg": equal, "majority": equal})[0]["name"] == "majority"


@pytest.mark.parametrize(
    ("unit", "line"),
    [
        ("", "bits per byte (a text): 1.20 → 1.45 (+0.250); full −0.200"),
        ("bits", "bits per byte (a text): 1.20 → 1.45 bits (+0.250); full −0.200"),
    ],
)
def test_what_is_forgotten_is_said_of_the_chosen_one_and_of_those_as_good(unit, line):
    state = compared({"lora": [1.0, 0.0] * 30, "full": [1.0, 0.0] * 30}, {"lora": 1.0, "full": 2.0})
    for result, after in zip(state.results, (1.45, 1.0), strict=True):
        result.forgetting = {"text": {"title": "bits per byte (a text)", "unit": unit, "before": 1.2, "after": after}}
    assert line in recommend(state, results.settle(state))["reasons"]


def test_equal_zeros_recommend_nothing():
    found, state = recommended({"majority": [0.0] * 40, "lora": [0.0] * 40})
    assert found == {}
    assert any("nothing is recommended" in line for line in comparison_table.remarks(state))


def test_a_zero_is_not_recommended_though_the_best_is_within_chance_of_it():
    found, state = recommended({"majority": [0.0] * 20, "lora": [1.0] + [0.0] * 19, "full": [0.0] * 20})
    assert found == {}
    (line,) = [line for line in comparison_table.remarks(state) if "nothing is recommended" in line]
    assert "lora (0.0500)" in line
    assert "majority" in line


def test_the_time_of_contenders_that_were_added_is_not_of_the_budget():
    state = compared({"majority": [1.0] * 20, "lora": [1.0] * 20})
    state.settings.budget, state.planned, state.seconds = 60.0, 60.0, 58.0
    assert comparison_table.remarks(state)[0].startswith("58.0 s of a budget of 60.0 s; ")
    state.planned, state.seconds = 80.0, 77.0
    line = comparison_table.remarks(state)[0]
    assert line.startswith("77.0 s of a budget of 60.0 s and 20.0 s for contenders that were added; ")
