"""lmworks batch: a file of requests, answered without a server."""

from __future__ import annotations

import argparse
import sys
import textwrap
from pathlib import Path

from lmworks.base.errors import InputError
from lmworks.base.figures import count_of
from lmworks.base.settings import build, parse_overrides
from lmworks.commands.generate import WIDTH, option_lines
from lmworks.commands.opening import add_backend, add_kv_cache
from lmworks.commands.serve import check_packages, named_sources, open_served

ABOUT = """Answer a file of requests in the format of OpenAI's Batch API, a JSON object in each line, without a server.
Answers are written as they come. After a kill the same command goes on where it was."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """MODEL FILE --out FILE."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.description = textwrap.fill(" ".join(ABOUT.split()), WIDTH)
    parser.add_argument(
        "model",
        help="a folder, GGUF file, run, alias, hub:owner/name or pypi:distribution; NAME=MODEL: requests call it NAME",
    )
    parser.add_argument("requests", metavar="FILE", help="JSON lines: custom_id, url, body")
    parser.add_argument("--out", metavar="FILE", required=True, help="where the answers go, a JSON object in each line")
    add_backend(parser)
    add_kv_cache(parser)


def epilog() -> str:
    """The settings, for the help."""
    from lmworks.serve.settings import BatchSettings

    return "how much is computed at a time, and by what:\n" + "\n".join(option_lines(BatchSettings))


def run(args: argparse.Namespace, rest: list[str]) -> int:
    """Answer what has no answer yet."""
    from lmworks.serve.settings import BatchSettings

    settings = build(BatchSettings, parse_overrides(rest), "the command line")
    check_packages("lmworks batch")
    from lmworks.serve.adapters import adapters_in
    from lmworks.serve.batch import answered_ids, batch_service, read_requests, run_batch
    from lmworks.train.progress import EvaluationProgress

    ((name, source),) = named_sources([args.model]).items()
    path, out = Path(args.requests), Path(args.out)
    if path.exists() and out.exists() and path.samefile(out):
        raise InputError("is the file of the requests", f"--out {out}", "choose another file")
    adapters = [] if settings.adapters is None else adapters_in(settings.adapters)
    requests = read_requests(path, [name, *adapters])
    answered = answered_ids(out, requests)
    left = [request for request in requests if request.custom_id not in answered]
    if answered:
        print(f"{len(answered):,} of {count_of(len(requests), 'request')} were answered before", file=sys.stderr)
    if not left:
        print(f"all answered: {out}")
        return 0
    service = batch_service(open_served({name: source}, args), settings)
    for note in service.notes:
        print(f"note: {note}", file=sys.stderr)
    with EvaluationProgress(path.name) as progress:
        progress.begin("requests", len(requests))
        progress.advance(len(answered))
        result = run_batch(service, left, out, progress.advance)
    errors = f", {result.failed:,} of them with an error" if result.failed else ""
    print(f"written: {out}: {count_of(result.answered, 'answer')}{errors}")
    return 0
