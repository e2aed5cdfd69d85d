"""lmworks resume: go on with a run of tune or pretrain, or a ladder, that was killed or stopped."""

from __future__ import annotations

import argparse
from pathlib import Path

from lmworks.commands import show
from lmworks.comparisons.ladder_settings import is_ladder


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The run's folder."""
    parser.description = "Go on with a run that was killed or stopped, as if it had never been."
    parser.add_argument("run", help="the run's folder")


def run(args: argparse.Namespace, rest: list[str]) -> int:
    """Resume, then show the card; of a ladder, its table."""
    if is_ladder(args.run):
        from lmworks.commands import ladder
        from lmworks.comparisons import ladder as ladders

        return ladder.finish(ladders.resume(args.run, show.line), Path(args.run))
    from lmworks.commands.tune import finish
    from lmworks.run import api

    return finish(api.resume(args.run, show.line))
