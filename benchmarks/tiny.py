"""Two published models of a tutorial, on the text that it trains them on: theirs beside ours, and a plain
implementation beside both.

TinyGPT learns one paragraph character by character, TinyBERT its first sentence word by word: 4 layers of 128, 4 heads,
1,000 steps of 32 blocks of 16 characters or 8 words. The text is not part of this repository: give it with --text.

What a model can reach is limited by what it may read: in the first places of a block several continuations occur in
the text, and the least loss is their entropy. It is counted here and printed beside what the models reached.
"""

from __future__ import annotations

import json
import math
import statistics
import sys
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path

import arms
import numpy as np
import torch

from lmworks.base.figures import NATS_PER_BIT

GPT_BLOCK, BERT_BLOCK, BATCH, STEPS, RATE = 16, 8, 32, 1000, 1e-3
PUBLISHED = {
    "TinyGPT": {
        "loss": 0.0399, "perplexity": 1.04, "accuracy": 0.9848, "bits": 0.058, "distinct1": 0.113, "distinct2": 0.432,
    },
    "TinyBERT": {"loss": 0.2245, "perplexity": 1.25, "accuracy": 1.0},
}  # fmt: skip
FIGURES = ("loss", "perplexity", "accuracy", "bits", "distinct1", "distinct2", "step_ms")
DRAWS = 200  # of masks, when masked tokens are measured
SAMPLED = 400  # characters


def first_sentence(text: str) -> str:
    """Up to the first full stop at a word's end, on one line."""
    return " ".join(text.split(". ")[0].split("\n\n")[0].split(".\n")[0].split()) + "."


def least_loss(text: str, starts: range, block: int) -> float:
    """Nats a character that no model can go below on these blocks: the entropy of what follows what it may read."""
    follows: dict[tuple[int, str], Counter[str]] = defaultdict(Counter)
    for start in starts:
        for place in range(min(block, len(text) - 1 - start)):
            follows[place, text[start : start + place + 1]][text[start + place + 1]] += 1
    counts = [(count, sum(after.values())) for after in follows.values() for count in after.values()]
    return -sum(count * math.log(count / all_) for count, all_ in counts) / sum(count for count, _ in counts)


def distinct(text: str, n: int) -> float:
    """Distinct n-grams of characters among all."""
    grams = [text[at : at + n] for at in range(len(text) - n + 1)]
    return len(set(grams)) / len(grams)


def _seconds(run: Path) -> float:
    from lmworks.base.journal import RunFolder

    return statistics.median(step["seconds"] for step in RunFolder(run).events("step")[20:])


def ours_gpt(text: str, seed: int, windows: str) -> dict[str, float]:
    """Trained on blocks that lie side by side, and measured on them; or on blocks that begin anywhere, and measured on
    the whole text, each character once, at least half a block before it."""
    import lmworks
    from lmworks.data.batch import Example
    from lmworks.evaluate.scoring import row_losses, summary

    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "text.txt"
        file.write_text(text, encoding="utf-8")
        run = lmworks.pretrain(
            "tinygpt", {"source": str(file), "held_out": 0}, out=Path(folder) / "run",
            task={"name": "causal", "windows": windows},
            train={"seed": seed, "steps": STEPS, "batch_size": BATCH, "learning_rate": RATE, "precision": "float32"},
        )  # fmt: skip
        model, step = run.model, _seconds(run.folder)
        ids = np.array(model.tokenizer.encode(text), dtype=np.int32)
        if windows == "chunks":
            starts = range(0, len(ids) - GPT_BLOCK, GPT_BLOCK)
            blocks = [ids[start : start + GPT_BLOCK + 1] for start in starts]
            scored = [Example(block, np.arange(len(block)) > 0) for block in blocks]
        else:
            half = GPT_BLOCK // 2
            starts = range(0, len(ids) - 1, half)
            blocks = [ids[max(0, start - half) : start + half + 1] for start in starts]
            scored = [
                Example(block, np.arange(len(block)) > (half if start else 0))
                for block, start in zip(blocks, starts, strict=True)
            ]
        figures = summary(row_losses(model.network, scored), [0] * len(scored))
        sample = text[0]
        for number in range(SAMPLED):  # where the model ends the text, it begins anew
            sampling = {"max_tokens": 1, "temperature": 0.8, "top_k": 50, "seed": seed * SAMPLED + number}
            sample += model.generate(sample[1 - GPT_BLOCK :], **sampling) or text[0]
    return _figures(figures["loss"], figures["accuracy"], step, sample[1:])


def ours_bert(text: str, seed: int) -> dict[str, float]:
    """Masked words over many draws of the masks."""
    import lmworks
    from lmworks.evaluate.scoring import row_losses, summary
    from lmworks.tasks.masked import Masked
    from lmworks.tasks.settings import TaskSettings
    from lmworks.text import corpus
    from lmworks.text.rows import DataSettings

    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "text.txt"
        file.write_text(text, encoding="utf-8")
        data = {"source": str(file), "held_out": 0}
        run = lmworks.pretrain(
            "tinybert", data, out=Path(folder) / "run",
            train={"seed": seed, "steps": STEPS, "batch_size": BATCH, "learning_rate": RATE, "precision": "float32"},
        )  # fmt: skip
        model, step = run.model, _seconds(run.folder)
        settings = DataSettings(held_out=0)
        task = Masked(TaskSettings(name="masked", windows="random"), model.tokenizer, model.config)
        examples = task.examples(corpus.read(str(file), settings), settings, model.config.max_position_embeddings)
        rng = np.random.default_rng(seed)
        samples = [task.sample(example, rng) for _ in range(DRAWS) for example in examples.items]
        figures = summary(row_losses(model.network, samples), [0] * len(samples))
    return _figures(figures["loss"], figures["accuracy"], step)


def plain_arm(text: str, seed: int, causal: bool) -> dict[str, float]:
    """The plain implementation, on the same blocks."""
    import time

    import plain

    torch.manual_seed(seed)
    units = list(text) if causal else text.split()
    vocabulary = sorted(set(units)) + ([] if causal else ["[MASK]"])
    ids = torch.tensor([vocabulary.index(unit) for unit in units])
    block = GPT_BLOCK if causal else BERT_BLOCK
    random = np.random.default_rng(seed)

    def batches() -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        blocks = (len(ids) - 1) // block
        for _ in range(STEPS):
            if causal:
                starts = (
                    np.concatenate([random.permutation(blocks) for _ in range(-(-BATCH // blocks))])[:BATCH] * block
                )
                yield (torch.stack([ids[s + shift : s + shift + block] for s in starts]) for shift in (0, 1))  # type: ignore[misc]
            else:
                yield _masked(ids, random, len(vocabulary), block)

    model = plain.PlainModel(plain.Sizes(len(vocabulary), block, causal))
    times, begun = [], time.perf_counter()
    for _ in plain.train(model, batches(), RATE):
        times.append(time.perf_counter() - begun)
        begun = time.perf_counter()
    model.eval()
    losses, right = [], []
    with torch.no_grad():
        if causal:
            starts = range(0, len(ids) - block, block)
            pairs = [(ids[s : s + block][None], ids[s + 1 : s + block + 1][None]) for s in starts]
        else:
            pairs = [_masked(ids, random, len(vocabulary), block) for _ in range(DRAWS // 10)]
        for given, wanted in pairs:
            logits, is_hidden = model(given), wanted >= 0
            nats = torch.nn.functional.cross_entropy(logits[is_hidden], wanted[is_hidden], reduction="none")
            losses += nats.tolist()
            right += (logits[is_hidden].argmax(-1) == wanted[is_hidden]).tolist()
    return _figures(statistics.mean(losses), statistics.mean(right), statistics.median(times[20:]))


def _masked(
    ids: torch.Tensor, random: np.random.Generator, vocab_size: int, block: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Blocks of words, 15 % of them hidden: 80 % behind the mask, 10 % behind another word, 10 % not at all."""
    starts = random.integers(0, len(ids) - block + 1, BATCH)
    given = torch.stack([ids[start : start + block] for start in starts])
    hidden = random.random(given.shape) < 0.15
    hidden[np.arange(BATCH), random.integers(0, block, BATCH)] |= ~hidden.any(1)  # at least one a block
    kind = random.random(given.shape)
    targets = given.masked_fill(torch.from_numpy(~hidden), -100)
    given = given.masked_fill(torch.from_numpy(hidden & (kind < 0.8)), vocab_size - 1)
    other = torch.from_numpy(random.integers(0, vocab_size - 1, given.shape))
    return torch.where(torch.from_numpy(hidden & (kind >= 0.9)), other, given), targets


def _figures(loss: float, accuracy: float, step: float, sample: str = "") -> dict[str, float]:
    figures = {"loss": loss, "perplexity": math.exp(loss), "accuracy": accuracy, "step_ms": 1e3 * step}
    if sample:
        figures |= {"bits": loss / NATS_PER_BIT, "distinct1": distinct(sample, 1), "distinct2": distinct(sample, 2)}
    return figures


ARMS = {
    "TinyGPT, blocks side by side": lambda text, seed: ours_gpt(text, seed, "chunks"),
    "TinyGPT, blocks anywhere": lambda text, seed: ours_gpt(text, seed, "random"),
    "plain TinyGPT, blocks side by side": lambda text, seed: plain_arm(text, seed, True),
    "TinyBERT": lambda text, seed: ours_bert(first_sentence(text), seed),
    "plain TinyBERT": lambda text, seed: plain_arm(first_sentence(text), seed, False),
}


def _table(rounds: dict[str, list[dict[str, float]]]) -> None:
    """Theirs, then each arm: mean and spread over the seeds."""
    print(f"\n{'':36}" + "".join(f"{name:>18}" for name in FIGURES))
    for name, published in PUBLISHED.items():
        print(f"{name + ', published':36}" + "".join(f"{published.get(figure, ''):>18}" for figure in FIGURES))
    for name, results in rounds.items():
        cells = []
        for figure in FIGURES:
            values = [result[figure] for result in results if figure in result]
            spread = f" ± {statistics.stdev(values):.4f}" if len(values) > 1 else ""
            cells.append(f"{statistics.mean(values):.4f}{spread}" if values else "")
        print(f"{name:36}" + "".join(f"{cell:>18}" for cell in cells))


def main() -> None:
    """All arms take turns, a seed a round."""
    options = arms.parser(__doc__ or "")
    options.add_argument("--text", required=True, help="the paragraph")
    options.add_argument("--seed", type=int, default=0, help="of one arm")
    options.add_argument("--plain-rounds", type=int, default=5, help="in how many of them the plain one runs too")
    options.set_defaults(rounds=5)
    given = options.parse_args()
    text = Path(given.text).read_text(encoding="utf-8").replace("\n", " ").strip()
    if given.arm:
        print(json.dumps(ARMS[given.arm](text, given.seed)))
        return
    rounds: dict[str, list[dict[str, float]]] = {name: [] for name in ARMS}
    for seed in range(given.rounds):
        for name in ARMS:
            if name.startswith("plain") and seed >= given.plain_rounds:
                continue
            rounds[name].append(arms.run_arm(__file__, ["--arm", name, "--text", given.text, "--seed", str(seed)]))
            print(
                f"seed {seed}  {name:36}" + "  ".join(f"{k} {v:.4g}" for k, v in rounds[name][-1].items()), flush=True
            )
    _table(rounds)
    whole = range(0, len(text) - GPT_BLOCK, GPT_BLOCK)
    least = {
        "blocks side by side": least_loss(text, whole, GPT_BLOCK),
        "blocks anywhere": least_loss(text, range(len(text) - GPT_BLOCK), GPT_BLOCK),
    }
    print("\nno model that reads a block alone can go below, in nats per character: ", end="")
    print(", ".join(f"{name} {value:.4f}" for name, value in least.items()))
    pairs = {"TinyGPT": ("plain TinyGPT, blocks side by side", "TinyGPT, blocks side by side")}
    pairs["TinyBERT"] = ("plain TinyBERT", "TinyBERT")
    ratios = {
        name: statistics.median(
            a["step_ms"] / b["step_ms"] for a, b in zip(rounds[first], rounds[second], strict=False)
        )
        for name, (first, second) in pairs.items()
    }
    for name, ratio in ratios.items():
        print(
            f"{name}: a step takes the plain implementation {ratio:.2f} times as long (median of the rounds; asked: 2)"
        )
    arms.keep("tiny", {"published": PUBLISHED, "rounds": rounds, "least_loss": least, "ratios": ratios})


if __name__ == "__main__":
    sys.exit(main())
