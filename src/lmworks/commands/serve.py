"""lmworks serve: models behind OpenAI's API."""

from __future__ import annotations

import argparse
import importlib.util
import sys
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING

from lmworks.base.errors import InputError
from lmworks.base.figures import count_of, list_names
from lmworks.base.settings import build, parse_overrides
from lmworks.commands.generate import WIDTH, option_lines
from lmworks.commands.opening import add_backend, add_kv_cache, open_writer

if TYPE_CHECKING:
    from lmworks.serve.served_model import Servable, ServedModel

ABOUT = """Serve models behind OpenAI's API, to this machine alone unless --host says otherwise: chat, responses,
completions, embeddings, labels, streamed or whole. A model that a run trained is asked in the words of that run."""
PACKAGES = ("prometheus_client", "starlette", "uvicorn")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """MODEL ..."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.description = textwrap.fill(" ".join(ABOUT.split()), WIDTH)
    parser.add_argument(
        "model",
        nargs="+",
        help="a folder, GGUF file, run, alias, hub:owner/name or pypi:distribution; NAME=MODEL: clients call it NAME",
    )
    add_backend(parser)
    add_kv_cache(parser)


def epilog() -> str:
    """The settings, for the help."""
    from lmworks.serve.settings import ServeSettings

    return "the server:\n" + "\n".join(option_lines(ServeSettings))


def run(args: argparse.Namespace, rest: list[str]) -> int:
    """Open the models and serve them until SIGTERM or Ctrl-C."""
    from lmworks.serve.settings import ServeSettings

    settings = build(ServeSettings, parse_overrides(rest), "the command line")
    check_packages("lmworks serve")
    from lmworks.serve import server
    from lmworks.serve.access import check_address, check_origins, read_keys
    from lmworks.serve.app import make_app, make_service

    keys, notes = read_keys(settings.api_key_file)
    for note in notes:
        print(f"note: {note}", file=sys.stderr)
    check_address(settings.host, keys)
    check_origins(settings.cors_origins, keys)
    certificate = server.certificate_files(settings)
    with server.bind(settings.host, settings.port) as listener:  # before the models are opened, which takes longer
        service = make_service(open_served(named_sources(args.model), args), settings)
        for note in service.notes:
            print(f"note: {note}", file=sys.stderr)
        for served in service.models.values():
            print(_described(served))
        url = server.url_of(listener, "https" if certificate else "http")
        listener.listen(server.BACKLOG)  # so that whoever reads the next line can connect
        print(f"serving at {url}/v1 (Ctrl-C stops)", flush=True)
        server.run(server.make_server(make_app(service, keys), settings.stop_limit, certificate), listener)
    return 0


def check_packages(command: str) -> None:
    """Refuse to serve where packages are missing.

    Raises:
        InputError: some are.
    """
    if missing := [name for name in PACKAGES if importlib.util.find_spec(name) is None]:
        raise InputError(f"{list_names(missing)} not installed", command, "pip install 'lmworks[serve]'")


def open_served(sources: dict[str, str], args: argparse.Namespace) -> dict[str, Servable]:
    """The models of sources, opened for what they do; which backend computes networks is in the arguments."""
    from lmworks.run.load import classifier_folder, load

    options = {"base": None, "backend": args.backend, "kv_cache": args.kv_cache}
    models: dict[str, Servable] = {}
    for name, source in sources.items():
        counts_words = classifier_folder(source) is not None
        models[name] = load(source) if counts_words else open_writer(argparse.Namespace(model=source, **options))
    return models


def named_sources(words: list[str]) -> dict[str, str]:
    """The sources of models by the names that clients use: MODEL, or NAME=MODEL.

    Raises:
        InputError: two have one name.
    """
    from lmworks.serve.served_model import name_of

    sources: dict[str, str] = {}
    for word in words:
        name, equals, source = word.partition("=")
        if not equals or word.startswith(("hub:", "pypi:")) or Path(word).exists():
            name, source = name_of(word), word
        if name in sources:
            hint = f"give one of them another name: other={source}"
            raise InputError(f"{sources[name]} and {source} would both be called {name!r}", "MODEL", hint)
        sources[name] = source
    return sources


def _described(served: ServedModel) -> str:
    """A line about a model: its name, and what it does."""
    if served.parent is not None:
        return f"{served.name}: an adapter of {served.parent}"
    does = []
    if served.scheduler is not None:
        many = count_of(served.scheduler.backend.most, "answer")
        context = "" if served.context is None else f", a context of {count_of(served.context, 'token')}"
        does.append(f"writes {many} at a time{context}")
    if served.embeddings is not None:
        does.append("gives vectors of texts")
    if served.labels is not None:
        kind = f"labels texts ({list_names(served.labels.labels, 6)})" if served.labels.labels else "gives texts values"
        does.append(kind)
    return f"{served.name}: {' and '.join(does)}"
