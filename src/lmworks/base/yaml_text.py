"""The YAML of notation.py by PyYAML: read with line numbers, written for people.

PyYAML reads YAML 1.1; here plain values are those of 1.2 (plain_values). A key given twice is an error.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import yaml

from lmworks.base.errors import InputError
from lmworks.base.plain_values import PATTERNS, value_of

WIDTH = 110  # of lines that are written
MOST_DEPTH, MOST_NODES = 50, 100_000  # of what is read


def _constructor(kind: str) -> Callable[[yaml.SafeLoader, yaml.ScalarNode], Any]:
    return lambda loader, node: value_of(kind, str(loader.construct_scalar(node)))


class _Loader(yaml.SafeLoader):
    """SafeLoader with YAML 1.2's plain scalars; duplicate keys are errors."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        counts: dict[Any, int] = {}
        for key_node, _ in node.value:
            key = key_node.value if isinstance(key_node, yaml.ScalarNode) else None
            if key is not None and key in counts and key != "<<":
                mark = key_node.start_mark
                raise yaml.constructor.ConstructorError(
                    None, None, f"{key!r} stands here again; first on line {counts[key]}", mark
                )
            counts[key] = key_node.start_mark.line + 1
        return super().construct_mapping(node, deep=deep)


class _Dumper(yaml.SafeDumper):
    """SafeDumper that also quotes words which either version of YAML would read as something else."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


_Loader.yaml_implicit_resolvers = {"<": [("tag:yaml.org,2002:merge", re.compile(r"^(?:<<)$"))]}
for _kind, _pattern in PATTERNS.items():
    _tag = f"tag:yaml.org,2002:{_kind}"
    _Loader.add_implicit_resolver(_tag, _pattern, None)
    _Loader.add_constructor(_tag, _constructor(_kind))
    _Dumper.add_implicit_resolver(_tag, _pattern, None)


def _represent_text(dumper: _Dumper, text: str) -> yaml.Node:
    """Texts of several lines stand as a block, so that a prompt can be read in the recipe; odd signs are escaped."""
    style = None
    if re.search("[\r\x85\u2028\u2029\ufeff]", text):
        style = '"'
    elif "\n" in text and not re.search(r"[ \t]\n|\t", text) and text[:1] not in (" ", "\n"):
        style = "|"
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _represent_text)


def read_yaml(path: str | Path) -> dict[str, Any]:
    """Reads a YAML file whose top is a mapping. An empty file is an empty mapping.

    Raises:
        InputError: naming ``file:line``, when the file is missing, not UTF-8, not YAML or not a mapping.
    """
    node, values = _parse(path)
    if values is None:
        return {}
    if not isinstance(values, dict):
        line = node.start_mark.line + 1 if node is not None else 1
        raise InputError(
            f"a {type(values).__name__} stands here, not settings", f"{path}:{line}", "write one `name: value` a line"
        )
    return values


def _parse(path: str | Path) -> tuple[yaml.Node | None, Any]:
    """The node tree (it knows the lines) and the values of a YAML file."""
    path = Path(path)
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = path.read_bytes()[: error.start].count(b"\n") + 1
        raise InputError(
            f"byte {error.object[error.start]:#04x} is not UTF-8", f"{path}:{line}", "save the file as UTF-8"
        ) from None
    except OSError as error:
        raise InputError(
            f"cannot be read: {error.strerror}", str(path), "give the path of a YAML file that can be read"
        ) from None
    try:
        return _nodes_and_values(text)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f"{path}:{mark.line + 1}:{mark.column + 1}" if mark else str(path)
        fault = " ".join(part for part in (error.context, error.problem) if part)
        raise InputError(f"not YAML: {fault}", place, "correct the line, or quote the text that stands on it") from None
    except yaml.YAMLError as error:
        raise InputError(f"not YAML: {error}", str(path), "correct the file") from None


def _nodes_and_values(text: str) -> tuple[yaml.Node | None, Any]:
    """The node tree of a YAML text (it knows the lines), and its values.

    Raises:
        YAMLError: it is no YAML, or larger or deeper than settings are.
    """
    loader = None
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        if node is None:
            return None, None
        _check_size(node)
        return node, loader.construct_document(node)
    except RecursionError:
        raise yaml.YAMLError(f"lists and mappings stand more than {MOST_DEPTH} deep in each other") from None
    except yaml.reader.ReaderError as error:
        raise yaml.YAMLError(
            f"character {error.position + 1} is U+{error.character:04X}, which YAML does not allow"
        ) from None
    except ValueError as error:  # a number of thousands of digits
        raise yaml.YAMLError(str(error)) from None
    finally:
        if loader is not None:
            loader.dispose()


def _check_size(root: yaml.Node) -> None:
    """Refuse a tree that is too deep, or that aliases (``*name``) make too large: counted as often as they are used.

    Raises:
        ConstructorError: at the node that is too many.
    """
    open_nodes, count = [(root, 1)], 0
    while open_nodes:
        node, depth = open_nodes.pop()
        count += 1
        if depth > MOST_DEPTH:
            fault = f"lists and mappings stand more than {MOST_DEPTH} deep in each other"
            raise yaml.constructor.ConstructorError(None, None, fault, node.start_mark)
        if count > MOST_NODES:
            fault = f"aliases (*name) make more than {MOST_NODES:,} values of it"
            raise yaml.constructor.ConstructorError(None, None, fault, node.start_mark)
        if isinstance(node, yaml.MappingNode):
            open_nodes += [(part, depth + 1) for pair in node.value for part in pair]
        elif isinstance(node, yaml.SequenceNode):
            open_nodes += [(part, depth + 1) for part in node.value]


def flow_value(text: str) -> Any:
    """The value of ``[...]``, ``{...: ...}`` or a quoted text; what is none of these is the text itself."""
    try:
        node, value = _nodes_and_values(text)
    except yaml.YAMLError:
        return text
    if isinstance(node, yaml.MappingNode) and (
        not node.flow_style or any(value.value == "" and not value.style for _, value in node.value)
    ):
        return text  # `{question}` is a template, not a mapping
    return value


def line_numbers(origin: str | Path) -> dict[str, int]:
    """Line numbers of the keys of a YAML file, by dotted name; empty where the origin is no such file."""
    try:
        if not origin or not Path(origin).is_file():
            return {}
        node, _ = _parse(origin)
    except (InputError, OSError):
        return {}
    lines: dict[str, int] = {}

    def walk(node: yaml.Node | None, prefix: str) -> None:
        if isinstance(node, yaml.MappingNode):
            for key, value in node.value:
                name = f"{prefix}.{key.value}" if prefix else str(key.value)
                lines[name] = key.start_mark.line + 1
                walk(value, name)
        elif isinstance(node, yaml.SequenceNode):
            for index, value in enumerate(node.value):
                lines[f"{prefix}[{index}]"] = value.start_mark.line + 1
                walk(value, f"{prefix}[{index}]")

    walk(node, "")
    return lines


def write_yaml(values: Any, flow: bool = False, comments: Mapping[str, str] | None = None) -> str:
    """YAML text of plain values, in their order.

    Args:
        values: what JSON has.
        flow: put all of it on one line.
        comments: texts that stand above keys, by dotted name.
    """
    width = 10_000 if flow else WIDTH
    text = yaml.dump(values, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=width, default_flow_style=flow)
    if flow:
        return text.removesuffix("\n").removesuffix("\n...")
    return _commented(text, comments) if comments else text


def _commented(text: str, comments: Mapping[str, str]) -> str:
    """YAML with comments above its keys, wrapped and indented as these are."""
    loader = _Loader(text)
    try:
        marks = _key_marks(loader.get_single_node())
    finally:
        loader.dispose()
    parts, begin_of_part = [], 0
    for name, mark in marks.items():  # in their order in the text
        if name in comments:
            start = mark.index - mark.column
            indent = " " * mark.column + "# "
            wrapped = textwrap.wrap(comments[name], WIDTH, initial_indent=indent, subsequent_indent=indent)
            parts += [text[begin_of_part:start], *(line + "\n" for line in wrapped)]
            begin_of_part = start
    return "".join([*parts, text[begin_of_part:]])


def _key_marks(node: yaml.Node | None, prefix: str = "") -> dict[str, yaml.Mark]:
    """Where each key of nested mappings stands, by dotted name."""
    marks: dict[str, yaml.Mark] = {}
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            marks[prefix + str(key.value)] = key.start_mark
            marks |= _key_marks(value, f"{prefix}{key.value}.")
    return marks
