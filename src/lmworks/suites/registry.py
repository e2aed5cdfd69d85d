"""The suites by name: one YAML file each in published/, and files of the user in the same form."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib.resources import files as resources
from pathlib import Path

from lmworks.base.errors import InputError
from lmworks.base.files import expand_home
from lmworks.base.notation import read_yaml
from lmworks.base.settings import build, nearest
from lmworks.suites.benchmark import Benchmark, Suite

ENDINGS = (".yaml", ".yml")


@dataclass(frozen=True)
class Chosen:
    """A benchmark that is to be run.

    Attributes:
        name: its own.
        suite: the suite by which it was chosen.
        benchmark: itself.
    """

    name: str
    suite: str
    benchmark: Benchmark


def _folder() -> Path:
    return Path(str(resources("lmworks.suites"))) / "published"


@cache
def suite_names() -> list[str]:
    """The names of the suites that come with lmworks."""
    return sorted(path.stem for path in _folder().glob("*.yaml"))


@cache
def read_suite(source: str) -> Suite:
    """A suite by its name, or from a file.

    Raises:
        InputError: there is no such suite, or its file cannot be used.
    """
    path = expand_home(source) if source.endswith(ENDINGS) else _folder() / f"{source}.yaml"
    values = read_yaml(path)
    benchmarks = values.get("benchmarks") or {}
    if not isinstance(benchmarks, dict) or not all(isinstance(entry, dict) for entry in benchmarks.values()):
        raise InputError("benchmarks are no mapping of a name to settings", str(path), "see docs/evaluating.md")
    own = {str(name): build(Benchmark, entry, f"{path}, {name}") for name, entry in benchmarks.items()}
    return build(Suite, {**values, "benchmarks": own}, str(path))


def choose(words: str) -> list[Chosen]:
    """The benchmarks that are meant, each once.

    Args:
        words: names of suites or benchmarks, or files of suites, with commas between them.

    Raises:
        InputError: there is no such suite or benchmark.
    """
    chosen: dict[str, Chosen] = {}
    for word in filter(None, (word.strip() for word in words.split(","))):
        for entry in _choose(word):
            chosen.setdefault(entry.name, entry)
    if not chosen:
        raise InputError("names no suite", "--suite", f"one of: {', '.join(suite_names())}")
    return list(chosen.values())


def _choose(word: str) -> list[Chosen]:
    if word in suite_names() or word.endswith(ENDINGS):
        suite = read_suite(word)
        own = [Chosen(name, word, benchmark) for name, benchmark in suite.benchmarks.items()]
        included = [_by_name(name, word) for name in suite.includes]
        return [*own, *included]
    return [_by_name(word, word)]


def _by_name(name: str, suite: str) -> Chosen:
    """A benchmark of a suite that comes with lmworks, chosen by another suite or by its own name."""
    known: list[str] = []
    for other in suite_names():
        benchmarks = read_suite(other).benchmarks
        if name in benchmarks:
            return Chosen(name, suite, benchmarks[name])
        known += benchmarks
    near = nearest(name, [*suite_names(), *known])
    hint = f"did you mean {near[0]}? " if near else ""
    hint += "lmworks evaluate --list shows all; or give a file: --suite my.yaml"
    raise InputError(f"there is no suite or benchmark {name!r}", "--suite", hint)
