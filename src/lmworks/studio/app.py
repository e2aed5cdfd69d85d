"""The application of a studio: the server's own, with the page, its files and the routes of its tabs."""

from __future__ import annotations

from collections.abc import Callable
from importlib import resources

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from lmworks.serve.access import ApiKeys
from lmworks.serve.api_errors import ApiError
from lmworks.serve.app import make_app
from lmworks.serve.service import Service
from lmworks.studio import chat, data, rate, runs, start
from lmworks.studio.access import PAGE, StudioAccess
from lmworks.studio.folders import Folders

TABS: tuple[Callable[[Folders], list[Route]], ...] = (
    chat.routes,
    data.routes,
    start.routes,
    runs.routes,
    rate.routes,
)
"""Each tab's own requests, under /studio/api/NAME; its part of the page is page/NAME.js."""
KINDS = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}


def make_studio(service: Service, folders: Folders, token: str, port: int) -> Starlette:
    """The application of a studio.

    Args:
        service: the server's state; models may be added to it while it runs.
        folders: what people may see and use.
        token: whoever has it may do everything.
        port: at which it is served.
    """
    app = make_app(service, ApiKeys())
    app.router.routes += [Route("/", _to_page), Route(PAGE, _page), Route(f"{PAGE}/page/{{name}}", _file)]
    for routes in TABS:
        app.router.routes += routes(folders)
    app.state.folders = folders
    app.add_middleware(StudioAccess, token=token, port=port)
    return app


def folders_of(request: Request) -> Folders:
    """The folders of a studio."""
    folders: Folders = request.app.state.folders
    return folders


async def _to_page(request: Request) -> Response:
    return RedirectResponse(PAGE)


async def _page(request: Request) -> Response:
    return _content("index.html")


async def _file(request: Request) -> Response:
    return _content(request.path_params["name"])


def _content(name: str) -> Response:
    """A file of the page.

    Raises:
        ApiError: there is no such file.
    """
    suffix = f".{name.rpartition('.')[2]}"
    file = resources.files("lmworks.studio").joinpath("page", name)
    if suffix not in KINDS or "/" in name or "\\" in name or not file.is_file():
        raise ApiError(404, f"the page has no file {name[:80]!r}", code="no_such_path")
    return Response(file.read_bytes(), media_type=KINDS[suffix])
