"""The application of a studio: the server's own, with the page, its files and the requests of its tabs."""

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
from lmworks.studio import data, models, rate, runs, start
from lmworks.studio.access import PAGE, StudioAccess
from lmworks.studio.folders import Folders
from lmworks.studio.models import Models, OpenModel

TABS: tuple[Callable[[Folders], list[Route]], ...] = (
    models.routes,
    data.routes,
    start.routes,
    runs.routes,
    rate.routes,
)
"""The requests of the tabs, under /studio/api/NAME; their part of the page is page/NAME.js. Chat asks the server's own
API, and for models, as others do."""
KINDS = {".html": "text/html", ".css": "text/css", ".js": "text/javascript"}


def make_studio(service: Service, folders: Folders, open_model: OpenModel, token: str, port: int) -> Starlette:
    """The application of a studio.

    Args:
        service: the server's state; models are added to it when somebody asks for them.
        folders: what may be read and written.
        open_model: opens a model for generation.
        token: whoever has it may do everything that the page does.
        port: at which it is served.
    """
    app = make_app(service, ApiKeys())
    app.router.routes += [Route("/", _to_page), Route(PAGE, _page), Route(f"{PAGE}/page/{{name}}", _file)]
    for routes in TABS:
        app.router.routes += routes(folders)
    app.state.models = Models(service, folders, open_model)
    app.add_middleware(StudioAccess, token=token, port=port)
    return app


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
    folder = resources.files("lmworks.studio").joinpath("page")
    if name not in {file.name for file in folder.iterdir()}:
        raise ApiError(404, f"the page has no file {name[:80]!r}", code="no_such_path")
    kind = KINDS[f".{name.rpartition('.')[2]}"]
    return Response(folder.joinpath(name).read_bytes(), media_type=kind)
