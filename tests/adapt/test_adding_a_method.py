"""The page "adding a method" is true: its code is the code of (IA)3, and nothing but the registry names that method."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from lmworks.adapt.registry import METHODS

ROOT = Path(__file__).resolve().parents[2]
SOURCES = ROOT / "src" / "lmworks"
TEXT = (ROOT / "docs" / "adding_a_method.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
FILES = ("ia3.py", "ia3_files.py", "scaled_linear.py")


@pytest.mark.parametrize("code", BLOCKS[:-1], ids=lambda code: code.split("(")[0].strip())
def test_the_code_of_the_page_is_the_code_of_the_method(code):
    found = [name for name in FILES if code in (SOURCES / "adapt" / name).read_text(encoding="utf-8")]
    assert len(found) == 1
    before = TEXT[: TEXT.index(code)]
    assert f"`adapt/{found[0]}`" in before


def test_its_lines_are_those_of_the_registry():
    registry = (SOURCES / "adapt" / "registry.py").read_text(encoding="utf-8").splitlines()
    assert set(BLOCKS[-1].splitlines()) <= set(registry)
    assert METHODS["ia3"].__module__ == "lmworks.adapt.ia3"


def test_nothing_but_the_registry_names_the_method():
    modules = [f"adapt.{name.removesuffix('.py')}" for name in FILES]
    names = re.compile(rf"\b(?:{'|'.join(map(re.escape, modules))})\b|import .*\b(?:IA3|ScaledLinear|ia3_files)\b")
    naming = {
        path.relative_to(SOURCES).as_posix()
        for path in SOURCES.rglob("*.py")
        if names.search(path.read_text(encoding="utf-8"))
    }
    assert naming == {"adapt/registry.py", "adapt/ia3.py"}


def test_the_files_and_names_that_it_mentions_are_there():
    files = set(re.findall(r"`((?:adapt|model)/\w+\.py|tests/\S+\.py|docs/\S+\.txt)`", TEXT))
    assert len(files) > 12
    assert [path for path in files if not (ROOT / path).is_file() and not (SOURCES / path).is_file()] == []
    sources = "".join(
        path.read_text(encoding="utf-8") for folder in ("adapt", "model") for path in (SOURCES / folder).glob("*.py")
    )
    sources += (ROOT / "tests" / "adapt" / "test_methods.py").read_text(encoding="utf-8")
    names = set(re.findall(r"`([A-Za-z_]\w{5,})`", TEXT))
    assert len(names) > 15
    assert [name for name in names if not re.search(rf"\b{name}\b", sources)] == []
