"""What one asks a model with the head of a task: labels of texts, tags of words, answers in contexts.

The methods of LanguageModel that need such a head, a few lines each.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

from lmworks.base.errors import as_list, check_type
from lmworks.evaluate.prediction import PredictedValue, Prediction
from lmworks.evaluate.tagging import Entity, TaggedText
from lmworks.generate.sampling import Rules
from lmworks.language_model.find_answers import SpanAnswer, find_answers
from lmworks.language_model.classify_texts import classify_texts
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

    @property
    def labels(self) -> list[str]:
        """The labels that its head gives texts, or words; none of a model without such a head."""
        heads = (self.network.config.head(name) for name in (SEQUENCE, TOKENS))
        return next((labels_of(head) for head in heads if head is not None), [])

    def predict(
        self, texts: Sequence[str | Sequence[str] | Mapping[str, Any]]
    ) -> list[Prediction] | list[PredictedValue]:
        """The label of each text with all probabilities, of a model with a head for texts; of a regression its value.

        Args:
            texts: a list of texts as the head reads them; of pairs of texts; or of dictionaries: the columns that the
                run's text is built from, or ``text`` and ``text_pair``.

        Raises:
            InputError: it has no such head.
        """
        listed = as_list(texts, (str, Sequence, Mapping), "texts", TEXTS_HINT)
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
        form = self.input_format
        return [form.fill_text(text) if form is not None else str(text)]

    def answer_question(self, question: str, context: str) -> SpanAnswer:
        """The span of a context that answers a question, of a model with a head for spans."""
        for text, name in ((question, "question"), (context, "context")):
            check_type(text, str, name, TEXT_HINT)
        return self.answer_questions([(question, context)])[0]

    def answer_questions(self, pairs: Sequence[tuple[str, str]], places: Sequence[str] = ()) -> list[SpanAnswer]:
        """The same for pairs of question and context; see language_model/find_answers."""
        start, form = self.rules.decoder_start_token_id, self.input_format
        return find_answers(pairs, self.network, self.tokenizer, start, form, self.source, places)

    def tag(self, texts: Sequence[TextOrTokens]) -> list[list[Entity]]:
        """The entities of each text, of a model with a head that tags words; of other tags, each word with its own.

        Args:
            texts: texts, whose words are found (text/tags.split_words), or lists of tokens, which stay as they are:
                characters then count in the text that they make with spaces between them.

        Raises:
            InputError: it has no such head, or an input is neither a text nor a list of tokens.
        """
        return [tagged.entities for tagged in self.tag_words(texts)]

    def tag_words(self, texts: Sequence[TextOrTokens]) -> list[TaggedText]:
        """The words of each text with their tags, and the entities; arguments as in :meth:`tag`."""
        start = self.rules.decoder_start_token_id
        return tag_words(texts, self.network, self.tokenizer, start, self.source)
