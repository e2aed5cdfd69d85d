"""Models and data of the Hugging Face hub, through huggingface_hub (an extra), into the cache that its users share.

Only what a model needs is fetched: weights as safetensors (or one GGUF file), configs, tokenizer; never pickles. The
hub is asked once, briefly: where it cannot be reached, that is known within seconds.
"""

from __future__ import annotations

import json
import os
import re
import threading
from collections.abc import Callable
from dataclasses import dataclass
from fnmatch import fnmatch
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from lmworks.base import preparation
from lmworks.base.errors import InputError
from lmworks.base.files import atomic_write, cache_folder, check_disk_space, human

ContentKind = Literal["model", "data"]

TIMEOUT = 6.0
"""Seconds in which the hub must begin to answer."""

NAME = re.compile(r"^(?P<repo>[\w.-]+/[\w.-]+)(?P<file>/[^@]+\.gguf)?(@(?P<revision>[\w./-]+))?$")
MODEL_FILES = (
    "config.json",
    "generation_config.json",
    "tokenizer*",
    "vocab*",
    "merges.txt",
    "*.model",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template*",
    "adapter_config.json",
    "modules.json",
    "sentence_bert_config.json",
    "config_sentence_transformers.json",
    "*.safetensors",
    "*.safetensors.index.json",
    "*_Pooling/config.json",
    "lmworks.json",
    "prompt.json",
    "examples.jsonl",
)
DATA_FILES = ("*.parquet", "*.jsonl", "*.json", "*.csv", "*.tsv", "*.txt")


PART = re.compile(r"(?P<name>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})\.gguf")
"""The name of one file of a GGUF model that is split over several."""


class Unreachable(Exception):
    """The hub gave no answer; the text says why."""


@dataclass(frozen=True)
class HubName:
    """``owner/name[/file.gguf][@revision]``, taken apart."""

    repo: str
    file: str | None
    revision: str | None

    @classmethod
    def of(cls, text: str) -> HubName:
        """Raises InputError when the text is no such name."""
        match = NAME.match(text)
        if match is None:
            hint = "write hub:owner/name, hub:owner/name@revision or hub:owner/name/file.gguf"
            raise InputError("is no name on the hub", f"hub:{text}", hint)
        return cls(match["repo"], match["file"] and match["file"][1:], match["revision"])

    def record(self, content: ContentKind) -> Path:
        """Where the cache remembers what was fetched under this name."""
        text = "--".join(filter(None, (content, self.repo, self.file, self.revision)))
        return cache_folder() / "hub" / (re.sub(r"[^\w.-]", "--", text) + ".json")


def cached(text: str, content: ContentKind = "model") -> Path | None:
    """What was fetched under this name before, or None. The network is not touched.

    A copy that other programs have put into the hub's own cache counts where its files are complete.
    """
    name = HubName.of(text)
    record = name.record(content)
    if record.is_file():
        entry = json.loads(record.read_text(encoding="utf-8"))
        folder = Path(entry["path"])
        if all((folder / file).is_file() for file in entry["files"]):
            return folder / name.file if name.file else _opened(folder)
        return None
    theirs = _by_others(name, content)
    return None if theirs is None else _opened(theirs)


@preparation.timed(preparation.FETCHING)
def fetch(text: str, content: ContentKind, say: Callable[[str], None]) -> Path:
    """A model folder (or GGUF file), or a folder of data files, fetched from the hub.

    Raises:
        Unreachable: the hub does not answer, or huggingface_hub is not installed.
        InputError: the hub answers, and has no such thing, does not give it to this person, or only as pickles.
    """
    name = HubName.of(text)
    if find_spec("huggingface_hub") is None:
        raise Unreachable("huggingface_hub is not installed (pip install 'lmworks[hub]')")
    info = _ask(name, content)
    sizes = {sibling.rfilename: sibling.size or 0 for sibling in info.siblings or ()}
    files = _chosen(name, content, list(sizes))
    size = sum(sizes[file] for file in files)
    say(f"fetching {name.repo} from the hub: {len(files)} files, {human(size)}")
    from huggingface_hub import snapshot_download

    place = _cache()
    check_disk_space(place or cache_folder(), size, name.repo)
    try:
        folder = Path(
            snapshot_download(
                name.repo,
                repo_type=_type(content),
                revision=info.sha,
                allow_patterns=files,
                cache_dir=place,
                endpoint=endpoint(),
                etag_timeout=TIMEOUT,
            )
        )
    except Exception as error:  # its errors come from several libraries
        raise Unreachable(f"fetching broke off: {first_line(error)}") from error
    record = {
        "source": f"hub:{text}",
        "what": content,
        "path": str(folder),
        "files": files,
        "commit": info.sha,
        "size": size,
    }
    atomic_write(name.record(content), json.dumps(record, indent=1) + "\n")
    return folder / name.file if name.file else _opened(folder)


def records() -> list[dict[str, Any]]:
    """What was fetched from the hub, one mapping each: source, path, files, commit, size in bytes."""
    places = sorted((cache_folder() / "hub").glob("*.json"))
    return [{**json.loads(place.read_text(encoding="utf-8")), "record": str(place)} for place in places]


def remove(record: dict[str, Any]) -> None:
    """Takes one of ``records`` out of the cache, and its revision out of the hub's own."""
    from huggingface_hub import scan_cache_dir

    cache = scan_cache_dir(_cache())
    commits = {revision.commit_hash for repo in cache.repos for revision in repo.revisions}
    if record["commit"] in commits:
        cache.delete_revisions(record["commit"]).execute()
    Path(record["record"]).unlink(missing_ok=True)


def _ask(name: HubName, content: ContentKind) -> Any:
    """What the hub says about a repository; asked in a thread, because a dead network may not even say no."""
    from huggingface_hub import HfApi

    answer: list[Any] = []

    def ask() -> None:
        try:
            api = HfApi(endpoint=endpoint())
            kind = _type(content)
            answer.append(
                api.repo_info(name.repo, repo_type=kind, revision=name.revision, files_metadata=True, timeout=TIMEOUT)
            )
        except Exception as error:
            answer.append(error)

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(TIMEOUT + 2)
    if not answer:
        raise Unreachable(f"no answer within {TIMEOUT + 2:.0f} seconds")
    if not isinstance(answer[0], Exception):
        return answer[0]
    error = answer[0]
    place, kind = f"hub:{name.repo}", type(error).__name__  # a proxy's own 403 is none of these kinds
    if kind == "RevisionNotFoundError":
        raise InputError(f"has no revision {name.revision!r}", place, "leave out @revision, or name one that it has")
    if kind == "GatedRepoError":
        raise InputError("is given only to people who were granted access", place, "ask on its page; hf auth login")
    if kind == "RepositoryNotFoundError":
        raise InputError(
            "is not on the hub, or not for you", place, "check owner/name; for a private one: hf auth login"
        )
    raise Unreachable(first_line(error))


def _chosen(name: HubName, content: ContentKind, files: list[str]) -> list[str]:
    """The files to fetch.

    Raises:
        InputError: there is nothing that can be opened.
    """
    place = f"hub:{name.repo}"
    if name.file:
        if name.file not in files:
            raise InputError(f"has no {name.file}", place, "its GGUF files: " + _few(files, "*.gguf"))
        return parts_of(name.file, files)
    patterns = MODEL_FILES if content == "model" else DATA_FILES
    wanted_files = [file for file in files if any(fnmatch(file, pattern) for pattern in patterns)]
    if content == "data":
        if not wanted_files:
            raise InputError("has no file of a known format", place, "known: " + ", ".join(DATA_FILES))
        return wanted_files
    wanted_files = [file for file in wanted_files if "/" not in file or file.endswith("_Pooling/config.json")]
    if any(file.endswith(".safetensors") for file in wanted_files):
        return wanted_files
    ggufs = whole_ggufs([file for file in files if file.endswith(".gguf")])
    if len(ggufs) == 1:
        return parts_of(ggufs[0], files)
    if ggufs:
        raise InputError(
            f"has {len(ggufs)} GGUF files", place, f"name one: {place}/{ggufs[0]}; others: {_few(files, '*.gguf')}"
        )
    pickles = [file for file in files if file.endswith((".bin", ".pt", ".pth", ".ckpt"))]
    fault = f"has weights only as pickles ({pickles[0]}), which can run any code" if pickles else "has no weights"
    raise InputError(fault, place, "choose a repository with model.safetensors or a GGUF file")


def whole_ggufs(files: list[str]) -> list[str]:
    """GGUF files, each split model by its first part alone."""
    return [file for file in sorted(files) if (match := PART.fullmatch(file)) is None or int(match["number"]) == 1]


def parts_of(file: str, files: list[str]) -> list[str]:
    """All files of the model that a GGUF file is, or is a part of."""
    match = PART.fullmatch(file)
    if match is None:
        return [file]
    alike = [(other, PART.fullmatch(other)) for other in sorted(files)]
    return [
        other for other, parts in alike if parts and (parts["name"], parts["count"]) == (match["name"], match["count"])
    ]


def _few(files: list[str], pattern: str) -> str:
    matching = [file for file in files if fnmatch(file, pattern)]
    return ", ".join(matching[:8]) + (" ..." if len(matching) > 8 else "") if matching else "none"


def _by_others(name: HubName, content: ContentKind) -> Path | None:
    """A complete snapshot in the hub's own cache, or None."""
    if find_spec("huggingface_hub") is None or content != "model" or name.file:
        return None
    from huggingface_hub import snapshot_download

    try:
        folder = Path(snapshot_download(name.repo, revision=name.revision, cache_dir=_cache(), local_files_only=True))
    except Exception:  # not there
        return None
    index = folder / "model.safetensors.index.json"
    shards = {"model.safetensors"}
    if index.is_file():
        shards = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
    needed = {"config.json", "tokenizer.json", *shards}
    return folder if all((folder / file).is_file() for file in needed) else None


def _opened(folder: Path) -> Path:
    """The folder, or the one GGUF file that is all of it."""
    ggufs = [Path(file) for file in whole_ggufs([str(file) for file in folder.rglob("*.gguf")])]
    return ggufs[0] if len(ggufs) == 1 and not (folder / "config.json").is_file() else folder


def _type(content: ContentKind) -> str:
    return "model" if content == "model" else "dataset"


def endpoint() -> str | None:
    """The address of the hub where HF_ENDPOINT names another one; read at each call, as huggingface_hub does not."""
    return os.environ.get("HF_ENDPOINT") or None


def _cache() -> Path | None:
    """The hub's own cache, where the environment moved it after huggingface_hub was imported too."""
    if chosen := os.environ.get("HF_HUB_CACHE"):
        return Path(chosen)
    return Path(os.environ["HF_HOME"]) / "hub" if os.environ.get("HF_HOME") else None


def first_line(error: Exception) -> str:
    """The first line of an error, or its kind where it says nothing."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[0] if lines else type(error).__name__)[:200]
