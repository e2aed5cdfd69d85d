"""What only encoder-decoders have: sources that are read once, a decoder's start, tied tables, generation's rules.

That logits and gradients are those of transformers is shown for every family alike in test_parity.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_families import CASES, make
from transformers import AutoConfig, AutoModelForSeq2SeqLM

from lmworks.base.errors import InputError
from lmworks.families.folder import open_folder, open_tokenizer, save_folder
from lmworks.families.opened import Opened
from lmworks.families.registry import FAMILIES, family_of
from lmworks.model.cache import Cache

FAMILY_OF = {"BartForConditionalGeneration": "bart", "MarianMTModel": "marian", "T5ForConditionalGeneration": "t5"}
NAMES = [name for name, case in CASES.items() if case.architecture in FAMILY_OF]
every_case = pytest.mark.parametrize("case", NAMES, ids=str)
CLOSE = {"rtol": 0.0, "atol": 1e-4}
GENERATION = ("decoder_start_token_id", "forced_bos_token_id", "forced_eos_token_id", "bad_words_ids", "eos_token_id")


def told_of(case: str) -> dict[str, Any]:
    """The config of a case, as its class of transformers is told it."""
    return {"vocab_size": 101, **CASES[case].sizes, **CASES[case].changes}


@pytest.fixture
def saved(case: str, tmp_path: Path) -> tuple[Any, Path]:
    """A model of transformers, and the folder that it wrote."""
    model = make(case)
    model.generation_config.bad_words_ids = [[0]]  # as Marian's published folders say: never padding
    model.save_pretrained(tmp_path / "theirs")
    return model, tmp_path / "theirs"


def ids_of(*shape: int, seed: int = 3) -> torch.Tensor:
    """Random ids without padding, start or end."""
    return torch.randint(3, 101, shape, generator=torch.Generator().manual_seed(seed))


def ours_of(opened: Opened, source: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    return opened.network(target, memory=opened.network.encode(source)).logits


@every_case
def test_what_generation_needs_is_kept(saved: tuple[Any, Path], tmp_path: Path) -> None:
    model, folder = saved
    opened = open_folder(folder)
    output = {"hf_config": opened.hf_config, "generation": opened.generation}
    path = save_folder(tmp_path / "ours", opened.network, opened.config, opened.family, **output)
    there = AutoModelForSeq2SeqLM.from_pretrained(path)
    for name in GENERATION:
        expected = getattr(model.generation_config, name)
        assert opened.generation.get(name) == open_folder(path).generation.get(name) == expected
        assert getattr(there.generation_config, name) == expected
    assert there.config.decoder_start_token_id == model.config.decoder_start_token_id is not None
    assert opened.generation["bad_words_ids"] == [[0]]


@pytest.mark.parametrize("case", ["bart", "t5"])
def test_rules_of_generation_are_read_from_older_configs(saved: tuple[Any, Path]) -> None:
    """Before generation_config.json, config.json held them."""
    folder = saved[1]
    rules = json.loads((folder / "generation_config.json").read_text())
    (folder / "generation_config.json").unlink()
    config = json.loads((folder / "config.json").read_text())
    output = {name: rules[name] for name in GENERATION if name in rules} | {"num_beams": 4, "max_length": 50}
    (folder / "config.json").write_text(json.dumps(config | output))
    generation = open_folder(folder).generation
    assert {name: generation.get(name) for name in output} == output


@every_case
def test_steps_are_the_whole_and_read_the_source_once(saved: tuple[Any, Path]) -> None:
    opened = open_folder(saved[1])
    network = opened.network
    source, target = ids_of(2, 12), ids_of(2, 14, seed=4)
    calls: Counter[str] = Counter()
    for name, module in network.named_modules():
        if name.startswith("encoder.layers") or name.endswith(("cross_attn.k_proj", "cross_attn.v_proj")):
            module.register_forward_hook(lambda *_, n=name: calls.update([n]))
    with torch.no_grad():
        expected = ours_of(opened, source, target)
        assert set(calls.values()) == {1}
        calls.clear()
        memory, cache = network.encode(source), Cache(opened.config, 2, 14)
        parts = [network(target[:, :6], memory=memory, cache=cache).logits]
        parts += [network(target[:, i : i + 1], memory=memory, cache=cache).logits for i in range(6, 14)]
    torch.testing.assert_close(torch.cat(parts, dim=1), expected, **CLOSE)
    crosses = [name for name in calls if "cross_attn" in name]
    assert len(crosses) == 2 * len(network.layers)
    assert set(calls.values()) == {1}


@pytest.mark.parametrize("case", ["bart", "t5"])
@pytest.mark.parametrize("padding", [0, 3])
def test_one_padded_row_is_alone(saved: tuple[Any, Path], padding: int) -> None:
    """A single row with padding is not mistaken for a row of several documents."""
    opened = open_folder(saved[1])
    network = opened.network
    source, target, nothing = ids_of(1, 7), ids_of(1, 5, seed=4), torch.zeros(1, 5, dtype=torch.int64)
    with torch.no_grad():
        alone = ours_of(opened, source, target)
        ids, padded = torch.cat([target, nothing[:, :padding]], 1), torch.cat([source, nothing], 1)
        segments, memory_segments = (ids != 0).long(), (padded != 0).long()
        memory = network.encode(padded, memory_segments)
        received = network(ids, segments=segments, memory=memory, memory_segments=memory_segments).logits
    torch.testing.assert_close(received[:, :5], alone, **CLOSE)


@every_case
def test_packed_learns_what_each_alone_does(saved: tuple[Any, Path]) -> None:
    opened = open_folder(saved[1])
    network = opened.network
    sizes = [(4, 9), (7, 3), (7, 3), (1, 5), (6, 1)]  # of source and target; neighbours of equal size pass as a batch
    sources = [ids_of(1, source, seed=10 + n) for n, (source, _) in enumerate(sizes)]
    targets = [ids_of(1, target, seed=20 + n) for n, (_, target) in enumerate(sizes)]

    def row(parts: list[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        numbers = torch.cat([torch.full((1, part.shape[1]), n + 1) for n, part in enumerate(parts)], 1)
        places = torch.cat([torch.arange(part.shape[1])[None] for part in parts], 1)
        return torch.cat(parts, 1), numbers, places

    source_ids, source_segments, source_places = row(sources)
    ids, segments, places = row(targets)
    memory = network.encode(source_ids, source_segments, source_places)
    packed = network(ids, segments=segments, positions=places, memory=memory, memory_segments=source_segments).logits
    weights = torch.randn(packed.shape, generator=torch.Generator().manual_seed(1))
    (packed * weights).sum().backward()
    gradients = {name: weight.grad.clone() for name, weight in network.named_parameters()}
    network.zero_grad()
    alone = torch.cat([ours_of(opened, source, target) for source, target in zip(sources, targets, strict=True)], 1)
    torch.testing.assert_close(packed, alone, **CLOSE)
    (alone * weights).sum().backward()
    largest = max(float(gradient.abs().max()) for gradient in gradients.values())
    for name, weight in network.named_parameters():
        assert float((weight.grad - gradients[name]).abs().max()) <= 1e-5 * largest, name


@every_case
def test_greedy_text_is_theirs(saved: tuple[Any, Path]) -> None:
    """The decoder begins with the start token that the folder tells, and goes on step by step."""
    model, folder = saved
    model.generation_config.forced_bos_token_id = model.generation_config.forced_eos_token_id = None
    opened = open_folder(folder)
    source = ids_of(3, 9)
    output = {"do_sample": False, "num_beams": 1, "max_new_tokens": 12, "min_new_tokens": 12, "use_cache": False}
    with torch.no_grad():
        expected = model.generate(source, **output, suppress_tokens=[2])[:, 1:]
        memory, cache = opened.network.encode(source), Cache(opened.config, 3, 12)
        token = torch.full((3, 1), opened.generation["decoder_start_token_id"])
        written = []
        for _ in range(12):
            logits = opened.network(token, memory=memory, cache=cache).logits[:, -1]
            logits[:, [0, 2]] = -torch.inf  # padding is a bad word, and the end is suppressed
            token = logits.argmax(-1, keepdim=True)
            written.append(token)
    assert torch.equal(torch.cat(written, 1), expected)


def test_a_base_model_opens(tmp_path: Path) -> None:
    """Published BARTs were saved without prefix, head and its bias, but with the embedding three times."""
    model = make("bart")
    with torch.no_grad():
        model.final_logits_bias.zero_()
    model.save_pretrained(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    bare = {name.removeprefix("model."): tensor for name, tensor in tensors.items() if name != "final_logits_bias"}
    bare |= {f"{stack}.embed_tokens.weight": bare["shared.weight"].clone() for stack in ("encoder", "decoder")}
    save_file(bare, tmp_path / "model.safetensors")
    opened = open_folder(tmp_path)
    assert not opened.config.head_bias
    source, target = ids_of(1, 9), ids_of(1, 5)
    expected = model(input_ids=source, decoder_input_ids=target).logits
    torch.testing.assert_close(ours_of(opened, source, target), expected, **CLOSE)


def test_tied_weights_may_be_in_the_file_but_not_differ(tmp_path: Path) -> None:
    model = make("t5")
    model.save_pretrained(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    copies = ("encoder.embed_tokens.weight", "decoder.embed_tokens.weight", "lm_head.weight")
    tensors |= {name: tensors["shared.weight"].clone() for name in copies}
    tensors["decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight"] = torch.ones(8, 4)
    save_file(tensors, tmp_path / "model.safetensors")
    source, target = ids_of(1, 9), ids_of(1, 5)
    expected = model(input_ids=source, decoder_input_ids=target).logits
    opened = open_folder(tmp_path)
    assert opened.config.tie_word_embeddings
    torch.testing.assert_close(ours_of(opened, source, target), expected, **CLOSE)
    tensors["lm_head.weight"] = tensors["lm_head.weight"] + 1
    save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(InputError, match=r"lm_head\.weight to shared\.weight"):
        open_folder(tmp_path)


def test_t5s_heads_are_as_the_file_has_them(tmp_path: Path) -> None:
    """transformers 5 ties every new T5, v1.1 too, and says so of those that are not."""
    output = told_of("t5-v1.1")
    tied = AutoModelForSeq2SeqLM.from_config(AutoConfig.for_model("t5", **output)).eval()
    tied.save_pretrained(tmp_path / "tied")
    opened = open_folder(tmp_path / "tied")
    assert (opened.config.tie_word_embeddings, opened.config.head_scale) == (True, 1.0)
    source, target = ids_of(1, 9), ids_of(1, 5)
    expected = tied(input_ids=source, decoder_input_ids=target).logits
    torch.testing.assert_close(ours_of(opened, source, target), expected, **CLOSE)
    make("t5-v1.1").save_pretrained(tmp_path / "untied")
    config = tmp_path / "untied" / "config.json"
    assert json.loads(config.read_text())["tie_word_embeddings"] is True
    assert open_folder(tmp_path / "untied").config.tie_word_embeddings is False


@pytest.mark.parametrize("case", ["bart", "marian", "t5", "t5-v1.1"])
def test_absent_keys_have_the_familys_defaults(case: str) -> None:
    output, architecture = told_of(case), CASES[case].architecture
    model_type = FAMILY_OF[architecture]
    family = FAMILIES[model_type]
    full = AutoConfig.for_model(model_type, **output).to_dict() | {"architectures": [architecture]}
    config = family.read_config(full)
    assert family.read_config({"model_type": model_type, "architectures": full["architectures"], **output}) == config
    written = family.write_config(config)
    assert family.read_config(written) == config
    assert written["is_encoder_decoder"] is True


@pytest.mark.parametrize(
    ("case", "change", "words"),
    [
        ("bart", {"decoder_ffn_dim": 64}, ["decoder_ffn_dim: 64"]),
        ("bart", {"decoder_attention_heads": 8}, ["decoder_attention_heads: 8"]),
        ("bart", {"normalize_before": True}, ["normalize_before"]),
        ("bart", {"static_position_embeddings": True}, ["static_position_embeddings"]),
        ("bart", {"tie_word_embeddings": False}, ["tie_word_embeddings"]),
        ("bart", {"is_encoder_decoder": False}, ["is_encoder_decoder"]),
        ("marian", {"share_encoder_decoder_embeddings": False}, ["share_encoder_decoder_embeddings"]),
        ("marian", {"decoder_vocab_size": 99}, ["decoder_vocab_size: 99"]),
        ("marian", {"static_positions": True}, ["static_positions", "static_position_embeddings"]),
        ("t5", {"feed_forward_proj": "gated-xielu"}, ["feed_forward_proj", "gated-xielu"]),
        ("t5", {"d_modell": 3}, ["d_modell", "d_model"]),
        ("t5", {"num_layers": 0}, ["num_layers"]),
    ],
)
def test_what_is_not_computed_is_refused_by_name(case: str, change: dict[str, Any], words: list[str]) -> None:
    config = {"model_type": case, **told_of(case), **change}
    with pytest.raises(InputError) as caught:
        family_of(config).read_config(config)
    for word in ["config.json", *words]:
        assert word in str(caught.value)


def test_what_a_family_cannot_say_is_refused() -> None:
    config = FAMILIES["t5"].read_config({"model_type": "t5", **told_of("t5")})
    for name, change in (("qkv_bias", True), ("attention_scale", 0.5), ("head_scale", 0.3)):
        with pytest.raises(InputError, match=name):
            FAMILIES["t5"].write_config(config.model_copy(update={name: change}))
    with pytest.raises(InputError, match="positions = 'relative'"):
        FAMILIES["marian"].write_config(config)


def test_marians_pieces_without_a_tokenizer_json_say_what_to_do(tmp_path: Path) -> None:
    for name in ("source.spm", "target.spm", "vocab.json"):
        (tmp_path / name).write_bytes(b"{}")
    with pytest.raises(InputError, match=r"tokenizer\.json(.|\n)*transformers"):
        open_tokenizer(tmp_path)


@pytest.fixture
def unigram() -> Callable[[], Any]:
    """A tokenizer as T5 has it: Unigram pieces, the end of the text after each, sentinels."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors

    def created() -> Tokenizer:
        pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", -5.0), ("▁", -2.0), ("▁the", -2.5), ("▁cat", -3.0)]
        core = Tokenizer(models.Unigram([*pieces, *((letter, -6.0) for letter in "acehst")], unk_id=2))
        core.pre_tokenizer, core.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
        core.add_special_tokens(["<pad>", "</s>", "<unk>", "<extra_id_0>", "<extra_id_1>"])
        core.post_processor = processors.TemplateProcessing("$A </s>", "$A </s> $B </s>", [("</s>", 1)])
        return core

    return created


def test_t5s_tokenizer_opens_and_ours_opens_there(unigram: Callable[[], Any], tmp_path: Path) -> None:
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    theirs = PreTrainedTokenizerFast(tokenizer_object=unigram(), pad_token="<pad>", eos_token="</s>", unk_token="<unk>")
    model = make("t5")
    model.save_pretrained(tmp_path / "theirs")
    theirs.save_pretrained(tmp_path / "theirs")
    opened = open_folder(tmp_path / "theirs")
    assert opened.tokenizer is not None
    text = "the cat <extra_id_0> sat"
    expected = theirs(text).input_ids
    assert opened.tokenizer.encode(text, special=True) == expected
    assert (opened.tokenizer.pad_id, opened.tokenizer.eos_id) == (0, 1)
    save_folder(tmp_path / "ours", opened.network, opened.config, opened.family, opened.tokenizer)
    there = AutoTokenizer.from_pretrained(tmp_path / "ours")
    assert isinstance(there, PreTrainedTokenizerFast)
    assert there(text).input_ids == expected
    assert there.decode(expected, skip_special_tokens=True) == theirs.decode(expected, skip_special_tokens=True)
