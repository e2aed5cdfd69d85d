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


def blocks(language: str) -> list[str]:
    return [text for name, text in BLOCK.findall(README.read_text(encoding="utf-8")) if name == language]


def commands() -> list[str]:
    lines = [line.split("  #")[0].strip() for block in blocks("sh") for line in block.splitlines()]
    return [line for line in lines if line.startswith("lmworks ")]


def test_every_command_is_one_that_there_is():
    from lmworks.commands.main import VERBS

    assert commands()
    for line in commands():
        assert shlex.split(line)[1] in VERBS, line


@pytest.mark.slow
@pytest.mark.timeout(1700)
def test_the_readme_runs(smollm2, tmp_path):
    rows = [f'{{"prompt": "What is {n} plus {n}?", "completion": "It is {2 * n}."}}\n' for n in range(40)]
    (tmp_path / "faq.jsonl").write_text("".join(rows))
    lines = [f"The sky is blue on day {n}, and the sea is as blue as it was on day {n % 7}.\n" for n in range(300)]
    (tmp_path / "book.txt").write_text("".join(lines))
    pairs = [f"the {word} is blue\tle {word} est bleu\n" for word in ("sky", "sea", "cat", "dog", "car", "pen") * 10]
    (tmp_path / "pairs.tsv").write_text("source\ttarget\n" + "".join(f"{n} {line}" for n, line in enumerate(pairs)))
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}

    def run(words: list[str]) -> None:
        done = subprocess.run(
            words, cwd=tmp_path, env=environment, capture_output=True, text=True, stdin=subprocess.DEVNULL
        )
        assert done.returncode == 0, f"{words}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"

    for line in commands():
        run(shlex.split(line))
    for text in blocks("python"):
        run([sys.executable, "-c", text])
