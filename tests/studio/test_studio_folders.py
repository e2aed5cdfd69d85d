"""No path leads out of the folders that a studio was started on."""

from __future__ import annotations

import os

import pytest

from lmworks.base.errors import InputError
from lmworks.studio.folders import DEEPEST, Folders


@pytest.fixture(name="home")
def _home(tmp_path):
    """A folder with a file in it, and beside it a secret."""
    (tmp_path / "home" / "runs").mkdir(parents=True)
    (tmp_path / "home" / "runs" / "a.txt").write_text("a")
    (tmp_path / "secret.txt").write_text("secret")
    return tmp_path / "home"


def test_names_are_paths_from_the_folder(home):
    folders = Folders([home])
    assert folders.path("runs/a.txt") == (home / "runs" / "a.txt").resolve()
    assert folders.path("") == home.resolve()
    assert folders.path("runs/new.txt").parent.name == "runs"  # need not exist
    assert folders.name(home / "runs" / "a.txt") == "runs/a.txt"
    assert folders.name(home) == "."
    assert folders.file("runs/a.txt").read_text() == "a"


def test_of_several_folders_names_begin_with_theirs(home, tmp_path):
    (tmp_path / "other").mkdir()
    folders = Folders([home, tmp_path / "other"])
    assert folders.path("home/runs/a.txt") == (home / "runs" / "a.txt").resolve()
    assert folders.name(tmp_path / "other" / "b") == "other/b"
    assert folders.first == home.resolve()
    for name in ("", "runs/a.txt", "secret.txt"):
        with pytest.raises(InputError, match="not in the folders"):
            folders.path(name)


@pytest.mark.parametrize(
    "name",
    [
        "../secret.txt",
        "runs/../../secret.txt",
        "runs/..",
        "/etc/passwd",
        "~/secret.txt",
        "\\secret.txt",
        "runs/a.txt\0.txt",
        ".ssh/id",
        "runs/.hidden",
        "runs/\ud800",
        "a" * 300,
        "runs/out",
        "runs/out/secret.txt",
    ],
)
def test_nothing_outside_is_reached(home, name):
    (home / "runs" / "out").symlink_to(home.parent)
    with pytest.raises(InputError, match="is not in the folders"):
        Folders([home]).path(name)


def test_a_file_that_there_is_not_is_said_so(home):
    with pytest.raises(InputError, match="there is no such file"):
        Folders([home]).file("runs/b.txt")
    with pytest.raises(InputError, match="there is no such file"):
        Folders([home]).file("runs")


def test_a_path_outside_has_no_name(home):
    with pytest.raises(InputError, match="is not in the folders"):
        Folders([home]).name(home.parent / "secret.txt")


def test_folders_must_be_there_and_apart(home, tmp_path):
    with pytest.raises(InputError, match="no such folder"):
        Folders([tmp_path / "nowhere"])
    with pytest.raises(InputError, match="lies in"):
        Folders([home, home / "runs"])
    with pytest.raises(InputError, match="lies in"):
        Folders([home, home])
    (tmp_path / "b" / "home").mkdir(parents=True)
    with pytest.raises(InputError, match="has the name of"):
        Folders([home, tmp_path / "b" / "home"])


def test_what_is_hidden_linked_or_too_deep_is_not_looked_through(home):
    deep = home.joinpath(*"abcdefgh")
    deep.mkdir(parents=True)
    for name in (".git", "node_modules", "env"):
        (home / name / "inside").mkdir(parents=True)
    (home / "env" / "pyvenv.cfg").write_text("")
    (home / "link").symlink_to(home.parent)
    seen = {os.path.relpath(path, home) for path, _, _ in Folders([home]).walk()}
    assert seen == {".", "runs", *("/".join("abcdefgh"[:depth]) for depth in range(1, DEEPEST + 1))}


def test_folders_that_a_caller_takes_out_are_left_out(home):
    (home / "data" / "inside").mkdir(parents=True)
    seen = set()
    for path, below, files in Folders([home]).walk():
        seen.add(path.name)
        if path.name == "data":
            below.clear()
        if path.name == "runs":
            assert files == ["a.txt"]
    assert seen == {"home", "data", "runs"}
