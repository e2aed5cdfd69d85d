"""How static word vectors are trained. Imports no library that trains them.

Defaults are those of the published programs, apart from the size of fastText's table, which they make for gigabytes of
text.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from lmworks.base.errors import InputError
from lmworks.base.settings import Settings

Algorithm = Literal["word2vec", "fasttext", "glove"]
WINDOWS: dict[str, int] = {"word2vec": 5, "fasttext": 5, "glove": 15}
EPOCHS: dict[str, int] = {"word2vec": 5, "fasttext": 5, "glove": 25}
RATES: dict[str, float] = {"word2vec": 0.025, "fasttext": 0.025, "glove": 0.05}
USED_BY: dict[str, tuple[Algorithm, ...]] = {
    **dict.fromkeys(("architecture", "negative", "sample"), ("word2vec", "fasttext")),
    **dict.fromkeys(("min_n", "max_n", "bucket"), ("fasttext",)),
    **dict.fromkeys(("x_max", "alpha"), ("glove",)),
}
"""Setting -> the algorithms that use it; a setting that is not listed is used by all."""


class VectorSettings(Settings):
    """How word vectors are trained on a text."""

    algorithm: Algorithm = Field(
        "word2vec", description="word2vec or fasttext (both by gensim), or glove (by lmworks itself)."
    )
    architecture: Literal["cbow", "skip-gram"] | None = Field(
        None, description="word2vec, fasttext: a word from those around it (cbow, the default), or they from it."
    )
    vector_size: int = Field(100, gt=0, le=10_000, description="Numbers of a vector.")
    window: int | None = Field(None, gt=0, description="Words on each side that count. Default: 5; glove: 15.")
    min_count: int = Field(5, gt=0, description="Words that occur less often get no vector.")
    epochs: int | None = Field(None, gt=0, description="Passes over the text. Default: 5; glove: 25.")
    learning_rate: float | None = Field(None, gt=0, description="Default: 0.025; glove: 0.05.")
    lowercase: bool = Field(True, description="Lower-case the words.")
    negative: int | None = Field(None, gt=0, description="word2vec, fasttext: negative samples a word. Default: 5.")
    sample: float | None = Field(
        None, ge=0, description="word2vec, fasttext: frequent words are left out from this share on. Default: 0.001."
    )
    min_n: int | None = Field(
        None, gt=0, description="fasttext: characters of the shortest n-gram of a word. Default: 3."
    )
    max_n: int | None = Field(
        None, gt=0, description="fasttext: characters of the longest n-gram of a word. Default: 6."
    )
    bucket: int | None = Field(None, gt=0, description="fasttext: vectors that all n-grams share. Default: 200000.")
    x_max: float | None = Field(None, gt=0, description="glove: count from which on a pair weighs 1. Default: 100.")
    alpha: float | None = Field(None, gt=0, description="glove: exponent of the weights below x_max. Default: 0.75.")
    seed: int = Field(0, ge=0, lt=2**31, description="Of all that is random.")
    workers: int = Field(1, gt=0, description="word2vec, fasttext: threads. With one, a seed gives the same vectors.")

    def check(self) -> None:
        """Refuse settings that the algorithm does not have.

        Raises:
            InputError: there is one, or the lengths of n-grams exclude each other.
        """
        for name, algorithms in USED_BY.items():
            if getattr(self, name) is not None and self.algorithm not in algorithms:
                hint = f"leave it out, or --algorithm {' or '.join(algorithms)}"
                raise InputError(f"{self.algorithm} has no such setting", f"--{name.replace('_', '-')}", hint)
        if (self.min_n or 3) > (self.max_n or 6):
            fault = f"the shortest n-gram, {self.min_n or 3}, is longer than the longest, {self.max_n or 6}"
            raise InputError(fault, "--min-n", f"--max-n {self.min_n or 3}, or a smaller --min-n")
