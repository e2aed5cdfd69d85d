"""The arms of the inference benchmark: one engine reads prompts and continues them, in a process of its own.

All are handed the same token ids and take the likeliest next token, whatever would end a text. The clock runs from ids
to ids: logits are computed and searched, texts are neither read nor written. What is loaded before the clock starts,
and a short text that warms up, are not counted.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import arms
import numpy as np

from lmworks.base.process_memory import peak_memory
from lmworks.base.processor import threads, use_threads

NEW = {16: 128, 512: 64, 2000: 64}
"""Tokens that are decoded after a prompt of so many tokens."""
SEQUENCES, BATCH_PROMPT, BATCH_NEW = 16, 64, 64  # sequences at once, tokens of their prompts, tokens decoded of each
RANK = 16  # of adapters
TURNS = 3  # of sequences at once without and with adapters
SMALLEST_PREFILL = 512  # tokens; the speed of prefill with shorter prompts is not a figure of the benchmark
TEXTS, TEXT_TOKENS = 8, 512  # whose likelihood is compared, and tokens of each
SINGLE_TOKENS = 128  # of each text, read token by token


def ids(length: int, row: int = 0) -> list[int]:
    """A prompt; those of different rows begin with different tokens, so that nothing of them can be shared."""
    return [100 + (7919 * place + 1009 * row) % 30_000 for place in range(length)]


class Stepwise(ABC):
    """An engine that is driven token by token."""

    def timed(self, rows: list[list[int]], new: int) -> tuple[float, float]:
        """Seconds of reading the prompts, and of so many tokens more for each."""
        self.clear(len(rows))
        started = time.perf_counter()
        tokens = self.prefill(rows)
        read = time.perf_counter()
        for _ in range(new):
            tokens = self.step(tokens)
        return read - started, time.perf_counter() - read

    @abstractmethod
    def clear(self, rows: int) -> None:
        """Forget what was read; so many rows come next."""

    @abstractmethod
    def prefill(self, rows: list[list[int]]) -> list[int]:
        """Read the prompts; the likeliest next token of each."""

    @abstractmethod
    def step(self, tokens: list[int]) -> list[int]:
        """Append a token to each row; the likeliest next token of each."""


class Lmworks(Stepwise):
    """The native engine, as ``lmworks generate`` opens it: packed weights of the cache, and no PyTorch."""

    def __init__(self, place: str) -> None:
        from lmworks.language_model.engine_cache import open_cached

        model = open_cached(place)
        if model is None:
            raise SystemExit("the cache lacks the packed weights: inference_arms.py pack FILE")
        self.model = model
        self.stepper = model.stepper()
        self.adapters: list[str] = []
        self.added_adapters: set[str] = set()

    def use_adapters(self, count: int) -> None:
        """Give each of so many rows an adapter of its own with random factors; 0: rows have none."""
        self.adapters = [f"random {number}" for number in range(count)]
        for number, name in enumerate(self.adapters):
            if name not in self.added_adapters:
                self.model.engine.add_adapter(name, random_updates(self.model.config, number))
                self.added_adapters.add(name)

    def clear(self, rows: int) -> None:
        """Nothing: each prefill begins anew."""

    def prefill(self, rows: list[list[int]]) -> list[int]:
        from lmworks.generate.stepper import RowStart

        starts, reserve = [RowStart(row) for row in rows], max(NEW.values())
        self.stepper.adapter = None
        self.stepper.prefill([] if self.adapters else starts, reserve)
        for name, start in zip(self.adapters, starts, strict=False):
            self.stepper.adapter = name
            self.stepper.add([start], reserve)
        return self.stepper.logits.argmax(-1).tolist()

    def step(self, tokens: list[int]) -> list[int]:
        self.stepper.step(tokens)
        return self.stepper.logits.argmax(-1).tolist()

    def logits_of(self, tokens: list[int], step: int) -> np.ndarray:
        """(T, V) float32 logits after each token of a text, read ``step`` tokens at a time."""
        self.prefill([tokens[:1]])
        parts = [self.stepper.logits]
        parts += [self.stepper.extend(tokens[begin : begin + step]) for begin in range(1, len(tokens), step)]
        return np.concatenate(parts)


class LlamaCpp(Stepwise):
    """llama.cpp by the functions of its library, without the layers of Python over them.

    Sequences at once have a context of their own, sized for them, as its batched benchmark does.
    """

    def __init__(self, place: str, flash_attention: bool) -> None:
        from llama_cpp import llama_cpp as library

        self.library, self.flash_attention = library, flash_attention
        library.llama_backend_init()
        parameters = library.llama_model_default_params()
        parameters.n_gpu_layers = 0
        self.model = library.llama_model_load_from_file(str(place).encode(), parameters)
        if not self.model:
            raise SystemExit("llama.cpp does not open the file")
        self.vocabulary = library.llama_vocab_n_tokens(library.llama_model_get_vocab(self.model))
        self.batch = library.llama_batch_init(max(NEW) + SEQUENCES * BATCH_PROMPT, 0, 1)
        self.contexts: dict[bool, Any] = {}

    def clear(self, rows: int) -> None:
        library, together = self.library, rows > 1
        if together not in self.contexts:
            self.contexts[together] = self._context(SEQUENCES if together else 1)
        self.context = self.contexts[together]
        library.llama_memory_clear(library.llama_get_memory(self.context), False)
        self.lengths = [0] * rows

    def _context(self, sequences: int) -> Any:
        parameters = self.library.llama_context_default_params()
        tokens = BATCH_PROMPT + BATCH_NEW if sequences > 1 else max(NEW) + max(NEW.values())
        parameters.n_ctx = sequences * -(-(tokens + 1) // 256) * 256  # the library pads each sequence to 256
        parameters.n_batch, parameters.n_ubatch, parameters.n_seq_max = 2048, 512, sequences
        parameters.n_threads = parameters.n_threads_batch = threads()
        parameters.flash_attn_type = int(self.flash_attention)  # -1 would let the library choose
        context = self.library.llama_init_from_model(self.model, parameters)
        if not context:
            raise SystemExit("llama.cpp makes no context for the model")
        return context

    def prefill(self, rows: list[list[int]]) -> list[int]:
        return self._compute(rows)

    def step(self, tokens: list[int]) -> list[int]:
        return self._compute([[token] for token in tokens])

    def _compute(self, rows: Sequence[Sequence[int]]) -> list[int]:
        """Append tokens to each row; the likeliest next token after the last ones."""
        batch, count, last = self.batch, 0, []
        for row, tokens in enumerate(rows):
            for token in tokens:
                batch.token[count], batch.pos[count] = token, self.lengths[row]
                batch.n_seq_id[count], batch.seq_id[count][0], batch.logits[count] = 1, row, 0
                self.lengths[row], count = self.lengths[row] + 1, count + 1
            batch.logits[count - 1] = 1
            last.append(count - 1)
        batch.n_tokens = count
        if fault := self.library.llama_decode(self.context, batch):
            raise SystemExit(f"llama_decode gave {fault}")
        logits = [self.library.llama_get_logits_ith(self.context, place) for place in last]
        return [int(np.ctypeslib.as_array(row, (self.vocabulary,)).argmax()) for row in logits]


class Transformers(Stepwise):
    """transformers, called token by token: its ``generate`` would cost more."""

    def __init__(self, precision: str) -> None:
        import torch
        from transformers import AutoModelForCausalLM

        use_threads()
        self.torch, dtype = torch, getattr(torch, precision)
        folder = arms.reference_folder()
        self.model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, attn_implementation="sdpa").eval()

    def clear(self, rows: int) -> None:
        self.past: Any = None

    def prefill(self, rows: list[list[int]]) -> list[int]:
        with self.torch.inference_mode():
            output = self.model(self.torch.tensor(rows), past_key_values=self.past, use_cache=True, logits_to_keep=1)
        self.past = output.past_key_values
        return output.logits[:, -1].argmax(-1).tolist()

    def step(self, tokens: list[int]) -> list[int]:
        return self.prefill([[token] for token in tokens])


class CTranslate2:
    """ctranslate2 in int8; it decodes in one call, so that reading is timed apart and taken off."""

    def __init__(self, folder: str) -> None:
        import ctranslate2

        self.generator = ctranslate2.Generator(
            folder, device="cpu", compute_type="int8", inter_threads=1, intra_threads=threads()
        )
        self.vocabulary = json.loads((Path(folder) / "vocabulary.json").read_text(encoding="utf-8"))

    def timed(self, rows: list[list[int]], new: int) -> tuple[float, float]:
        """Seconds of reading the prompts, and of so many tokens more for each."""
        texts = [[self.vocabulary[token] for token in row] for row in rows]
        read = self._seconds(texts, 1)
        return read, self._seconds(texts, new + 1) - read

    def _seconds(self, texts: list[list[str]], new: int) -> float:
        started = time.perf_counter()
        self.generator.generate_batch(
            texts, max_length=new, min_length=new, sampling_topk=1, include_prompt_in_result=False
        )
        return time.perf_counter() - started


def pack(place: str) -> dict[str, float]:
    """Keep a file's packed weights in the cache, as the first ``lmworks generate`` does; seconds."""
    import lmworks
    from lmworks.language_model import engine_cache

    started = time.perf_counter()
    if engine_cache.open_cached(place) is None:
        model = lmworks.load(place, storage="stored").prepare("float32")
        if model.engine_fault:
            raise SystemExit(f"the native engine does not compute this model here: {model.engine_fault}")
        engine_cache.store(model)
    return {"seconds": time.perf_counter() - started}


def measure(engine: Any, lengths: Sequence[int], together: bool) -> dict[str, float]:
    """Tokens per second by length of the prompt, and the peak of memory before sequences run together."""
    engine.timed([ids(16)], 4)
    figures = {}
    for length in lengths:
        read, decoded = engine.timed([ids(length)], NEW[length])
        if length >= SMALLEST_PREFILL:
            figures[f"prefill_{length}"] = length / read
        figures[f"decode_{length}"] = NEW[length] / decoded
    figures["peak_mb"] = peak_memory() / 1e6
    return figures | (at_once(engine) if together else {})


def at_once(engine: Any) -> dict[str, float]:
    """Tokens per second of all sequences at once; of ours, in turn, also with an adapter of its own for each."""
    rows = [ids(BATCH_PROMPT, row) for row in range(SEQUENCES)]
    has_adapters = isinstance(engine, Lmworks)
    adapters = {"together": 0, "adapters": SEQUENCES} if has_adapters else {"together": 0}
    seconds: dict[str, list[float]] = {key: [] for key in adapters}
    for _ in range(TURNS if has_adapters else 1):
        for key, count in adapters.items():
            if has_adapters:
                engine.use_adapters(count)
            seconds[key].append(engine.timed(rows, BATCH_NEW)[1])
    return {key: SEQUENCES * BATCH_NEW / statistics.median(taken) for key, taken in seconds.items()}


def random_updates(config: Any, seed: int) -> list[tuple[int, str, np.ndarray, np.ndarray]]:
    """An adapter as LoRA makes it by default: of the linears of attention."""
    generator = np.random.default_rng(seed)
    heads = (config.num_attention_heads, config.key_value_heads)
    hidden, queries, keys = config.hidden_size, *(count * config.head_size for count in heads)
    shapes = {
        "q_proj": (hidden, queries),
        "k_proj": (hidden, keys),
        "v_proj": (hidden, keys),
        "o_proj": (queries, hidden),
    }
    return [
        (layer, name, _normal(generator, RANK, inputs), _normal(generator, outputs, RANK))
        for layer in range(config.num_hidden_layers)
        for name, (inputs, outputs) in shapes.items()
    ]


def _normal(generator: np.random.Generator, *shape: int) -> np.ndarray:
    return generator.normal(scale=0.02, size=shape).astype(np.float32)


def likelihoods(place: str) -> dict[str, float]:
    """Bits per byte of a few texts by the engine, and by the file's own weights in float32 through PyTorch.

    ``chunks``: whole texts at once, as prompts are read. ``single``: their beginnings token by token, as answers are
    written.
    """
    import torch

    import lmworks
    from lmworks.text import corpus

    engine, plain = Lmworks(place), lmworks.load(place)
    bits = dict.fromkeys(("chunks", "float32", "single", "single_float32"), 0.0)
    size = {"chunks": 0, "single": 0}
    for row in corpus.read("movie-reviews").rows[:TEXTS]:
        tokens = plain.tokenizer.encode(row.values["text"])[:TEXT_TOKENS]
        with torch.inference_mode():
            exact = plain.network(torch.tensor(tokens)[None]).logits[0].double().numpy()
        bits["float32"] += _bits(exact, tokens)
        bits["chunks"] += _bits(engine.logits_of(tokens, len(tokens)), tokens)
        size["chunks"] += len(plain.tokenizer.decode(tokens).encode())
        first = tokens[:SINGLE_TOKENS]
        bits["single_float32"] += _bits(exact, first)
        bits["single"] += _bits(engine.logits_of(first, 1), first)
        size["single"] += len(plain.tokenizer.decode(first).encode())
    return {name: value / size["single" if "single" in name else "chunks"] for name, value in bits.items()}


def _bits(logits: np.ndarray, tokens: Sequence[int]) -> float:
    """Bits of all tokens but the first, given those before."""
    scores = logits[: len(tokens) - 1].astype(np.float64)
    scores -= scores.max(-1, keepdims=True)
    of_tokens = scores[np.arange(len(tokens) - 1), list(tokens[1:])]
    return float((np.log(np.exp(scores).sum(-1)) - of_tokens).sum() / np.log(2))


def machine_rates() -> dict[str, float]:
    """GB/s of reading by MB, and GFLOP/s of the fastest matrix products by precision, at this moment."""
    import limit

    from lmworks.families.folder import read_config
    from lmworks.kernels.product_rates import precisions
    from lmworks.kernels.reading import reading_rates
    from lmworks.model.sizes import linears

    use_threads()
    shapes = [(linear.inputs, linear.outputs) for linear in linears(read_config(arms.reference_folder()))]
    rates = limit.rates(shapes, precisions())
    reading = {f"reading {size}": rate for size, rate in reading_rates(refresh=True).gigabytes.items()}
    return reading | {name: rate for name, rate in rates.items() if " by " not in name}


ENGINES: dict[str, Any] = {
    "lmworks": Lmworks,
    "llama.cpp": LlamaCpp,
    "transformers": Transformers,
    "ctranslate2": CTranslate2,
}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("kind", choices=[*ENGINES, "pack", "likelihoods", "machine"])
    parser.add_argument(
        "place", nargs="?", default="", help="the model's file or folder; of transformers the precision"
    )
    parser.add_argument("--flash-attention", action="store_true")
    parser.add_argument("--lengths", type=int, nargs="+", default=list(NEW), choices=list(NEW))
    parser.add_argument("--together", action="store_true")
    args = parser.parse_args()
    if args.kind == "machine":
        figures = machine_rates()
    elif args.kind in ("pack", "likelihoods"):
        figures = (pack if args.kind == "pack" else likelihoods)(args.place)
    else:
        more = [args.flash_attention] if args.kind == "llama.cpp" else []
        figures = measure(ENGINES[args.kind](args.place, *more), args.lengths, args.together)
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
