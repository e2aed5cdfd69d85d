"""The requests of the tab Chat."""

from __future__ import annotations

from starlette.routing import Route

from lmworks.studio.folders import Folders


def routes(folders: Folders) -> list[Route]:
    """The routes under /studio/api/chat.

    Args:
        folders: what may be read and written.
    """
    return []
