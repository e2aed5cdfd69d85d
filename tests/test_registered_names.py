"""Tasks and methods are asked through their registries: no other file decides anything by the name of one.

Such a decision is a comparison with the name, or a dictionary that has it as a key, or an index of one.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import pytest

from lmworks.adapt.registry import METHODS
from lmworks.tasks.registry import TASKS
from lmworks.text.rows import Kind

SOURCE = Path(__file__).resolve().parents[1] / "src" / "lmworks"
KINDS = set(get_args(Kind))  # rows of kind "labels" and of kind "chat" are no tasks
TASK_NAMES, METHOD_NAMES = set(TASKS), set(METHODS)
OTHER_MEANINGS = {
    ("text/rows.py", "labels"),  # the kinds of rows
    ("text/rows.py", "chat"),
    ("base/machine.py", "instructions"),  # of a processor
    ("commands/doctor.py", "instructions"),
    ("commands/examples.py", "masked"),  # what became of a token
    ("commands/main.py", "chat"),  # the command
    ("serve/response_output.py", "instructions"),  # a field of OpenAI's Responses
    ("adapt/adapter_folder.py", "head"),  # the part of a model
    ("run/footprint.py", "head"),
    ("evaluate/metric_registry.py", "labels"),  # what a metric is of
}
CLASSIFIERS = ("evaluate/classification.py", "reports/measures.py", "reports/classification.py")
CLASSIFIERS += ("reports/classification_tables.py", "reports/classification_page.py")
CLASSIFIERS += ("tasks/classify.py", "text/columns.py", "text/corpus.py", "text/shapes.py")
CLASSIFIERS += ("baselines/tfidf_folder.py", "run/predict_file.py", "commands/predict.py")
OTHER_MEANINGS |= {(path, "labels") for path in CLASSIFIERS}  # the classes of a classifier
LADDERS = (
    "comparisons/rungs.py",
    "comparisons/ladder.py",
    "comparisons/ladder_report.py",
    "comparisons/ladder_settings.py",
)
OTHER_MEANINGS |= {(path, "classify") for path in LADDERS}  # a ladder of classifiers
OLD_FILES = ("language_model/input_format.py", "KIND_OF_TASK")  # files that say their task alone


def decisions(code: str) -> Iterator[tuple[int, str]]:
    """Each word by which something is decided, with its line."""
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Compare):
            sides = [node.left, *node.comparators]
            if not any(_is_kind_of_rows(side) for side in sides):
                yield from _words(sides)
        elif isinstance(node, ast.Dict):
            yield from _words([key for key in node.keys if key is not None], KINDS)
        elif isinstance(node, ast.Subscript):
            yield from _words([node.slice])
        elif isinstance(node, ast.MatchValue):
            yield from _words([node.value])
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name | ast.Attribute):
            called = node.func.id if isinstance(node.func, ast.Name) else node.func.attr
            if called in ("make", "task_class"):
                yield from _words(node.args)


def _is_kind_of_rows(node: ast.expr) -> bool:
    name = node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""
    return name == "kind"


def _words(nodes: list[ast.expr], without: set[str] = frozenset()) -> Iterator[tuple[int, str]]:
    for node in nodes:
        for inner in ast.walk(node):
            words = [inner.value] if isinstance(inner, ast.Constant) and isinstance(inner.value, str) else []
            yield from ((inner.lineno, word) for word in words if word not in without)


def _old_keys(path: str, code: str) -> set[tuple[int, str]]:
    """The keys of the one dictionary that may have names of tasks."""
    if path != OLD_FILES[0]:
        return set()
    tables = (node for node in ast.walk(ast.parse(code)) if isinstance(node, ast.AnnAssign))
    return {word for node in tables if ast.unparse(node.target) == OLD_FILES[1] for word in _words([node.value])}


@pytest.mark.parametrize(("folder", "names"), [("tasks", TASK_NAMES), ("adapt", METHOD_NAMES)])
def test_no_other_file_decides_by_the_name_of_one(folder, names):
    messages = []
    for file in sorted(SOURCE.rglob("*.py")):
        path, code = file.relative_to(SOURCE).as_posix(), file.read_text(encoding="utf-8")
        for line, word in sorted(set(decisions(code)) - _old_keys(path, code)):
            if word in names and path != f"{folder}/{word}.py" and (path, word) not in OTHER_MEANINGS:
                messages.append(f"{path}:{line} decides by {word!r}: ask {folder}/registry")
    assert messages == []


@pytest.mark.parametrize(
    ("code", "word"),
    [
        ("task == 'labels'", "labels"),
        ("if self.task.name in ('causal', 'seq2seq'): pass", "seq2seq"),
        ("STARTS = {'denoising': 'eos'}", "denoising"),
        ("METHODS['lora' if frozen else 'full']", "lora"),
        ("methods.make('full')", "full"),
        ("task_class('spans')", "spans"),
        ("match task:\n    case 'masked': pass", "masked"),
    ],
)
def test_a_decision_is_seen_however_it_is_written(code, word):
    assert word in {seen for _, seen in decisions(code)}


@pytest.mark.parametrize("code", ["table.kind == 'labels'", "COLUMNS = {'chat': 1}", "print('lora')", "name = 'full'"])
def test_what_decides_nothing_by_a_name_is_let_through(code):
    assert not {word for _, word in decisions(code)} & (TASK_NAMES | METHOD_NAMES)


@pytest.mark.parametrize("name", sorted(TASK_NAMES))
def test_every_task_has_all_methods_of_its_interface(name):
    assert TASKS[name].__abstractmethods__ == frozenset()
