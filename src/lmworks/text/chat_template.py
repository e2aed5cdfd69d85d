"""A model's chat template: Jinja in a sandbox, with the functions that Hugging Face's templates may call."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from functools import lru_cache
from typing import Any

import jinja2
from jinja2.ext import Extension, loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment

from lmworks.base.errors import InputError
from lmworks.text.messages import NO_TEMPLATE

_IN_TEMPLATES = (TypeError, ValueError, AttributeError, LookupError, ArithmeticError)
"""What a template raises that, say, joins what is no text."""


class RefusedMessages(InputError):
    """Messages that a template refuses."""


def render(template: str, values: Mapping[str, Any]) -> str:
    """What a template writes.

    Args:
        template: Jinja.
        values: its variables: messages, add_generation_prompt, tools, bos_token ...

    Raises:
        RefusedMessages: it refuses them.
        InputError: it does not parse.
    """
    compiled = _compiled(template)
    try:
        return compiled.render(values)
    except (jinja2.TemplateError, *_IN_TEMPLATES) as error:
        hint = "change the messages as the template asks (many want user and assistant in turns, user first)"
        raise RefusedMessages(f"the model's chat template refuses these messages: {error}", hint=hint) from error


class _Generation(Extension):
    """``{% generation %} ... {% endgeneration %}`` marks what an assistant says; here its inside is simply written."""

    tags = {"generation"}  # noqa: RUF012  (jinja2 reads it from the class)

    def parse(self, parser: Any) -> Any:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


@lru_cache(maxsize=32)
def _compiled(template: str) -> jinja2.Template:
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, loopcontrols]
    )
    environment.filters["tojson"] = _to_json
    environment.globals["raise_exception"] = _raise
    environment.globals["strftime_now"] = _now
    try:
        return environment.from_string(template)
    except jinja2.TemplateError as error:
        raise InputError(f"the model's chat template does not parse: {error}", hint=NO_TEMPLATE) from error


def _to_json(value: Any, ensure_ascii: bool = False, indent: int | None = None, **others: Any) -> str:
    """JSON as it is; Jinja's own filter would escape HTML."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, **others)


def _raise(message: str) -> None:
    raise jinja2.TemplateError(message)


def _now(form: str) -> str:
    return datetime.now().strftime(form)
