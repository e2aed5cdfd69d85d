"""What the inference benchmark compares and prints: its files hold what they say, verdicts follow from figures."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import arms
import gguf
import inference
import inference_arms
import inference_files
import inference_verdicts
import numpy as np
import pytest
import torch
from inference_files import LARGE_FORMAT, TERNARY_FORMATS, TERNARY_SHAPE, TYPES, Format, Shape
from inference_verdicts import Model

from lmworks.families.gguf import open_gguf
from lmworks.families.gguf_file import GGUFFile

SHAPE = Shape(hidden=64, inner=96, layers=2, heads=4, kv_heads=2, context=128)


@pytest.fixture
def tokenizer_file(tmp_path: Path) -> Path:
    """A GGUF file that has a tokenizer and little else."""
    path = tmp_path / "tokenizer.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list([f"t{i}" for i in range(99)] + ["<|im_end|>"])
    writer.add_token_types([1] * 99 + [3])
    writer.add_token_merges([])
    writer.add_eos_token_id(99)
    writer.add_bool("tokenizer.ggml.add_space_prefix", False)
    writer.add_tensor("t", np.ones(4, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.fixture
def random_file(tokenizer_file: Path, tmp_path: Path) -> Path:
    path = tmp_path / "random.gguf"
    inference_files.write_random(tokenizer_file, path, SHAPE, LARGE_FORMAT)
    return path


def test_the_random_model_opens_and_computes(random_file: Path) -> None:
    opened = open_gguf(random_file)
    assert (opened.config.hidden_size, opened.config.num_hidden_layers, opened.config.vocab_size) == (64, 2, 100)
    assert opened.config.tie_word_embeddings
    assert {stored.kind for stored in GGUFFile(random_file).tensors.values()} == {"Q4_0", "F32"}
    logits = opened.network(torch.arange(20)[None]).logits
    assert bool(logits.isfinite().all())
    assert logits.std() > 0.1
    weight = opened.network.get_parameter("layers.1.mlp.down_proj.weight").detach()
    assert 0.4 < float(weight.std()) * 96**0.5 < 1.2


def test_the_large_model_has_as_many_weights_as_it_says() -> None:
    count = sum(rows * columns for rows, columns in Shape().matrices(49_152).values())
    assert 1.05e9 < count < 1.15e9


@pytest.mark.parametrize("name", list(TERNARY_FORMATS))
def test_the_model_in_ternary_and_in_four_bits(name: str, tokenizer_file: Path, tmp_path: Path) -> None:
    count = sum(rows * columns for rows, columns in TERNARY_SHAPE.matrices(49_152).values())
    assert 1.3e8 < count < 1.4e8
    shape, stored = Shape(hidden=256, inner=256, layers=1, heads=4, kv_heads=2, context=128), TERNARY_FORMATS[name]
    inference_files.write_random(tokenizer_file, tmp_path / "m.gguf", shape, stored)
    tensors = GGUFFile(tmp_path / "m.gguf").tensors
    assert (tensors["token_embd.weight"].kind, tensors["blk.0.ffn_down.weight"].kind) == ("Q8_0", name)
    network = open_gguf(tmp_path / "m.gguf").network
    for matrix in ("embed_tokens", "layers.0.mlp.down_proj"):
        assert 0.4 < float(network.get_parameter(f"{matrix}.weight").detach().std()) * 256**0.5 < 1.2
    assert bool(network(torch.arange(20)[None]).logits.isfinite().all())


@pytest.mark.parametrize("stored", [Format("Q8_0", "Q8_0"), Format("Q4_1", "Q8_0"), Format("Q4_0", "Q4_0")])
def test_another_format_has_the_same_metadata_and_nearly_the_same_weights(
    stored: Format, random_file: Path, tmp_path: Path
) -> None:
    target = tmp_path / "other.gguf"
    inference_files.requantize(random_file, target, stored)
    before, after = GGUFFile(random_file), GGUFFile(target)
    assert after.tensors["token_embd.weight"].kind == stored.tables
    assert after.tensors["blk.1.ffn_up.weight"].kind == stored.matrices
    assert after.metadata.pop("general.file_type") == gguf.LlamaFileType[f"MOSTLY_{stored.matrices}"]
    del before.metadata["general.file_type"]
    assert before.metadata.keys() == after.metadata.keys()
    for key, value in before.metadata.items():
        np.testing.assert_array_equal(after.metadata[key], value)
    names = list(before.tensors)
    for name, values in before.read(names).items():
        step = float(values.abs().max()) / 7
        np.testing.assert_allclose(after.read([name])[name], values, atol=step)


def test_tokens_per_second_are_those_of_the_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    class Engine:
        def timed(self, rows: list[list[int]], new: int) -> tuple[float, float]:
            assert len({tuple(row[:1]) for row in rows}) == len(rows)
            return len(rows[0]) / 1000, len(rows) * new / 50

    figures = inference_arms.measure(Engine(), [16, 512], together=True)
    assert figures.pop("peak_mb") > 1
    assert figures == pytest.approx({"decode_16": 50, "prefill_512": 1000, "decode_512": 50, "together": 50})


def test_bits_are_those_of_the_softmax() -> None:
    logits = np.random.default_rng(0).normal(size=(5, 7)).astype(np.float32)
    tokens = np.array([3, 1, 6, 0, 2])
    exact = torch.nn.functional.cross_entropy(
        torch.from_numpy(logits[:-1]), torch.from_numpy(tokens[1:]), reduction="sum"
    )
    assert inference_arms._bits(logits, tokens) == pytest.approx(float(exact) / np.log(2), rel=1e-5)


def test_the_first_token_is_the_first_byte() -> None:
    begins_early = "import sys, time; print('x', flush=True); time.sleep(1.0)"
    assert inference.first_token([sys.executable, "-c", begins_early]) < 1.0
    with pytest.raises(arms.Failed, match="nothing here"):
        inference.first_token([sys.executable, "-c", "raise SystemExit('nothing here')"])
    with pytest.raises(arms.Failed):
        inference.first_token([sys.executable, "-c", "pass"])


RATES = [{"reading 1": 300.0, "reading 32": 100.0, "reading 128": 50.0, "float32": 200.0, "bfloat16": 800.0}] * 2


def arm(decode: float, prefill: float, **more: float) -> list[Any]:
    """Two rounds, the second on a machine of half the speed."""
    lengths = dict.fromkeys(("decode_16", "decode_512", "decode_2000"), decode)
    figures = {**lengths, "prefill_512": prefill, "prefill_2000": prefill, "peak_mb": 300.0, **more}
    slower = {
        key: value / 2 if key.startswith(("decode", "prefill", "together", "adapters")) else value
        for key, value in figures.items()
    }
    return [figures, slower]


ROUNDS = {
    "lmworks Q4_0": arm(600, 3000, together=2000, adapters=1600, first_token_s=0.6),
    "lmworks Q8_0": arm(400, 4000, together=1000),
    "llama.cpp Q4_0": arm(200, 1500, together=800),
    "llama.cpp Q4_0, flash attention": arm(250, 1400, together=500, first_token_s=0.9),
    "transformers bfloat16": arm(30, 2000, together=300),
    "ctranslate2 int8": arm(900, 9000),
}
MODEL = Model(
    {"lmworks Q4_0": 64e6, "lmworks Q8_0": 128e6, "llama.cpp Q4_0": 64e6}, cache_bytes=1000.0, prefill_gflop=0.2
)
BITS = {"chunks": 1.002, "float32": 1.0, "single": 0.996, "single_float32": 1.0}


def by_name(lines: list[Any]) -> dict[str, Any]:
    return {line.name.split(":")[0] if "beside" in line.name else line.name: line for line in lines}


def test_each_side_counts_with_its_fastest_format() -> None:
    likelihoods = {"lmworks Q4_0": BITS, "lmworks Q8_0": {**BITS, "chunks": 1.001}}
    lines = by_name(inference_verdicts.smollm2(ROUNDS, MODEL, RATES, likelihoods))
    decode, prefill = lines["decode at 512"], lines["prefill of 512"]
    assert (decode.measured, decode.asked, decode.reached) == (pytest.approx(600 / 250), 2.0, True)
    assert "Q4_0 beside llama.cpp Q4_0, flash attention" in decode.name
    assert (prefill.measured, prefill.reached) == (pytest.approx(4000 / 2000), False)
    assert "Q8_0 beside transformers bfloat16" in prefill.name
    together = lines["16 sequences at once, all tokens"]
    assert together.measured == pytest.approx(2000 / 800)
    apart = lines["bits per byte from the file's own weights in float32"]
    assert (apart.measured, apart.reached) == (pytest.approx(0.4), True)
    over = lines["peak of memory beyond file and KV cache"]
    assert over.measured == pytest.approx(300 - 64 - 2.128)
    first = next(line for name, line in lines.items() if name.startswith("from the shell"))
    assert (first.measured, first.reached) == (0.6, True)
    assert "0.90 s" in first.name
    cost = lines["16 sequences, an adapter each: what that costs"]
    assert (cost.measured, cost.reached) == (pytest.approx(25), False)


def test_the_share_of_reading_counts_weights_and_cache() -> None:
    size = 64e6 + 80 * 1000
    rate = inference_verdicts.rate_at(size, RATES[0])
    assert 50 < rate < 100
    share = inference_verdicts.reading_share(ROUNDS, "lmworks Q4_0", "decode_16", MODEL, RATES)
    assert share == pytest.approx((600 + 300) / 2 * size / rate / 1e7)
    assert inference_verdicts.rate_at(32 * 2**20, RATES[0]) == 100
    assert inference_verdicts.rate_at(1e12, RATES[0]) == 50
    assert inference_verdicts.rate_at(1000, RATES[0]) == 300
    products = inference_verdicts.product_share(ROUNDS, "lmworks Q8_0", MODEL, RATES)
    assert products == pytest.approx((4000 + 2000) / 2 * 0.2 / 800 * 100)


def test_ternary_weights_count_beside_our_own_four_bits() -> None:
    rounds = {"lmworks TQ2_0": arm(900, 3000), **ROUNDS, "llama.cpp TQ2_0": arm(300, 900)}
    beside_ours, beside_theirs = inference_verdicts.ternary(rounds)
    assert (beside_ours.measured, beside_ours.asked, beside_ours.reached) == (pytest.approx(1.5), 1.3, True)
    assert beside_theirs.measured == pytest.approx(3.0)
    assert [line.reached for line in inference_verdicts.ternary({"lmworks Q4_0": ROUNDS["lmworks Q4_0"]})] == [None]


def test_what_did_not_run_is_said() -> None:
    lines = by_name(inference_verdicts.smollm2({}, Model(), [], {}))
    assert all(line.reached is None and line.why for line in lines.values())
    alone = {"lmworks Q4_0": ROUNDS["lmworks Q4_0"]}
    line = inference_verdicts.ahead(alone, "decode_16", "decode", [], 2.0)
    assert (line.reached, line.why) == (None, "no peer ran to its end")
    assert inference_verdicts.large({}, Model(), [])[0].reached is None


def test_the_table_has_a_line_an_arm() -> None:
    results = inference.Results(dict(ROUNDS), RATES, {"llama.cpp Q8_0": "crashed\nat once"})
    lines = "\n".join(inference.table(results, MODEL))
    assert lines.count("ctranslate2 int8") == 1
    assert lines.count("lmworks Q4_0") == 2
    assert "llama.cpp Q8_0: crashed" in lines


def test_bytes_of_a_step_are_those_of_the_file(random_file: Path) -> None:
    model = inference.model_of({"lmworks Q4_0": random_file})
    weights = sum(rows * columns for rows, columns in SHAPE.matrices(100).values())
    norms = 5 * 64 * 4
    assert model.weight_bytes["lmworks Q4_0"] == weights * 18 / 32 + norms
    assert model.cache_bytes == 2 * 2 * 2 * 2 * 16
    assert model.prefill_gflop * 1e9 > 2 * weights
    assert TYPES.Q4_0.name == LARGE_FORMAT.matrices


def test_each_of_our_sequences_has_an_adapter_of_its_own(random_file: Path) -> None:
    inference_arms.pack(str(random_file))
    engine, rows, logits = inference_arms.Lmworks(str(random_file)), [[1, 2, 3]] * 2, []
    for count in (0, 2, 0):
        engine.use_adapters(count)
        engine.prefill(rows)
        logits.append(engine.stepper.logits)
    plain, adapted, again = logits
    assert (plain == again).all()
    assert (plain[0] == plain[1]).all()
    assert (adapted[0] != adapted[1]).any()
    assert (adapted != plain).any(1).all()
