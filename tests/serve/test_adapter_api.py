"""Adapters beside their base: each answer has its own, they come and go while the server runs."""

from __future__ import annotations

import json
import shutil
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from tiny_model import save_tiny
from tiny_server import NAME, NO_END, ask_json, running, wait_until

import lmworks
from lmworks.adapt.lora import LoRA, LoRASettings
from lmworks.kernels.native_module import native_module
from lmworks.language_model.input_format import InputFormat

pytest.importorskip("uvicorn")
pytestmark = pytest.mark.skipif(native_module() is None, reason="no native kernels")

MESSAGES = [{"role": "user", "content": "Who are you? " * 6}]
NAMES = ["a", "b", "c"]


def save_lora(base: Path, folder: Path, seed: int) -> Path:
    """An adapter with large random weights."""
    import torch

    model = lmworks.load(base)
    method = LoRA(LoRASettings(rank=2))
    method.apply(model.network, seed)
    generator = torch.Generator().manual_seed(seed)
    for weight in model.network.parameters():
        if weight.requires_grad:
            weight.data = torch.randn(weight.shape, generator=generator) * 0.5
    method.save(model, folder, str(base))
    return folder


@pytest.fixture(name="base", scope="module")
def _base(tmp_path_factory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("models") / NAME, tied=False, context=20_000)


@pytest.fixture(name="folder", scope="module")
def _folder(base) -> Path:
    folder = base.parent / "adapters"
    for seed, name in enumerate(NAMES, 1):
        save_lora(base, folder / name, seed)
    InputFormat(task="instructions", kind="prompt", prompt="Ask: {prompt}", template="off").save(folder / "c")
    shutil.copytree(folder / "a", folder / "run" / "final")
    (folder / "nothing").mkdir()
    return folder


@pytest.fixture(name="expected", scope="module")
def _expected(base, folder) -> dict[str, str]:
    """The answers of the library, one model after the other."""
    sources = {NAME: base, **{name: folder / name for name in NAMES}, "run": folder / "a"}
    return {
        name: lmworks.load(source).prepare("float32").chat(MESSAGES, max_tokens=12, temperature=0)
        for name, source in sources.items()
    }


@pytest.fixture(name="url")
def _url(base, folder):
    with running({NAME: lmworks.load(base).prepare("float32")}, adapters=str(folder)) as url:
        yield url


def answer(url: str, model: str, **fields: Any) -> tuple[int, Any]:
    known = {"messages": MESSAGES, "max_tokens": 12, "temperature": 0}
    return ask_json(url, "/v1/chat/completions", model=model, **{**known, **fields})


def text(url: str, model: str) -> str:
    status, content = answer(url, model)
    assert status == 200, content
    return content["choices"][0]["message"]["content"]


def load(url: str, name: str, **fields: Any) -> tuple[int, Any]:
    return ask_json(url, "/v1/load_lora_adapter", lora_name=name, **fields)


def unload(url: str, name: str) -> tuple[int, Any]:
    return ask_json(url, "/v1/unload_lora_adapter", lora_name=name)


def test_each_answer_has_its_own_adapter_whoever_is_computed_beside_it(url, expected):
    """The beginnings that are kept for reuse are those of the same adapter."""
    assert len({*expected.values()}) == 4
    names = list(expected) * 8
    with ThreadPoolExecutor(16) as pool:
        assert list(pool.map(lambda name: text(url, name), names)) == [expected[name] for name in names]


def test_they_are_listed_with_their_base(url):
    with urllib.request.urlopen(f"{url}/v1/models") as response:
        entries = {entry["id"]: entry.get("parent") for entry in json.load(response)["data"]}
    assert entries == {NAME: None, "a": NAME, "b": NAME, "c": NAME, "run": NAME}


def test_they_are_dropped_and_loaded_while_the_server_runs(url, expected):
    assert unload(url, "a") == (200, {"id": "a", "object": "model", "deleted": True})
    status, content = answer(url, "a")
    assert (status, content["error"]["code"]) == (404, "model_not_found")
    assert text(url, "b") == expected["b"]
    status, content = load(url, "a", lora_path="b", base_model_name=NAME)
    assert (status, content["parent"]) == (200, NAME)
    assert text(url, "a") == expected["b"]
    assert unload(url, "a")[0] == 200
    assert load(url, "a")[0] == 200
    assert text(url, "a") == expected["a"]


def test_an_answer_that_has_begun_keeps_its_adapter(base, folder):
    model = lmworks.load(base).prepare("float32")
    services: list[Any] = []
    with running({NAME: model}, services, adapters=str(folder), parallel=2) as url:
        (service,) = services
        with ThreadPoolExecutor(3) as pool:
            long = {"max_tokens": 1500, "logit_bias": NO_END}
            expected = answer(url, "b", **long)[1]["choices"]
            futures = [pool.submit(answer, url, "b", **long) for _ in range(3)]
            scheduler = service.models[NAME].scheduler
            wait_until(lambda: scheduler.running() == 2 and scheduler.waiting() == 1)
            assert unload(url, "b")[0] == 200
            assert load(url, "b", lora_path="a")[0] == 200
            assert [future.result()[1]["choices"] for future in futures] == [expected] * 3
        assert text(url, "b") == text(url, "a")


@pytest.mark.parametrize(
    ("path", "fields", "status", "words"),
    [
        ("load", {"lora_name": "a"}, 400, "there is a model 'a' already"),
        ("load", {"lora_name": NAME}, 400, "already"),
        ("load", {"lora_name": "x"}, 400, "there: a, b, c, run"),
        ("load", {"lora_name": "x", "lora_path": "nothing"}, 400, "no adapter 'nothing'"),
        ("load", {"lora_name": "x", "lora_path": "../adapters/a"}, 400, "no adapter"),
        ("load", {"lora_name": "x", "lora_path": "/"}, 400, "no adapter"),
        ("load", {"lora_name": "x", "lora_path": "a\u0000"}, 400, "no adapter"),
        ("load", {"lora_name": "x", "lora_path": "a", "base_model_name": "b"}, 400, f"those that do: {NAME}"),
        ("load", {"lora_name": ""}, 400, "lora_name"),
        ("unload", {"lora_name": NAME}, 404, "loaded are: a, b, c, run"),
        ("unload", {"lora_name": "x"}, 404, "no adapter 'x'"),
    ],
)
def test_what_cannot_be_loaded_is_refused(url, path, fields, status, words):
    answered, content = ask_json(url, f"/v1/{path}_lora_adapter", **fields)
    assert answered == status
    assert words in content["error"]["message"]


def test_an_adapter_of_another_model_is_not_served(base, folder, tmp_path):
    other = save_tiny(tmp_path / "other", seed=5, context=512)
    save_lora(other, tmp_path / "adapters" / "foreign", 1)
    shutil.copytree(folder / "a", tmp_path / "adapters" / "a")
    services: list[Any] = []
    with running({NAME: lmworks.load(base).prepare("float32")}, services, adapters=str(tmp_path / "adapters")) as url:
        (note,) = services[0].notes
        assert "foreign is not served" in note
        status, content = load(url, "foreign")
        assert status == 400
        assert "made for another model" in content["error"]["message"]
        assert answer(url, "a")[0] == 200


def test_without_a_folder_no_adapter_is_taken(base):
    with running({NAME: lmworks.load(base).prepare("float32")}) as url:
        status, content = load(url, "a")
    assert (status, content["error"]["code"]) == (400, "no_adapters")


def test_a_run_with_an_adapter_is_served_as_it_is(base, folder, expected, monkeypatch, tmp_path):
    """Opened from the cache, it is an adapter beside its base."""
    from lmworks.language_model import engine_cache

    monkeypatch.setenv("LMWORKS_ENGINE_CACHE", str(tmp_path))
    assert engine_cache.store(lmworks.load(base).prepare("float32"))
    model = engine_cache.open_cached(str(folder / "a"))
    assert model is not None
    with running({"mine": model}, adapters=str(folder)) as url:
        assert text(url, "mine") == expected["a"]
        assert text(url, "b") == expected["b"]


@pytest.mark.slow
def test_fifty_adapters_come_and_go(base, folder, expected):
    """All at once, each asked beside the others; then each by itself."""
    services: list[Any] = []
    with running({NAME: lmworks.load(base).prepare("float32")}, services, adapters=str(folder)) as url:
        names = {f"x{number}": NAMES[number % 2] for number in range(50)}

        def run(name: str) -> str:
            assert load(url, name, lora_path=names[name])[0] == 200
            written = text(url, name)
            assert unload(url, name)[0] == 200
            return written

        with ThreadPoolExecutor(50) as pool:
            for _ in range(2):
                assert all(pool.map(lambda name: load(url, name, lora_path=names[name])[0] == 200, names))
                assert {*names} < {*services[0].models}
                texts = list(pool.map(lambda name: text(url, name), names))
                assert texts == [expected[source] for source in names.values()]
                assert all(pool.map(lambda name: unload(url, name)[0] == 200, names))
                assert list(pool.map(run, names)) == texts
        scheduler = services[0].models[NAME].scheduler
        wait_until(lambda: not scheduler.has_dropped())
        assert {*services[0].models} == {NAME, *NAMES, "run"}
