"""YAML as settings are written in it: the core schema of YAML 1.2 (plain_values), in files and on a command line.

PyYAML is imported where a text needs it (yaml_text): a command with plain values starts sooner. Knows nothing of
settings or their names.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lmworks.base.plain_values import kind_of, value_of


def parse_value(text: str) -> Any:
    """One value as typed on a command line.

    Plain numbers, ``true``, ``false`` and ``null`` are what YAML says; ``[...]``, ``{...: ...}`` and quoted texts are
    YAML too; all else is the text itself, unchanged, so that a prompt such as ``Question: {question}`` or ``### Input``
    needs no quotes except the shell's.
    """
    if text.startswith(("[", "{", '"', "'")):
        from lmworks.base.yaml_text import flow_value

        return flow_value(text)
    kind = kind_of(text)
    if text == "" or kind is None:
        return text
    try:
        return value_of(kind, text.strip())
    except ValueError:
        return text


def read_yaml(path: str | Path) -> dict[str, Any]:
    """Reads a YAML file whose top is a mapping. An empty file is an empty mapping.

    Raises:
        InputError: naming ``file:line``, when the file is missing, not UTF-8, not YAML or not a mapping.
    """
    from lmworks.base import yaml_text

    return yaml_text.read_yaml(path)


def line_numbers(origin: str | Path) -> dict[str, int]:
    """Line numbers of the keys of a YAML file, by dotted name; empty where the origin is no such file."""
    from lmworks.base import yaml_text

    return yaml_text.line_numbers(origin)


def write_yaml(values: Any, flow: bool = False, comments: Mapping[str, str] | None = None) -> str:
    """YAML text of plain values, in their order.

    Args:
        values: what JSON has.
        flow: put all of it on one line.
        comments: texts that stand above keys, by dotted name.
    """
    from lmworks.base import yaml_text

    return yaml_text.write_yaml(values, flow, comments)
