"""A real model by clients that others wrote, and the description of the API by schemathesis."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
from pydantic import BaseModel, Field
from tiny_server import NAME, open_tiny, running

from lmworks.language_model.opening import open_saved_model

openai = pytest.importorskip("openai")
pytest.importorskip("uvicorn")
pytestmark = pytest.mark.slow

QUESTION = "What is the capital of France?"


@pytest.fixture(name="model", scope="module")
def _model(smollm2) -> Any:
    return open_saved_model(smollm2, storage="stored").prepare("float32")


@pytest.fixture(name="url", scope="module")
def _url(model):
    with running({"smol": model}) as url:
        yield f"{url}/v1"


def test_openai_s_client_gets_the_library_s_answers(url, model):
    client = openai.OpenAI(base_url=url, api_key="none")
    messages = [{"role": "user", "content": QUESTION}]
    expected = model.chat(messages, max_tokens=24, temperature=0)
    assert "Paris" in expected
    answer = client.chat.completions.create(model="smol", messages=messages, temperature=0, max_tokens=24)
    assert answer.choices[0].message.content == expected
    response = client.responses.create(model="smol", input=QUESTION, temperature=0, max_output_tokens=24)
    assert response.output_text == expected
    completion = client.completions.create(model="smol", prompt="The sky is", temperature=0, max_tokens=8)
    assert completion.choices[0].text == model.generate("The sky is", max_tokens=8, temperature=0)


def test_langchain_s_client_gets_them_too(url, model):
    langchain = pytest.importorskip("langchain_openai")
    expected = model.chat([{"role": "user", "content": QUESTION}], max_tokens=24, temperature=0)
    options = {"base_url": url, "api_key": "none", "model": "smol", "temperature": 0, "max_tokens": 24}
    chat = langchain.ChatOpenAI(**options, stream_usage=True)
    whole = chat.invoke(QUESTION)
    assert whole.content == expected
    assert whole.usage_metadata["output_tokens"] > 0
    pieces = list(chat.stream(QUESTION))
    assert "".join(piece.content for piece in pieces) == expected
    assert len([piece for piece in pieces if piece.content]) > 3
    both = chat.batch([QUESTION, "What is the capital of Italy?"])
    assert both[0].content == expected
    assert both[1].content != expected
    by_responses = langchain.ChatOpenAI(**options, use_responses_api=True)
    assert by_responses.invoke(QUESTION).text == expected
    text = langchain.OpenAI(base_url=url, api_key="none", model="smol", temperature=0, max_tokens=8)
    assert text.invoke("The sky is") == model.generate("The sky is", max_tokens=8, temperature=0)


def test_structured_output_and_tools_by_other_clients(url):
    """A model of 135 million weights, which would rarely write valid JSON by itself."""
    pytest.importorskip("llguidance")
    langchain = pytest.importorskip("langchain_openai")

    class Person(BaseModel):
        name: str = Field(max_length=40)
        born: int = Field(ge=0, le=2100)

    def add(a: int, b: int) -> int:
        """Add two numbers."""
        return a + b

    client = openai.OpenAI(base_url=url, api_key="none")
    messages = [{"role": "user", "content": "Who was Ada Lovelace, and when was she born?"}]
    parsed = client.chat.completions.parse(model="smol", messages=messages, response_format=Person, max_tokens=80)
    assert isinstance(parsed.choices[0].message.parsed, Person)
    response = client.responses.parse(model="smol", input=messages, text_format=Person, max_output_tokens=80)
    assert isinstance(response.output_parsed, Person)
    chat = langchain.ChatOpenAI(base_url=url, api_key="none", model="smol", temperature=0, max_tokens=80)
    for method in ("json_schema", "function_calling"):
        assert isinstance(chat.with_structured_output(Person, method=method).invoke(messages), Person)
    called = chat.bind_tools([add], tool_choice="required").invoke("How much is 12 plus 30?")
    assert {call["name"] for call in called.tool_calls} == {"add"}
    assert all(isinstance(value, int) for call in called.tool_calls for value in call["args"].values())
    results = [{"role": "tool", "tool_call_id": call["id"], "content": "42"} for call in called.tool_calls]
    answer = chat.bind_tools([add]).invoke([("human", "How much is 12 plus 30?"), called, *results])
    assert answer.content or answer.tool_calls


def test_langchain_s_embeddings_are_the_library_s():
    langchain = pytest.importorskip("langchain_openai")
    from lmworks.base.errors import InputError

    try:
        model = open_saved_model("minilm-l6")
    except InputError as error:
        pytest.skip(f"the real model is not here: {error}")
    with running({"vectors": model}) as url:
        client = langchain.OpenAIEmbeddings(
            base_url=f"{url}/v1", api_key="none", model="vectors", check_embedding_ctx_length=False
        )
        vectors = client.embed_documents(["a cat sat down", "the cat sat"])
    for ours, theirs in zip(model.embed(["a cat sat down", "the cat sat"]).tolist(), vectors, strict=True):
        assert theirs == pytest.approx(ours, abs=1e-5)


def test_no_request_of_the_described_api_makes_the_server_fail(tmp_path):
    pytest.importorskip("schemathesis")
    checks = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance"
    with running({NAME: open_tiny(tmp_path)}, time_limit=5) as url:
        words = ["run", f"{url}/openapi.json", "--checks", checks, "--max-examples", "60", "--seed", "1"]
        command = [sys.executable, "-m", "schemathesis.cli", *words]
        done = subprocess.run(command, capture_output=True, text=True, timeout=900, cwd=tmp_path)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
