"""Package indexes without pip: which archives of a distribution they have, and one of them downloaded.

Reads the simple index (PEP 503, and its JSON form, PEP 691) of every index, and the folders or pages of find-links,
that ``pip config`` and the ``PIP_*`` variables name. Proxies come from the environment or pip's ``proxy``,
certificates from pip's ``cert``, passwords from the address or from netrc.
"""

from __future__ import annotations

import ast
import base64
import hashlib
import html.parser
import json
import netrc
import os
import re
import ssl
import subprocess
import sys
import urllib.error
import urllib.parse
import urllib.request
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lmworks.base.errors import InputError
from lmworks.base.files import expand_home

DEFAULT_INDEX = "https://pypi.org/simple"
ACCEPT = "application/vnd.pypi.simple.v1+json, text/html;q=0.5"
ENDINGS = (".tar.gz", ".tar.bz2", ".zip", ".whl")


@dataclass(frozen=True)
class Archive:
    """A file that an index offers. ``size`` in bytes and ``sha256`` if the index has them."""

    file: str
    name: str
    version: str
    url: str = ""
    sha256: str | None = None
    size: int | None = None

    @property
    def host(self) -> str:
        """Where it comes from, without a password."""
        parts = urllib.parse.urlsplit(self.url)
        return parts.hostname or str(Path(urllib.request.url2pathname(parts.path)).parent)

    @classmethod
    def of(cls, file: str, distribution: str) -> Archive:
        """Name and version from a file name; ``distribution`` is the canonical name."""
        stem = next((file.removesuffix(ending) for ending in ENDINGS if file.endswith(ending)), file)
        if file.endswith(".whl"):
            name, version = (*stem.split("-"), "")[:2]
            return cls(file, name, version)
        parts = re.match(f"^({re.sub('-', '[-_.]+', distribution)})-(.+)$", stem, re.IGNORECASE)
        return cls(file, parts[1], parts[2]) if parts else cls(file, stem, "")


def archives(distribution: str) -> tuple[list[Archive], list[str]]:
    """What the person's indexes have of a distribution.

    Args:
        distribution: its canonical name.

    Returns:
        the archives, and one sentence for each place that could not be read.
    """
    settings = pip_settings()
    no_index = settings.get("no-index", "false").lower() in ("true", "1", "yes", "on")
    places = settings.get("find-links", "").split()
    if not no_index:
        indexes = [settings.get("index-url", DEFAULT_INDEX), *settings.get("extra-index-url", "").split()]
        places += [f"{index.rstrip('/')}/{distribution}/" for index in indexes]
    offered: list[Archive] = []
    failures = []
    for place in places:
        try:
            offered += _listed(place, distribution, settings)
        except urllib.error.HTTPError as error:
            if error.code != 404:
                failures.append(f"{_shown(place)}: {error.code} {error.reason}")
        except (OSError, ValueError) as error:
            failures.append(f"{_shown(place)}: {getattr(error, 'reason', error)}")
    return offered, failures


def download(archive: Archive, path: Path) -> Path:
    """Fetches an archive and compares its checksum with what the index said.

    Raises:
        InputError: it cannot be fetched, or is not what the index promised.
    """
    hashed = hashlib.sha256()
    try:
        with _open(archive.url, pip_settings()) as stream, open(path, "wb") as file:
            while block := stream.read(1 << 20):
                hashed.update(block)
                file.write(block)
    except (OSError, ValueError) as error:
        path.unlink(missing_ok=True)
        raise InputError(f"could not be fetched: {error}", _shown(archive.url), "try again") from error
    if archive.sha256 and hashed.hexdigest() != archive.sha256:
        path.unlink()
        raise InputError("is not the file that the index describes", _shown(archive.url), "try again, or another index")
    return path


def pip_settings() -> dict[str, str]:
    """pip's settings that concern fetching, by their long names; its files first, then ``PIP_*`` over them."""
    settings: dict[str, str] = {}
    command = [sys.executable, "-m", "pip", "config", "list", "--disable-pip-version-check"]
    listed = subprocess.run(command, capture_output=True, text=True).stdout.splitlines()
    for section in ("global", "download"):
        for line in listed:
            key, _, value = line.partition("=")
            if key.startswith(f"{section}."):
                settings[key.removeprefix(f"{section}.")] = str(ast.literal_eval(value))
    for key, value in os.environ.items():
        if key.startswith("PIP_"):
            settings[key.removeprefix("PIP_").lower().replace("_", "-")] = value
    return settings


def _listed(place: str, distribution: str, settings: dict[str, str]) -> list[Archive]:
    """The archives on a page or in a folder."""
    if "://" not in place or place.startswith("file://"):
        folder = expand_home(urllib.request.url2pathname(place.removeprefix("file://")))
        if folder.is_dir() and not (folder / "index.html").is_file():
            return _archives([{"url": file.resolve().as_uri()} for file in folder.iterdir()], "", distribution)
        if not folder.exists():
            return []
        place = (folder / "index.html" if folder.is_dir() else folder).resolve().as_uri()
    with _open(place, settings, ACCEPT) as answer:
        body, base = answer.read(), answer.geturl()
        is_json = "json" in answer.headers.get("content-type", "")
    if is_json:
        return _archives(json.loads(body)["files"], base, distribution)
    page = _Links()
    page.feed(body.decode("utf-8", "replace"))
    return _archives(page.links, base, distribution)


def _archives(links: list[dict[str, Any]], base: str, distribution: str) -> list[Archive]:
    offered = []
    for link in links:
        url, _, fragment = urllib.parse.urljoin(base, link["url"]).partition("#")
        file = urllib.parse.unquote(urllib.parse.urlsplit(url).path.rsplit("/", 1)[-1])
        if not file.endswith(ENDINGS) or link.get("yanked"):
            continue
        digest = (link.get("hashes") or {}).get("sha256") or urllib.parse.parse_qs(fragment).get("sha256", [None])[0]
        offered.append(replace(Archive.of(file, distribution), url=url, sha256=digest, size=link.get("size")))
    return offered


class _Links(html.parser.HTMLParser):
    """The links of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.links: list[dict[str, Any]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = dict(attrs)
        if tag == "a" and attributes.get("href"):
            self.links.append({"url": attributes["href"], "yanked": "data-yanked" in attributes})


def _open(url: str, settings: dict[str, str], accept: str = "*/*") -> Any:
    """Opens an address with the person's proxy, certificates and password."""
    parts = urllib.parse.urlsplit(url)
    headers = {"Accept": accept, "User-Agent": "lmworks"}
    user, password = parts.username, parts.password
    if user is None and parts.hostname:
        user, password = _from_netrc(parts.hostname)
    if user is not None:
        pair = f"{urllib.parse.unquote(user)}:{urllib.parse.unquote(password or '')}"
        headers["Authorization"] = "Basic " + base64.b64encode(pair.encode()).decode()
        url = parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
    certificates = settings.get("cert") or os.environ.get("REQUESTS_CA_BUNDLE") or os.environ.get("CURL_CA_BUNDLE")
    handlers: list[Any] = [urllib.request.HTTPSHandler(context=ssl.create_default_context(cafile=certificates))]
    if proxy := settings.get("proxy"):
        handlers.append(urllib.request.ProxyHandler({"http": proxy, "https": proxy}))
    request = urllib.request.Request(url, headers=headers)
    return urllib.request.build_opener(*handlers).open(request, timeout=float(settings.get("timeout", 30)))


def _from_netrc(host: str) -> tuple[str | None, str | None]:
    try:
        login = netrc.netrc().authenticators(host)
    except (OSError, netrc.NetrcParseError):
        return None, None
    return (login[0], login[2]) if login else (None, None)


def _shown(url: str) -> str:
    """An address without its password."""
    return re.sub(r"//[^/@]*@", "//", url)
