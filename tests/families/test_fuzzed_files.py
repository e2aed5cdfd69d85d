"""Thousands of damaged model files: each opens, or is refused by an error that names it; none ends the process, or
keeps it busy. What opens is damaged where nothing can show it: in the weights themselves, or in what a model may be."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import fuzzing
import gguf
import numpy as np
import pytest
from tiny_model import save_tiny
from tiny_theirs import make_theirs
from tiny_tokenizers import CHATML

SCRIPT = Path(fuzzing.__file__)
CHUNK, SECONDS = 500, 240  # copies opened by one process, and seconds that it may take
KINDS = ("llama.gguf", "qwen3.gguf", "gpt2.gguf", "llama", "gpt2")
TYPES = gguf.GGMLQuantizationType
HIDDEN, INNER, HEADS, KV_HEADS, VOCABULARY = 32, 64, 4, 2, 300
FEW, MANY = 60, 2000  # copies of each kind


def save(folder: Path, kind: str) -> Path:
    """A tiny model to be damaged."""
    path = folder / kind
    if kind == "llama":
        return save_tiny(path)
    if kind == "gpt2":
        make_theirs("gpt2").save_pretrained(path)
        return path
    return save_gguf(path, kind.removesuffix(".gguf"))


def save_gguf(path: Path, architecture: str) -> Path:
    """A tiny GGUF of this architecture; each has another kind of tokenizer, of blocks and of scaled positions."""
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_context_length(64)
    writer.add_embedding_length(HIDDEN)
    writer.add_feed_forward_length(INNER)
    writer.add_block_count(2)
    writer.add_head_count(HEADS)
    if architecture == "gpt2":
        writer.add_layer_norm_eps(1e-5)
    else:
        writer.add_head_count_kv(KV_HEADS)
        writer.add_layer_norm_rms_eps(1e-5)
        writer.add_rope_freq_base(10_000.0)
        writer.add_key_length(HIDDEN // HEADS)
    if architecture == "llama":
        writer.add_string("llama.rope.scaling.type", "yarn")
        writer.add_float32("llama.rope.scaling.factor", 4.0)
        writer.add_uint32("llama.rope.scaling.original_context_length", 16)
        writer.add_float32("llama.rope.scaling.attn_factor", 0.9)
    add_tokenizer(writer, "llama" if architecture == "qwen3" else "gpt2")
    kind = {"llama": TYPES.Q8_0, "qwen3": TYPES.F16, "gpt2": TYPES.Q4_1}[architecture]
    chance = np.random.default_rng(0)
    for name, shape in shapes(architecture).items():
        values = chance.normal(0, 0.2, shape).astype(np.float32)
        own = kind if len(shape) == 2 else TYPES.F32
        writer.add_tensor(name, gguf.quantize(values, own), raw_dtype=own)
    if architecture == "qwen3":
        writer.add_tensor("rope_freqs.weight", np.ones(HIDDEN // HEADS // 2, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def add_tokenizer(writer: gguf.GGUFWriter, kind: str) -> None:
    """A vocabulary of pieces with scores, or of byte-level tokens with merges; and a chat template."""
    if kind == "llama":
        words = [f"<0x{byte:02X}>" for byte in range(256)] + ["▁", "a", "b", "ab", "▁a", "▁ab"]
    else:
        words = [chr(letter) for letter in range(33, 123)] + ["ab", "abc"]
    tokens = ["<unk>", "<s>", "</s>", *words]
    tokens += [f"<word{number}>" for number in range(VOCABULARY - len(tokens))]
    writer.add_tokenizer_model(kind)
    writer.add_token_list(tokens)
    writer.add_token_types([2, 3, 3] + [1] * (VOCABULARY - 3))
    if kind == "llama":
        writer.add_token_scores([-float(number) for number in range(VOCABULARY)])
    else:
        writer.add_tokenizer_pre("smollm")
        writer.add_token_merges(["a b", "ab c"])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_add_bos_token(True)
    writer.add_chat_template(CHATML)


def shapes(architecture: str) -> dict[str, tuple[int, ...]]:
    """(rows, columns) of every tensor."""
    size, kv_size, found = HIDDEN, HIDDEN // HEADS * KV_HEADS, {"token_embd.weight": (VOCABULARY, HIDDEN)}
    biased = architecture == "gpt2"
    block: dict[str, tuple[int, ...]] = {"attn_norm": (size,), "attn_output": (size, size), "ffn_norm": (size,)}
    block |= {"ffn_up": (INNER, size), "ffn_down": (size, INNER)}
    if biased:
        block["attn_qkv"] = (3 * size, size)
        found["position_embd.weight"] = (64, size)
    else:
        block |= {"attn_q": (size, size), "attn_k": (kv_size, size), "attn_v": (kv_size, size)}
        block["ffn_gate"] = (INNER, size)
    if architecture == "qwen3":
        block |= {"attn_q_norm": (size // HEADS,), "attn_k_norm": (size // HEADS,)}
    every = {**found, "output_norm.weight": (size,)}
    every |= {f"blk.{layer}.{name}.weight": shape for layer in range(2) for name, shape in block.items()}
    if biased:
        every |= {
            f"{name.removesuffix('.weight')}.bias": shape[:1]
            for name, shape in every.items()
            if name not in ("token_embd.weight", "position_embd.weight")
        }
    return every


def open_copies(source: Path, scratch: Path, begin: int, end: int) -> dict[str, int]:
    """Open damaged copies in a process of its own, and count what came of it."""
    command = [sys.executable, str(SCRIPT), str(source), str(scratch), str(begin), str(end)]
    try:
        process = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS)
    except subprocess.TimeoutExpired as late:
        printed = late.stdout.decode() if isinstance(late.stdout, bytes) else late.stdout or ""
        reached = printed.split()[-1:]
        pytest.fail(f"{source.name}: copy {reached} keeps the process busy")
    *numbers, counts = process.stdout.splitlines() or [""]
    if process.returncode:
        last = counts or numbers[-1:]
        pytest.fail(f"{source.name}: copy {last} ends the process with {process.returncode}:\n{process.stderr[-3000:]}")
    return json.loads(counts)


@pytest.mark.parametrize("kind", KINDS)
def test_some_damaged_files_open_or_are_refused(kind: str, tmp_path: Path) -> None:
    check(kind, tmp_path, FEW)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("kind", KINDS)
def test_ten_thousand_damaged_files_open_or_are_refused(kind: str, tmp_path: Path) -> None:
    check(kind, tmp_path, MANY)


def check(kind: str, folder: Path, count: int) -> None:
    """Damage a model so many times; most copies are refused, and some of those damaged in their weights open."""
    source, scratch = save(folder, kind), folder / "scratch"
    scratch.mkdir()
    total = {"opened": 0, "refused": 0}
    for begin in range(0, count, CHUNK):
        for outcome, number in open_copies(source, scratch, begin, min(begin + CHUNK, count)).items():
            total[outcome] += number
    assert sum(total.values()) == count
    assert total["refused"] > 0.4 * count
    assert total["opened"] > 0


@pytest.mark.parametrize("kind", KINDS)
def test_the_files_open_undamaged(kind: str, tmp_path: Path) -> None:
    from lmworks.families.folder import open_folder
    from lmworks.families.gguf import open_gguf

    source = save(tmp_path, kind)
    opened = open_gguf(source) if source.is_file() else open_folder(source)
    assert opened.config.num_hidden_layers == 2


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind.endswith(".gguf")])
def test_the_header_is_walked_to_its_end(kind: str, tmp_path: Path) -> None:
    """So that no number of it escapes damage: right behind it, aligned, the first tensor begins."""
    from lmworks.families.gguf_file import GGUFFile

    path = save(tmp_path, kind)
    *numbers, end = fuzzing.spans(path.read_bytes())
    first = min(stored.offset for stored in GGUFFile(path).tensors.values())
    assert 0 <= first - end.begin < 32
    assert len(numbers) > 100
