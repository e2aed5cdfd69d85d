"""A file imports only from files listed above it in docs/floors.txt.

Imports within functions and under TYPE_CHECKING count too: a type that a lower floor needs from an upper one is a
tangle as well.
"""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "src" / "lmworks"
FLOORS = ROOT / "docs" / "floors.txt"
OPEN_TO_ALL = {"lmworks.__version__"}


def tree() -> list[str]:
    """The lines of the order, without its remarks."""
    return [line for line in FLOORS.read_text(encoding="utf-8").splitlines() if line.strip() and line[0] != "#"]


def listed() -> list[str]:
    """The modules in their order, from the ground up: ``lmworks.base.errors`` ..."""
    names, folder = [], ""
    for line in tree():
        word = line.split()[0]
        if word.endswith("/"):
            folder = word[:-1]
        elif line[0] == " ":
            names.append(f"lmworks.{folder}.{word}")
        else:
            names.append(f"lmworks.{word}")
    return names


def present() -> dict[str, Path]:
    """The modules that there are; packages are not modules here."""
    files = (path for path in sorted(SOURCE.rglob("*.py")) if path.name != "__init__.py")
    return {".".join(("lmworks", *path.relative_to(SOURCE).with_suffix("").parts)): path for path in files}


def imports(code: str, module: str) -> list[tuple[int, str]]:
    """Each import of lmworks in a module, with its line; ``from a import b`` gives ``a.b``."""
    result = []
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Import):
            result += [(node.lineno, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            above = module.split(".")[: -node.level] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            result += [(node.lineno, f"{base}.{alias.name}") for alias in node.names]
    return [(line, name) for line, name in result if name.split(".")[0] == "lmworks"]


def tangles(order: list[str], modules: dict[str, str]) -> list[str]:
    """What breaks the order, one sentence each."""
    place = {name: index for index, name in enumerate(order)}
    lines = []
    for module, code in modules.items():
        for line, name in imports(code, module):
            target = name if name in place else name.rpartition(".")[0]
            if name in OPEN_TO_ALL:
                continue
            if target not in place:
                lines.append(f"{module}:{line} imports {name}, which is no file of the list")
            elif place[target] >= place.get(module, -1):
                lines.append(f"{module}:{line} imports {target}, which is not listed above it")
    return lines


def test_every_file_is_listed():
    assert sorted(set(present()) - set(listed())) == []


def test_every_listed_file_is_there():
    assert sorted(set(listed()) - set(present())) == []


def test_nothing_is_listed_twice():
    assert len(listed()) == len(set(listed()))


def test_every_entry_says_what_it_does():
    assert [line for line in tree() if len(line.split(None, 1)) < 2] == []


def test_files_import_only_from_files_above_them():
    assert tangles(listed(), {name: path.read_text(encoding="utf-8") for name, path in present().items()}) == []


def test_packages_are_empty():
    """All but the top one, which offers the public names lazily."""
    full = [path for path in SOURCE.rglob("__init__.py") if path.parent != SOURCE and path.read_text().strip()]
    assert full == []


@pytest.mark.parametrize(
    ("code", "breaks"),
    [
        ("from lmworks.base.a import x", 0),
        ("from lmworks.base import a", 0),
        ("import lmworks.base.a", 0),
        ("from lmworks import __version__", 0),
        ("import torch", 0),
        ("from lmworks.base.c import x", 1),
        ("from lmworks.base import c, a", 1),
        ("import lmworks.base.c as c", 1),
        ("from . import c", 1),
        ("from .c import x", 1),
        ("def f():\n    from lmworks.base.c import x", 1),
        ("from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from lmworks.base.c import x", 1),
        ("from lmworks.base.b import itself", 1),
        ("from lmworks import load", 1),
        ("import lmworks", 1),
    ],
)
def test_a_tangle_is_found_wherever_it_hides(code, breaks):
    order = ["lmworks.base.a", "lmworks.base.b", "lmworks.base.c"]
    messages = tangles(order, {"lmworks.base.b": code})
    assert len(messages) == breaks
    assert all(line.startswith("lmworks.base.b:") for line in messages)


def test_the_message_names_both_files_and_the_direction():
    order = ["lmworks.base.a", "lmworks.base.b"]
    assert tangles(order, {"lmworks.base.a": "import lmworks.base.b"}) == [
        "lmworks.base.a:1 imports lmworks.base.b, which is not listed above it"
    ]
