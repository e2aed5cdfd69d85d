"""/v1/completions and /v1/embeddings by the real client of OpenAI; models that PyTorch computes."""

from __future__ import annotations

import base64
from typing import Any

import numpy as np
import pytest
from tiny_kinds import save_both, save_encoder
from tiny_model import save_tiny
from tiny_server import NAME, NO_END, open_tiny, running

from lmworks.families.sentence_pooling import SentencePooling, write_pooling
from lmworks.generate.sampling import SamplingSettings
from lmworks.language_model.opening import open_saved_model

openai = pytest.importorskip("openai")
pytest.importorskip("uvicorn")

PROMPT = "The sky is blue, and"


@pytest.fixture(name="models", scope="module")
def _models(tmp_path_factory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("models")
    encoder = save_encoder(folder / "encoder")
    write_pooling(encoder, SentencePooling(max_tokens=10), 32)
    return {
        NAME: open_tiny(folder),
        "torch": open_saved_model(save_tiny(folder / "torch", seed=1)),
        "answers": open_saved_model(save_both(folder / "both")),
        "vectors": open_saved_model(encoder),
    }


@pytest.fixture(name="client", scope="module")
def _client(models):
    with running(models) as url, openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client:
        yield client


def ask(client, **fields: Any) -> Any:
    return client.completions.create(
        **{"model": NAME, "prompt": PROMPT, "temperature": 0, "max_tokens": 8, "logit_bias": NO_END, **fields}
    )


@pytest.mark.parametrize("name", [NAME, "torch", "answers"])
def test_texts_go_on_as_in_the_library(client, models, name):
    prompts = {"answers": ["i love tea", "my cat"]}.get(name, [PROMPT, "Who"])
    replies = models[name].complete(prompts, SamplingSettings(max_tokens=8), raw=True)
    answer = client.completions.create(model=name, prompt=prompts, temperature=0, max_tokens=8)
    assert [choice.text for choice in answer.choices] == [reply.text for reply in replies]
    assert answer.usage.prompt_tokens == sum(reply.usage.prompt_tokens for reply in replies)
    assert answer.usage.completion_tokens == sum(reply.usage.completion_tokens for reply in replies)


def test_one_request_after_the_other_where_pytorch_computes(client):
    """Three answers of a model with one place: each in its turn, none mixed with another."""
    texts = [choice.text for choice in ask(client, model="torch", n=3, temperature=1.0, seed=4).choices]
    assert len(set(texts)) == 3
    assert ask(client, model="torch", temperature=1.0, seed=4).choices[0].text == texts[0]


def test_without_a_limit_sixteen_tokens_come(client):
    answer = client.completions.create(model=NAME, prompt=PROMPT, logit_bias=NO_END)
    assert (answer.usage.completion_tokens, answer.choices[0].finish_reason) == (16, "length")


def test_prompts_may_be_ids(client, models):
    tokenizer = models[NAME].tokenizer
    ids = tokenizer.encode(PROMPT, special=True)
    texts = [choice.text for choice in ask(client, prompt=[ids, ids[:3]]).choices]
    assert texts == [ask(client, prompt=prompt).choices[0].text for prompt in (PROMPT, ids[:3])]
    assert ask(client, prompt=ids, echo=True).choices[0].text == f"{tokenizer.decode(ids, False)}{texts[0]}"


@pytest.mark.parametrize("streams", [False, True])
def test_an_echoed_prompt_has_its_scores(client, models, streams):
    """Those of lm.score, token by token; the first token has none."""
    expected = models[NAME].score([PROMPT])[0]
    ids = models[NAME].tokenizer.encode(PROMPT, special=True)
    fields = {"echo": True, "logprobs": 2, "max_tokens": 3}
    if streams:
        chunks = [chunk.choices[0] for chunk in ask(client, stream=True, **fields)]
        text = "".join(chunk.text for chunk in chunks)
        told = [chunk.logprobs for chunk in chunks if chunk.logprobs is not None]
        values = [value for part in told for value in part.token_logprobs]
        offsets = [value for part in told for value in part.text_offset]
        tokens = [value for part in told for value in part.tokens]
    else:
        (choice,) = ask(client, **fields).choices
        text, values, offsets = choice.text, choice.logprobs.token_logprobs, choice.logprobs.text_offset
        tokens = choice.logprobs.tokens
    assert text.startswith(PROMPT)
    assert len(values) == len(ids) + 3
    assert values[0] is None
    np.testing.assert_allclose(-sum(values[1 : len(ids)]), expected.nats, rtol=1e-4)
    for place, token in list(zip(offsets, tokens, strict=True))[: len(ids)]:
        assert PROMPT[place : place + len(token)] == token


def test_a_prompt_alone_may_be_scored(client):
    answer = ask(client, echo=True, logprobs=0, max_tokens=0)
    assert (answer.choices[0].text, answer.choices[0].finish_reason) == (PROMPT, "length")
    assert answer.usage.completion_tokens == 0
    assert len(answer.choices[0].logprobs.token_logprobs) == answer.usage.prompt_tokens


def test_a_stream_is_the_text_in_pieces(client):
    chunks = list(ask(client, prompt=[PROMPT, "Who"], echo=True, stream=True, stream_options={"include_usage": True}))
    texts = ["", ""]
    for chunk in chunks[:-1]:
        texts[chunk.choices[0].index] += chunk.choices[0].text
    assert texts == [choice.text for choice in ask(client, prompt=[PROMPT, "Who"], echo=True).choices]
    assert chunks[-1].usage.completion_tokens == 16


@pytest.mark.parametrize(
    ("fields", "param", "words"),
    [
        ({"prompt": ""}, "prompt", "empty"),
        ({"prompt": [PROMPT, ""]}, "prompt", "empty"),
        ({"prompt": [[1, 99999]]}, "prompt", "no token 99999"),
        ({"prompt": [1.5]}, "prompt", "a list of ids"),
        ({"prompt": ["a"] * 50, "n": 3}, "prompt", "more than 128"),
        ({"max_tokens": 0}, "max_tokens", "without echo"),
        ({"suffix": "."}, "suffix", "not supported"),
        ({"extra_body": {"best_of": 2}}, "best_of", "not supported"),
        ({"logprobs": 50}, "logprobs", "less than or equal to 20"),
        ({"prompt": "the sky " * 500}, "prompt", "context holds 512"),
        ({"model": "torch", "echo": True, "logprobs": 1}, "logprobs", "native engine does not compute"),
        ({"model": "vectors"}, "model", "writes no texts"),
    ],
)
def test_what_cannot_be_done_is_refused_with_the_field(client, fields, param, words):
    with pytest.raises(openai.BadRequestError) as refused:
        ask(client, **fields)
    assert refused.value.param == param
    assert words in str(refused.value)


@pytest.mark.parametrize("encoding", ["float", "base64"])
def test_vectors_are_those_of_the_library(client, models, encoding):
    texts = ["i love tea", "my cat", "fresh fruit salad"]
    answer = client.embeddings.create(model="vectors", input=texts, encoding_format=encoding)
    vectors = [entry.embedding for entry in answer.data]
    if encoding == "base64":
        vectors = [np.frombuffer(base64.b64decode(vector), "<f4") for vector in vectors]
    np.testing.assert_allclose(vectors, models["vectors"].embed(texts).numpy(), atol=1e-6)
    assert [entry.index for entry in answer.data] == [0, 1, 2]
    assert answer.usage.total_tokens == answer.usage.prompt_tokens > 0
    one = client.embeddings.create(model="vectors", input="my cat")
    np.testing.assert_allclose(one.data[0].embedding, models["vectors"].embed("my cat").numpy()[0], atol=1e-6)


@pytest.mark.parametrize(
    ("fields", "param", "words"),
    [
        ({"input": "i love eating fresh apples in my salad " * 3}, "input", "longer than the 10 tokens"),
        ({"input": []}, "input", "at most 2048"),
        ({"input": [1, 2]}, "input", "a text or a list"),
        ({"dimensions": 4}, "dimensions", "not supported"),
    ],
)
def test_texts_that_have_no_vector_are_refused(client, fields, param, words):
    with pytest.raises(openai.BadRequestError) as refused:
        client.embeddings.create(**{"model": "vectors", "input": "tea", **fields})
    assert refused.value.param == param
    assert words in str(refused.value)
