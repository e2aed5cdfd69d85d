"""Files: wholly or not at all."""

from __future__ import annotations

import errno
import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from lmworks.base import files
from lmworks.base.errors import InputError


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_the_cache_folder_follows_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("LMWORKS_CACHE", str(tmp_path / "own"))
    assert files.cache_folder() == tmp_path / "own"
    monkeypatch.delenv("LMWORKS_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert files.cache_folder() == tmp_path / "xdg" / "lmworks"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert files.cache_folder() == tmp_path / ".cache" / "lmworks"


def test_a_file_is_written_and_replaced(tmp_path):
    path = tmp_path / "new" / "a.txt"
    files.atomic_write(path, "größer")
    assert path.read_bytes() == "größer".encode()
    files.atomic_write(path, b"\x00")
    assert path.read_bytes() == b"\x00"
    assert names(path.parent) == ["a.txt"]
    assert files.sha256(path) == hashlib.sha256(b"\x00").hexdigest()


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / "a.txt"
    files.atomic_write(path, "old")

    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(InputError, match=r"no room left on the disk.*; it takes 2 kB"):
        files.atomic_write(path, "x" * 2000)
    with pytest.raises(InputError, match="no room left"), files.atomic_folder(tmp_path / "folder") as folder:
        (folder / "b").write_text("b")
    assert names(tmp_path) == ["a.txt"]
    assert path.read_text() == "old"


def test_a_full_disk_for_real(tmp_path):
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", tmp_path], capture_output=True).returncode:
        pytest.skip("mounting a small tmpfs is not permitted here")
    try:
        files.atomic_write(tmp_path / "small", "fits")
        with pytest.raises(InputError, match=r"it takes 1e\+06 bytes|it takes 1 MB"):
            files.atomic_write(tmp_path / "big", b"x" * 1_000_000)
        with pytest.raises(InputError, match="no room left"), files.atomic_folder(tmp_path / "folder") as folder:
            (folder / "big").write_bytes(b"x" * 1_000_000)
        with pytest.raises(InputError, match="no room on the disk for a test: it takes 1 MB"):
            files.check_disk_space(tmp_path / "none" / "yet", 1_000_000, "a test")
        assert names(tmp_path) == ["small"]
    finally:
        subprocess.run(["umount", tmp_path], check=True)


def test_a_folder_appears_whole_or_not_at_all(tmp_path):
    target = tmp_path / "model"
    with files.atomic_folder(target) as folder:
        (folder / "inner").mkdir()
        (folder / "inner" / "a").write_text("1")
        assert not target.exists()
    assert (target / "inner" / "a").read_text() == "1"
    with pytest.raises(ValueError, match="invalid literal"), files.atomic_folder(target) as folder:
        (folder / "b").write_text(str(int("stop")))
    assert names(target) == ["inner"]
    with files.atomic_folder(target) as folder:
        (folder / "b").write_text("2")
    assert names(target) == ["b"]
    assert names(tmp_path) == ["model"]


def test_what_a_killed_process_left_is_swept(tmp_path):
    code = (
        "import os, signal, sys; from lmworks.base.files import atomic_folder\n"
        "with atomic_folder(sys.argv[1]) as f:\n    (f / 'a').write_text('1'); os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    target = tmp_path / "model"
    assert subprocess.run([sys.executable, "-c", code, target]).returncode == -9
    assert len(names(tmp_path)) == 1
    assert not target.exists()
    with files.atomic_folder(target):
        pass
    assert names(tmp_path) == ["model"]


@pytest.mark.parametrize(
    ("size", "text"), [(0, "0 bytes"), (999, "999 bytes"), (98_400_000, "98.4 MB"), (2e9, "2 GB"), (3e12, "3 TB")]
)
def test_sizes_as_people_read_them(size, text):
    assert files.human(size) == text


def test_folder_size(tmp_path):
    files.atomic_write(tmp_path / "a" / "b", b"12345")
    files.atomic_write(tmp_path / "c", b"1")
    assert files.folder_size(tmp_path) == 6
    assert files.folder_size(tmp_path / "c") == 1


def test_a_place_below_a_file_is_refused_by_its_path(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    below = tmp_path / "notes.txt" / "run" / "deep"
    for write in (lambda: files.atomic_write(below, "x"), lambda: files.atomic_folder(below).__enter__()):
        with pytest.raises(InputError, match="is a file, not a folder") as caught:
            write()
        assert "notes.txt" in str(caught.value)
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_links_are_followed_and_stay(tmp_path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "folder").symlink_to(tmp_path / "disk")
    (tmp_path / "file").symlink_to("later.txt")
    with files.atomic_folder(tmp_path / "folder") as folder:
        (folder / "a").write_text("a")
    files.atomic_write(tmp_path / "file", "b")
    assert (tmp_path / "folder").is_symlink()
    assert (tmp_path / "disk" / "a").read_text() == "a"
    assert (tmp_path / "file").is_symlink()
    assert (tmp_path / "later.txt").read_text() == "b"
    (tmp_path / "one").symlink_to("two")
    (tmp_path / "two").symlink_to("one")
    with pytest.raises(InputError, match="leads nowhere"):
        files.atomic_write(tmp_path / "one", "c")
    assert names(tmp_path) == ["disk", "file", "folder", "later.txt", "one", "two"]


def test_files_of_a_folder_get_the_permissions_of_new_files(tmp_path):
    before = os.umask(0o027)
    try:
        with files.atomic_folder(tmp_path / "m") as folder:
            os.close(os.open(folder / "weights", os.O_CREAT | os.O_WRONLY, 0o600))  # as libraries write them
            (folder / "config").write_text("{}")
    finally:
        os.umask(before)
    assert {(tmp_path / "m" / name).stat().st_mode & 0o777 for name in ("weights", "config")} == {0o640}
    assert names(tmp_path / "m") == ["config", "weights"]


def test_without_a_home_there_is_a_cache(monkeypatch):
    for name in ("LMWORKS_CACHE", "XDG_CACHE_HOME", "HOME"):
        monkeypatch.delenv(name, raising=False)

    def nobody():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", nobody)
    assert files.cache_folder().name == f"lmworks-{os.getuid()}"
