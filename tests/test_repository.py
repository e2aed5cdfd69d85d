"""What git tracks can be published: no file names a folder of the machine on which it was written."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
MACHINE_PATH = re.compile(rb"(?<![\w./~:-])/(?:home|root|tmp|work|Users)/[\w.-]+")


def machine_paths(content: bytes) -> list[str]:
    """Absolute paths of homes and of temporary or working folders."""
    return [match.decode(errors="replace") for match in MACHINE_PATH.findall(content)]


def test_no_tracked_file_holds_a_path_of_a_machine() -> None:
    listing = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=False)
    if listing.returncode:
        pytest.skip("not a git checkout")
    names = [name for name in listing.stdout.decode().split("\0") if (ROOT / name).is_file()]
    assert len(names) > 100
    paths = {name: machine_paths((ROOT / name).read_bytes()) for name in names}
    assert {name: places for name, places in paths.items() if places} == {}


@pytest.mark.parametrize("folder", ["home", "root", "tmp", "work", "Users"])
def test_paths_of_a_machine_are_recognised(folder: str) -> None:
    assert machine_paths(f'File "/{folder}/someone/a.py"'.encode()) == [f"/{folder}/someone"]
    assert machine_paths(f"https://example.org/{folder}/a and src/{folder}/a".encode()) == []
