"""Who may use a studio: whoever has its token, from its own page. Pages of other sites are refused.

The token is in the address that is printed at the start. The page's first request carries it there and gets a cookie
with it; from then on the cookie counts. A browser sends the cookie with requests that pages of other sites make, too
(those on another port of this machine are the same site), and a site may let its name point to this machine (DNS
rebinding): hence the checks of the headers Host, Origin and Sec-Fetch-Site.
"""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Mapping
from http.cookies import CookieError, SimpleCookie
from urllib.parse import parse_qs

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import HTMLResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from lmworks.serve.access import host_name, is_loopback
from lmworks.serve.api_errors import ApiError
from lmworks.serve.guard import error_response

PAGE = "/studio"
OPEN_PATHS = {"/health", "/ready"}
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "frame-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'"
)
"""What the studio's own page may do: nothing that is not a file of it, and no script out of a text."""
FRAME_POLICY = (
    "sandbox allow-scripts; default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'self'"
)
"""What a report may do in its frame: run its own script, and reach nothing: neither the studio nor the network."""
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}


def new_token() -> str:
    """A token that cannot be guessed."""
    return secrets.token_urlsafe(24)


def cookie_name(port: int) -> str:
    """The name of the cookie; cookies of one machine are not kept apart by port, their names are."""
    return f"lmworks-studio-{port}"


class StudioAccess:
    """ASGI middleware: lets requests with the token through, and adds HEADERS to each response.

    Args:
        app: answers.
        token: of this studio.
        port: at which it is served.
    """

    def __init__(self, app: ASGIApp, token: str, port: int) -> None:
        self._app, self._token, self._cookie = app, token, cookie_name(port)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request through, or refuse it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        refusal = foreign(scope["method"], scope["path"], headers)
        given = refusal is None and self._given(scope)

        async def send_on(message: Message) -> None:
            if message["type"] == "http.response.start":
                kept = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    kept.setdefault(name, value)
                if given:
                    kept.append("Set-Cookie", f"{self._cookie}={self._token}; Path=/; HttpOnly; SameSite=Strict")
            await send(message)

        if refusal is not None:
            answer: ASGIApp = error_response(refusal)
        elif scope["path"] in OPEN_PATHS or given or self._has_token(headers):
            answer = self._app
        else:
            answer = _without_token(scope["path"])
        await answer(scope, receive, send_on)

    def _given(self, scope: Scope) -> bool:
        """Whether the page is asked for with the token in its address."""
        words = parse_qs(scope["query_string"].decode("latin-1")).get("token", [])
        return scope["path"] == PAGE and len(words) == 1 and self._is_token(words[0])

    def _has_token(self, headers: Headers) -> bool:
        scheme, _, key = headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer" and self._is_token(key.strip()):
            return True
        return self._is_token(_cookies(headers).get(self._cookie, ""))

    def _is_token(self, word: str) -> bool:
        return hmac.compare_digest(word.encode("utf-8", "surrogateescape"), self._token.encode())


def foreign(method: str, path: str, headers: Mapping[str, str]) -> ApiError | None:
    """Why a request is refused that a page of another site has made, or may have made.

    Args:
        method, path: of the request.
        headers: Host must name this machine; Origin, where there is one, the studio itself; Sec-Fetch-Site likewise,
            but for the page itself, which a link may open.
    """
    host = headers.get("host", "")
    if not is_loopback(host_name(host)):
        message = "the studio answers requests to localhost alone: the header Host names another machine"
        return ApiError(403, message, code="wrong_host")
    origin = headers.get("origin")
    if origin is not None and origin.lower() not in (f"http://{host}".lower(), f"https://{host}".lower()):
        return ApiError(403, "the request comes from a page of another site", code="wrong_origin")
    is_link = method == "GET" and path == PAGE and headers.get("sec-fetch-dest") == "document"
    if headers.get("sec-fetch-site", "none") not in ("none", "same-origin") and not is_link:
        return ApiError(403, "the request comes from a page of another site", code="wrong_origin")
    return None


def _without_token(path: str) -> Response:
    """What is answered to a request without the token."""
    if path in ("/", PAGE):
        return HTMLResponse(NO_TOKEN, 401)
    message = "the token is missing: open the address that lmworks studio printed at its start"
    return error_response(ApiError(401, message, code="no_token", headers={"WWW-Authenticate": "Bearer"}))


def _cookies(headers: Headers) -> dict[str, str]:
    try:
        return {name: part.value for name, part in SimpleCookie(headers.get("cookie", "")).items()}
    except CookieError:
        return {}


NO_TOKEN = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>lmworks studio</title></head><body><h1>lmworks studio</h1>
<p>The token is missing or old. Open the address that <code>lmworks studio</code> printed at its start: it ends with
<code>?token=</code> and the token.</p></body></html>
"""
