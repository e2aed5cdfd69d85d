"""Beam search gives what transformers' generate gives, token by token; batches give what each prompt gives alone."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest
import torch
from tiny_theirs import make_theirs

from lmworks.base.errors import InputError
from lmworks.base.settings import build
from lmworks.families.folder import open_folder
from lmworks.generate.beam import decode_best, search
from lmworks.generate.decode import decode
from lmworks.generate.sampling import Rules, SamplingSettings
from lmworks.generate.torch_stepper import TorchStepper
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


def make_both(model_type: str) -> Any:
    """A tiny encoder-decoder of ``transformers``, every weight random."""
    from transformers import AutoConfig, AutoModelForSeq2SeqLM

    output = {"vocab_size": 101, "eos_token_id": 2, "pad_token_id": 0} | BOTH[model_type]
    config = AutoConfig.for_model(model_type, **output)
    generator = torch.Generator().manual_seed(3)
    model = AutoModelForSeq2SeqLM.from_config(config)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if model_type != "marian" or "embed_positions" not in name:  # sines are no weights
                weight.add_(torch.randn(weight.shape, generator=generator) * 0.2)
    return model.float().eval()


def generated(theirs: Any, prompt: list[int], skip: int, ends: set[int], **settings: Any) -> list[int]:
    ids = torch.tensor([prompt])
    result = theirs.generate(
        ids, attention_mask=torch.ones_like(ids), do_sample=False, eos_token_id=sorted(ends), **settings
    )
    new = result[0, skip:].tolist()
    places = [place for place, token in enumerate(new) if token in ends]
    return new[: places[0] + 1] if places else new


def best(
    network: Transformer, prompts: list[list[int]], rules: Rules, ends: set[int], **settings: Any
) -> list[list[int]]:
    texts: list[list[int]] = [[] for _ in prompts]
    output = SamplingSettings(**settings)
    for step in (decode if output.num_beams == 1 else decode_best)(TorchStepper(network), prompts, output, ends, rules):
        for text, token in zip(texts, step, strict=True):
            text += [] if token is None else [token.id]
    return texts


@pytest.mark.parametrize("model_type", ["gpt2", "llama", "qwen3", *BOTH])
def test_beams_are_those_of_transformers(model_type, tmp_path):
    torch.manual_seed(0)
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


RULES = {
    "forced_bos_token_id": 7,
    "forced_eos_token_id": 2,
    "min_length": 6,
    "bad_words_ids": [[28], [64, 3], [17, 17]],
    "suppress_tokens": [40, 41],
}


@pytest.mark.parametrize("num_beams", [1, 3])
def test_a_publishers_rules_are_kept_as_transformers_keeps_them(num_beams, tmp_path):
    torch.manual_seed(0)
    theirs = make_both("bart")
    theirs.generation_config.update(**RULES)
    theirs.save_pretrained(tmp_path)
    opened = open_folder(tmp_path)
    rules = Rules.of(opened.generation, True)
    assert rules == Rules(2, 7, 2, 5, ((40,), (41,), (28,), (64, 3), (17, 17)))
    # two of what it would write are ends, so that the least number of tokens matters
    ends = {2, *best(opened.network, PROMPTS[:1], rules, set(), max_tokens=4)[0][1:3]}
    for asked in ({}, VARIED):
        settings = {"num_beams": num_beams, **asked}
        wanted = [generated(theirs, prompt, 1, ends, max_new_tokens=9, **settings) for prompt in PROMPTS]
        assert all(text[0] == 7 and text[-1] in ends for text in wanted)
        assert best(opened.network, PROMPTS, rules, ends, max_tokens=9, **settings) == wanted


def tiny(architecture: str = "decoder", words: int = 6) -> Transformer:
    torch.manual_seed(1)
    both = {"num_decoder_layers": 2} if architecture == "encoder-decoder" else {}
    sizes = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = ModelConfig(
        architecture=architecture,
        vocab_size=words,
        max_position_embeddings=32,
        tie_word_embeddings=False,
        **sizes,
        **both,
    )
    network = Transformer(config).eval()
    for weight in network.parameters():
        torch.nn.init.normal_(weight, std=0.5)
    return network


def test_with_enough_beams_the_likeliest_text_is_found():
    """Against all texts of three tokens, 0 being the end."""
    network, prompt = tiny(), [1, 2]

    def log_probability(text: tuple[int, ...]) -> float:
        with torch.no_grad():
            logits = network(torch.tensor([[*prompt, *text]])).logits[0, len(prompt) - 1 : -1].log_softmax(-1)
        return float(logits.gather(-1, torch.tensor(text)[:, None]).sum())

    texts = [text for size in (1, 2, 3) for text in product(range(6), repeat=size)]
    whole = [text for text in texts if 0 not in text[:-1] and (text[-1] == 0 or len(text) == 3)]
    wanted = sorted(((log_probability(text), list(text)) for text in whole), reverse=True)
    settings = SamplingSettings(num_beams=60, max_tokens=3, length_penalty=0.0, early_stopping="never")
    result = search(TorchStepper(network), [prompt], settings, {0})[0]
    assert [item.ids for item in result[:20]] == [text for _, text in wanted[:20]]
    assert [item.score for item in result[:20]] == pytest.approx([value for value, _ in wanted[:20]], rel=1e-4)


@pytest.mark.parametrize("settings", [{}, {"temperature": 0.9, "top_k": 12, "seed": 4}, {"num_beams": 3}])
@pytest.mark.parametrize("architecture", ["decoder", "encoder-decoder"])
def test_a_batch_of_unequal_prompts_equals_one_by_one(architecture, settings):
    network, rules = tiny(architecture, 64), Rules(decoder_start_token_id=1)
    together = best(network, PROMPTS, rules, {7, 9, 11}, max_tokens=12, **settings)
    assert together == [best(network, [item], rules, {7, 9, 11}, max_tokens=12, **settings)[0] for item in PROMPTS]


def test_the_source_is_read_once(monkeypatch):
    network = tiny("encoder-decoder", 64)
    assert network.encoder is not None
    passes, keys = [], []
    network.encoder.layers[0].register_forward_hook(lambda *_: passes.append(1))
    network.layers[0].cross_attn.k_proj.register_forward_hook(lambda *_: keys.append(1))
    for beams in (1, 3):
        best(network, PROMPTS[:1], Rules(decoder_start_token_id=1), set(), max_tokens=6, num_beams=beams)
    assert (len(passes), len(keys)) == (2, 2)


def test_what_cannot_be_is_refused():
    with pytest.raises(InputError, match="temperature to 0"):
        build(SamplingSettings, {"num_beams": 2, "temperature": 0.7}, "generate")
    with pytest.raises(InputError, match="begins with"):
        best(tiny("encoder-decoder"), [[1]], Rules(), set(), num_beams=2)
    for beams in (1, 2):
        with pytest.raises(InputError, match="lmworks fill"):
            best(tiny("encoder"), [[1]], Rules(), set(), num_beams=beams)
        with pytest.raises(InputError, match="context holds 32"):
            best(tiny(), [[1] * 32], Rules(), set(), num_beams=beams)
