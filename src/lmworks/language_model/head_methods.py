"""The methods of LanguageModel that need the head of a task, a few lines each: labels, tags, answers in contexts."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

from lmworks.base.errors import as_list, check_type
from lmworks.evaluate.prediction import PredictedValue, Prediction
from lmworks.evaluate.tagging import Entity, TaggedText
from lmworks.generate.sampling import Rules
from lmworks.language_model.classify_texts import classify_texts
from lmworks.language_model.find_answers import SpanAnswer, find_answers
from lmworks.language_model.input_format import TEXT_HINT, TEXTS_HINT, InputFormat
from lmworks.language_model.tag_words import TextOrTokens, tag_words
from lmworks.model.head_requests import SEQUENCE, TOKENS, labels_of
from lmworks.model.transformer import Transformer
from lmworks.text.tokenizer import Tokenizer


class HeadMethods(ABC):
    """A model whose network may have the head of a task."""

    network: Transformer
    source: str
    input_format: InputFormat | None

    @property
    @abstractmethod
    def tokenizer(self) -> Tokenizer:
        """Text <-> ids."""

    @property
    @abstractmethod
    def rules(self) -> Rules:
        """What its publisher demands of every text that it writes."""

    @abstractmethod
    def _label_texts(self, texts: Sequence[Any], form: InputFormat) -> list[Prediction]:
        """The likeliest label of each text, in words."""

    @property
    def labels(self) -> list[str]:
        """The labels of its head for texts or words, or those that it writes, in order; empty without any."""
        if (form := self.input_format) is not None and form.kind == "label":
            return list(form.labels)
        heads = (self.network.config.head(name) for name in (SEQUENCE, TOKENS))
        return next((labels_of(head) for head in heads if head is not None and head.problem != "regression"), [])

    def predict(
        self, texts: Sequence[str | Sequence[str] | Mapping[str, Any]]
    ) -> list[Prediction] | list[PredictedValue]:
        """The label of each text with the probabilities of all labels; its value, if the model was trained on values.

        A decoder of a run that labels texts in words gives the likeliest after its prompt.

        Args:
            texts: a list of texts as the head reads them; of pairs of texts; or of dictionaries: the columns that the
                run's text is built from, or ``text`` and ``text_pair``.

        Raises:
            InputError: the model has no head for texts, or an input cannot be read.
        """
        listed = as_list(texts, (str, Sequence, Mapping), "texts", TEXTS_HINT)
        if (form := self.input_format) is not None and form.kind == "label":
            return self._label_texts(listed, form)
        start = self.rules.decoder_start_token_id
        return classify_texts(self.network, self.tokenizer, start, [self._parts(text) for text in listed], self.source)

    def _parts(self, text: str | Sequence[str] | Mapping[str, Any]) -> list[str]:
        """The one or two texts of an input."""
        if isinstance(text, str):
            return [text]
        if not isinstance(text, Mapping):
            return list(text)
        if "text" in text:
            return [str(text[name]) for name in ("text", "text_pair") if name in text]
        return [str(text) if self.input_format is None else self.input_format.fill_text(text)]

    def answer_question(self, question: str, context: str) -> SpanAnswer:
        """The span of a context that answers a question.

        Raises:
            InputError: the model has no head for spans, or a text is empty.
        """
        for text, name in ((question, "question"), (context, "context")):
            check_type(text, str, name, TEXT_HINT)
        return self.answer_questions([(question, context)])[0]

    def answer_questions(self, pairs: Sequence[tuple[str, str]], places: Sequence[str] = ()) -> list[SpanAnswer]:
        """The span that answers each question.

        Args:
            pairs: questions and contexts.
            places: of the pairs, for errors; default: their numbers.

        Raises:
            InputError: as :meth:`answer_question`.
        """
        start = self.rules.decoder_start_token_id
        return find_answers(pairs, self.network, self.tokenizer, start, self.input_format, self.source, places)

    def tag(self, texts: Sequence[TextOrTokens]) -> list[list[Entity]]:
        """The entities in each text; where tags mark no entities (parts of speech), each word with its tag.

        Args:
            texts: a text each, which is divided into words (text/tags.split_words), or a list of its tokens; the
                entities' characters then count in the text of the tokens with spaces between them.

        Raises:
            InputError: the model has no head that tags words, or an input is neither a text nor a list of tokens.
        """
        return [tagged.entities for tagged in self.tag_words(texts)]

    def tag_words(self, texts: Sequence[TextOrTokens]) -> list[TaggedText]:
        """The words of each text with their tags, and the entities; arguments as in :meth:`tag`."""
        start = self.rules.decoder_start_token_id
        return tag_words(texts, self.network, self.tokenizer, start, self.source)
