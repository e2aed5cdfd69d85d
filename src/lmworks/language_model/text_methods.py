"""The methods of a model that writes texts: generate, chat, translate, next, labels. Imports no torch."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, Literal, overload

import numpy as np

from lmworks.base.errors import InputError, as_list, check_type
from lmworks.base.settings import build
from lmworks.data.prompts import Prompt
from lmworks.evaluate.prediction import Prediction
from lmworks.evaluate.text_windows import ChoiceScores, Ids, Score
from lmworks.generate.grammar import Grammar
from lmworks.generate.sampling import Rules, SamplingSettings, published_beams
from lmworks.generate.stepper import Stepper
from lmworks.generate.text import Reply, TextStream, complete, next_tokens, stream
from lmworks.generate.tool_calls import Tools
from lmworks.language_model.choose_labels import choose_labels
from lmworks.language_model.few_shot import FewShotPrompt
from lmworks.language_model.input_format import MESSAGES_HINT, TEXT_HINT, TEXTS_HINT, Input, InputFormat, texts_of
from lmworks.language_model.inputs import conversation_of, prompts_of
from lmworks.text.messages import with_texts
from lmworks.text.tokenizer import Tokenizer

Message = dict[str, Any]
GRAMMAR_HINT = "give a lmworks.Grammar, as in Grammar.json_schema({...}) or Grammar.choices([...])"


class TextMethods(ABC):
    """A model whose stepper gives the logits of the next token.

    Attributes:
        own_tokenizer: its tokenizer, None where it came without one; ``tokenizer`` then says what is missing.
        source: what the person named.
        generation: its generation_config.json.
        input_format: how inputs looked in the run that trained it; None where no run is known.
        few_shot: what stands before its inputs, where a run of method prompting chose it.
    """

    own_tokenizer: Tokenizer | None
    source: str
    generation: dict[str, Any]
    input_format: InputFormat | None
    few_shot: FewShotPrompt | None

    @property
    @abstractmethod
    def architecture(self) -> str:
        """Whether it is an encoder, a decoder or an encoder-decoder."""

    @property
    @abstractmethod
    def context(self) -> int | None:
        """Tokens of a text that it reads at a time; None: any number."""

    @abstractmethod
    def stepper(self) -> Stepper:
        """The model behind the interface that generation asks for logits.

        Raises:
            InputError: it writes no texts.
        """

    @abstractmethod
    def check_writes(self) -> None:
        """Raise an InputError if it writes no texts."""

    @property
    @abstractmethod
    def signature(self) -> str:
        """What computes, and the formats of the weights: what a score says (evaluate/text_windows.signature_of)."""

    @abstractmethod
    def score(
        self, texts: str | Sequence[str], *, context: int | None = None, stride: int | None = None
    ) -> list[Score]:
        """How likely each text is: nats, tokens, bits per byte and per character, perplexity.

        Args:
            texts: one or several.
            context, stride: tokens of the windows of texts longer than the context, and by how many they advance; None:
                the model's own, and half of it (evaluate/text_windows.windows_of).

        Raises:
            InputError: the model is no decoder, or reads no such windows.
        """

    @abstractmethod
    def choice_scores(self, prompts: Sequence[Ids], choices: Sequence[Sequence[Ids]]) -> list[ChoiceScores]:
        """How likely each choice is after its prompt (evaluate/choices); what prompts begin with is read once."""

    def choice_likelihoods(self, prompts: Sequence[Ids], choices: Sequence[Sequence[Ids]]) -> list[np.ndarray]:
        """For each prompt log p of each of its choices."""
        return [scores.log_probabilities for scores in self.choice_scores(prompts, choices)]

    @property
    def tokenizer(self) -> Tokenizer:
        """Text <-> ids, and the chat template."""
        if self.own_tokenizer is None:
            raise InputError("this model came without a tokenizer", self.source, "put its tokenizer.json beside it")
        return self.own_tokenizer

    @tokenizer.setter
    def tokenizer(self, tokenizer: Tokenizer) -> None:
        self.own_tokenizer = tokenizer

    @property
    def has_tokenizer(self) -> bool:
        """Whether it came with one."""
        return self.own_tokenizer is not None

    @property
    def rules(self) -> Rules:
        """What its publisher demands of every text that it writes."""
        return Rules.of(self.generation, self.architecture == "encoder-decoder")

    @overload
    def generate(self, prompt: Input, *, stream: Literal[False] = False, **options: Any) -> str: ...
    @overload
    def generate(self, prompt: Input, *, stream: Literal[True], **options: Any) -> TextStream: ...
    @overload
    def generate(self, prompt: Sequence[Input], *, stream: Literal[False] = False, **options: Any) -> list[str]: ...

    def generate(
        self,
        prompt: Input | Sequence[Input],
        *,
        stream: bool = False,
        details: bool = False,
        log_probabilities: bool = False,
        raw: bool = False,
        draft: TextMethods | None = None,
        grammar: Grammar | None = None,
        **sampling: Any,
    ) -> Any:
        """Continue a text, or each of several; with an encoder-decoder: answer it.

        A model that a run taught to answer prompts or to label texts is asked in the words of that run, and labels are
        chosen by their likelihood: see ``input_format``.

        Args:
            prompt: a text, or a list of them (all at once; each gets what it would get alone). Where the run's prompt
                is built from several columns: a dictionary of these.
            stream: yield the new text piece by piece (one prompt only).
            details: give replies instead of texts: why it stopped, usage.
            log_probabilities: with ``details``: of each new token.
            raw: continue the text as it is, whatever the model was trained on.
            draft: a smaller model with the same vocabulary, which guesses tokens for this one to check several at a
                time: greedy decoding of one prompt gives the same text sooner. Both are computed by the native engine.
            grammar: what the text must look like: a JSON schema, a regular expression, a choice ...
            **sampling: fields of SamplingSettings: max_tokens, temperature, top_k, top_p, num_beams, seed, stop ...

        Returns:
            The new text alone, without the prompt; a list for a list; with ``details`` a Reply each; with ``stream``
            an iterator whose ``reply`` is there when it has ended.

        Raises:
            InputError: the model writes no texts, a setting is invalid, a prompt does not fit the model, ``draft`` does
                not, or the grammar cannot be compiled.
        """
        settings = build(SamplingSettings, sampling, "generate")
        if isinstance(prompt, str | Mapping):
            asked = self._prompt(prompt, raw)
            return self._answer(asked, settings, stream, details, log_probabilities, draft, grammar)
        if draft is not None:
            raise InputError("a draft model guesses for one prompt", "draft", "give a single text, or leave draft out")
        if stream:
            raise InputError("streaming takes one prompt", "stream", "give a single text, or leave out stream=True")
        replies = self.complete(prompt, settings, log_probabilities, raw, grammar)
        return replies if details else [reply.text for reply in replies]

    def complete(
        self,
        prompts: Sequence[Input],
        settings: SamplingSettings,
        log_probabilities: bool = False,
        raw: bool = False,
        grammar: Grammar | None = None,
    ) -> list[Reply]:
        """The replies to several texts; arguments and errors as in :meth:`generate`."""
        prompts = as_list(prompts, (str, Mapping), "prompts", TEXTS_HINT)
        inputs = self._prompts(prompts, raw)
        _check_grammar(grammar, *inputs[:1])
        if inputs and inputs[0].choices:
            return self._choose_labels(inputs)
        ids, settings = [prompt.ids for prompt in inputs], self._resolve(settings, *inputs[:1])
        return complete(self.stepper(), self.tokenizer, ids, settings, self.rules, log_probabilities, grammar)

    @overload
    def translate(self, text: str, **sampling: Any) -> str: ...
    @overload
    def translate(self, text: Sequence[str], **sampling: Any) -> list[str]: ...

    def translate(self, text: str | Sequence[str], **sampling: Any) -> str | list[str]:
        """Answer texts with an encoder-decoder, by the beam search that its publisher advises; four beams without.

        Args:
            text: a text or a list of them, written as the model was taught ("translate English to French: ...").
            **sampling: as in :meth:`generate`.

        Raises:
            InputError: the model is no encoder-decoder, or as :meth:`generate`.
        """
        if self.architecture != "encoder-decoder":
            hint = "take an encoder-decoder (as Marian or T5), or ask a decoder by lmworks generate"
            raise InputError("the model is no encoder-decoder, so it does not translate", self.source, hint)
        advised = published_beams(self.generation) if not sampling.get("temperature") else {}
        texts = self.generate(texts_of(text), **{**advised, **sampling})
        return texts[0] if isinstance(text, str) else texts

    @overload
    def chat(self, messages: Sequence[Message], *, details: Literal[True], **options: Any) -> Reply: ...
    @overload
    def chat(self, messages: Sequence[Message], *, stream: Literal[True], **options: Any) -> TextStream: ...
    @overload
    def chat(self, messages: Sequence[Message], *, stream: Literal[False] = False, **options: Any) -> str: ...

    def chat(
        self,
        messages: Sequence[Message],
        *,
        stream: bool = False,
        details: bool = False,
        log_probabilities: bool = False,
        raw: bool = False,
        grammar: Grammar | None = None,
        tools: Sequence[Mapping[str, Any]] | None = None,
        tool_choice: str | Mapping[str, Any] = "auto",
        parallel_tool_calls: bool = True,
        **sampling: Any,
    ) -> Any:
        """Answer a conversation.

        The system message and the prompt's pattern of the run that trained the model are used. A classifier labels
        the last message alone; so does a model answer that was trained without a chat template.

        Args:
            messages: dicts with ``role`` (system, user, assistant, tool) and ``content``; the last is the user's, or
                what a tool gave.
            stream: yield the answer piece by piece, with ``tools`` its text outside of calls: a ToolStream, whose
                ``deltas()`` gives the calls as they come.
            details, log_probabilities, grammar: as in :meth:`generate`.
            raw: leave the messages as they are, whatever the model was trained on.
            tools: functions that the model may call, in OpenAI's form; ``tool_calls`` of the reply has the calls. The
                model writes no other, and no other arguments than their schemas allow.
            tool_choice: OpenAI's: "auto", "none", "required", or a function that must be called.
            parallel_tool_calls: whether an answer may have several calls.
            **sampling: as in :meth:`generate`.

        Raises:
            InputError: a message or a tool is malformed or refused by the chat template, or as :meth:`generate`.
        """
        settings = build(SamplingSettings, sampling, "chat")
        self.check_writes()
        messages = as_list(messages, Mapping, "messages", MESSAGES_HINT)
        called = None if tools is None else Tools(self.tokenizer, tools, tool_choice, parallel_tool_calls)
        if called is not None:
            if called.grammar is not None:
                _check_calls(grammar, stream or details)
            messages, grammar = called.messages(with_texts(messages)), called.grammar or grammar
        prompt = self._conversation(messages, raw, called)
        return self._answer(prompt, settings, stream, details, log_probabilities, None, grammar, called)

    def answer(self, prompt: Prompt, settings: SamplingSettings) -> TextStream:
        """Answer a prompt that is token ids already, as a task makes them of rows (data/prompts)."""
        return self._answer(prompt, settings, True, False, False)

    def next(self, text: str, top: int = 10) -> list[tuple[str, float]]:
        """The likeliest next tokens after a text, each with its probability."""
        check_type(text, str, "text", TEXT_HINT)
        return next_tokens(self.stepper(), self.tokenizer, text, top)

    def _choose_labels(self, prompts: Sequence[Prompt]) -> list[Reply]:
        """For each prompt the likeliest of its labels."""
        return choose_labels(self.choice_likelihoods, prompts)

    def _label_texts(self, texts: Sequence[Any], form: InputFormat) -> list[Prediction]:
        """The likeliest of the labels after the prompt of each text; a text is as the run's pattern made it already."""
        inputs: list[Input] = []
        for text in texts:
            if isinstance(text, Mapping) and form.prompt is None:
                inputs.append(str(text["text"]) if "text" in text else form.fill(text))
            elif isinstance(text, str | Mapping):
                inputs.append(text)
            else:
                raise InputError("the model labels single texts, and this is a pair", "texts", "give one text each")
        as_read = form.model_copy(update={"text": None})
        replies = self._choose_labels(prompts_of(inputs, self.tokenizer, as_read, self.few_shot))
        return [Prediction(reply.text, reply.label_probabilities or {}) for reply in replies]

    def _prompt(self, value: Input, raw: bool) -> Prompt:
        """A text as the model reads it."""
        return self._prompts([value], raw)[0]

    def _prompts(self, values: Sequence[Input], raw: bool) -> list[Prompt]:
        """Texts as the model reads them."""
        form, few_shot = (None, None) if raw else (self.input_format, self.few_shot)
        return prompts_of(values, self.tokenizer, form, few_shot)

    def _conversation(self, messages: list[Message], raw: bool, tools: Tools | None = None) -> Prompt:
        """A conversation as the model reads it."""
        form, few_shot = (None, None) if raw else (self.input_format, self.few_shot)
        if tools is None:
            return conversation_of(messages, self.tokenizer, form, few_shot)
        if form is not None and form.has_prompt and (form.kind == "label" or form.template == "off"):
            fault = "the model reads the last message alone, as in its run, so it knows no tools"
            raise InputError(fault, "tools", "leave tools out, or give raw=True")
        return conversation_of(messages, self.tokenizer, form, few_shot, tools.of_template)

    def _answer(
        self,
        prompt: Prompt,
        settings: SamplingSettings,
        streaming: bool,
        details: bool,
        with_log_probabilities: bool,
        draft: TextMethods | None = None,
        grammar: Grammar | None = None,
        tools: Tools | None = None,
    ) -> Any:
        """A TextStream, a Reply, or its text."""
        _check_grammar(grammar, prompt)
        if prompt.choices:
            (reply,) = self._choose_labels([prompt])
            pieces = TextStream(iter([reply.text]), lambda: reply)
        else:
            settings = self._resolve(settings, prompt)
            guesses = None if draft is None else self._draft_stepper(draft, settings)
            stepper, rules = self.stepper(), self.rules
            ids, tokenizer = prompt.ids, self.tokenizer
            pieces = stream(stepper, tokenizer, ids, settings, rules, with_log_probabilities, guesses, grammar)
        if tools is not None:
            pieces = tools.stream(pieces)
        if streaming:
            return pieces
        for _ in pieces:
            pass
        assert pieces.reply is not None
        return pieces.reply if details else pieces.reply.text

    def _draft_stepper(self, draft: TextMethods, settings: SamplingSettings) -> Stepper:
        """The stepper of a draft model, whose ids mean the same tokens."""
        if settings.prompt_lookup:
            raise InputError("tokens are guessed by a draft model or from the text", "draft", "leave prompt_lookup out")
        if draft.tokenizer.core.get_vocab() != self.tokenizer.core.get_vocab():
            hint = "take a smaller model of the same family, with the same tokenizer"
            raise InputError(f"the draft model {draft.source} has another vocabulary", "draft", hint)
        return draft.stepper()

    def _resolve(self, settings: SamplingSettings, prompt: Prompt | None = None) -> SamplingSettings:
        """With the stops of the prompt; with ``slide`` as the model was trained, where nothing is said."""
        changes: dict[str, Any] = {"stop": [*settings.stop, *prompt.stop]} if prompt is not None and prompt.stop else {}
        if settings.slide is None and self.input_format is not None and settings.num_beams == 1:
            changes["slide"] = self.input_format.slide
        return settings.model_copy(update=changes) if changes else settings


def _check_grammar(grammar: Grammar | None, prompt: Prompt | None = None) -> None:
    """Refuse what is no grammar, and a grammar where labels are chosen.

    Raises:
        InputError: it is one of these.
    """
    if grammar is None:
        return
    check_type(grammar, Grammar, "grammar", GRAMMAR_HINT)
    if prompt is not None and prompt.choices:
        hint = "leave grammar out, or give raw=True"
        raise InputError("this model chooses the likeliest of its labels, which needs no grammar", "grammar", hint)


def _check_calls(grammar: Grammar | None, gives_calls: bool) -> None:
    """Refuse tools beside a grammar, and where their calls would be lost.

    Raises:
        InputError: it is one of these.
    """
    if grammar is not None:
        raise InputError("calls of tools have a grammar of their own", "grammar", "leave grammar or tools out")
    if not gives_calls:
        hint = "give details=True: the reply's tool_calls has them; or stream=True"
        raise InputError("the text alone would not have the calls of tools", "tools", hint)
