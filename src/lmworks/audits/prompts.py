"""The prompts of an audit, and what a model writes to them."""

from __future__ import annotations

from lmworks.audits.part import Given, prompt_of
from lmworks.audits.settings import AuditSettings
from lmworks.audits.subject import Subject
from lmworks.ratings.prompts import read_prompts
from lmworks.text.messages import Message


def drawn_as(settings: AuditSettings) -> dict[str, object]:
    """How outputs are drawn, for signatures."""
    names = ("samples", "temperature", "max_tokens", "seed")
    return {name: getattr(settings, name) for name in names}


def prompts_of(given: Given) -> tuple[list[list[Message]], str]:
    """The prompts: those of the file, else of the rows; and why there are none.

    Raises:
        InputError: the file cannot be read.
    """
    if given.settings.prompts is not None:
        prompts, _ = read_prompts(given.settings.prompts)
        return given.draw(prompts), ""
    if given.table is None:
        return [], "give prompts with --prompts FILE"
    asked = [prompt for row in given.table.rows if (prompt := prompt_of(row)) is not None]
    return given.draw(asked), "" if asked else "the rows ask nothing: give prompts with --prompts FILE"


def outputs_of(subject: Subject, given: Given) -> tuple[list[list[str]], str]:
    """Several outputs to each prompt; and why there are none.

    Raises:
        InputError: the file of prompts cannot be read, or a prompt is longer than the context.
    """
    prompts, reason = prompts_of(given)
    return (subject.samples(prompts, given.settings) if prompts else []), reason
