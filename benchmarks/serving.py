"""Serving SmolLM2-135M to many clients: lmworks serve beside llama.cpp's server and transformers' own, in turn.

1, 4, 16 and 64 clients, each asking for a streamed answer of up to 64 tokens to a prompt that nobody asked before, the
same for all: tokens/s in total, time to the first token and between tokens (median, 95 %, 99 %). Beside them the engine
alone: the same prompts, one after the other, without a server. The client runs on the same machine.

``--soak MINUTES``: 64 clients without a pause; each answer is compared with what the engine gives for its prompt alone,
and the memory of the server is watched.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import arms
import inference_files
import serving_client
import serving_servers
import serving_soak
import serving_verdicts
from serving_servers import OURS, Server
from serving_verdicts import ALONE, MANY, SPEED, figures_of

HERE = Path(__file__).parent
ROUNDS, TIMEOUT, FORMAT = 3, 3600.0, "Q4_0"
CLIENTS = tuple(serving_client.REQUESTS)
FAR_BEHIND = 0.5
"""A peer with less than this share of the best peer's tokens/s at 16 clients is not asked by more, nor run again: it
cannot become the best."""
SYSTEM = "Explain in a few sentences what this part of Python's library does, and when one would use it.\n\n"
LONGEST_PROMPT = 700  # characters of documentation


@dataclass
class Results:
    """Figures by arm and round, and why arms failed."""

    rounds: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    faults: dict[str, str] = field(default_factory=dict)


def prompts(count: int) -> list[str]:
    """Texts that differ: pieces of the documentation of Python's library, from a few words to 200 tokens.

    Raises:
        SystemExit: there are too few.
    """
    from lmworks.text import corpus

    rows = [row.values for row in corpus.read("python-help").rows]
    texts = list(dict.fromkeys(f"{SYSTEM}{row['prompt']}\n{row['completion']}"[:LONGEST_PROMPT] for row in rows))
    if len(texts) < count:
        raise SystemExit(f"{count} prompts are needed, and python-help has {len(texts)}")
    return texts[:: len(texts) // count][:count]


def run_server(server: Server, file: Path, clients: Sequence[int], results: Results) -> dict[str, Any]:
    """The figures of one server, started for it; more than MANY clients only where it is not far behind.

    Raises:
        arms.Failed: it does not start, or an answer is not whole.
    """
    figures: dict[str, Any] = {}
    with serving_servers.running(server) as (address, process):
        for count in clients:
            arguments = [address, server.model, str(file), str(count)]
            came = arms.run_arm(HERE / "serving_client.py", arguments, timeout=TIMEOUT)
            figures |= figures_of({str(count): came}, tokenizer())
            best = serving_verdicts.best_speed(results.rounds, count)
            is_behind = figures[SPEED.format(count)] < FAR_BEHIND * best
            if server.name != OURS and count >= MANY and is_behind:
                print(f"{server.name}: no more than {count} clients, as it is far behind the best peer", flush=True)
                break
        figures["peak_mb"] = serving_soak.peak_memory(process.pid) / 1e6
    return figures


def run_alone(model: Path, file: Path) -> dict[str, Any]:
    """The figures of the engine with the prompts of one client, in a process of its own."""
    numbers = serving_client.levels(json.loads(file.read_text(encoding="utf-8")))[1]
    arguments = [str(model), str(file), str(numbers.start), str(numbers.stop)]
    came = arms.run_arm(HERE / "serving_alone.py", arguments, timeout=TIMEOUT)
    return figures_of({"1": came}, tokenizer())


def tokenizer() -> Any:
    """Of the model: tokens of an answer are counted from its text, since servers count differently."""
    from lmworks.language_model.engine_cache import open_cached

    opened = open_cached(str(inference_files.files()[FORMAT]))
    assert opened is not None  # it was packed
    return opened.tokenizer


def take_turns(
    model: Path, chosen: Sequence[Server], file: Path, clients: Sequence[int], rounds: int, results: Results
) -> None:
    """The engine alone and every server once a round; one that fails or is far behind is left out from then on."""
    for number in range(rounds):
        label = f"round {number + 1}/{rounds}"
        if 1 in clients:
            _keep(results, ALONE, run_alone(model, file), label)
        for server in chosen:
            if server.name in results.faults or (number and server.name in serving_verdicts.incomplete(results.rounds)):
                continue
            try:
                _keep(results, server.name, run_server(server, file, clients, results), label)
            except arms.Failed as fault:
                results.faults[server.name] = str(fault)
                results.rounds.pop(server.name, None)
                print(f"{label}  {server.name:<46} failed: {fault}", flush=True)


def _keep(results: Results, name: str, figures: dict[str, Any], label: str) -> None:
    results.rounds.setdefault(name, []).append(figures)
    shown = ", ".join(f"{key} {value:,.4g}" for key, value in figures.items() if "tokens_per_second" in key)
    print(f"{label}  {name:<46} {shown}", flush=True)


def options() -> argparse.Namespace:
    asked = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    asked.add_argument("--rounds", type=int, default=ROUNDS, help=f"turns of each arm (default {ROUNDS})")
    asked.add_argument("--clients", type=int, nargs="+", choices=CLIENTS, default=list(CLIENTS), help="at once")
    asked.add_argument("--only", help="servers whose names begin so; a trial, not kept")
    asked.add_argument("--soak", type=float, metavar="MINUTES", help="64 clients for so long, and nothing else")
    return asked.parse_args()


def pack(file: Path) -> None:
    """Put the packed weights into the cache: what is measured is a model that was opened before."""
    arms.run_arm(HERE / "inference_arms.py", ["pack", str(file)], timeout=TIMEOUT)


def main() -> int:
    given = options()
    print(*serving_servers.missing(), sep="\n", flush=True)
    model = inference_files.files()[FORMAT]
    pack(model)
    chosen = serving_servers.servers(model, arms.reference_folder())
    with tempfile.TemporaryDirectory() as temporary:
        file = Path(temporary) / "prompts.json"
        count = 1 + sum(serving_client.REQUESTS.values())
        file.write_text(json.dumps(prompts(count)), encoding="utf-8")
        if given.soak is not None:
            ours = next((server for server in chosen if server.name == OURS), None)
            if ours is None:
                raise SystemExit(f"{OURS} cannot be started: {', '.join(serving_servers.lacking(OURS))} missing")
            return serving_soak.soak(ours, model, file, given.soak)
        chosen = [server for server in chosen if server.name.startswith(given.only or "")]
        results = Results()
        take_turns(model, chosen, file, given.clients, given.rounds, results)
    print("", *serving_verdicts.table(results.rounds, given.clients), sep="\n")
    print(*[f"{name}: {fault.splitlines()[0]}" for name, fault in results.faults.items()], sep="\n")
    lines = serving_verdicts.verdicts_of(results.rounds)
    print("\nasked and reached", *[line.line() for line in lines], sep="\n")
    asked = [{**vars(line), "reached": line.reached} for line in lines]
    result = {"model": f"SmolLM2-135M-Instruct {FORMAT}", **vars(results), "asked": asked}
    if given.only or given.rounds < ROUNDS or len(given.clients) < len(CLIENTS):
        print(f"not written: --only or --clients, or fewer than {ROUNDS} rounds")
    else:
        arms.keep("serving", result)
    return int(OURS in results.faults)


if __name__ == "__main__":
    sys.exit(main())
