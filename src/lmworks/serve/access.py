"""Who may use the server: API keys, and which addresses it may be bound to without them."""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import os
import stat
from collections.abc import Sequence
from pathlib import Path

from lmworks.base.errors import InputError
from lmworks.base.files import expand_home

VARIABLE = "LMWORKS_API_KEY"
SHORTEST_KEY = 16
HINT = 'make one with: python3 -c "import secrets; print(secrets.token_urlsafe(32))" > keys.txt && chmod 600 keys.txt'


class ApiKeys:
    """The keys that clients must send; without any, everyone is let in.

    Args:
        keys: of SHORTEST_KEY characters or more.
    """

    def __init__(self, keys: Sequence[str] = ()) -> None:
        # digests have one length, so that the time of a comparison tells nothing of a key
        self._digests = [hashlib.sha256(key.encode()).digest() for key in keys]

    def __bool__(self) -> bool:
        return bool(self._digests)

    def client_of(self, authorization: str) -> str | None:
        """Whose key the header Authorization has, as ``Bearer KEY``: a name of the key that tells nothing of it.

        Returns:
            None where it has none of the keys; empty where no key is asked for.
        """
        if not self._digests:
            return ""
        scheme, _, key = authorization.partition(" ")
        digest = hashlib.sha256(key.strip().encode("utf-8", "surrogateescape")).digest()
        matches = [hmac.compare_digest(digest, own) for own in self._digests]
        return f"key {matches.index(True)}" if scheme.lower() == "bearer" and any(matches) else None


def read_keys(file: str | None) -> tuple[ApiKeys, list[str]]:
    """The keys of a file, one a line (lines that begin with # are remarks), and of the variable LMWORKS_API_KEY.

    Returns:
        The keys, and notes for the person.

    Raises:
        InputError: the file cannot be read or has no key, or a key is too short.
    """
    keys, notes = [], list[str]()
    if file is not None:
        path = expand_home(file)
        try:
            lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
            notes += _exposure(path)
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"cannot be read ({error})", str(path), HINT) from error
        keys = [line for line in lines if line and not line.startswith("#")]
        if not keys:
            raise InputError("has no key", str(path), HINT)
    if key := os.environ.get(VARIABLE, "").strip():
        keys.append(key)
    if any(len(key) < SHORTEST_KEY for key in keys):
        fault = f"a key has fewer than {SHORTEST_KEY} characters, and could be guessed"
        raise InputError(fault, file or VARIABLE, HINT)
    return ApiKeys(keys), notes


def _exposure(path: Path) -> list[str]:
    """A note where others on this machine may read the file."""
    if os.name == "posix" and path.stat().st_mode & (stat.S_IRGRP | stat.S_IROTH):
        return [f"{path} can be read by others on this machine: chmod 600 {path}"]
    return []


def check_address(host: str, keys: ApiKeys) -> None:
    """Refuse an address that others can reach where no key is asked for.

    Raises:
        InputError: it is one.
    """
    if not keys and not is_loopback(host):
        hint = f"give --api-key-file FILE or {VARIABLE}, or leave --host out: then this machine alone is answered"
        raise InputError(
            "without an API key, whoever reaches this address could use the models", f"--host {host}", hint
        )


def check_origins(origins: Sequence[str], keys: ApiKeys) -> None:
    """Refuse to answer every web page where no key is asked for.

    Raises:
        InputError: it is so.
    """
    if "*" in origins and not keys:
        fault = "without an API key, every web page that is open on this machine could use the models"
        raise InputError(fault, "--cors-origins *", f"name the origins, or give --api-key-file FILE or {VARIABLE}")


def is_loopback(host: str) -> bool:
    """Whether an address or the name of a host means this machine alone."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def host_name(header: str) -> str:
    """The host of a header Host, without its port."""
    host = header.strip()
    if host.startswith("["):
        return host.partition("]")[0].lstrip("[")
    return host.partition(":")[0]
