"""Token classification: a head on any backbone gives each word of a text its tag, at the first token of the word."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from lmworks.base.errors import InputError
from lmworks.data.batch import Example, Labels
from lmworks.data.examples import Examples, Report, count, count_specials, count_without_loss, note_rows, start_report
from lmworks.data.word_pieces import Pieces, Words, pieces_of
from lmworks.language_model.head_inputs import HeadInputs
from lmworks.model.head_requests import TOKENS, HeadRequest
from lmworks.tasks.figures import ENTITIES, LABEL_LOSS
from lmworks.tasks.with_head import HeadTask
from lmworks.text.rows import DataSettings, Row, Table, option
from lmworks.text.tags import OUTSIDE

if TYPE_CHECKING:
    from lmworks.language_model.model import LanguageModel


class Sentence(NamedTuple):
    """The words of an example.

    Attributes:
        words: of the text.
        tags: the right tag of each.
        pieces: the text's tokens.
    """

    words: Words
    tags: Sequence[str]
    pieces: Pieces


class Tag(HeadTask):
    """Rows of words with tags."""

    name = "tag"
    learns = "the tag of each word"
    kinds = ("tags",)
    default_for = ("tags",)
    input_kind = "words"
    head_name = TOKENS
    figures = (*ENTITIES, LABEL_LOSS)

    @classmethod
    def head_request(cls, table: Table) -> HeadRequest:
        """A head with the table's tags.

        Raises:
            InputError: the rows have none.
        """
        if not table.labels:
            hint = f"name the column of the tags: {option('columns', {'tokens': 'COLUMN', 'tags': 'COLUMN'})}"
            raise InputError("the rows have no tags", table.name, hint)
        return HeadRequest(TOKENS, len(table.labels), "single_label", tuple(table.labels))

    def examples(self, table: Table, settings: DataSettings, context: int) -> Examples:
        """One example for each row.

        Raises:
            InputError: a row has a tag that the head does not know, or is too long where long rows are refused
                (data.on_long).
        """
        inputs, report = self.inputs(settings, context), start_report(table, "tag")
        words = [Words(*(row.values[field] for field in ("text", "starts", "tokens"))) for row in table.rows]
        items: list[Example] = []
        for row, text, pieces in zip(table.rows, words, pieces_of(self.tokenizer, words), strict=True):
            sentence = Sentence(text, row.values["tags"], pieces)
            example = self._example(row, sentence, inputs, settings, report)
            if example is not None:
                items.append(example)
        count(items, report)
        count_specials(table.rows, self.tokenizer, report)
        self.count_labels(report, items)
        note_rows(report, "without a token")
        report.notes += _notes(items)
        return Examples(items, report, table.labels)

    def _example(
        self, row: Row, sentence: Sentence, inputs: HeadInputs, settings: DataSettings, report: Report
    ) -> Example | None:
        """The example of a row; None: it is left out, which the report counts."""
        pieces = sentence.pieces
        example = inputs.example([pieces.ids.tolist()], row.place)
        classes = np.array([self.class_of(tag, row.place) for tag in sentence.tags])
        learned = pieces.leads & (pieces.firsts < len(pieces.ids) - example.dropped)
        if not learned.any():
            count_without_loss(row, report)
            return None
        if example.dropped and not self.accepts_long(row, example, settings, report):
            return None
        places = pieces.firsts[learned] + len(inputs.frame.opening)
        return replace(example, labels={TOKENS: Labels.of_tokens(places, classes[learned])}, origin=sentence)

    def figures_of(self, model: LanguageModel, examples: Sequence[Example]) -> dict[str, Any]:
        """The part ``entities``: see evaluate/entities."""
        from lmworks.evaluate.outputs import head_logits
        from lmworks.evaluate.tagging import tags_of

        logits = head_logits(model.network, examples, TOKENS)
        sentences = [_sentence(example) for example in examples]
        tagged = [tags_of(rows, sentence.pieces, self.head) for rows, sentence in zip(logits, sentences, strict=True)]
        return self._figures([part.tags for part in tagged], [part.probabilities for part in tagged], examples)

    def untrained_figures(self, training: Sequence[Example], examples: Sequence[Example]) -> dict[str, Any]:
        """Figures of a dictionary: each word its commonest tag in training, and O for words that do not occur there."""
        counts: dict[str, Counter[str]] = defaultdict(Counter)
        for example in training:
            sentence = _sentence(example)
            for word, tag in zip(sentence.words.tokens, sentence.tags, strict=True):
                counts[word][tag] += 1
        every = sum(counts.values(), Counter[str]())
        other = OUTSIDE if OUTSIDE in self.head.labels else every.most_common(1)[0][0]
        commonest = {word: of_word.most_common(1)[0][0] for word, of_word in counts.items()}
        tags = [[commonest.get(word, other) for word in _sentence(example).words.tokens] for example in examples]
        sure = [np.ones(len(of_row)) for of_row in tags]
        return {"name": "commonest tag of each word", **self._figures(tags, sure, examples)}

    def _figures(
        self, tags: Sequence[Sequence[str]], probabilities: Sequence[np.ndarray], examples: Sequence[Example]
    ) -> dict[str, Any]:
        from lmworks.evaluate.entities import entity_figures, with_sentences

        sentences = [_sentence(example) for example in examples]
        figures = entity_figures([list(sentence.tags) for sentence in sentences], tags)
        words, places = [sentence.words for sentence in sentences], [example.place for example in examples]
        right = [sentence.tags for sentence in sentences]
        return {"entities": with_sentences(figures, right, tags, probabilities, words, places)}

    def shown_text(self, example: Example) -> str:
        """The text."""
        return _sentence(example).words.text

    def shown_answers(self, example: Example, logits: np.ndarray) -> dict[str, str]:
        """The text with the right entities in brackets, and with those that are predicted."""
        from lmworks.evaluate.tagging import mark_entities, tags_of

        sentence = _sentence(example)
        predicted = tags_of(logits, sentence.pieces, self.head).tags
        return {
            "reference": mark_entities(sentence.words, sentence.tags),
            "answer": mark_entities(sentence.words, predicted),
        }


def _sentence(example: Example) -> Sentence:
    assert isinstance(example.origin, Sentence), "examples of this task have one"
    return example.origin


def _notes(items: Sequence[Example]) -> list[str]:
    """Notes about words that have no token, or none of their own."""
    texts = [_sentence(example).pieces for example in items]
    nothing = sum(int((pieces.firsts < 0).sum()) for pieces in texts)
    shared = sum(int(((pieces.firsts >= 0) & ~pieces.leads).sum()) for pieces in texts)
    notes = []
    if nothing:
        notes.append(f"words of which the tokenizer leaves nothing: {nothing:,}; they count as O")
    if shared:
        notes.append(f"words that share their first token with the word before them: {shared:,}; they carry no loss")
    return notes
