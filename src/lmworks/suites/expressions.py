"""Expressions and templates over the columns of a row, in Jinja, as chat templates are. They run in a sandbox.

Beside Jinja's own filters there are ``sub``, a replacement by regular expression, and ``parts``, the parts of a text
from ``start`` to ``end``, which is the last character.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import jinja2
from jinja2.sandbox import ImmutableSandboxedEnvironment

from lmworks.base.errors import InputError

HINT = "give the file in its published layout, or describe its own: docs/evaluating.md"
_FAULTS = (jinja2.TemplateError, TypeError, ValueError, AttributeError, LookupError, ArithmeticError)
"""What computing with a row of another layout raises."""


@cache
def _environment() -> ImmutableSandboxedEnvironment:
    environment = ImmutableSandboxedEnvironment(undefined=jinja2.StrictUndefined, keep_trailing_newline=True)
    environment.filters["sub"] = _sub
    environment.filters["parts"] = _parts
    return environment


def _sub(text: str, pattern: str, replacement: str) -> str:
    return re.sub(pattern, replacement, text)


def _parts(text: str, spans: Sequence[Mapping[str, int]]) -> list[str]:
    return [text[span["start"] : span["end"] + 1] for span in spans]


@cache
def _expression(text: str) -> Any:
    return _environment().compile_expression(text, undefined_to_none=False)


@cache
def _template(text: str) -> jinja2.Template:
    return _environment().from_string(text)


def fault_of(text: str, is_template: bool) -> str | None:
    """What is wrong with the syntax of an expression or a template; None: nothing."""
    try:
        (_template if is_template else _expression)(text)
    except jinja2.TemplateSyntaxError as error:
        return f"{text!r}: {error.message}"
    return None


def evaluate(text: str, values: Mapping[str, Any], place: str) -> Any:
    """The value of an expression.

    Args:
        text: the expression, such as ``question.choices | map(attribute="text") | list``.
        values: what its names stand for.
        place: of the row, for errors.

    Raises:
        InputError: the row lacks a column, or its values are of another kind.
    """
    try:
        value = _expression(text)(dict(values))
        if isinstance(value, jinja2.Undefined):
            str(value)  # raises, and says which name it is
        return value
    except _FAULTS as error:
        raise InputError(f"{text!r} cannot be computed: {error}", place, HINT) from error


def render(text: str, values: Mapping[str, Any], place: str) -> str:
    """The text of a template; arguments and errors as of :func:`evaluate`."""
    try:
        return _template(text).render(dict(values))
    except _FAULTS as error:
        raise InputError(f"{text!r} cannot be written: {error}", place, HINT) from error
