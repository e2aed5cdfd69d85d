"""Typed settings: one schema for YAML recipes, command-line overrides, help texts and JSON Schema.

A group of settings is a pydantic model; groups nest, and a dotted name (``train.learning_rate``) is the path to
one setting. Values come from a YAML file and from options; what is wrong with them becomes one InputError that
lists every fault and names the nearest known setting. Knows no setting by name.
"""

from __future__ import annotations

import difflib
import types
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, NamedTuple, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError
from pydantic.fields import FieldInfo

from lmworks.base.errors import InputError
from lmworks.base.figures import DURATION_FORMS, parse_duration
from lmworks.base.notation import line_numbers, parse_value, write_yaml

_PARSED = BeforeValidator(lambda value: parse_duration(value) if isinstance(value, str) else value)
Duration = Annotated[float, _PARSED]
"""Seconds, which a person may write as 90s, 10m or 1h."""


class Settings(BaseModel):
    """A group of settings. Unknown keys are errors; values are checked when set; numbers are finite.

    Attributes:
        hints: what to write instead of names that are no settings here, but are often taken for some.
    """

    hints: ClassVar[dict[str, str]] = {}

    model_config = ConfigDict(
        extra="forbid",
        validate_assignment=True,
        protected_namespaces=(),
        coerce_numbers_to_str=True,
        allow_inf_nan=False,
    )


S = TypeVar("S", bound=BaseModel)


def parse_overrides(words: list[str]) -> dict[str, Any]:
    """Options such as ``--train.epochs 3 --train.schedule=cosine --recompute`` as nested values.

    An option that no value follows is True. A value that begins with ``--`` needs the ``=`` form.

    Raises:
        InputError: a word that is no option and follows none, a name that is empty, or one that is both a setting
            and a group.
    """
    values: dict[str, Any] = {}
    position = 0
    while position < len(words):
        word = words[position]
        position += 1
        if not word.startswith("--"):
            raise InputError("belongs to no option", repr(word), "write --name value, and quote texts with spaces")
        name, equals, text = word[2:].partition("=")
        if equals:
            value = parse_value(text)
        elif position < len(words) and not words[position].startswith("--"):
            value = parse_value(words[position])
            position += 1
        else:
            value = True
        _place(values, name.replace("-", "_"), value)
    return values


def _place(values: dict[str, Any], name: str, value: Any) -> None:
    """Sets values[a][b] for the name ``a.b``."""
    parts = name.split(".")
    if not all(parts):
        raise InputError(
            "is no name of a setting", f"--{name}", "write --group.name value, for example --train.epochs 3"
        )
    for depth, part in enumerate(parts[:-1]):
        values = values.setdefault(part, {})
        if not isinstance(values, dict):
            group = ".".join(parts[: depth + 1])
            raise InputError(
                f"{group} has a value already and cannot hold {parts[-1]}", f"--{name}", f"leave out --{group}"
            )
    if isinstance(value, dict) and isinstance(values.get(parts[-1]), dict):
        value = merge(values[parts[-1]], value)
    elif isinstance(values.get(parts[-1]), dict):
        raise InputError("is a group of settings and has been used as one", f"--{name}", f"leave out --{name}")
    values[parts[-1]] = value


def merge(first: dict[str, Any], second: dict[str, Any]) -> dict[str, Any]:
    """Both, nested; where both have a value, the second's. Neither is changed."""
    result = dict(first)
    for key, value in second.items():
        old = result.get(key)
        result[key] = merge(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return result


def to_yaml(instance: BaseModel | dict) -> str:
    """YAML in the order of the fields; read_yaml and build give the same settings back.

    Each setting's description stands above it as a comment; of a group without one, the first line of its docstring.
    """
    if not isinstance(instance, BaseModel):
        return write_yaml(instance)
    return write_yaml(instance.model_dump(mode="json", serialize_as_any=True), comments=_comments(instance))


def _comments(instance: BaseModel, prefix: str = "") -> dict[str, str]:
    """The description of each setting and group of an instance, by dotted name."""
    comments: dict[str, str] = {}
    for name, field in type(instance).model_fields.items():
        value = getattr(instance, name)
        is_group = isinstance(value, BaseModel)
        docstring = (type(value).__doc__ or "").strip() if is_group else ""
        text = field.description or docstring.partition("\n")[0]
        if text:
            comments[prefix + name] = text
        if is_group:
            comments |= _comments(value, f"{prefix}{name}.")
    return comments


class SettingRow(NamedTuple):
    """One setting, for help texts. ``default`` is as it would be written in YAML; None where it must be given."""

    name: str
    kind: str
    default: str | None
    help: str


def describe(cls: type[BaseModel]) -> list[SettingRow]:
    """Every setting of a schema, in order, groups opened."""
    return list(_rows(cls, ""))


def groups(cls: type[BaseModel]) -> list[str]:
    """The dotted names of the groups of a schema, outer ones first."""
    names = []
    for name, field in cls.model_fields.items():
        inner = _group(field.annotation)
        if inner is not None:
            names += [name, *(f"{name}.{below}" for below in groups(inner))]
    return names


def _rows(cls: type[BaseModel], prefix: str) -> Any:
    for name, field in cls.model_fields.items():
        inner = _group(field.annotation)
        plain = [choice for choice in _choices(field.annotation) if choice not in (inner, type(None))]
        if inner is None or plain:  # a setting may be a group or a plain value: ``model: NAME`` or ``model: {...}``
            kind = " or ".join(map(_kind, plain)) if inner else _kind(field.annotation)
            if _PARSED in field.metadata:  # seconds are what it holds, and not what a person writes
                kind = f"time: {DURATION_FORMS}"
            yield SettingRow(prefix + name, kind, _default(field), field.description or "")
        if inner is not None:
            yield from _rows(inner, f"{prefix}{name}.")


def _group(annotation: Any) -> type[BaseModel] | None:
    """The only settings class in an annotation, alone or in a union with plain types; None for anything else."""
    classes = [c for c in _choices(annotation) if isinstance(c, type) and issubclass(c, BaseModel)]
    return classes[0] if len(classes) == 1 else None


def _choices(annotation: Any) -> tuple[Any, ...]:
    choices = get_args(annotation) if get_origin(annotation) in (Union, types.UnionType) else (annotation,)
    return tuple(get_args(choice)[0] if get_origin(choice) is Annotated else choice for choice in choices)


def _kind(annotation: Any) -> str:
    """A type as people say it: ``a | b | c`` for words, ``int or null``, ``list of str``."""
    choices = _choices(annotation)
    if len(choices) > 1:
        return " or ".join(_kind(choice) for choice in choices)
    if annotation is type(None):
        return "null"
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return " | ".join(str(word) for word in arguments)
    if origin in (list, tuple, set, frozenset) and arguments:
        return f"list of {_kind(arguments[0])}"
    if origin is dict and arguments:
        return f"mapping of {_kind(arguments[1])}"
    return getattr(annotation, "__name__", str(annotation))


def _default(field: FieldInfo) -> str | None:
    if field.is_required():
        return None
    value = field.get_default(call_default_factory=True, validated_data={})
    if value is None:
        return "null"
    if isinstance(value, BaseModel):
        value = value.model_dump(mode="json")
    if isinstance(value, tuple | set | frozenset):
        value = list(value)
    return write_yaml(value, flow=True)


def spelled(name: str, known: Iterable[str]) -> str:
    """The known name that differs from this one at most in hyphens and underscores; without one, the name itself."""
    plain = name.replace("-", "_")
    return next((other for other in known if other.replace("-", "_") == plain), name)


def nearest(name: str, known: list[str], most: int = 1) -> list[str]:
    """The known dotted names that a mistyped one probably means, best first; empty when none is near.

    The last part counts by itself, so that ``learning_rate`` finds ``train.learning_rate``; the whole counts where
    the last parts begin alike, so that ``lora.r`` finds ``lora.rank``.
    """
    name = name.lower()
    own = name.split(".")[-1]

    def closeness(other: str) -> float:
        last = other.lower().split(".")[-1]
        whole = difflib.SequenceMatcher(None, name, other.lower()).ratio()
        part = difflib.SequenceMatcher(None, own, last).ratio()
        return max(part, whole if last[:1] == own[:1] else 0.0) + whole / 1000

    ranked = sorted(((closeness(other), other) for other in known), key=lambda pair: (-pair[0], pair[1]))
    return [other for score, other in ranked[:most] if score >= 0.6]


class Overrides(NamedTuple):
    """Values that took precedence over those of a file: nested plain values, and where they come from, for errors."""

    values: dict[str, Any]
    origin: str


def build(cls: type[S], values: dict[str, Any], origin: str | Path = "", overrides: Overrides | None = None) -> S:
    """Checked settings from plain values.

    Args:
        cls: the schema.
        values: nested plain values, as from read_yaml, parse_overrides or both merged.
        origin: where they come from, for the error: a file, or words such as "the command line". Where it is a YAML
            file, the error names the line of each fault too.
        overrides: those of the values that come from somewhere else.

    Raises:
        InputError: with every fault in it: the dotted name, what is wrong, and the nearest known name.
    """
    try:
        return cls.model_validate(values)
    except ValidationError as error:
        faults = [_fault(cls, dict(details)) for details in error.errors()]
    lines = line_numbers(origin)
    for fault in faults:
        fault.origin = _origin(fault.name, str(origin), overrides or Overrides({}, ""))
        line = lines.get(fault.name) or lines.get(fault.name.rpartition(".")[0])  # of what is missing: its group's
        fault.line = line if fault.origin == str(origin) else None
    if len(faults) == 1:
        only = faults[0]
        place = f"{only.origin}:{only.line}" if only.line else only.origin
        raise InputError(f"{only.name}: {only.text}" if only.name else only.text, place, only.hint)
    origins = list(dict.fromkeys(fault.origin for fault in faults))
    text = "".join(
        f"\n  {fault.name or 'settings'}{fault.remark(len(origins) > 1)}: {fault.text}; {fault.hint}"
        for fault in faults
    )
    raise InputError(f"{len(faults)} settings cannot be used:{text}", "; ".join(origins), "correct each of these")


def _origin(name: str, origin: str, overrides: Overrides) -> str:
    """Where the value of a dotted name comes from; both, of a group of which the overrides have a part."""
    value: Any = overrides.values
    for part in name.split("[")[0].split("."):
        if not isinstance(value, dict) or part not in value:
            return origin
        value = value[part]
    return f"{origin} with {overrides.origin}" if isinstance(value, dict) else overrides.origin


class _Fault:
    """One thing that is wrong: the dotted name, what, the hint, and the origin and the line in it where it is known."""

    def __init__(self, name: str, text: str, hint: str) -> None:
        self.name, self.text, self.hint = name, text, hint
        self.origin = ""
        self.line: int | None = None

    def remark(self, names_origin: bool) -> str:
        """Line and origin in parentheses; empty where there is nothing to say."""
        parts = [f"line {self.line}"] if self.line else []
        parts += [self.origin] if names_origin else []
        return f" ({' of '.join(parts)})" if parts else ""


def _fault(cls: type[BaseModel], error: dict[str, Any]) -> _Fault:
    """One of pydantic's errors as a fault: the setting's name, what is wrong with its value, and a hint."""
    if (entry := _entry(cls, error["loc"])) is not None:
        place, kind, within = entry
        fault = _fault(kind, {**error, "loc": within})
        fault.name = f"{place}.{fault.name}" if fault.name else place
        return fault
    name = _dotted(cls, error["loc"], unknown=error["type"] == "extra_forbidden")
    if error["type"] == "extra_forbidden":
        rows = [row.name for row in describe(cls)]
        near = nearest(name, rows + groups(cls), most=1)
        if (known := _known_hint(cls, name)) is not None:
            return _Fault(name, "is no known setting", known)
        hint = f"did you mean {near[0]}?" if near else f"leave it out; known here: {', '.join(_siblings(cls, name))}"
        return _Fault(name, "is no known setting", hint)
    text = error["msg"].removeprefix("Value error, ")
    if error["type"] == "missing":
        text = "is missing"
    elif error["type"] == "model_type":
        text = f"is a group of settings, and not {_short(error['input'])}"
    elif error["type"] != "value_error":
        text = f"{text[:1].lower()}{text[1:]}, not {_short(error['input'])}"
    row = next((row for row in describe(cls) if row.name == name.split("[")[0]), None)
    if row is None:
        needed = [row.name for row in describe(cls) if row.default is None and row.name.startswith(f"{name}.")]
        hints = {
            "value_error": "give values that go together",
            "model_type": f"write its settings one by one: {', '.join(_siblings(cls, f'{name}.')[:3])} ...",
            "missing": f"write its settings: {', '.join(needed or _siblings(cls, f'{name}.')[:3])} ...",
        }
        return _Fault(name, text, hints.get(error["type"], "correct the value"))
    default = "" if row.default is None else f", by default {row.default}"
    return _Fault(name, text, f"give {row.name} a value ({row.kind}{default})" + (f": {row.help}" if row.help else ""))


def _entry(
    cls: type[BaseModel], loc: tuple[int | str, ...]
) -> tuple[str, type[BaseModel], tuple[int | str, ...]] | None:
    """Of an error within an entry of a list of settings: the entry's dotted name, its schema, and the place in it."""
    here = cls
    for depth, part in enumerate(loc):
        field = here.model_fields.get(part) if isinstance(part, str) else None
        if field is None:  # the name of a union's member
            continue
        kinds = [get_args(choice) for choice in _choices(field.annotation) if get_origin(choice) is list]
        kind = _group(kinds[0][0]) if kinds and kinds[0] else None
        rest = loc[depth + 1 :]
        if kind is not None and len(rest) > 1 and isinstance(rest[0], int):
            return _dotted(cls, loc[: depth + 2], unknown=False), kind, rest[1:]
        here = _group(field.annotation) or here
    return None


def _dotted(cls: type[BaseModel], loc: tuple[int | str, ...], unknown: bool) -> str:
    """The place of a pydantic error as a dotted name. Names of union members, which pydantic adds, are left out.

    Args:
        cls: the schema.
        loc: the place, as pydantic gives it.
        unknown: whether its last part is a name that the schema does not have.
    """
    name, here = "", cls
    inside = True
    for depth, part in enumerate(loc):
        last = unknown and depth == len(loc) - 1
        if isinstance(part, int):
            name += f"[{part}]"
        elif inside and (part in here.model_fields or last):
            name += f".{part}" if name else part
            field = here.model_fields.get(part)
            inner = _group(field.annotation) if field else None
            inside = inner is not None
            here = inner or here
    return name


def _known_hint(cls: type[BaseModel], name: str) -> str | None:
    """The hint for an unknown name in the ``hints`` of its group; None if there is none."""
    group: type[BaseModel] | None = cls
    *path, last = name.split(".")
    for part in path:
        field = group.model_fields.get(part) if group else None
        group = _group(field.annotation) if field else None
    return getattr(group, "hints", {}).get(last)


def _siblings(cls: type[BaseModel], name: str) -> list[str]:
    """The names of the settings and groups beside an unknown name."""
    group, _, _ = name.rpartition(".")
    prefix = f"{group}." if group else ""
    names = [row.name for row in describe(cls)] + groups(cls)
    here = dict.fromkeys(prefix + other[len(prefix) :].split(".")[0] for other in names if other.startswith(prefix))
    return list(here) or names[:12]


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
