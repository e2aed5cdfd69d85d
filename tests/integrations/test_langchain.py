"""LangChain's interfaces over models in this process: LangChain's own standard tests, and what they do not ask."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from pydantic import BaseModel
from tiny_model import save_tiny

from lmworks.base.errors import InputError
from lmworks.run.load import load

pytest.importorskip("langchain_core", reason="needs langchain-core (pip install 'lmworks[langchain]')")

from langchain_core.exceptions import OutputParserException
from langchain_core.messages import AIMessage, AIMessageChunk, HumanMessage, SystemMessage, ToolMessage
from langchain_core.prompts import ChatPromptTemplate

from lmworks.integrations.langchain import ChatLmworks, LmworksEmbeddings, LmworksLLM

TOKENS = 24


@pytest.fixture(scope="session")
def writer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny decoder with large random weights, so that each prompt goes on otherwise."""
    folder = tmp_path_factory.mktemp("langchain")
    model = load(save_tiny(folder / "small", tied=False, context=2048))
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for weight in model.network.parameters():
            weight.add_(torch.randn(weight.shape, generator=generator) * (0.3 if weight.ndim > 1 else 0.0))
    return model.save(folder / "tiny")


def test_an_answer_is_the_models_own(writer) -> None:
    chat = ChatLmworks(model=str(writer), max_tokens=TOKENS)
    messages = [("system", "Be brief."), ("user", "What is 7 and 7?")]
    wanted = load(writer).chat([{"role": role, "content": text} for role, text in messages], max_tokens=TOKENS)
    answer = chat.invoke(messages)
    assert answer.content == wanted
    assert "".join(chunk.content for chunk in chat.stream(messages)) == wanted
    assert answer.usage_metadata["output_tokens"] <= TOKENS
    assert answer.response_metadata["stop_reason"] in ("end", "length")
    assert answer.response_metadata["model_name"] == str(writer)


def test_a_chain_of_a_prompt_and_an_open_model(writer) -> None:
    model = load(writer)
    chain = ChatPromptTemplate.from_messages([("user", "What is {n} and {n}?")]) | ChatLmworks(model=model)
    asked = [{"role": "user", "content": "What is 3 and 3?"}]
    assert chain.invoke({"n": 3}).content == model.chat(asked)


def test_settings_of_the_object_and_of_a_call(writer) -> None:
    chat = ChatLmworks(model=str(writer), max_tokens=TOKENS, temperature=1.0, sampling={"seed": 5, "top_k": 20})
    wanted = load(writer).chat(
        [{"role": "user", "content": "hi"}], max_tokens=TOKENS, temperature=1.0, seed=5, top_k=20
    )
    assert chat.invoke("hi").content == wanted
    assert len(chat.invoke("hi", max_tokens=2).content) < len(wanted)
    stop = wanted[4:6]
    assert chat.invoke("hi", stop=[stop]).content == wanted[: wanted.index(stop)]
    with pytest.raises(InputError, match="temprature"):
        chat.invoke("hi", temprature=0.5)
    with pytest.raises(ValueError, match="temprature"):
        ChatLmworks(model=str(writer), temprature=0.5)


def test_texts_are_continued_together_and_each_as_alone(writer) -> None:
    llm, model = LmworksLLM(model=str(writer), max_tokens=TOKENS), load(writer)
    prompts = ["The sky", "Who are you?", "7 and 7"]
    wanted = model.generate(prompts, max_tokens=TOKENS)
    assert [generations[0].text for generations in llm.generate(prompts).generations] == wanted
    assert llm.batch(prompts) == wanted
    assert "".join(llm.stream(prompts[0])) == wanted[0]
    patient = LmworksLLM(model=str(writer), max_tokens=TOKENS, timeout=600)
    assert [patient.invoke(prompt) for prompt in prompts] == wanted


def test_threads_that_ask_at_once_get_what_each_would_get_alone(writer) -> None:
    """Streams of one model, in turn by one thread and at once by several."""
    chat = ChatLmworks(model=str(writer), max_tokens=TOKENS)
    wanted = [chat.invoke(f"number {n}").content for n in range(6)]
    streams = [chat.stream(f"number {n}") for n in range(6)]
    texts = [""] * 6
    running = set(range(6))
    while running:
        for number in sorted(running):
            chunk = next(streams[number], None)
            if chunk is None:
                running.remove(number)
            else:
                texts[number] += chunk.content
    assert texts == wanted
    results: dict[int, str] = {}
    threads = [
        threading.Thread(target=lambda n=n: results.update({n: chat.invoke(f"number {n}").content})) for n in range(6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [results[n] for n in range(6)] == wanted


def test_an_answer_that_takes_too_long_ends(writer) -> None:
    with pytest.raises(TimeoutError, match="took longer than"):
        ChatLmworks(model=str(writer), max_tokens=TOKENS, timeout=1e-9).invoke("hi")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([{"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}], "only text is read"),
        ([{"type": "text", "text": "What is "}, {"type": "text", "text": "7?"}], None),
    ],
)
def test_parts_of_a_message_are_texts_or_refused(writer, content, message) -> None:
    chat = ChatLmworks(model=str(writer), max_tokens=4)
    if message is None:
        assert chat.invoke([HumanMessage(content)]).content == chat.invoke("What is 7?").content
    else:
        with pytest.raises(InputError, match=message):
            chat.invoke([HumanMessage(content)])


def switch(on: bool) -> str:
    """Turns the light on or off."""
    return "on" if on else "off"


class Verdict(BaseModel):
    """Whether a text is good."""

    good: bool
    of: Literal["film", "book"]


def test_tools_are_called_with_arguments_that_their_schema_allows(writer) -> None:
    """Even by a model with random weights, whole and as a stream; what the tool gives is read in the next turn."""
    pytest.importorskip("llguidance", reason="grammars need llguidance")
    chat = ChatLmworks(model=str(writer), max_tokens=200)
    bound = chat.bind_tools([switch, Verdict], tool_choice="switch", parallel_tool_calls=False)
    answer = bound.invoke("The light, please")
    (call,) = answer.tool_calls
    assert (call["name"], set(call["args"]), type(call["args"]["on"])) == ("switch", {"on"}, bool)
    streamed = sum(bound.stream("The light, please"), start=AIMessageChunk(""))
    assert [(c["name"], c["args"]) for c in streamed.tool_calls] == [(call["name"], call["args"])]
    turns = [HumanMessage("The light, please"), answer, ToolMessage(switch(**call["args"]), tool_call_id=call["id"])]
    assert isinstance(bound.invoke(turns), AIMessage)
    with pytest.raises(InputError, match="no text of the grammar was found that ends within 30 tokens"):
        chat.bind_tools([switch], tool_choice="any", max_tokens=30).invoke("hi")
    with pytest.raises(InputError, match="there is no function"):
        chat.bind_tools([switch], tool_choice="other").invoke("hi")


@pytest.mark.parametrize("method", ["function_calling", "json_schema"])
def test_structured_output_is_of_its_class(writer, method) -> None:
    pytest.importorskip("llguidance", reason="grammars need llguidance")
    chat = ChatLmworks(model=str(writer), max_tokens=200)
    structured = chat.with_structured_output(Verdict, method=method)
    verdict = structured.invoke("hi")
    assert isinstance(verdict, Verdict)
    assert list(structured.stream("hi"))[-1] == verdict
    raw = chat.with_structured_output(Verdict, method=method, include_raw=True).invoke("hi")
    assert raw["parsed"] == verdict
    assert raw["parsing_error"] is None
    assert len(raw["raw"].tool_calls) == (method == "function_calling")  # one, though it might write on


def test_structured_output_that_is_not_of_its_class_is_said(writer) -> None:
    """JSON mode gives any object."""
    pytest.importorskip("llguidance", reason="grammars need llguidance")
    chat = ChatLmworks(model=str(writer), max_tokens=60)
    anything = chat.with_structured_output({"title": "Anything"}, method="json_mode").invoke("hi")
    assert isinstance(anything, dict)
    answer = chat.with_structured_output(Verdict, method="json_mode", include_raw=True).invoke("hi")
    assert json.loads(answer["raw"].content) == anything
    assert answer["parsed"] is None
    assert isinstance(answer["parsing_error"], OutputParserException)
    with pytest.raises(InputError, match="no method 'grammar'"):
        chat.with_structured_output(Verdict, method="grammar")
    with pytest.raises(InputError, match="there is no format"):
        chat.invoke("hi", response_format={"type": "xml"})


def test_a_model_that_there_is_not() -> None:
    with pytest.raises(InputError, match="is no file or folder here"):
        ChatLmworks(model="no-such-model").invoke("hi")
    with pytest.raises(InputError, match="cannot be used here"):
        ChatLmworks(model=7)
    with pytest.raises(InputError, match="pooling none"):
        LmworksEmbeddings(model="x", pooling="none").embed_query("a")


def test_roles_are_those_of_the_conversation(writer) -> None:
    chat, model = ChatLmworks(model=str(writer), max_tokens=TOKENS), load(writer)
    turns = [SystemMessage("Be brief."), HumanMessage("hello"), AIMessage("hi"), HumanMessage("how are you")]
    roles = ("system", "user", "assistant", "user")
    wanted = model.chat(
        [{"role": role, "content": turn.content} for role, turn in zip(roles, turns, strict=True)], max_tokens=TOKENS
    )
    assert chat.invoke(turns).content == wanted


def test_vectors_are_the_models_own(writer) -> None:
    embeddings, texts = LmworksEmbeddings(model=str(writer)), ["a cat sat down", "the sky"]
    wanted = load(writer).embed(texts)
    torch.testing.assert_close(torch.tensor(embeddings.embed_documents(texts)), wanted)
    torch.testing.assert_close(torch.tensor(embeddings.embed_query("the sky")), wanted[1])
    assert embeddings.embed_documents([]) == []


class _OnTiny:
    """The standard tests' model: opened from its folder, as a person would."""

    @pytest.fixture(autouse=True)
    def _set_folder(self, writer: Path) -> None:
        type(self).folder = str(writer)


try:
    from langchain_tests.integration_tests import ChatModelIntegrationTests, EmbeddingsIntegrationTests
    from langchain_tests.unit_tests import ChatModelUnitTests, EmbeddingsUnitTests
except ImportError:

    @pytest.mark.skip(reason="needs langchain-tests (pip install langchain-tests)")
    def test_the_standard_tests() -> None:
        """LangChain's own tests of chat models and embeddings."""

else:

    class _Chat(_OnTiny):
        @property
        def chat_model_class(self) -> type[ChatLmworks]:
            return ChatLmworks

        @property
        def chat_model_params(self) -> dict[str, Any]:
            return {"model": self.folder, "max_tokens": TOKENS}

        @property
        def has_tool_calling(self) -> bool:
            return False  # that is asked of a real model, in test_langchain_tools.py

        @property
        def has_structured_output(self) -> bool:
            return False

    class _Embeddings(_OnTiny):
        @property
        def embeddings_class(self) -> type[LmworksEmbeddings]:
            return LmworksEmbeddings

        @property
        def embedding_model_params(self) -> dict[str, Any]:
            return {"model": self.folder}

    class TestChatUnit(_Chat, ChatModelUnitTests):
        """LangChain's standard tests, which set the number of tokens themselves."""

        @property
        def chat_model_params(self) -> dict[str, Any]:
            return {"model": self.folder}

    class TestChatIntegration(_Chat, ChatModelIntegrationTests):
        """LangChain's standard tests; images are not supported."""

    class TestEmbeddingsUnit(_Embeddings, EmbeddingsUnitTests):
        """LangChain's standard tests."""

    class TestEmbeddingsIntegration(_Embeddings, EmbeddingsIntegrationTests):
        """LangChain's standard tests."""
