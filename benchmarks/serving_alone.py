"""The engine without a server: prompts one after the other, as one client would send them, in a process of its own.

python benchmarks/serving_alone.py MODEL PROMPTS.json FIRST LAST      JSON as serving_client.py prints it
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from serving_client import MOST_TOKENS, Answer

REASONS = {"end": "stop", "stop": "stop", "length": "length", "context": "length"}
"""Why an answer ended, as OpenAI's API says it."""


def answers(model: Any, prompts: Sequence[str], numbers: Sequence[int]) -> list[Answer]:
    """What the engine writes to each prompt, greedily, and when each piece came."""
    listed = []
    for number in numbers:
        answer, begin = Answer(number), time.perf_counter()
        stream, last = (
            model.chat([{"role": "user", "content": prompts[number]}], stream=True, max_tokens=MOST_TOKENS),
            begin,
        )
        for piece in stream:
            now = time.perf_counter()
            if answer.first is None:
                answer.first = now - begin
            else:
                answer.gaps.append(now - last)
            last = now
            answer.text += piece
        answer.finish = REASONS[stream.reply.stop_reason]
        listed.append(answer)
    return listed


def open_engine(place: str) -> Any:
    """The model as ``lmworks serve`` opens it: packed weights of the cache."""
    from lmworks.language_model.engine_cache import open_cached

    model = open_cached(place)
    if model is None:
        raise SystemExit("the cache lacks the packed weights: inference_arms.py pack FILE")
    return model


def main() -> None:
    options = argparse.ArgumentParser()
    options.add_argument("model")
    options.add_argument("prompts", type=Path)
    options.add_argument("first", type=int)
    options.add_argument("last", type=int)
    given = options.parse_args()
    model, texts = open_engine(given.model), json.loads(given.prompts.read_text(encoding="utf-8"))
    answers(model, texts, [0])
    begin = time.perf_counter()
    came = answers(model, texts, range(given.first, given.last))
    print(json.dumps({"seconds": time.perf_counter() - begin, "answers": [asdict(answer) for answer in came]}))


if __name__ == "__main__":
    main()
