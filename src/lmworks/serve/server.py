"""Runs the application with uvicorn until it is told to stop; requests that are being answered are finished first."""

from __future__ import annotations

import signal
import socket

import uvicorn
from starlette.applications import Starlette

from lmworks.base.errors import InputError
from lmworks.serve.json_log import start_log

MOST_CONNECTIONS = 2048
KEEP_ALIVE = 75  # seconds; longer than the 60 of usual proxies, which reuse connections


def bind(host: str, port: int) -> socket.socket:
    """A socket at an address; port 0 takes a free one.

    Raises:
        InputError: it is taken, or not one of this machine.
    """
    try:
        addresses = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, kind, protocol, _, target = addresses[0]
        listener = socket.socket(family, kind, protocol)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(target)
    except OSError as error:
        hint = "choose another --port, or --host 127.0.0.1; --port 0 takes any that is free"
        raise InputError(f"cannot be served at ({error.strerror or error})", f"{host}:{port}", hint) from error
    return listener


def url_of(listener: socket.socket) -> str:
    """The address of a bound socket as a URL."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def make_server(app: Starlette, stop_seconds: float) -> uvicorn.Server:
    """A server of an application.

    Args:
        app: the application.
        stop_seconds: how long requests may go on when the server is told to stop.
    """
    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        server_header=False,
        lifespan="on",
        limit_concurrency=MOST_CONNECTIONS,
        timeout_keep_alive=KEEP_ALIVE,
        timeout_graceful_shutdown=max(1, round(stop_seconds)),
    )
    return uvicorn.Server(config)


def run(server: uvicorn.Server, listener: socket.socket) -> None:
    """Serve at a bound socket until SIGTERM or SIGINT; the second of them does not wait for requests.

    Raises:
        KeyboardInterrupt: it was SIGINT.
    """
    start_log()
    # uvicorn raises the signal again when it has stopped: it has done what was asked
    signal.signal(signal.SIGTERM, lambda number, frame: None)
    server.run(sockets=[listener])
