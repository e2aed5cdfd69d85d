"""Every kind of task with a tiny network for it."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import NamedTuple

from tiny_networks import make_network
from tiny_tasks import TEXTS, make_task

from lmworks.data.batch import Example, ExampleTransform
from lmworks.model.config import HeadConfig
from lmworks.model.transformer import Transformer
from lmworks.run.evaluation import sample_once
from lmworks.text import corpus, train_tokenizer
from lmworks.text.rows import DataSettings
from lmworks.text.tokenizer_settings import TokenizerSettings

BERT = {
    "architecture": "encoder",
    "positions": "learned",
    "norm": "layer",
    "norm_position": "post",
    "activation": "gelu",
    "gated": False,
    "qkv_bias": True,
    "type_vocab_size": 2,
    "head_transform": True,
    "head_bias": True,
}
T5 = {"architecture": "encoder-decoder", "num_decoder_layers": 3, "positions": "relative", "head_scale": 0.2}
BART = BERT | {"architecture": "encoder-decoder", "num_decoder_layers": 2, "type_vocab_size": 0}
BART |= {"head_transform": False}
PAIRED = {"pooler": True, "heads": (HeadConfig(name="next_sentence", kind="pooled", size=2),)}
KINDS = {
    "causal": (("unigram", "t5", 160), {"architecture": "decoder", "tie_word_embeddings": False}, {}),
    "masked": (("wordpiece", "bert", 90), BERT, {}),
    "pairs": (("wordpiece", "bert", 90), BERT | PAIRED, {"next_sentence": True}),
    "spans": (("unigram", "t5", 160), T5, {}),
    "denoising": (("byte-bpe", "bart", 310), BART, {}),
    "seq2seq": (("unigram", "t5", 160), T5, {}),
}


class Task(NamedTuple):
    """What is trained, on what, what is drawn, and the examples as an evaluation samples them."""

    make: Callable[..., Transformer]
    examples: list[Example]
    transform: ExampleTransform
    evaluated: list[Example]


def task(kind: str, **settings) -> Task:
    """The task of one kind; settings are of the task."""
    (how, style, size), shape, output = KINDS[kind]
    # not of tiny_tasks: these have the same ids in every process
    tokenizer = train_tokenizer.train(TEXTS, TokenizerSettings(kind=how, vocab_size=size), style).tokenizer
    shape = shape | {"vocab_size": tokenizer.vocab_size, "num_key_value_heads": 4}
    name = "masked" if kind == "pairs" else kind
    rows = [{"text": text} for text in TEXTS * 2]
    if kind == "seq2seq":
        pieces = [text.split(". ") for text in TEXTS]
        rows = [{"source": item, "target": other} for text in pieces for item, other in pairwise(text)]
    chosen = make_task(name, tokenizer, make_network(**shape).config, **(output | settings))
    data = DataSettings()
    created = chosen.examples(corpus.read(rows, data), data, 24)

    def make(seed: int = 0, **changes) -> Transformer:
        return make_network(seed, **(shape | changes))

    return Task(make, created.items, chosen.sample, sample_once(chosen, created.items))
