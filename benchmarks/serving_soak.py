"""64 clients without a pause: each answer is what the engine gives for its prompt alone, and memory stays flat."""

from __future__ import annotations

import asyncio
import itertools
import json
import random
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import arms
import psutil
import serving_client
import serving_verdicts
from serving_servers import Server, running

HERE = Path(__file__).parent
CLIENTS, TIMEOUT, SECONDS = 64, 3600.0, 1.0  # clients at once; seconds between two looks at the memory
KEPT = 5
"""Minutes from which a result is kept."""


def soak(server: Server, model: Path, file: Path, minutes: float) -> int:
    """Ask for so long, compare, print and keep what came; 0 where all that is asked was reached."""
    prompts = json.loads(file.read_text(encoding="utf-8"))
    arguments = [str(model), str(file), "0", str(len(prompts))]
    alone = arms.run_arm(HERE / "serving_alone.py", arguments, timeout=TIMEOUT)["answers"]
    print(f"the engine alone: {len(alone)} answers", flush=True)
    with running(server) as (address, process):
        host, _, port = address.rpartition(":")
        came = asyncio.run(_ask((host, int(port)), server.model, prompts, minutes * 60, process.pid))
    lost, different = compare(came["answers"], alone)
    growth = growth_of(came["memory"])
    lines = serving_verdicts.soak_verdicts(len(came["answers"]), len(lost), len(different), growth)
    speed = len(came["answers"]) / came["seconds"]
    megabytes = [value / 1e6 for value in came["memory"]]
    print(f"{len(came['answers']):,} answers in {came['seconds']:.0f} s, {speed:.1f} a second; ", end="")
    print(f"memory {megabytes[0]:,.0f} MB at first, at most {max(megabytes):,.0f} MB, {megabytes[-1]:,.0f} MB at last")
    for answer in (*lost[:3], *different[:3]):
        print(f"prompt {answer['prompt']}: {answer['fault'] or repr(answer['text'])}")
    print("\nasked and reached", *[line.line() for line in lines], sep="\n")
    asked = [{**vars(line), "reached": line.reached} for line in lines]
    kept = {"minutes": minutes, "clients": CLIENTS, "answers": len(came["answers"]), "seconds": came["seconds"]}
    if minutes < KEPT:
        print(f"not written: less than {KEPT} minutes")
    else:
        arms.keep("serving-soak", {**kept, "memory_mb": megabytes, "asked": asked})
    return int(not all(line.reached for line in lines))


def compare(
    came: Sequence[dict[str, Any]], alone: Sequence[dict[str, Any]]
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The answers that are not whole, and the whole ones that are not those of the engine alone."""
    wanted = {answer["prompt"]: (answer["text"], answer["finish"]) for answer in alone}
    lost = [answer for answer in came if answer["fault"]]
    different = [a for a in came if not a["fault"] and (a["text"], a["finish"]) != wanted[a["prompt"]]]
    return lost, different


def growth_of(memory: Sequence[float]) -> float:
    """Percent by which the largest of the last quarter exceeds the largest of the second quarter."""
    quarter = max(1, len(memory) // 4)
    second, last = max(memory[quarter : 2 * quarter] or memory), max(memory[-quarter:])
    return 100 * (last / second - 1)


def peak_memory(pid: int) -> int:
    """Bytes that a process and those that it started hold now."""
    process = psutil.Process(pid)
    return sum(each.memory_info().rss for each in (process, *process.children(recursive=True)))


async def _ask(
    address: tuple[str, int], model: str, prompts: Sequence[str], seconds: float, pid: int
) -> dict[str, Any]:
    """All clients for so long, each with prompts in an order of chance; the memory of the server meanwhile."""
    memory: list[int] = []

    async def watch() -> None:
        while True:
            memory.append(peak_memory(pid))
            await asyncio.sleep(SECONDS)

    watching = asyncio.create_task(watch())
    came = await serving_client.load(address, model, prompts, CLIENTS, _numbers(len(prompts), seconds))
    watching.cancel()
    return {**came, "memory": memory}


def _numbers(count: int, seconds: float) -> Iterator[int]:
    """Numbers of prompts until the time is over, all of them in each round, each round in another order."""
    chance, end = random.Random(0), time.monotonic() + seconds
    for _ in itertools.count():
        order = list(range(count))
        chance.shuffle(order)
        for number in order:
            if time.monotonic() > end:
                return
            yield number
