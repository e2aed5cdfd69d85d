"""The serving benchmark: what clients get of a real server is what the engine writes alone; broken streams are seen."""

from __future__ import annotations

import asyncio
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import arms
import pytest
import serving
import serving_alone
import serving_client
import serving_servers
import serving_soak
import serving_verdicts
from serving_servers import Server
from serving_verdicts import ALONE, OURS
from tiny_model import save_tiny

PROMPTS = [f"What is {n} and {n}?" for n in range(12)]


class Words:
    """A tokenizer whose tokens are words."""

    def encode(self, text: str) -> list[str]:
        return text.split()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("served") / "tiny", tied=False)


def test_every_client_gets_what_the_engine_writes_alone(folder, monkeypatch) -> None:
    pytest.importorskip("lmworks.serve.server")
    if lacking := serving_servers.lacking(OURS):
        pytest.skip(f"needs {', '.join(lacking)} (pip install 'lmworks[serve]')")
    monkeypatch.setattr(serving_client, "MOST_TOKENS", 16)
    monkeypatch.setattr(serving_alone, "MOST_TOKENS", 16)
    from lmworks.run.load import load

    command = (sys.executable, "-m", "lmworks.commands.main", "serve", f"bench={folder}", "--port", "{port}")
    with serving_servers.running(Server(OURS, command, "bench")) as (address, process):
        host, _, port = address.rpartition(":")
        came = asyncio.run(serving_client.load((host, int(port)), "bench", PROMPTS, 5, iter(range(12))))
        assert serving_soak.peak_memory(process.pid) > 10e6
    alone = serving_alone.answers(load(folder).prepare("float32"), PROMPTS, range(12))
    assert sorted(answer["prompt"] for answer in came["answers"]) == list(range(12))
    assert serving_soak.compare(came["answers"], [vars(answer) for answer in alone]) == ([], [])
    figures = serving_verdicts.figures_of({"5": came}, Words())
    assert figures["tokens_per_second_5"] > 0


def test_a_server_that_does_not_start_says_why() -> None:
    broken = Server("broken", (sys.executable, "-c", "raise SystemExit('no such model {port}')"), "x")
    with pytest.raises(arms.Failed, match=r"broken ended with 1:\nno such model \d+"), serving_servers.running(broken):
        pass


@contextmanager
def answering(answer: bytes) -> Iterator[tuple[str, int]]:
    """A server that answers one request with these bytes and hangs up."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        yield listener.getsockname()
        thread.join()


HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n"
FIRST = b'data: {"choices": [{"delta": {"content": "a b"}}]}\n\n'
LAST = b'data: {"choices": [{"delta": {}, "finish_reason": "stop"}]}\n\ndata: [DONE]\n\n'


def chunked(*parts: bytes) -> bytes:
    return HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + b"".join(b"%x\r\n%s\r\n" % (len(p), p) for p in parts)


@pytest.mark.parametrize(
    ("answer", "text", "fault"),
    [
        (HEAD + b"\r\n" + FIRST + LAST, "a b", ""),
        (chunked(FIRST[:9], FIRST[9:] + LAST[:20], LAST[20:]) + b"0\r\n\r\n", "a b", ""),
        (HEAD + b"\r\n" + FIRST, "a b", "without a finish reason"),
        (chunked(FIRST), "a b", "the stream broke off"),
        (chunked(FIRST)[:-9], "", "the stream broke off"),
        (HEAD + b"\r\n" + FIRST + b'data: {"error": {"message": "full"}}\n\n', "a b", "the stream says"),
        (b"HTTP/1.1 429 Too Many\r\n\r\nlater", "", "status 429: later"),
        (b"", "", "there was no answer"),
    ],
)
def test_streams_are_read_to_their_end_and_broken_ones_are_seen(answer, text, fault) -> None:
    with answering(answer) as address:
        got = serving_client.answer_of(asyncio.run(serving_client.send(address, "m", "prompt", 3)))
    assert (got.text, got.prompt) == (text, 3)
    assert fault in got.fault
    assert bool(got.fault) == bool(fault)


def test_pieces_have_the_time_at_which_they_were_whole() -> None:
    async def stream() -> serving_client.Stream:
        return serving_client.Stream(0, b"")

    got = asyncio.run(stream())
    whole = chunked(FIRST, FIRST, LAST) + b"0\r\n\r\n"
    middle = whole.index(FIRST) + 9
    got.parts = [(got.begin + 1.0, whole[:middle]), (got.begin + 3.0, whole[middle:-9]), (got.begin + 4.0, whole[-9:])]
    answer = serving_client.answer_of(got)
    assert (answer.first, answer.gaps, answer.fault) == (pytest.approx(3.0), [0.0], "")
    assert answer.text == "a ba b"


def level(seconds: float, *texts: str, gap: float = 0.02) -> dict[str, Any]:
    answers = [
        {"prompt": n, "text": t, "first": 0.1, "gaps": [gap] * 3, "fault": "", "finish": "stop"}
        for n, t in enumerate(texts)
    ]
    return {"seconds": seconds, "answers": answers}


def test_tokens_are_counted_from_texts() -> None:
    figures = serving_verdicts.figures_of({"4": level(2.0, "a b c", "d")}, Words())
    assert figures["tokens_per_second_4"] == 2.0
    assert figures["first_4_50"] == pytest.approx(100)
    assert figures["gap_4_99"] == pytest.approx(20)
    broken = level(2.0, "a b c")
    broken["answers"][0]["fault"] = "cut"
    with pytest.raises(arms.Failed, match="1 of 1 answers are not whole: cut"):
        serving_verdicts.figures_of({"4": broken}, Words())


def rounds(**speeds: float) -> list[dict[str, float]]:
    figures = {f"tokens_per_second_{clients}": speed for clients, speed in zip((1, 16), speeds.values(), strict=True)}
    return [figures, {key: value / 2 for key, value in figures.items()}]


def test_what_was_asked_is_judged_beside_the_best_peer_and_the_engine_alone() -> None:
    all_rounds = {
        ALONE: [{"tokens_per_second_1": 100.0}, {"tokens_per_second_1": 50.0}],
        OURS: rounds(one=96, many=300),
        "llama.cpp server": rounds(one=80, many=90),
        "llama.cpp server, flash attention": rounds(one=70, many=110),
        "transformers serve float32": [{"tokens_per_second_1": 20.0}],
    }
    many, one = serving_verdicts.verdicts_of(all_rounds)
    assert many.measured == pytest.approx(300 / 110)
    assert many.reached
    assert "flash attention" in many.name
    assert (one.measured, one.reached) == (pytest.approx(0.96), True)
    assert serving_verdicts.incomplete(all_rounds) == ["transformers serve float32"]
    assert serving_verdicts.best_speed(all_rounds, 16) == pytest.approx(110 * 0.75)
    assert serving_verdicts.best_speed(all_rounds, 4) == 0
    lines = serving_verdicts.table(all_rounds, (1, 16))
    assert sum(line.startswith("llama.cpp server ") for line in lines) == 2
    unmeasured = serving_verdicts.verdicts_of({})
    assert all(line.reached is None and line.why for line in unmeasured)


def test_a_soak_sees_lost_mixed_and_truncated_answers_and_growing_memory() -> None:
    alone = level(1.0, "a b c", "d e", "f")["answers"]
    mixed = [
        dict(alone[0]),
        {**alone[1], "text": "a b c"},
        {**alone[2], "finish": "length"},
        {**alone[0], "fault": "cut"},
    ]
    lost, different = serving_soak.compare(mixed, alone)
    assert [answer["fault"] for answer in lost] == ["cut"]
    assert [answer["prompt"] for answer in different] == [1, 2]
    assert serving_soak.growth_of([100, 200, 200, 200]) == 0
    assert serving_soak.growth_of([100, 200, 200, 220]) == pytest.approx(10)
    reached = [line.reached for line in serving_verdicts.soak_verdicts(9, 0, 0, 1.0)]
    assert reached == [True, True, True]
    assert [line.reached for line in serving_verdicts.soak_verdicts(9, 1, 2, 3.0)] == [False, False, False]


def test_each_prompt_is_asked_once_and_differs_from_the_others() -> None:
    texts = serving.prompts(1 + sum(serving_client.REQUESTS.values()))
    assert len(set(texts)) == len(texts)
    numbers = [n for level in serving_client.levels(texts).values() for n in level]
    assert numbers == list(range(1, len(texts)))
    with pytest.raises(SystemExit, match="prompts are needed"):
        serving_client.levels(texts[:5])
