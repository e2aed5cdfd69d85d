"""What the cache keeps for the native engine: the same texts without torch, nothing of another state of the files."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from tiny_model import save_tiny

from lmworks.kernels.native_module import native_module
from lmworks.language_model import engine_cache
from lmworks.language_model.opening import open_saved_model

pytestmark = pytest.mark.skipif(native_module() is None, reason="no native kernels")


@pytest.fixture(autouse=True)
def engines(tmp_path, monkeypatch):
    monkeypatch.setenv("LMWORKS_ENGINE_CACHE", str(tmp_path / "engines"))
    return tmp_path / "engines"


@pytest.fixture
def folder(tmp_path):
    return save_tiny(tmp_path / "model")


def generate(folder, *options: str) -> subprocess.CompletedProcess[str]:
    """lmworks generate in a process of its own, which then says whether it imported torch."""
    code = (
        "import sys\nfrom lmworks.commands.main import main\n"
        "code = main(sys.argv[1:])\nprint('torch' in sys.modules, file=sys.stderr)\nsys.exit(code)"
    )
    arguments = ["generate", str(folder), "What is", "--max-tokens", "12", *options]
    return subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, env=os.environ)


@pytest.mark.parametrize("options", [(), ("--temperature", "0.9", "--seed", "3"), ("--num-beams", "3")])
def test_the_second_opening_writes_the_same_text_without_torch(folder, options):
    first, second = generate(folder, *options), generate(folder, *options)
    assert (first.returncode, second.returncode) == (0, 0), first.stderr + second.stderr
    assert "cached for the next opening" in first.stderr
    assert first.stderr.splitlines()[-1] == "True"
    assert second.stderr.splitlines()[-1] == "False"
    assert first.stdout == second.stdout == generate(folder, "--backend", "torch", *options).stdout


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


def test_switched_off_nothing_is_kept(folder, engines, monkeypatch):
    monkeypatch.setenv("LMWORKS_ENGINE_CACHE", "off")
    assert engine_cache.store(open_saved_model(folder).prepare("float32")) == []
    assert engine_cache.open_cached(str(folder)) is None
    assert not engines.exists()


def test_what_the_engine_does_not_compute_is_said(tmp_path, capsys):
    from lmworks.commands.main import main

    folder = save_tiny(tmp_path / "windowed")
    config = folder / "config.json"
    config.write_text(
        config.read_text().replace('"rope_scaling": null', '"rope_scaling": {"rope_type": "dynamic", "factor": 2.0}')
    )
    assert main(["generate", str(folder), "What is", "--max-tokens", "3"]) == 0
    assert "computed by PyTorch, since the native engine does not" in capsys.readouterr().err
    assert main(["generate", str(folder), "What is", "--backend", "native"]) != 0
    assert "--backend torch" in capsys.readouterr().err
