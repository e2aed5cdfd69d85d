"""What the cache keeps for the native engine: the same texts without torch, nothing of another state of the files."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
from tiny_model import save_tiny

from lmworks.base.errors import InputError
from lmworks.commands.main import main
from lmworks.kernels.native_module import native_module
from lmworks.language_model import engine_cache
from lmworks.language_model.input_format import InputFormat
from lmworks.language_model.opening import open_saved_model

pytestmark = pytest.mark.skipif(native_module() is None, reason="no native kernels")


@pytest.fixture(autouse=True)
def engines(tmp_path, monkeypatch):
    monkeypatch.setenv("LMWORKS_ENGINE_CACHE", str(tmp_path / "engines"))
    return tmp_path / "engines"


@pytest.fixture
def folder(tmp_path):
    return save_tiny(tmp_path / "model")


def run_command(*arguments: str) -> subprocess.CompletedProcess[str]:
    """lmworks in a process of its own, which then says whether it imported torch."""
    code = (
        "import sys\nfrom lmworks.commands.main import main\n"
        "code = main(sys.argv[1:])\nprint('torch' in sys.modules, file=sys.stderr)\nsys.exit(code)"
    )
    return subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, env=os.environ)


def generate(folder, *options: str) -> subprocess.CompletedProcess[str]:
    return run_command("generate", str(folder), "What is", "--max-tokens", "12", *options)


@pytest.mark.parametrize("options", [(), ("--temperature", "0.9", "--seed", "3"), ("--num-beams", "3")])
def test_the_second_opening_writes_the_same_text_without_torch(folder, options):
    first, second = generate(folder, *options), generate(folder, *options)
    assert (first.returncode, second.returncode) == (0, 0), first.stderr + second.stderr
    assert "cached for the next opening" in first.stderr
    assert first.stderr.splitlines()[-1] == "True"
    assert second.stderr.splitlines()[-1] == "False"
    assert first.stdout == second.stdout == generate(folder, "--backend", "torch", *options).stdout


NOT_NEEDED = (
    "torch",
    "yaml",  # settings are plain values here
    "jinja2",  # a chat template is read at the first message
    "numpy.random",  # nothing is drawn
    "ssl",  # nothing is fetched
    "urllib.request",
    "lmworks.base.indexes",
    "lmworks.baselines.eliza",
    "lmworks.families.family",  # of the model's files; the cache has what they say
    "lmworks.families.gguf_file",
    "lmworks.language_model.question_windows",
    "lmworks.model.sizes",
)


@pytest.mark.parametrize("words", [("generate", "MODEL", "What is", "--max-tokens", "3"), ("chat", "MODEL")])
def test_the_second_opening_imports_nothing_that_it_does_not_use(folder, words):
    """A word from the shell should come at once; chat reads the end of its input here, and leaves."""
    assert generate(folder).returncode == 0
    code = (
        "import sys\nfrom lmworks.commands.main import main\ncode = main(sys.argv[1:])\n"
        f"print([name for name in {NOT_NEEDED!r} if name in sys.modules])\nsys.exit(code)"
    )
    arguments = [str(folder) if word == "MODEL" else word for word in words]
    command = [sys.executable, "-c", code, *arguments]
    second = subprocess.run(command, input="", capture_output=True, text=True, env=os.environ)
    assert second.returncode == 0, second.stderr
    assert second.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize(
    "words",
    [
        ("score", "MODEL", "What is 3 and 3?", "It is 6.", "--json"),
        ("next", "What is", "--model", "MODEL"),
        ("predict", "MODEL", "--text", "the sky"),
    ],
    ids=lambda words: words[0],
)
def test_likelihoods_of_the_second_opening_are_the_same_without_torch(folder, words):
    InputFormat(task="labels", kind="label", labels=("blue", "green and grey")).save(folder)
    arguments = [str(folder) if word == "MODEL" else word for word in words]
    first, second, by_torch = (run_command(*arguments, *more) for more in ((), (), ("--backend", "torch")))
    assert first.returncode == second.returncode == by_torch.returncode == 0, first.stderr + second.stderr
    assert "cached for the next opening" in first.stderr
    assert [process.stderr.splitlines()[-1] for process in (first, second, by_torch)] == ["True", "False", "True"]
    assert first.stdout == second.stdout
    assert "backend:native|weights:float32" in first.stdout
    assert "backend:torch|weights:float32" in by_torch.stdout
    if words[0] == "score":
        ours, theirs = json.loads(first.stdout), json.loads(by_torch.stdout)
        assert [row["nats"] for row in ours] == pytest.approx([row["nats"] for row in theirs], abs=1e-3)
    else:
        assert first.stdout.replace("native", "torch") == by_torch.stdout


def test_a_model_that_labels_in_words_gives_the_probabilities_of_the_network(folder):
    InputFormat(task="labels", kind="label", labels=("blue", "green and grey")).save(folder)
    texts = ["the sky", "the sea", "What is 3 and 3?"]
    by_torch = open_saved_model(folder)
    prepared = open_saved_model(folder).prepare("float32")
    assert engine_cache.store(prepared)
    cached = engine_cache.open_cached(str(folder))
    assert cached.labels == by_torch.labels
    assert cached.signature == prepared.signature == "backend:native|weights:float32"
    cached.kv_cache = "int8"
    assert cached.score("the sky")[0].signature == "backend:native|weights:float32|kv_cache:int8"
    cached.kv_cache = None
    wanted = by_torch.predict(texts)
    for model in (prepared, cached):
        for prediction, other in zip(model.predict(texts), wanted, strict=True):
            assert prediction.label == other.label
            assert prediction.probabilities == pytest.approx(other.probabilities, abs=1e-4)
        assert [score.nats for score in model.score(texts)] == pytest.approx(
            [score.nats for score in by_torch.score(texts)], abs=1e-3
        )
        assert model.generate(texts[0]) == by_torch.generate(texts[0])
    with pytest.raises(InputError, match="single texts"):
        cached.predict([("a", "b")])


def test_the_native_engine_predicts_by_labels_in_words_alone(folder, capsys):
    assert main(["predict", str(folder), "--text", "the sky", "--backend", "native"]) != 0
    assert "labels texts by decoders" in capsys.readouterr().err
    assert main(["next", "a", "--sentence", "b", "--model", str(folder), "--backend", "native"]) != 0
    assert "--backend" in capsys.readouterr().err


def test_changed_files_are_opened_anew_and_the_older_state_is_removed(folder, engines):
    assert engine_cache.store(open_saved_model(folder).prepare("float32"))
    (before,) = engines.iterdir()
    assert engine_cache.open_cached(str(folder)) is not None
    os.utime(folder / "model.safetensors", (1, 1))
    assert engine_cache.open_cached(str(folder)) is None
    engine_cache.store(open_saved_model(folder).prepare("float32"))
    (after,) = engines.iterdir()
    assert after != before
    assert [(path, place) for path, _, place in engine_cache.entries()] == [(str(folder), after)]


def test_an_entry_that_another_process_is_writing_is_left_alone(folder, engines):
    """Two processes pack the same model: the one that ends first removes nothing of the other's."""
    engine_cache.store(open_saved_model(folder).prepare("float32"))
    (entry,) = engines.iterdir()
    aside = entry.rename(entry.with_name(f".{entry.name}.{os.getpid()}.abcdef.tmp"))
    assert engine_cache.entries() == []
    os.utime(folder / "model.safetensors", (1, 1))  # another state of the files, so another entry
    engine_cache.store(open_saved_model(folder).prepare("float32"))
    assert (aside / engine_cache.MODEL).is_file()
    assert len(engine_cache.entries()) == 1


@pytest.mark.parametrize("name", [engine_cache.WEIGHTS, engine_cache.MODEL, "tokenizer.json"])
def test_damaged_entries_are_removed_and_not_used(folder, engines, name):
    engine_cache.store(open_saved_model(folder).prepare("float32"))
    (place,) = engines.iterdir()
    (place / name).write_bytes((place / name).read_bytes()[:50])
    assert engine_cache.open_cached(str(folder)) is None
    assert not place.exists()


def test_without_room_nothing_is_kept_and_it_is_said(folder, engines, monkeypatch):
    from lmworks.base import files

    monkeypatch.setattr(files, "free_disk_space", lambda path: 10)
    (note,) = engine_cache.store(open_saved_model(folder).prepare("float32"))
    assert "not cached" in note
    assert "no room" in note
    assert not engines.exists() or not list(engines.iterdir())


@pytest.mark.parametrize("off", ["off", "OFF"])
def test_switched_off_nothing_is_kept(folder, engines, monkeypatch, tmp_path, off):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LMWORKS_ENGINE_CACHE", off)
    assert engine_cache.store(open_saved_model(folder).prepare("float32")) == []
    assert engine_cache.open_cached(str(folder)) is None
    assert not engines.exists()
    assert not (tmp_path / off).exists()


def test_what_the_engine_does_not_compute_is_said(tmp_path, capsys):
    folder = save_tiny(tmp_path / "windowed")
    config = folder / "config.json"
    config.write_text(
        config.read_text().replace('"rope_scaling": null', '"rope_scaling": {"rope_type": "dynamic", "factor": 2.0}')
    )
    assert main(["generate", str(folder), "What is", "--max-tokens", "3"]) == 0
    assert "computed by PyTorch, since the native engine does not" in capsys.readouterr().err
    assert main(["generate", str(folder), "What is", "--backend", "native"]) != 0
    assert "--backend torch" in capsys.readouterr().err
