"""A client of chat completions for the serving benchmark: streams of many clients at once, and when each piece came.

It runs on the same two cores as the servers, and what it computes is taken from them. So while it waits it only notes
what bytes came when, over bare sockets, and reads them after the last answer has ended. All servers get the same
requests, in the same order.

    python benchmarks/serving_client.py ADDRESS MODEL PROMPTS.json CLIENTS      one line of JSON
"""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

MOST_TOKENS = 64
REQUESTS = {1: 8, 4: 16, 16: 48, 64: 128}
"""Requests by number of clients: each client sends the next one when its answer has ended."""
LAST_CHUNK = b"0\r\n\r\n"


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


class Stream(asyncio.Protocol):
    """One request on a connection of its own: the bytes that came, and when.

    Attributes:
        number: of the prompt.
        begin: seconds of the clock, when the connection was asked for.
        parts: (seconds of the clock, bytes).
        fault: why the connection broke; empty: it did not.
    """

    def __init__(self, number: int, request: bytes) -> None:
        self.number, self._request = number, request
        self.begin, self.fault = time.perf_counter(), ""
        self.parts: list[tuple[float, bytes]] = []
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: Any) -> None:
        """Send the request."""
        self._transport = transport
        transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        """Note what came."""
        self.parts.append((time.perf_counter(), data))
        if data.endswith(LAST_CHUNK):  # of servers that keep the connection
            self._transport.close()

    def connection_lost(self, error: Exception | None) -> None:
        """The end, of whatever kind."""
        self.fault = "" if error is None else f"{type(error).__name__}: {error}"
        self.ended.set_result(None)


async def send(address: tuple[str, int], model: str, prompt: str, number: int) -> Stream:
    """Send one request and wait for the end of its stream."""
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
    stream = Stream(number, head.encode() + body)
    try:
        await asyncio.get_running_loop().create_connection(lambda: stream, *address)
    except OSError as error:
        stream.fault = f"{type(error).__name__}: {error}"
        return stream
    await stream.ended
    return stream


def answer_of(stream: Stream) -> Answer:
    """What the bytes of a stream say."""
    answer, last = Answer(stream.number, fault=stream.fault), stream.begin
    try:
        for when, chunk in _events(stream.parts):
            if "error" in chunk:
                raise ValueError(f"the stream says {chunk['error']}")
            for choice in chunk.get("choices") or ():
                answer.finish = choice.get("finish_reason") or answer.finish
                if piece := (choice.get("delta") or {}).get("content"):
                    if answer.first is None:
                        answer.first = when - stream.begin
                    else:
                        answer.gaps.append(when - last)
                    last = when
                    answer.text += piece
    except ValueError as error:
        answer.fault = answer.fault or str(error)
    if not answer.fault and answer.finish is None:
        answer.fault = "the stream ended without a finish reason"
    return answer


def _events(parts: Sequence[tuple[float, bytes]]) -> Iterator[tuple[float, dict[str, Any]]]:
    """The JSON objects of server-sent events, each with the time at which it was there.

    Raises:
        ValueError: the status is not 200, or the body broke off.
    """
    rest = b""
    for when, data in _body(parts):
        *whole, rest = (rest + data).split(b"\n")
        for line in whole:
            if line.startswith(b"data:") and line[5:].strip() not in (b"", b"[DONE]"):
                yield when, json.loads(line[5:])


def _body(parts: Sequence[tuple[float, bytes]]) -> Iterator[tuple[float, bytes]]:
    """The body of a response, chunks joined."""
    received, is_chunked, has_ended = b"", None, False
    for when, data in parts:
        received += data
        if is_chunked is None:
            if b"\r\n\r\n" not in received:
                continue
            head, _, received = received.partition(b"\r\n\r\n")
            lines = head.decode("latin-1").lower().split("\r\n")
            if (status := lines[0].split(" ")[1]) != "200":
                rest = received + b"".join(data for time_, data in parts if time_ > when)
                raise ValueError(f"status {status}: {rest[:400].decode(errors='replace')}")
            is_chunked = "transfer-encoding: chunked" in lines[1:]
        if not is_chunked:
            yield when, received
            received = b""
        while is_chunked and b"\r\n" in received:
            line, _, after = received.partition(b"\r\n")
            size = int(line, 16)
            if len(after) < size + 2:
                break
            has_ended, received = size == 0, after[size + 2 :]
            yield when, after[:size]
    if is_chunked is None:
        raise ValueError("there was no answer")
    if is_chunked and not has_ended:
        raise ValueError("the stream broke off")


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
    streams: list[Stream] = []

    async def client() -> None:
        for number in numbers:  # one iterator for all clients
            streams.append(await send(address, model, prompts[number], number))

    begin = time.perf_counter()
    await asyncio.gather(*(client() for _ in range(clients)))
    seconds = time.perf_counter() - begin
    return {"seconds": seconds, "answers": [asdict(answer_of(stream)) for stream in streams]}


def levels(prompts: Sequence[str]) -> dict[int, range]:
    """The numbers of the prompts by number of clients: each prompt is asked once; number 0 warms up."""
    result, begin = {}, 1
    for count in REQUESTS:
        result[count] = range(begin, begin + REQUESTS[count])
        begin += REQUESTS[count]
    if begin > len(prompts):
        raise SystemExit(f"{begin} prompts are needed, and there are {len(prompts)}")
    return result


async def measure(address: tuple[str, int], model: str, prompts: Sequence[str], clients: int) -> dict[str, Any]:
    """What came to so many clients, after one request that is not counted."""
    await send(address, model, prompts[0], 0)
    return await load(address, model, prompts, clients, iter(levels(prompts)[clients]))


def main() -> None:
    options = argparse.ArgumentParser()
    options.add_argument("address", help="HOST:PORT")
    options.add_argument("model")
    options.add_argument("prompts", type=Path, help="a JSON list of texts")
    options.add_argument("clients", type=int, choices=list(REQUESTS))
    given = options.parse_args()
    host, _, port = given.address.rpartition(":")
    prompts = json.loads(given.prompts.read_text(encoding="utf-8"))
    print(json.dumps(asyncio.run(measure((host, int(port)), given.model, prompts, given.clients))))


if __name__ == "__main__":
    main()
