"""lmworks share: what others open is the run's model, in a folder and through a hub on the loopback."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from fake_hub import OWNER, TOKEN, FakeHub, running_hub
from tiny_model import save_tiny

import lmworks
from lmworks.base.errors import InputError
from lmworks.commands.main import main
from lmworks.sharing.share import share

REPO = f"{OWNER}/faq"


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    """A hub for this process and those that it starts; large files go by LFS, as Xet needs servers of its own."""
    pytest.importorskip("huggingface_hub")
    for name in list(os.environ):
        if name.startswith("HF_") or name.lower().endswith("_proxy") or name == "LMWORKS_OFFLINE":
            monkeypatch.delenv(name)
    with running_hub() as running:
        monkeypatch.setenv("HF_ENDPOINT", running.url)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
        monkeypatch.setenv("HF_HUB_DISABLE_XET", "1")
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)
        monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(tmp_path / "no-token"))
        monkeypatch.setenv("LMWORKS_CACHE", str(tmp_path / "cache"))
        yield running


def logits(model) -> torch.Tensor:
    ids = torch.tensor([model.tokenizer.encode("What is 7 and 7?")])
    with torch.no_grad():
        return model.network(ids).logits


def command(*words: str) -> subprocess.CompletedProcess[str]:
    """lmworks in a process of its own, which reads the environment anew."""
    line = [sys.executable, "-m", "lmworks.commands.main", *words]
    return subprocess.run(line, capture_output=True, text=True, env=os.environ, timeout=250)


def test_the_folder_is_the_model_of_the_run_with_its_card(shared_run, tmp_path, capsys) -> None:
    folder = tmp_path / "faq"
    assert main(["share", str(shared_run), "--to", str(folder), "--license", "mit", "--language", "en"]) == 0
    assert str(folder) in capsys.readouterr().out
    readme = (folder / "README.md").read_text(encoding="utf-8")
    assert readme.startswith("---\nlanguage: en\nlicense: mit\nlibrary_name: transformers\n")
    assert "# faq\n" in readme
    assert "'Be brief.'" in readme
    torch.testing.assert_close(logits(lmworks.load(folder)), logits(lmworks.load(shared_run)))
    assert lmworks.load(folder).input_format == lmworks.load(shared_run).input_format
    assert [path.name for path in tmp_path.iterdir()] == ["faq"]


def test_the_lines_of_the_card_run(shared_run, tmp_path, monkeypatch) -> None:
    """The Python of "How to use" by transformers, and its command by lmworks, where the folder lies."""
    monkeypatch.chdir(tmp_path)
    share(shared_run, folder="faq")
    readme = Path("faq/README.md").read_text(encoding="utf-8")
    (python,) = re.findall(r"```python\n(.*?)```", readme, re.S)
    (shell,) = re.findall(r"```sh\n(.*?)\n```", readme, re.S)
    done = subprocess.run([sys.executable, "-c", python], capture_output=True, text=True, timeout=250)
    assert done.returncode == 0, done.stderr
    assert shell == 'lmworks chat faq --ask "a question"'
    assert main(["chat", "faq", "--ask", "a question", "--max-tokens", "3"]) == 0


def test_a_folder_that_stands_there_is_replaced_only_when_asked(shared_run, tmp_path) -> None:
    folder = tmp_path / "faq"
    share(shared_run, folder=folder)
    (folder / "model-00001-of-00002.safetensors").write_bytes(b"old")
    with pytest.raises(InputError, match="is there already and not empty"):
        share(shared_run, folder=folder)
    share(shared_run, folder=folder, overwrite=True)
    assert not (folder / "model-00001-of-00002.safetensors").exists()
    (folder / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match=r"holds what is not part of a model: notes\.txt"):
        share(shared_run, folder=folder, overwrite=True)


def test_what_the_hub_gets_is_opened_from_it_again(hub, shared_run) -> None:
    done = command("share", str(shared_run), f"hub:{REPO}", "--license", "mit", "--private")
    assert done.returncode == 0, done.stderr
    files = hub.repositories[REPO]
    assert {".gitattributes", "README.md", "config.json", "lmworks.json", "model.safetensors"} <= files.keys()
    assert done.stdout.strip() == f"{hub.url}/{REPO}/commit/{hub.commit_id(REPO)}"
    assert REPO in hub.private
    assert hub.messages == ["Model of the run run"]
    assert files["model.safetensors"] in hub.blobs.values(), "large files go by LFS"
    assert files["lmworks.json"] not in hub.blobs.values()
    opened = lmworks.load(f"hub:{REPO}")
    torch.testing.assert_close(logits(opened), logits(lmworks.load(shared_run)))
    assert opened.input_format == lmworks.load(shared_run).input_format


def test_small_files_go_with_the_commit_and_the_client_of_today_sends_them(hub, shared_run, monkeypatch) -> None:
    """With hf_xet installed huggingface_hub uploads by another path, which asks for the same calls."""
    hub.large = 10**12
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", False)
    shared = share(shared_run, f"hub:{REPO}")
    assert shared.commit == f"{hub.url}/{REPO}/commit/{hub.commit_id(REPO)}"
    assert len(hub.repositories[REPO]["model.safetensors"]) > 1000
    assert hub.blobs == {}


def test_a_repository_with_a_model_is_replaced_only_when_asked(hub, shared_run) -> None:
    share(shared_run, f"hub:{REPO}")
    hub.repositories[REPO] |= {"model-00001-of-00002.safetensors": b"old", "notes.txt": b"mine"}
    with pytest.raises(InputError, match=r"holds \d+ files already") as caught:
        share(shared_run, f"hub:{REPO}")
    assert "--overwrite" in caught.value.hint
    assert len(hub.messages) == 1
    share(shared_run, f"hub:{REPO}", overwrite=True, licence="mit")
    files = hub.repositories[REPO]
    assert b"license: mit" in files["README.md"]
    assert files["notes.txt"] == b"mine"
    assert "model-00001-of-00002.safetensors" not in files
    assert len(hub.messages) == 2


@pytest.mark.parametrize(
    ("target", "token", "message"),
    [
        (f"hub:{REPO}", None, "only from people whom it knows"),
        (f"hub:{REPO}", "hf_other", "does not accept the token"),
        ("hub:others/faq", TOKEN, "this token may not write there"),
    ],
)
def test_the_hub_refuses_in_words(hub, shared_run, monkeypatch, target, token, message) -> None:
    monkeypatch.delenv("HF_TOKEN")
    if token is not None:
        monkeypatch.setenv("HF_TOKEN", token)
    with pytest.raises(InputError, match=message):
        share(shared_run, target)
    assert hub.repositories == {}


def test_an_upload_that_broke_off_goes_on(hub, shared_run) -> None:
    commit = f"/api/models/{REPO}/commit/main"
    hub.broken.add(commit)
    with pytest.raises(InputError, match="the hub cannot be reached") as caught:
        share(shared_run, f"hub:{REPO}")
    assert "goes on where it broke off" in caught.value.hint
    sent = [line for line in hub.asked if line.startswith("PUT /lfs/")]
    hub.broken.clear()
    share(shared_run, f"hub:{REPO}")
    assert [line for line in hub.asked if line.startswith("PUT /lfs/")] == sent, "nothing is sent twice"
    assert "model.safetensors" in hub.repositories[REPO]


def test_what_cannot_be_shared_is_refused_before_anything_is_written(shared_run, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("LMWORKS_OFFLINE", "1")
    model = save_tiny(tmp_path / "model")
    for run, target, further, message in (
        (shared_run, None, {}, "no place is named"),
        (model, None, {"folder": tmp_path / "out"}, "it is no run"),
        (shared_run, "owner/name", {}, "is no place to share a model at"),
        (shared_run, "hub:owner/name@v1", {}, "names a file or a revision"),
        (shared_run, "hub:owner/name", {}, "nothing may be sent"),
        (shared_run, None, {"folder": tmp_path / "a", "space": tmp_path / "a"}, "both the model and the demo"),
    ):
        with pytest.raises(InputError, match=message):
            share(run, target, **further)
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_a_classifier_by_counts_is_refused_with_what_can_be_done(tmp_path) -> None:
    rows = [{"text": f"{word} {number}", "label": word} for number in range(20) for word in ("good", "bad")]
    run = lmworks.tune("tfidf-logreg", rows, out=tmp_path / "run")
    with pytest.raises(InputError, match="classifier by counts of words") as caught:
        share(run.folder, folder=tmp_path / "shared")
    assert str(tmp_path / "run" / "final") in caught.value.hint
