"""/v1/responses by the real client of OpenAI, over a socket."""

from __future__ import annotations

from typing import Any

import pytest
from tiny_server import NAME, NO_END, open_tiny, running

openai = pytest.importorskip("openai")
pytest.importorskip("uvicorn")

QUESTION = "Who are you?"
MESSAGES = [{"role": "user", "content": QUESTION}]
SCORED = "message.output_text.logprobs"


@pytest.fixture(name="model", scope="module")
def _model(tmp_path_factory) -> Any:
    return open_tiny(tmp_path_factory.mktemp("model"))


@pytest.fixture(name="client", scope="module")
def _client(model):
    with running({NAME: model}) as url, openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client:
        yield client


def ask(client, **fields: Any) -> Any:
    extra = {"logit_bias": NO_END, **fields.pop("extra_body", {})}
    known = {"model": NAME, "input": QUESTION, "temperature": 0, "max_output_tokens": 12}
    return client.responses.create(**{**known, **fields}, extra_body=extra)


def test_an_answer_is_that_of_a_chat(client, model):
    expected = model.chat(MESSAGES, max_tokens=300, temperature=0, details=True)
    answer = client.responses.create(model=NAME, input=QUESTION, temperature=0, max_output_tokens=300)
    assert answer.output_text == expected.text
    assert answer.status == ("incomplete" if expected.stop_reason == "length" else "completed")
    (item,) = answer.output
    assert (item.type, item.role, item.status) == ("message", "assistant", answer.status)
    assert answer.usage.input_tokens == expected.usage.prompt_tokens
    assert answer.usage.output_tokens == expected.usage.completion_tokens
    assert answer.usage.total_tokens == answer.usage.input_tokens + answer.usage.output_tokens
    assert (answer.object, answer.model, answer.error) == ("response", NAME, None)


def test_items_are_the_messages_of_a_chat(client, model):
    """A message may have parts, and those of an earlier response come as the client got them."""
    first = ask(client)
    again = {
        "role": "user",
        "content": [{"type": "input_text", "text": "And "}, {"type": "input_text", "text": "now?"}],
    }
    second = ask(client, input=[{"role": "user", "content": QUESTION}, *first.output, again], instructions="Be brief.")
    messages = [
        {"role": "system", "content": "Be brief."},
        *MESSAGES,
        {"role": "assistant", "content": first.output_text},
        {"role": "user", "content": "And now?"},
    ]
    chat = client.chat.completions.create(
        model=NAME, messages=messages, temperature=0, max_tokens=12, logit_bias=NO_END
    )
    assert second.output_text == chat.choices[0].message.content
    assert second.usage.input_tokens == chat.usage.prompt_tokens
    assert second.instructions == "Be brief."


def test_what_was_cut_says_so(client):
    answer = ask(client)
    assert (answer.status, answer.incomplete_details.reason) == ("incomplete", "max_output_tokens")
    assert answer.usage.output_tokens == 12


def test_a_stream_has_the_events_of_openai_s_api(client):
    whole = ask(client)
    events = list(ask(client, stream=True))
    kinds = [event.type for event in events]
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert kinds[:4] == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
    ]
    assert kinds[-4:] == [
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.incomplete",
    ]
    assert {*kinds[4:-4]} == {"response.output_text.delta"}
    assert "".join(event.delta for event in events[4:-4]) == events[-4].text == whole.output_text
    assert events[-1].response.output_text == whole.output_text
    assert events[-1].response.usage.output_tokens == whole.usage.output_tokens
    assert events[0].response.id == events[-1].response.id


def test_the_client_s_own_stream_reads_it(client):
    whole = ask(client).output_text
    extra = {"logit_bias": NO_END, "stop": whole[8:11]}  # its reader wants a response that was not cut
    with client.responses.stream(model=NAME, input=QUESTION, temperature=0, extra_body=extra) as stream:
        pieces = [event.delta for event in stream if event.type == "response.output_text.delta"]
        final = stream.get_final_response()
    assert final.status == "completed"
    assert "".join(pieces) == final.output_text == whole.partition(whole[8:11])[0]


def test_log_probabilities_are_told_token_by_token(client):
    answer = ask(client, include=[SCORED], top_logprobs=3)
    entries = answer.output[0].content[0].logprobs
    assert len(entries) == 12
    assert all(len(entry.top_logprobs) == 3 for entry in entries)
    chat = client.chat.completions.create(
        model=NAME, messages=MESSAGES, temperature=0, max_tokens=12, logit_bias=NO_END, logprobs=True, top_logprobs=3
    )
    assert [entry.logprob for entry in entries] == [entry.logprob for entry in chat.choices[0].logprobs.content]
    streamed = [
        entry
        for event in ask(client, include=[SCORED], stream=True)
        if event.type == "response.output_text.delta"
        for entry in event.logprobs
    ]
    assert [entry.logprob for entry in streamed] == [entry.logprob for entry in entries]


def test_what_a_request_says_comes_back(client):
    answer = ask(client, metadata={"batch": "7"}, extra_body={"user": "Ann", "store": False})
    assert answer.metadata == {"batch": "7"}
    assert (answer.user, answer.temperature, answer.max_output_tokens) == ("Ann", 0, 12)


@pytest.mark.parametrize(
    ("fields", "param", "words"),
    [
        ({"input": []}, "input", "a list of items"),
        ({"input": [{"role": "wizard", "content": "?"}]}, "input", "input[0]: role"),
        ({"input": [{"role": "user", "content": "?"}, {"type": "reasoning"}]}, "input", "input[1].type"),
        ({"input": [{"role": "user", "content": "?", "mood": "sad"}]}, "input", "mood"),
        ({"input": [{"role": "user", "content": [{"type": "input_image"}]}]}, "input", "input[0]: content"),
        ({"input": [{"type": "function_call_output", "call_id": "1"}]}, "input", "output is missing"),
        ({"input": "the sky " * 500}, "input", "context holds 512"),
        ({"previous_response_id": "resp_1"}, "previous_response_id", "not supported"),
        ({"reasoning": {"effort": "low"}}, "reasoning", "not supported"),
        ({"text": {"format": {"type": "text"}, "verbosity": "low"}}, "text", "verbosity"),
        ({"truncation": "auto"}, "truncation", "disabled"),
        ({"store": True}, "store", "False"),
        ({"background": True}, "background", "False"),
        ({"top_logprobs": 2}, "top_logprobs", SCORED),
        ({"max_output_tokens": 0}, "max_output_tokens", "greater"),
        ({"extra_body": {"max_tokens": 5}}, "max_tokens", "did you mean"),
    ],
)
def test_what_cannot_be_done_is_refused_with_the_field(client, fields, param, words):
    with pytest.raises(openai.BadRequestError) as refused:
        ask(client, **fields)
    assert refused.value.param == param
    assert words in str(refused.value)


def test_a_stream_that_fails_ends_with_an_error(model):
    with running({NAME: model}, time_limit=0.001) as url:
        client = openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0)
        events = list(ask(client, stream=True))
    assert events[-1].type == "error"
    assert events[-1].code == "time_limit"
    assert events[-1].sequence_number == len(events) - 1
