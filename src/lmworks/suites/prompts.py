"""Questions with their examples -> the token ids that a model is sent: with chat template or not, with BOS or not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from lmworks.base.errors import InputError
from lmworks.suites.settings import SuiteSettings
from lmworks.text import chat
from lmworks.text.tokenizer import Tokenizer

BLANK_LINE = "\n\n"
"""Between examples, and before the question."""


class Shown(NamedTuple):
    """A question that is shown with its answer."""

    prompt: str
    answer: str


@dataclass(frozen=True)
class Sent:
    """A prompt as a model is sent it.

    Attributes:
        ids: its tokens.
        text: what continuations follow, as text.
        cut: tokens of its beginning that were left out, since the context has no room for them.
    """

    ids: list[int]
    text: str
    cut: int = 0


@dataclass(frozen=True)
class PromptWriter:
    """How prompts are written for one model.

    Attributes:
        tokenizer: of the model.
        template: whether they are turns of its chat template, examples too.
        bos: whether a BOS token stands before those without template; None: as the tokenizer does.
        source: whether the model reads them as sources: an encoder-decoder.
    """

    tokenizer: Tokenizer
    template: bool
    bos: bool | None = None
    source: bool = False

    def write(self, prompt: str, shown: Sequence[Shown] = (), separator: str = " ") -> Sent:
        """A prompt after its examples.

        Args:
            prompt: of the question; empty: what is asked is the likelihood of whole texts.
            shown: the examples.
            separator: between an example's prompt and its answer.

        Raises:
            InputError: the tokenizer has no token that could stand before a whole text.
        """
        if self.template:
            turns = [turn for example in shown for turn in _turns(example.prompt, example.answer)]
            messages: list[dict[str, Any]] = [*turns, {"role": "user", "content": prompt}]
            ids, _ = chat.encode(self.tokenizer, messages, reply=True)
            return Sent(ids, chat.render(self.tokenizer, messages, reply=True))
        parts = [example.prompt + join(example.prompt, example.answer, separator) for example in shown]
        text = BLANK_LINE.join([*parts, prompt])
        if self.source:
            return Sent(self.tokenizer.encode(text, special=True), text)
        if not text:
            return Sent(self._before_a_text(), "")
        return Sent([*self._opening(), *self.tokenizer.encode(text)], text)

    def continuation(self, sent: Sent, text: str, separator: str = " ") -> list[int]:
        """The ids of what follows a prompt."""
        if self.template:
            return self.tokenizer.encode(text.strip(), after=sent.text)
        return self.tokenizer.encode(join(sent.text, text, separator), after=sent.text)

    def fitted(self, sent: Sent, room: int | None, place: str) -> Sent:
        """A prompt that leaves out tokens after its BOS token where it has more than there is room for.

        Raises:
            InputError: there is no room for a single token.
        """
        if room is None or len(sent.ids) <= room:
            return sent
        begin = 0 if self.template or self.source else len(self._opening())
        if room <= begin:
            raise InputError("the continuation leaves no room for its prompt in the context", place, "take other rows")
        cut = len(sent.ids) - room
        return replace(sent, ids=[*sent.ids[:begin], *sent.ids[begin + cut :]], cut=cut)

    def _opening(self) -> list[int]:
        """What stands before a prompt without template."""
        if self.bos is None:
            return self.tokenizer.opening
        if not self.bos:
            return []
        if self.tokenizer.bos_id is None:
            raise InputError("the tokenizer has no BOS token", "--bos on", "leave --bos out")
        return [self.tokenizer.bos_id]

    def _before_a_text(self) -> list[int]:
        """The token after which a whole text is scored: BOS, else the one that ends texts; none without BOS."""
        if self.bos is False:
            return []
        if opening := self._opening():
            return opening
        for token in (self.tokenizer.bos_id, self.tokenizer.eos_id):
            if token is not None:
                return [token]
        return []


def writer_of(tokenizer: Tokenizer, settings: SuiteSettings, architecture: str, template: bool) -> PromptWriter:
    """How prompts are written.

    Args:
        tokenizer: of the model.
        settings: of them template and bos.
        architecture: of the model.
        template: what ``auto`` means: whether the chat template is used where there is one.

    Raises:
        InputError: a template is asked for, and there is none.
    """
    if settings.template == "on" and tokenizer.chat_template is None:
        raise InputError("this model has no chat template", "--template on", "leave --template out")
    is_source = architecture == "encoder-decoder"
    used = settings.template == "on" or (settings.template == "auto" and template)
    used = used and tokenizer.chat_template is not None and not is_source
    bos = None if settings.bos == "auto" else settings.bos == "on"
    return PromptWriter(tokenizer, used, bos, is_source)


def join(prompt: str, text: str, separator: str) -> str:
    """What follows a prompt, with the separator before it where neither has white space there."""
    if not prompt or prompt[-1].isspace() or text[:1].isspace():
        return text
    return separator + text


def _turns(prompt: str, answer: str) -> list[dict[str, Any]]:
    return [
        {"role": "user", "content": prompt},
        {"role": "assistant", "content": answer.strip(), "weight": 0},
    ]
