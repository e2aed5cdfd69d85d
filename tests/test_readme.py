"""What the README tells people to type is run, line by line, as it stands there."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

README = Path(__file__).parents[1] / "README.md"
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.M | re.S)


def sections() -> dict[str, str]:
    """The README's sections by their titles."""
    parts = re.split(r"^## (.+)\n", README.read_text(encoding="utf-8"), flags=re.M)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def blocks(text: str, language: str) -> list[str]:
    return [block for name, block in BLOCK.findall(text) if name == language]


def commands(text: str) -> list[list[str]]:
    """Each line's words, as a shell divides them."""
    lines = [shlex.split(line, comments=True) for block in blocks(text, "sh") for line in block.splitlines()]
    return [words for words in lines if words[:1] == ["lmworks"]]


FILES = [block for text in sections().values() for block in blocks(text, "sh") if "lmworks" not in block]
"""What makes the files that the commands speak of."""
TRIED = {title: text for title, text in sections().items() if commands(text) or blocks(text, "python")}


def test_every_command_is_one_that_there_is():
    from lmworks.commands.main import VERBS

    assert {"On your own data", "A model from nothing", "In Python"} <= TRIED.keys()
    for text in TRIED.values():
        for words in commands(text):
            assert words[1] in VERBS, words


def test_the_files_to_try_it_on_are_read_as_the_readme_says(tmp_path):
    from lmworks.text import corpus

    for block in FILES:
        subprocess.run(["sh", "-e", "-c", block], cwd=tmp_path, check=True)
    kinds = {name: corpus.read(str(tmp_path / name)).kind for name in ("faq.jsonl", "book.txt", "pairs.tsv")}
    assert kinds == {"faq.jsonl": "completion", "book.txt": "text", "pairs.tsv": "pairs"}


@pytest.mark.slow
@pytest.mark.timeout(1700)
@pytest.mark.parametrize("title", TRIED)
def test_the_readme_runs(title, smollm2, tmp_path):
    """Each section alone, in an empty folder with the files that the README says how to make."""
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}

    def run(words: list[str]) -> None:
        done = subprocess.run(
            words, cwd=tmp_path, env=environment, capture_output=True, text=True, stdin=subprocess.DEVNULL
        )
        print(f"$ {shlex.join(words)}\n{done.stdout}{done.stderr}")
        assert done.returncode == 0, f"{words}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"

    for block in FILES:
        run(["sh", "-e", "-c", block])
    for words in commands(TRIED[title]):
        run(words)
    for text in blocks(TRIED[title], "python"):
        run([sys.executable, "-c", text])


def test_the_table_is_the_one_that_the_demo_printed() -> None:
    """The lines of the README's first table stand in docs/demo.md, below the command that the demo runs."""
    readme, printed = (path.read_text(encoding="utf-8") for path in (README, README.parent / "docs/demo.md"))
    command = re.search(r"^    (lmworks compare .+)$", readme, flags=re.M)
    table = re.search(r"^```text\n(.+?)^```$", readme, flags=re.M | re.S)
    assert command
    assert table
    assert f"$ {command[1]} --out" in printed
    assert command[1].removeprefix("lmworks ") in (README.parent / "examples/demo.sh").read_text(encoding="utf-8")
    for line in filter(None, table[1].splitlines()):
        assert line in printed.splitlines(), line
