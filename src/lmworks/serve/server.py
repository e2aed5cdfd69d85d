"""Runs the application with uvicorn until it is told to stop; requests that are being answered are finished first."""

from __future__ import annotations

import contextlib
import signal
import socket
import ssl
from collections.abc import Mapping

import uvicorn
from starlette.applications import Starlette

from lmworks.base.errors import InputError
from lmworks.base.files import expand_home
from lmworks.serve.connections import TimedProtocol
from lmworks.serve.json_log import start_log
from lmworks.serve.settings import ServeSettings

MOST_CONNECTIONS = 2048
BACKLOG = 2048  # connections that the system keeps until they are accepted, as uvicorn has it
OTHER_FILES = 256  # that a server opens besides
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


def url_of(listener: socket.socket, scheme: str = "http") -> str:
    """The address of a bound socket as a URL."""
    host, port = listener.getsockname()[:2]
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"


def make_server(app: Starlette, stop_seconds: float, certificate: Mapping[str, str] | None = None) -> uvicorn.Server:
    """A server of an application.

    Args:
        app: the application.
        stop_seconds: how long requests may go on when the server is told to stop.
        certificate: the files that :func:`certificate_files` names.
    """
    config = uvicorn.Config(
        app,
        http=TimedProtocol,
        log_config=None,
        backlog=BACKLOG,
        access_log=False,
        server_header=False,
        lifespan="on",
        limit_concurrency=MOST_CONNECTIONS,
        timeout_keep_alive=KEEP_ALIVE,
        timeout_graceful_shutdown=max(1, round(stop_seconds)),
        **(certificate or {}),
    )
    return uvicorn.Server(config)


def certificate_files(settings: ServeSettings) -> dict[str, str]:
    """The files of the certificate as uvicorn takes them; none without a certificate.

    Raises:
        InputError: they cannot be read, or do not belong together; a key is given alone.
    """
    if settings.tls_certificate is None:
        if settings.tls_key is not None:
            raise InputError("a key without its certificate", "--tls-key", "give --tls-certificate FILE too")
        return {}
    files = {"ssl_certfile": str(expand_home(settings.tls_certificate))}
    if settings.tls_key is not None:
        files["ssl_keyfile"] = str(expand_home(settings.tls_key))
    try:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        # without a password: uvicorn would ask for one on the terminal
        context.load_cert_chain(files["ssl_certfile"], files.get("ssl_keyfile"), password="")
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
        hint = "give PEM files: --tls-certificate with the chain, --tls-key with its key, which no password protects"
        raise InputError(f"cannot be used ({error})", settings.tls_certificate, hint) from error
    return files


def raise_file_limit() -> None:
    """Let this process have as many connections as it takes, where the system lets it; often it has room for 1024."""
    with contextlib.suppress(ImportError, OSError, ValueError):
        import resource

        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        wanted = MOST_CONNECTIONS + OTHER_FILES
        if soft < wanted:
            most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


def run(server: uvicorn.Server, listener: socket.socket) -> None:
    """Serve at a bound socket until SIGTERM or SIGINT; the second of them does not wait for requests.

    Raises:
        KeyboardInterrupt: it was SIGINT.
    """
    start_log()
    raise_file_limit()
    # uvicorn raises the signal again when it has stopped: it has done what was asked
    signal.signal(signal.SIGTERM, lambda number, frame: None)
    server.run(sockets=[listener])
