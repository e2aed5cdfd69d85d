"""An n-gram model as a language model: it generates, scores and predicts; what needs a network is refused."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn, cast

from lmworks.base.errors import InputError
from lmworks.base.files import atomic_folder
from lmworks.baselines.ngram import NgramModel
from lmworks.baselines.ngram_stepper import NgramStepper
from lmworks.evaluate.text_windows import Score, signature_of
from lmworks.families.folder import check_place
from lmworks.generate.stepper import Stepper
from lmworks.language_model.input_format import texts_of
from lmworks.language_model.model import LanguageModel
from lmworks.text.tokenizer import Tokenizer


class NoNetwork:
    """Stands where a model without a network has none: whatever is asked of it is refused.

    Args:
        source: of the model, for the error.
    """

    def __init__(self, source: str) -> None:
        self.__source = source

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):  # what copying and printing ask of any object
            raise AttributeError(name)
        refuse(self.__source)


def refuse(source: str) -> NoReturn:
    """Raise because an n-gram model cannot do what was asked.

    Raises:
        InputError: always.
    """
    fault = "is an n-gram model, which has no network: it generates texts, scores them and predicts the next token"
    raise InputError(fault, source, "take a model with a network (lmworks models lists some), or train one")


class NgramLanguageModel(LanguageModel):
    """An n-gram model with its tokenizer.

    Attributes:
        ngram: counts as probabilities, over token ids.
    """

    def __init__(self, ngram: NgramModel, tokenizer: Tokenizer, source: str) -> None:
        nothing = cast(Any, NoNetwork(source))
        super().__init__(nothing, tokenizer, nothing, source, source)
        self.ngram = ngram

    @classmethod
    def open(cls, folder: Path, source: str) -> NgramLanguageModel:
        """The model in a folder.

        Raises:
            InputError: a file is missing or damaged, or the tokenizer is another model's.
        """
        ngram, tokenizer = NgramModel.open(folder), Tokenizer.open(folder)
        if tokenizer.highest_id >= ngram.vocab_size:
            fault = f"the tokenizer has ids up to {tokenizer.highest_id}, the model only {ngram.vocab_size} ids"
            raise InputError(fault, str(folder), "put the tokenizer that it was trained with beside it")
        return cls(ngram, tokenizer, source)

    @property
    def architecture(self) -> str:
        """It continues texts, as decoders do."""
        return "decoder"

    @property
    def context(self) -> int | None:
        """None: texts may be of any length."""
        return None

    @property
    def signature(self) -> str:
        """Its probabilities are counted, and kept in float64."""
        return signature_of("counts", ["float64"])

    def stepper(self) -> Stepper:
        """Its distributions, for generation."""
        return NgramStepper(self.ngram)

    def score(
        self, texts: str | Sequence[str], *, context: int | None = None, stride: int | None = None
    ) -> list[Score]:
        """See :class:`TextMethods`. The first token of a text counts too: it has a probability there."""
        if context is not None or stride is not None:
            fault = "an n-gram model reads texts whole, and has no windows"
            raise InputError(fault, self.source, "leave out --context and --stride (in Python context and stride)")
        listed = texts_of(texts)
        return [
            Score(
                float(-self.ngram.log_probabilities(ids).sum()),
                len(ids),
                len(text.encode(errors="replace")),
                self.signature,
                len(text),
            )
            for text, (ids, _) in zip(listed, self.tokenizer.spans(listed), strict=True)
        ]

    def save(self, folder: str | Path, *, dtype: str = "float32", overwrite: bool = False) -> Path:
        """Write a folder that lmworks opens.

        Args:
            folder: new or empty.
            dtype: of networks alone: probabilities are written as they are, in float64.
            overwrite: replace a model that was saved there.

        Raises:
            InputError: the folder holds something, there is no room, or another ``dtype`` is asked for.
        """
        if dtype != "float32":
            fault = f"an n-gram model is written in float64, not in {dtype}"
            raise InputError(fault, self.source, "leave --dtype out (in Python dtype)")
        folder = Path(folder)
        check_place(folder, overwrite)
        with atomic_folder(folder) as aside:
            self.ngram.save(aside)
            self.tokenizer.save(aside)
        return folder

    def prepare(self, precision: str = "auto") -> NgramLanguageModel:
        """Nothing is to be made faster."""
        return self
