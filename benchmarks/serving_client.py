"""A client of chat completions for the serving benchmark: streams of many clients at once, and when each piece came.

It speaks HTTP over bare sockets of asyncio and parses no more than it must: it runs on the same two cores as the
servers, and what it computes is taken from them. All servers get the same requests, in the same order.

    python benchmarks/serving_client.py ADDRESS MODEL PROMPTS.json CLIENTS ...      one JSON object by number of clients
"""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

MOST_TOKENS = 64
REQUESTS = {1: 8, 4: 16, 16: 48, 64: 128}
"""Requests by number of clients: each client sends the next one when its answer has ended."""


@dataclass
class Answer:
    """What a client got.

    Attributes:
        prompt: its number.
        text: all pieces.
        finish: the finish reason; None: the stream ended without one.
        first: seconds from sending the request to the first piece; None: there was none.
        gaps: seconds between the pieces that followed.
        fault: why there is no whole answer; empty: there is.
    """

    prompt: int
    text: str = ""
    finish: str | None = None
    first: float | None = None
    gaps: list[float] = field(default_factory=list)
    fault: str = ""


async def ask(address: tuple[str, int], model: str, prompt: str, number: int) -> Answer:
    """Send one request and read its stream to the end."""
    answer, begin = Answer(number), time.perf_counter()
    body = json.dumps(
        {
            "model": model,
            "messages": [{"role": "user", "content": prompt}],
            "max_tokens": MOST_TOKENS,
            "temperature": 0,
            "stream": True,
        }
    ).encode()
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nHost: {address[0]}:{address[1]}\r\nContent-Type: application/json\r\n"
    )
    head += f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    last = begin
    try:
        reader, writer = await asyncio.open_connection(*address)
        try:
            writer.write(head.encode() + body)
            async for chunk in _events(reader):
                if "error" in chunk:
                    raise ValueError(f"the stream says {chunk['error']}")
                for choice in chunk.get("choices") or ():
                    answer.finish = choice.get("finish_reason") or answer.finish
                    if piece := (choice.get("delta") or {}).get("content"):
                        now = time.perf_counter()
                        if answer.first is None:
                            answer.first = now - begin
                        else:
                            answer.gaps.append(now - last)
                        last = now
                        answer.text += piece
        finally:
            writer.close()
    except (OSError, ValueError, asyncio.IncompleteReadError) as error:
        answer.fault = f"{type(error).__name__}: {error}"
    if not answer.fault and answer.finish is None:
        answer.fault = "the stream ended without a finish reason"
    return answer


async def _events(reader: asyncio.StreamReader) -> AsyncIterator[dict[str, Any]]:
    """The JSON objects of a stream of server-sent events.

    Raises:
        ValueError: the status is not 200.
    """
    lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    status, headers = lines[0].split(" ", 2)[1], [line.lower() for line in lines[1:]]
    is_chunked = "transfer-encoding: chunked" in headers
    if status != "200":
        raise ValueError(f"status {status}: {(await reader.read(400)).decode(errors='replace')}")
    rest = b""
    while True:
        data = await _chunk(reader) if is_chunked else await reader.read(65536)
        if not data:
            return
        *whole, rest = (rest + data).split(b"\n")
        for line in whole:
            if line.startswith(b"data:") and line[5:].strip() not in (b"", b"[DONE]"):
                yield json.loads(line[5:])


async def _chunk(reader: asyncio.StreamReader) -> bytes:
    """The next chunk of a chunked body; empty at its end."""
    size = int(await reader.readline(), 16)
    data = await reader.readexactly(size + 2)
    return data[:-2]


async def load(
    address: tuple[str, int], model: str, prompts: Sequence[str], clients: int, numbers: Iterator[int]
) -> dict[str, Any]:
    """Requests of so many clients at once, each sending the next as soon as its answer has ended.

    Args:
        address: host and port.
        model: as the server calls it.
        prompts: by number.
        clients: at once.
        numbers: of the prompts, in order; the run ends with them.

    Returns:
        ``seconds`` from the first request to the last answer, and ``answers``.
    """
    answers: list[Answer] = []

    async def client() -> None:
        for number in numbers:  # one iterator for all clients
            answers.append(await ask(address, model, prompts[number], number))

    begin = time.perf_counter()
    await asyncio.gather(*(client() for _ in range(clients)))
    return {"seconds": time.perf_counter() - begin, "answers": [asdict(answer) for answer in answers]}


def levels(prompts: Sequence[str], clients: Sequence[int]) -> dict[int, range]:
    """The numbers of the prompts by number of clients: each prompt is asked once; number 0 warms up."""
    result, begin = {}, 1
    for count in clients:
        result[count] = range(begin, begin + REQUESTS[count])
        begin += REQUESTS[count]
    if begin > len(prompts):
        raise SystemExit(f"{begin} prompts are needed, and there are {len(prompts)}")
    return result


async def measure(address: tuple[str, int], model: str, prompts: Sequence[str], clients: Sequence[int]) -> dict:
    """What came, by number of clients."""
    await ask(address, model, prompts[0], 0)
    return {
        count: await load(address, model, prompts, count, iter(numbers))
        for count, numbers in levels(prompts, clients).items()
    }


def main() -> None:
    options = argparse.ArgumentParser()
    options.add_argument("address", help="HOST:PORT")
    options.add_argument("model")
    options.add_argument("prompts", type=Path, help="a JSON list of texts")
    options.add_argument("clients", type=int, nargs="+", choices=list(REQUESTS))
    given = options.parse_args()
    host, _, port = given.address.rpartition(":")
    prompts = json.loads(given.prompts.read_text(encoding="utf-8"))
    print(json.dumps(asyncio.run(measure((host, int(port)), given.model, prompts, given.clients))))


if __name__ == "__main__":
    main()
