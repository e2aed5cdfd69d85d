"""lmworks studio: a page for people, served by the same server."""

from __future__ import annotations

import argparse
import textwrap
import webbrowser

from lmworks.base.settings import build, parse_overrides
from lmworks.commands.generate import WIDTH, option_lines
from lmworks.commands.opening import add_backend, add_kv_cache
from lmworks.commands.serve import check_packages, named_sources, open_served

ABOUT = """A page on this machine: chat with the models here, look at data as a model sees it, start runs and follow
them, compare runs, rate answers blind. It shows what is in its folder, and nothing outside. The address that is printed
has a token: whoever has it may do all this."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """MODEL ... and the folders."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.description = textwrap.fill(" ".join(ABOUT.split()), WIDTH)
    models = "models to open at the start, as for lmworks serve; those in the folder are opened when they are asked"
    parser.add_argument("model", nargs="*", help=models)
    folder = "what the page may read, and where runs and ratings go (default: the current one); may be given again"
    parser.add_argument("--folder", action="append", metavar="FOLDER", help=folder)
    parser.add_argument("--open", action="store_true", help="open the page in the browser")
    add_backend(parser)
    add_kv_cache(parser)


def epilog() -> str:
    """The settings, for the help."""
    from lmworks.studio.settings import StudioSettings

    return "the server:\n" + "\n".join(option_lines(StudioSettings))


def run(args: argparse.Namespace, rest: list[str]) -> int:
    """Serve the page until SIGTERM or Ctrl-C."""
    from lmworks.studio.settings import StudioSettings

    settings = build(StudioSettings, parse_overrides(rest), "the command line").serving
    check_packages("lmworks studio")
    from lmworks.serve import server
    from lmworks.serve.app import make_service
    from lmworks.studio.access import PAGE, new_token
    from lmworks.studio.app import make_studio
    from lmworks.studio.folders import Folders

    folders, token = Folders(args.folder or ["."]), new_token()
    with server.bind(settings.host, settings.port) as listener:  # before the models are opened, which takes longer
        service = make_service(open_served(named_sources(args.model), args), settings)
        port = listener.getsockname()[1]
        app = make_studio(service, folders, lambda source: open_served({"": source}, args)[""], token, port)
        address = f"{server.url_of(listener)}{PAGE}?token={token}"
        listener.listen(server.BACKLOG)  # so that whoever reads the next line can connect
        print(f"studio at {address} (Ctrl-C stops)", flush=True)
        if args.open:
            webbrowser.open(address)
        server.run(server.make_server(app, settings.stop_limit), listener)
    return 0
