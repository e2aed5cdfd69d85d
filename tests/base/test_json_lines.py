"""No line whose call returned is lost, whatever kills the process; a line that is not finished is found and said."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections import Counter

import pytest

from lmworks.base.errors import InputError
from lmworks.base.json_lines import JsonLines

WRITER = """
import sys
from lmworks.base.json_lines import JsonLines
lines = JsonLines(sys.argv[1])
number = len(lines.objects())
while True:
    lines.append({"number": number, "text": "x" * (number * 37 % 5000)})
    print(number, flush=True)
    number += 1
"""


@pytest.fixture(name="path")
def _path(tmp_path):
    return tmp_path / "lines.jsonl"


def test_objects_are_read_as_they_were_appended(path):
    values = [{"a": 1.1}, {"b": "ä\n\u2028\udcff"}, {"c": [None, {"d": True}]}]
    lines = JsonLines(path)
    assert lines.objects() == []
    for value in values:
        lines.append(value)
    assert lines.objects() == values
    assert JsonLines(path).objects() == lines.objects() == [json.loads(line) for line in path.read_bytes().splitlines()]
    assert lines.notes == []


@pytest.mark.parametrize("rest", [b'{"numb', b"\0\0\0", b"\0\0\0\n", b'{"number": 3}'])
def test_a_last_line_that_is_not_finished_is_said_and_cut_off_by_the_next_writer(path, rest):
    JsonLines(path).append({"number": 1})
    whole = path.read_bytes()
    path.write_bytes(whole + rest)
    lines = JsonLines(path)
    assert lines.objects() == [{"number": 1}]
    assert path.read_bytes() == whole + rest  # reading changes nothing
    (note,) = lines.notes
    assert f"({len(rest)} bytes)" in note
    lines.append({"number": 2})
    assert lines.objects() == JsonLines(path).objects() == [{"number": 1}, {"number": 2}]


@pytest.mark.parametrize("damage", [b"nonsense\n", b"[1]\n", b"\n"])
def test_damage_before_the_last_line_names_the_line_and_is_not_written_over(path, damage):
    content = b'{"a": 1}\n' + damage + b'{"a": 2}\n'
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"lines.jsonl:2: is no JSON object"):
        JsonLines(path).objects()
    with pytest.raises(InputError, match=r"lines.jsonl:2"):
        JsonLines(path).append({})
    assert path.read_bytes() == content


def test_lines_of_other_writers_are_taken_up(path):
    first, second = JsonLines(path), JsonLines(path)
    for number in range(6):
        (first, second)[number % 2].append({"number": number})
    assert first.objects() == second.objects() == [{"number": number} for number in range(6)]


def test_threads_do_not_mix_their_lines(path):
    lines = JsonLines(path)

    def write(name: int) -> None:
        for number in range(20):
            lines.append({"name": name, "number": number})

    threads = [threading.Thread(target=write, args=(name,)) for name in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    objects = JsonLines(path).objects()
    assert lines.objects() == objects
    for name in range(6):
        assert [value["number"] for value in objects if value["name"] == name] == list(range(20))


def test_a_full_disk_leaves_the_file_as_it_was(path):
    JsonLines(path).append({"text": "x" * 1000})
    before = path.read_bytes()
    code = (
        "import resource, signal, sys; from lmworks.base.json_lines import JsonLines; "
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN); resource.setrlimit(resource.RLIMIT_FSIZE, (1500, 1500)); "
        "JsonLines(sys.argv[1]).append({'text': 'y' * 1000})"
    )
    process = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True, check=False)
    assert "no room left on the disk" in process.stderr
    assert path.read_bytes() == before
    JsonLines(path).append({"text": "z"})
    assert JsonLines(path).objects()[1:] == [{"text": "z"}]


@pytest.mark.parametrize("others", [1, 2])
def test_a_killed_process_loses_no_line_whose_call_returned(path, others):
    """Several processes write one file, and all are killed: every number that one printed is in the file."""
    said: list[str] = []
    for _ in range(4):
        command = [sys.executable, "-c", WRITER, str(path)]
        writers = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(others)]
        for writer in writers:
            assert writer.stdout is not None
            said += [writer.stdout.readline() for _ in range(5)]
        for writer in writers:
            writer.kill()
        for writer in writers:
            said += writer.communicate()[0].splitlines()
    numbers = [value["number"] for value in JsonLines(path).objects()]
    printed = [int(line) for line in said if line.strip()]
    assert len(printed) >= 20 * others
    assert not Counter(printed) - Counter(numbers)
    assert JsonLines(path).notes == [] or "not finished" in JsonLines(path).notes[0]
