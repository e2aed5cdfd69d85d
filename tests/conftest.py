"""What tests of several floors share: tiny models of ``transformers``, and the real model where it is at hand."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest
from tiny_theirs import make_theirs

hypothesis.settings.register_profile("unhurried", deadline=None)  # the machine may be busy
hypothesis.settings.load_profile("unhurried")


def pytest_collection_finish() -> None:
    """Leaves all that was imported out of later garbage collections: each run of training makes two."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def _engine_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The native engine's weights of the tests' models do not go to the person's cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LMWORKS_ENGINE_CACHE", str(tmp_path_factory.mktemp("engines")))
        yield


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    """Begins each test, and the fixtures that it is the first to need, with one thread: tiny products are not worth a
    second, and threads that one test chose are not to reach the next."""
    if torch := sys.modules.get("torch"):
        torch.set_num_threads(1)


@pytest.fixture
def theirs() -> Callable[..., Any]:
    """``theirs("llama", num_key_value_heads=2)``: a tiny random model of ``transformers``."""
    return make_theirs


@pytest.fixture(scope="session")
def smollm2() -> Path:
    """The real SmolLM2-135M-Instruct, as the source finds it; skips where it is neither cached nor to be fetched."""
    from lmworks.base.errors import InputError
    from lmworks.base.sources import find

    try:
        return Path(find("smollm2-135m-instruct").path)
    except InputError as error:
        pytest.skip(f"the real model is not here: {error}")
