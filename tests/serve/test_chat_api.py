"""/v1/chat/completions by the real client of OpenAI, over a socket."""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from tiny_server import NAME, NO_END, open_tiny, running

openai = pytest.importorskip("openai")
pytest.importorskip("uvicorn")

MESSAGES = [{"role": "user", "content": "Who are you?"}]
IMAGE = {"type": "image_url", "image_url": {"url": "data:,"}}


@pytest.fixture(name="model", scope="module")
def _model(tmp_path_factory) -> Any:
    return open_tiny(tmp_path_factory.mktemp("model"))


@pytest.fixture(name="alone", scope="module")
def _alone(tmp_path_factory) -> Any:
    """The same model in an engine of its own."""
    return open_tiny(tmp_path_factory.mktemp("alone"))


@pytest.fixture(name="client", scope="module")
def _client(model):
    with running({NAME: model}) as url, openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client:
        yield client


def ask(client, **fields: Any) -> Any:
    return client.chat.completions.create(
        **{"model": NAME, "messages": MESSAGES, "temperature": 0, "max_tokens": 12, "logit_bias": NO_END, **fields}
    )


def test_an_answer_is_that_of_the_library(client, model):
    expected = model.chat(MESSAGES, max_tokens=12, temperature=0, details=True)
    answer = client.chat.completions.create(model=NAME, messages=MESSAGES, temperature=0, max_tokens=12)
    (choice,) = answer.choices
    assert (choice.message.role, choice.message.content) == ("assistant", expected.text)
    assert choice.finish_reason == ("length" if expected.stop_reason == "length" else "stop")
    assert answer.usage.prompt_tokens == expected.usage.prompt_tokens
    assert answer.usage.completion_tokens == expected.usage.completion_tokens
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens
    assert (answer.object, answer.model) == ("chat.completion", NAME)


def test_a_seed_draws_what_the_library_draws_and_parts_may_be_texts(client, model):
    drawn = client.chat.completions.create(
        model=NAME,
        messages=[
            {"role": "user", "content": [{"type": "text", "text": "Who "}, {"type": "text", "text": "are you?"}]}
        ],
        temperature=0.8,
        top_p=0.9,
        seed=7,
        max_completion_tokens=12,
    )
    expected = model.chat(MESSAGES, max_tokens=12, temperature=0.8, top_p=0.9, seed=7)
    assert drawn.choices[0].message.content == expected


def test_many_clients_at_once_get_what_each_gets_alone(client, alone):
    def run(number: int) -> tuple[str, str]:
        messages = [{"role": "user", "content": f"The sky is blue, and the sea is too. {number} " * (1 + number % 4)}]
        length = 5 + number % 7
        fields = {"model": NAME, "messages": messages, "temperature": 0, "max_tokens": length}
        if number % 2:
            chunks = client.chat.completions.create(stream=True, **fields)
            text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
        else:
            text = client.chat.completions.create(**fields).choices[0].message.content
        return text, alone.chat(messages, max_tokens=length, temperature=0)

    with ThreadPoolExecutor(24) as pool:
        results = list(pool.map(run, range(48)))
    assert [text for text, _ in results] == [expected for _, expected in results]
    assert len({text for text, _ in results}) > 10


def test_a_stream_ends_with_its_usage(client):
    chunks = list(ask(client, stream=True, stream_options={"include_usage": True}))
    whole = ask(client)
    assert chunks[0].choices[0].delta.role == "assistant"
    texts = [chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices]
    assert "".join(texts) == whole.choices[0].message.content
    assert len([text for text in texts if text]) > 1
    reasons = [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices]
    assert [reason for reason in reasons if reason] == [reasons[-1]] == ["length"]
    assert chunks[-1].choices == []
    assert chunks[-1].usage.completion_tokens == whole.usage.completion_tokens == 12
    assert all(chunk.usage is None for chunk in chunks[:-1])
    assert all(chunk.choices and chunk.usage is None for chunk in ask(client, stream=True))


def test_several_answers_differ_and_repeat_by_their_seed(client):
    first, second = (ask(client, n=3, temperature=1.2, seed=5) for _ in range(2))
    texts = [choice.message.content for choice in first.choices]
    assert [choice.index for choice in first.choices] == [0, 1, 2]
    assert len(set(texts)) == 3
    assert texts == [choice.message.content for choice in second.choices]
    assert first.usage.completion_tokens == 36
    streamed = ["", "", ""]
    for chunk in ask(client, n=3, temperature=1.2, seed=5, stream=True):
        streamed[chunk.choices[0].index] += chunk.choices[0].delta.content or ""
    assert streamed == texts
    assert len({ask(client, temperature=1.2).choices[0].message.content for _ in range(4)}) > 1


def test_log_probabilities_are_told_token_by_token(client):
    answer = ask(client, logprobs=True, top_logprobs=4)
    content = answer.choices[0].logprobs.content
    assert len(content) == 12
    for entry in content:
        assert len(entry.top_logprobs) == 4
        values = [other.logprob for other in entry.top_logprobs]
        assert values == sorted(values, reverse=True)
        assert sum(map(math.exp, values)) <= 1
    written = b"".join(bytes(entry.bytes) for entry in content)
    assert written.decode(errors="replace") == answer.choices[0].message.content
    chunks = list(ask(client, logprobs=True, top_logprobs=4, stream=True))
    streamed = [entry for chunk in chunks if chunk.choices[0].logprobs for entry in chunk.choices[0].logprobs.content]
    assert streamed == content
    assert ask(client, logprobs=True).choices[0].logprobs.content[0].top_logprobs == []
    assert ask(client).choices[0].logprobs is None


def test_biases_penalties_and_stops_reach_the_model(client, model):
    greedy = ask(client, max_tokens=30).choices[0]
    penalized = ask(client, max_tokens=30, frequency_penalty=2.0, presence_penalty=2.0).choices[0]
    assert greedy.message.content != penalized.message.content
    ended = client.chat.completions.create(model=NAME, messages=MESSAGES, max_tokens=9, logit_bias={"4": 100})
    assert (ended.choices[0].message.content, ended.choices[0].finish_reason) == ("", "stop")
    assert ended.usage.completion_tokens == 1
    (token,) = model.tokenizer.encode("a")
    forced = ask(client, logit_bias={str(token): 100}, max_tokens=5, stop=["aaa"])
    assert (forced.choices[0].message.content, forced.choices[0].finish_reason) == ("", "stop")
    assert greedy.finish_reason == "length"


def test_what_was_read_is_not_read_again(client):
    messages = [{"role": "system", "content": "The sky is blue, and the sea is too. " * 5}, *MESSAGES]
    counts = [ask(client, messages=messages).usage.prompt_tokens_details.cached_tokens for _ in range(2)]
    assert counts[0] < counts[1]
    assert counts[1] >= 50


@pytest.mark.parametrize(
    ("fields", "param", "words"),
    [
        ({"temperature": 3}, "temperature", "less than or equal to 2"),
        ({"temperature": "warm"}, "temperature", "valid number"),
        ({"extra_body": {"temprature": 1}}, "temprature", "did you mean temperature"),
        ({"extra_body": {"audio": {"voice": "alloy"}}}, "audio", "not supported"),
        ({"extra_body": {"functions": [{"name": "f"}]}}, "functions", "not supported"),
        ({"messages": []}, "messages", "at least 1"),
        ({"messages": [{"role": "wizard", "content": "?"}]}, "messages", "unknown role"),
        ({"messages": [{"role": "user", "content": "?", "mood": "sad"}]}, "messages", "mood"),
        ({"messages": [{"role": "user", "name": "Ann", "content": "?"}]}, "messages", "name"),
        ({"messages": [{"role": "user", "content": [IMAGE]}]}, "messages", "only text is read"),
        ({"messages": [{"role": "user", "content": "the sky " * 500}]}, "messages", "context holds 512"),
        ({"logit_bias": {"99999": 1}}, "logit_bias", "no token"),
        ({"logit_bias": {"sky": 1}}, "logit_bias", "no token"),
        ({"top_logprobs": 3}, "top_logprobs", "logprobs: true"),
        ({"n": 0}, "n", "greater than or equal to 1"),
        ({"stop": [""]}, "stop", "none of them empty"),
        ({"max_tokens": 0}, "max_tokens", "at least 1"),
        ({"max_completion_tokens": 5}, "max_tokens", "give one of them"),
        ({"stream_options": {"include_usage": True}}, "stream_options", "stream: true"),
    ],
)
def test_what_cannot_be_done_is_refused_with_the_field(client, fields, param, words):
    with pytest.raises(openai.BadRequestError) as refused:
        ask(client, **fields)
    assert refused.value.param == param
    assert words in str(refused.value)
    assert refused.value.type == "invalid_request_error"
    assert refused.value.code


def test_a_prompt_beyond_the_context_has_the_code_that_clients_know(client):
    with pytest.raises(openai.BadRequestError) as refused:
        ask(client, messages=[{"role": "user", "content": "the sky " * 500}])
    assert refused.value.code == "context_length_exceeded"


def test_fields_that_are_null_count_as_not_given(client):
    extra = {
        "tools": None,
        "tool_choice": None,
        "audio": None,
        "stop": None,
        "seed": None,
        "n": None,
        "response_format": {"type": "text"},
    }
    assert ask(client, extra_body=extra).choices[0].message.content == ask(client).choices[0].message.content


def test_an_unknown_model_is_named_with_those_that_there_are(client):
    with pytest.raises(openai.NotFoundError, match="there are: tiny") as refused:
        ask(client, model="gpt-4o")
    assert (refused.value.param, refused.value.code) == ("model", "model_not_found")
    with pytest.raises(openai.BadRequestError, match="gives no vectors"):
        client.embeddings.create(model=NAME, input="a text")
