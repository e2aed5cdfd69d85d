"""The running interpreter's standard library as data: docstrings as questions and answers, sources and topics as text.

Modules written in Python are parsed, never imported; only extension modules without side effects are imported. Knows
nothing of tables or caches.
"""

from __future__ import annotations

import ast
import hashlib
import importlib
import importlib.util
import inspect
import re
import sys
import sysconfig
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

LEFT_OUT = {
    *("antigravity", "this", "idlelib", "test", "tests", "idle_test", "turtledemo", "lib2to3", "site-packages"),
    *("dist-packages", "encodings", "ensurepip", "pydoc_data", "__pycache__", "lib-dynload", "_bundled", "ntpath"),
    *("__phello__", "__hello__", "_distutils_hack"),
}
"""Folders and modules that are jests, tests, tables of codes, or doubles of another."""

SHOWN_AS = {"posixpath": "os.path", "_pydecimal": "decimal", "_pyio": "io", "_collections_abc": "collections.abc"}
"""Modules that people know under another name."""

NOT_IMPORTED = {"readline", "nis", "xxlimited", "xxlimited_35", "xxsubtype", "spwd", "tkinter", "ossaudiodev"}
"""Extension modules whose import does something, or that are examples."""

PUBLIC_MODULES = {
    "_collections": "collections",
    "_functools": "functools",
    "_struct": "struct",
    "_socket": "socket",
    "posix": "os",
}
"""Private extension modules whose names a public module shows."""

SENTENCE = re.compile(r"(.+?[.!?])(?=\s+[^a-z]|\s*$)", re.DOTALL)
NOT_PROSE = re.compile(
    r">>>|->|::|:\.?$|^\w[\w.]*\(|^[^A-Za-z'\"(]|https?://|\.\.\s|^(see|deprecated|todo|xxx|internal)\b", re.I
)

Entry = tuple[str, str, str]
"""module, question, answer"""


def sources() -> Iterator[tuple[str, Path]]:
    """Dotted name and path of each module written in Python, in the order of their paths."""
    root = Path(sysconfig.get_path("stdlib"))
    for path in sorted(root.rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        if LEFT_OUT.isdisjoint(parts) and not parts[0].startswith("config-"):
            yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts), path


def questions() -> tuple[list[Entry], dict[str, int]]:
    """Questions about what the library's parts do, answered by the first sentence of their docstrings.

    Returns:
        (entries, counts): in a fixed order; counts says how many were left out and why.
    """
    entries: list[Entry] = []
    counts = {"without a usable first sentence": 0, "same answer as an earlier one": 0}
    asked: set[str] = set()
    answers: set[str] = set()
    for module, kind, name, doc in _documented():
        answer = first_sentence(doc)
        if answer is None:
            counts["without a usable first sentence"] += 1
            continue
        question = _question(module, kind, name)
        if question in asked or answer in answers:
            counts["same answer as an earlier one"] += 1
            continue
        asked.add(question)
        answers.add(answer)
        entries.append((module, question, answer))
    return entries, counts


def first_sentence(doc: str) -> str | None:
    """The first sentence of a docstring as one line, or None where it is not prose of a usable length."""
    paragraph = " ".join(inspect.cleandoc(doc).split("\n\n", 1)[0].split())
    match = SENTENCE.match(paragraph)
    sentence = match.group(1) if match else paragraph.rstrip(" ,;-") + "."
    if not 20 <= len(sentence) <= 250 or len(sentence.split()) < 4 or NOT_PROSE.search(sentence):
        return None
    first_word = sentence.split()[0]
    return sentence[0].upper() + sentence[1:] if first_word.isalpha() and first_word.islower() else sentence


def _question(module: str, kind: str, name: str) -> str:
    if kind == "module":
        return f"What is the module {name} for?"
    full = name if "." in name and module != "builtins" else f"the built-in {name}"
    return f"What is {full}?" if kind == "class" else f"What does {full} do?"


def _documented() -> Iterator[tuple[str, str, str, str]]:
    """(module, kind, dotted name, docstring) of everything public that has one."""
    for source, path in sources():
        shown = SHOWN_AS.get(source, source)
        if any(part.startswith("_") for part in shown.split(".")):
            continue
        try:
            tree = ast.parse(path.read_bytes())
        except (SyntaxError, ValueError):  # e.g. a template with another version's syntax
            continue
        doc = ast.get_docstring(tree)
        if doc:
            yield shown, "module", shown, doc
        yield from ((shown, *entry) for entry in _in_tree(tree, shown))
    for name, shown in _extensions():
        try:
            with warnings.catch_warnings(action="ignore"):  # some are deprecated, which is no news here
                module = importlib.import_module(name)
        except ImportError:  # built without a library that it needs
            continue
        yield from ((shown, *entry) for entry in _in_module(module, shown))


def _in_tree(tree: ast.AST, prefix: str) -> Iterator[tuple[str, str, str]]:
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)) and not node.name.startswith("_"):
            name = f"{prefix}.{node.name}"
            doc = ast.get_docstring(node)
            is_class = isinstance(node, ast.ClassDef)
            if doc:
                yield "class" if is_class else "function", name, doc
            if is_class:
                yield from _in_tree(node, name)
        elif isinstance(node, (ast.If, ast.Try)):
            yield from _in_tree(node, prefix)


def _extensions() -> list[tuple[str, str]]:
    """Extension modules that may be imported, and the names they are known by."""
    builtin = ("builtins", *sys.builtin_module_names)
    modules = {
        name: PUBLIC_MODULES.get(name, name) for name in builtin if not name.startswith("_") or name in PUBLIC_MODULES
    }
    suffix = sysconfig.get_config_var("EXT_SUFFIX") or ".so"
    for name in sorted(sys.stdlib_module_names):
        if (name.startswith("_") and name not in PUBLIC_MODULES) or name in NOT_IMPORTED | LEFT_OUT:
            continue
        spec = importlib.util.find_spec(name)
        origin = (spec.origin or "") if spec else ""
        if origin == "built-in" or origin.endswith((suffix, ".so", ".pyd")):
            modules[name] = PUBLIC_MODULES.get(name, name)
    return sorted((name, shown) for name, shown in modules.items() if name not in NOT_IMPORTED)


def _in_module(module: ModuleType, shown: str) -> Iterator[tuple[str, str, str]]:
    if module.__doc__ and module.__name__ == shown:
        yield "module", shown, module.__doc__
    prefix = "" if shown == "builtins" else f"{shown}."
    for name, value in sorted(vars(module).items()):
        if name.startswith("_") or not (inspect.isroutine(value) or inspect.isclass(value)):
            continue
        if getattr(value, "__name__", name) != name:  # another name of something that has its own
            continue
        if getattr(value, "__module__", None) not in (None, module.__name__, shown, "builtins"):
            continue
        doc = _own_doc(value)
        if doc:
            yield "class" if inspect.isclass(value) else "function", prefix + name, doc
        if inspect.isclass(value):
            for inner, method in sorted(vars(value).items()):
                if not inner.startswith("_") and inspect.isroutine(method) and (doc := _own_doc(method)):
                    yield "function", f"{prefix}{name}.{inner}", doc


def _own_doc(value: Any) -> str | None:
    doc = value.__doc__ if isinstance(getattr(value, "__doc__", None), str) else None
    if doc is None:
        return None
    # "name(arguments) -> result" on a line of its own stands before the prose of older docstrings.
    lines = inspect.cleandoc(doc).split("\n")
    while lines and (not lines[0].strip() or re.match(r"^[\w.]+\(.*", lines[0])):
        rest = re.match(r"^[\w.]+\([^)]*\)\s*(?:->\s*[^.]*?)?\s+--\s+(.*)", lines[0])
        lines = [rest.group(1), *lines[1:]] if rest else lines[1:]
        if rest:
            break
    return "\n".join(lines) or None


def topics() -> dict[str, str]:
    """The interpreter's documentation topics (``help()`` prints them), or nothing where they were not installed."""
    try:
        topics: dict[str, str] = importlib.import_module("pydoc_data.topics").topics
    except ImportError:
        return {}
    return dict(sorted(topics.items()))


def is_general(topic: str) -> bool:
    """Whether a topic belongs to the half that is kept for measuring forgetting, and is never trained on."""
    return hashlib.sha256(topic.encode()).digest()[0] % 2 == 0
