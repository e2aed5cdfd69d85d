"""The archives of Python package indexes that are in the cache (base/package_archives puts them there)."""

from __future__ import annotations

import json
import re
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from lmworks.base.files import cache_folder

Kind = Literal["wheel", "sdist"]
Say = Callable[[str], None]

SPEC = re.compile(r"^(?P<name>[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?)(==(?P<version>[A-Za-z0-9.!+_-]+))?$")


def say_on_stderr(text: str) -> None:
    """The default way of telling a person what is being fetched."""
    print(text, file=sys.stderr, flush=True)


@dataclass(frozen=True)
class Package:
    """An archive in the cache.

    Attributes:
        path: the folder that it was unpacked into.
        name, version: of the distribution.
        file: the archive's name.
        sha256: of the archive, in hex.
        size: of the archive, in bytes.
    """

    path: Path
    name: str
    version: str
    file: str
    sha256: str
    size: int


def cached(name: str, version: str | None, kind: Kind) -> Package | None:
    """The package in the cache; without a version the newest of them, or None."""
    canonical_name = canonical(name)
    fitting = [
        package
        for package in all_cached(kind)
        if canonical(package.name) == canonical_name and version in (None, package.version)
    ]
    return max(fitting, key=lambda package: release(package.version), default=None)


def cached_spec(spec: str, kind: Kind) -> Package | None:
    """The same of ``distribution`` or ``distribution==version``; None of what is written otherwise, too."""
    match = SPEC.match(spec.strip())
    return cached(match["name"], match["version"], kind) if match else None


def all_cached(kind: Kind | None = None) -> list[Package]:
    """Every package in the cache."""
    packages = []
    for place in sorted((cache_folder() / "packages").glob("*/package.json")):
        record = json.loads(place.read_text(encoding="utf-8"))
        if record.pop("kind") == kind or kind is None:
            packages.append(Package(path=place.parent / "content", **record))
    return packages


def remove(package: Package) -> None:
    """Takes a package out of the cache."""
    shutil.rmtree(package.path.parent)


def canonical(name: str) -> str:
    """A distribution's name as indexes spell it (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def release(version: str) -> tuple[bool, tuple[int, ...]]:
    """A key by which versions sort: final ones after all others, then by number."""
    numbers = tuple(int(part) for part in re.findall(r"\d+", version))
    return re.fullmatch(r"[\d.]+(\.?post\d+)?", version) is not None, numbers
