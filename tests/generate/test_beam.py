"""Beam search gives what transformers' generate gives, token by token; batches give what each prompt gives alone."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest
import torch
from conftest import make_theirs

from lmworks.base.errors import InputError
from lmworks.base.settings import build
from lmworks.families.folder import open_folder
from lmworks.families.registry import FAMILIES
from lmworks.generate.beam import decode_best, search
from lmworks.generate.decode import decode
from lmworks.generate.sampling import Rules, SamplingSettings
from lmworks.model.config import ModelConfig
from lmworks.model.transformer import Transformer

PROMPTS = [[5, 6, 7], [9], [3, 4, 5, 6, 7, 8, 9, 10], [11, 12]]
# sizes of encoder-decoders by their own names; those of decoders stand in conftest
BART = {
    "d_model": 32, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 4, "decoder_attention_heads": 4,
    "encoder_ffn_dim": 48, "decoder_ffn_dim": 48, "max_position_embeddings": 64, "forced_eos_token_id": None,
}  # fmt: skip
BOTH: dict[str, dict[str, Any]] = {
    "t5": {"d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 2, "num_heads": 4, "decoder_start_token_id": 0},
    "bart": BART | {"decoder_start_token_id": 2},
    "marian": BART | {"decoder_start_token_id": 0, "decoder_vocab_size": 101},
}
VARIED = {"no_repeat_ngram_size": 1}  # random models love to repeat themselves
ASKED = [
    {},
    VARIED,
    {"length_penalty": 2.0, **VARIED},
    {"length_penalty": 0.0, "early_stopping": "never", **VARIED},
    {"early_stopping": True, "num_beams": 5, **VARIED},
    {"length_penalty": -1.0, **VARIED},
    {"no_repeat_ngram_size": 2, "repetition_penalty": 1.3},
]


@pytest.fixture(autouse=True)
def _one_thread():
    """Tiny products are slower on two threads, much slower where others compute too."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def make_both(model_type: str) -> Any:
    """A tiny encoder-decoder of ``transformers``, every weight random."""
    from transformers import AutoConfig, AutoModelForSeq2SeqLM

    told = {"vocab_size": 101, "eos_token_id": 2, "pad_token_id": 0} | BOTH[model_type]
    config = AutoConfig.for_model(model_type, **told)
    generator = torch.Generator().manual_seed(3)
    model = AutoModelForSeq2SeqLM.from_config(config)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if model_type != "marian" or "embed_positions" not in name:  # sines are no weights
                weight.add_(torch.randn(weight.shape, generator=generator) * 0.2)
    return model.float().eval()


def generated(theirs: Any, prompt: list[int], skip: int, ends: set[int], **settings: Any) -> list[int]:
    ids = torch.tensor([prompt])
    found = theirs.generate(
        ids, attention_mask=torch.ones_like(ids), do_sample=False, eos_token_id=sorted(ends), **settings
    )
    new = found[0, skip:].tolist()
    places = [place for place, token in enumerate(new) if token in ends]
    return new[: places[0] + 1] if places else new


def best(
    network: Transformer, prompts: list[list[int]], rules: Rules, ends: set[int], **settings: Any
) -> list[list[int]]:
    texts: list[list[int]] = [[] for _ in prompts]
    told = SamplingSettings(**settings)
    for step in (decode if told.num_beams == 1 else decode_best)(network, prompts, told, ends, rules):
        for text, token in zip(texts, step, strict=True):
            text += [] if token is None else [token]
    return texts


@pytest.mark.parametrize("model_type", ["gpt2", "llama", "qwen3", *BOTH])
def test_beams_are_those_of_transformers(model_type, tmp_path):
    if model_type not in FAMILIES:
        pytest.skip(f"no family {model_type} yet")
    both = model_type in BOTH
    theirs = make_both(model_type) if both else make_theirs(model_type)
    theirs.save_pretrained(tmp_path)
    network = open_folder(tmp_path).network
    rules = Rules.of(theirs.generation_config.to_dict(), both)
    # what each text has at its fifth place without beams shall be an end, so that some texts do end
    ends = {text[4] for text in best(network, PROMPTS, rules, set(), max_tokens=5, **VARIED)}
    ended = 0
    for asked in ASKED:
        settings = {"num_beams": 3, **asked}
        wanted = [
            generated(theirs, prompt, 1 if both else len(prompt), ends, max_new_tokens=12, **settings)
            for prompt in PROMPTS
        ]
        assert best(network, PROMPTS, rules, ends, max_tokens=12, **settings) == wanted
        ended += sum(text[-1] in ends and len(text) > 2 for text in wanted)
    assert ended >= 6
