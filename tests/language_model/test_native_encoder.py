"""Vectors by the native engine: from the cache without torch, the same as PyTorch's, by default for encoders."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from tiny_kinds import save_both, save_encoder
from tiny_model import save_tiny

import lmworks
from lmworks.base.errors import InputError
from lmworks.base.sources import find
from lmworks.commands.main import main
from lmworks.families.sentence_pooling import SentencePooling, write_pooling
from lmworks.kernels.native_module import native_module
from lmworks.language_model import engine_cache

pytestmark = pytest.mark.skipif(native_module() is None, reason="no native kernels")

TEXTS = ["i love tea", "my cat", "fresh fruit salad, apples in tea", "i", "i love eating fresh apples in my salad " * 3]
REAL_TEXTS = [
    "He went to the bank to deposit money.",
    "unhappiness",
    "Each sentence is converted: a naïve café, 3.5 km away — twice!",
    "x",
    "The quick brown fox jumps over the lazy dog, and then it rests. " * 30,
]


@pytest.fixture(autouse=True)
def engines(tmp_path, monkeypatch):
    monkeypatch.setenv("LMWORKS_ENGINE_CACHE", str(tmp_path / "engines"))
    return tmp_path / "engines"


@pytest.fixture(name="folder")
def _folder(tmp_path):
    """A sentence encoder that reads at most 10 tokens of a text."""
    folder = save_encoder(tmp_path / "model")
    write_pooling(folder, SentencePooling(("mean", "cls"), lower_case=True, prompt="my ", max_tokens=10), 32)
    return folder


def embed(folder, *options: str) -> subprocess.CompletedProcess[str]:
    """lmworks embed in a process of its own, which then says whether it imported torch."""
    code = (
        "import sys\nfrom lmworks.commands.main import main\n"
        "code = main(sys.argv[1:])\nprint('torch' in sys.modules, file=sys.stderr)\nsys.exit(code)"
    )
    arguments = ["embed", *TEXTS, "--model", str(folder), *options]
    return subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, env=os.environ)


def vectors_of(process: subprocess.CompletedProcess[str]) -> list[np.ndarray]:
    assert process.returncode == 0, process.stderr
    return [np.array(row["vector"]) for row in json.loads(process.stdout)]


@pytest.mark.parametrize(
    "options", [(), ("--pooling", "max", "--normalize"), ("--pooling", "none"), ("--max-tokens", "4", "--no-normalize")]
)
def test_the_second_opening_gives_the_same_vectors_without_torch(folder, options):
    first, second = embed(folder, "--json", *options), embed(folder, "--json", *options)
    ours, again = vectors_of(first), vectors_of(second)
    assert "cached for the next opening" in first.stderr
    assert "matrix products in " in first.stderr
    assert [process.stderr.splitlines()[-1] for process in (first, second)] == ["True", "False"]
    assert "note: computed" not in second.stderr
    theirs = vectors_of(embed(folder, "--json", "--backend", "torch", *options))
    for own, same, expected in zip(ours, again, theirs, strict=True):
        np.testing.assert_array_equal(own, same)
        np.testing.assert_allclose(own, expected, atol=0.05 * np.abs(expected).max())


@pytest.mark.filterwarnings("ignore:.* texts were cut")
def test_prepared_in_float32_they_are_those_of_pytorch(folder):
    model, prepared = lmworks.load(folder), lmworks.load(folder).prepare("float32")
    for pooling in (None, "mean", "cls", "max", "weightedmean", "mean_sqrt_len_tokens", "last"):
        expected, received = model.embed(TEXTS, pooling), prepared.embed(TEXTS, pooling)
        torch.testing.assert_close(received, expected, atol=1e-5, rtol=0)
    engine_cache.store_encoder(prepared)
    cached = engine_cache.open_cached_encoder(str(folder))
    np.testing.assert_array_equal(cached.embed(TEXTS), prepared.embed(TEXTS).numpy())
    assert cached.pooling == model.pooling
    with pytest.warns(UserWarning, match="cut to 10 tokens"):
        cached.embed(TEXTS)


@pytest.mark.parametrize("model", ["prepared", "cached"])
def test_texts_that_cannot_be_read_are_refused_as_by_pytorch(tmp_path, model):
    folder = save_encoder(tmp_path / "plain")
    prepared = lmworks.load(folder).prepare("float32")
    engine_cache.store_encoder(prepared)
    states = prepared if model == "prepared" else engine_cache.open_cached_encoder(str(folder))
    too_long = "text 2: 22 tokens, the model's context holds 16"
    for texts, words in [(["i", "love " * 20], too_long), ([3], "cannot be used")]:
        with pytest.raises(InputError, match=words):
            states.embed(texts)
    assert states.embed([]).shape == (0, 32)
    assert states.embed([""]).shape == (1, 32)  # the special tokens alone


def test_changed_files_are_opened_anew(folder, engines):
    engine_cache.store_encoder(lmworks.load(folder).prepare("float32"))
    (before,) = engines.iterdir()
    assert engine_cache.open_cached_encoder(str(folder)) is not None
    assert engine_cache.open_cached(str(folder)) is None  # it writes no texts
    os.utime(folder / "1_Pooling" / "config.json", (1, 1))
    assert engine_cache.open_cached_encoder(str(folder)) is None
    engine_cache.store_encoder(lmworks.load(folder).prepare("float32"))
    (after,) = engines.iterdir()
    assert after != before


@pytest.mark.parametrize("name", [engine_cache.WEIGHTS, engine_cache.MODEL, "tokenizer.json"])
def test_damaged_entries_are_removed_and_not_used(folder, engines, name):
    engine_cache.store_encoder(lmworks.load(folder).prepare("float32"))
    (place,) = engines.iterdir()
    (place / name).write_bytes((place / name).read_bytes()[:50])
    assert engine_cache.open_cached_encoder(str(folder)) is None
    assert not place.exists()


def test_what_the_engine_does_not_compute_falls_back_and_is_said(tmp_path, capsys):
    for folder in (save_tiny(tmp_path / "decoder"), save_both(tmp_path / "both")):
        assert main(["embed", "tea", "--model", str(folder)]) == 0
        assert "computed by PyTorch, since the native engine does not compute this model" in capsys.readouterr().err
        assert main(["embed", "tea", "--model", str(folder), "--backend", "native"]) == 2
        assert "--backend torch" in capsys.readouterr().err
        assert main(["embed", "tea", "--model", str(folder), "--backend", "torch"]) == 0
        assert "native" not in capsys.readouterr().err


def test_the_cosines_of_the_command_are_those_of_the_vectors(folder, capsys):
    assert main(["similar", *TEXTS[:2], "--model", str(folder), "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)["cosines"][0][1]
    first, second = lmworks.load(folder).prepare().embed(TEXTS[:2], normalize=True).numpy()
    assert shown == pytest.approx(float(first @ second), abs=1e-6)
    word = ["similar", "i love tea", "my tea", "--word", "tea", "--model", str(folder)]
    assert main([*word, "--backend", "native"]) == 2
    assert "--word" in capsys.readouterr().err


@pytest.mark.filterwarnings("ignore:.* texts were cut")
@pytest.mark.parametrize(("precision", "most"), [("float32", 1e-6), ("bfloat16", 1e-3)])
def test_the_real_sentence_encoder(precision, most):
    try:
        folder = find("minilm-l6").path
    except InputError as error:
        pytest.skip(f"the real sentence encoder is not here: {error}")
    expected = lmworks.load(folder).embed(REAL_TEXTS)
    received = lmworks.load(folder).prepare(precision).embed(REAL_TEXTS)
    assert float((1 - (received * expected).sum(1)).max()) < most
    torch.testing.assert_close(received.norm(dim=1), torch.ones(len(REAL_TEXTS)), atol=1e-5, rtol=0)
