"""The journal: every bit, every line once, whatever kills the writer."""

from __future__ import annotations

import errno
import json
import math
import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmworks.base.errors import InputError
from lmworks.base.journal import RunFolder


@pytest.fixture
def run(tmp_path):
    return RunFolder.create(tmp_path / "run", "model: m\n")


def test_a_new_run_has_its_places(run):
    assert run.recipe.read_text() == "model: m\n"
    assert run.events() == []
    assert (run.checkpoints.name, run.final.name) == ("checkpoints", "final")
    with pytest.raises(InputError, match="already and not empty"):
        RunFolder.create(run.path, "")


def test_a_folder_that_is_no_run(tmp_path):
    with pytest.raises(InputError, match="it is no run"):
        RunFolder(tmp_path)
    with pytest.raises(InputError, match="no such folder"):
        RunFolder(tmp_path / "none")


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_numbers_keep_every_bit(tmp_path_factory, number):
    folder = tmp_path_factory.mktemp("run")
    with RunFolder.create(folder / "r", "") as run:
        run.write("number", value=number)
        back = RunFolder(folder / "r").events()[0]["value"]
    assert back == number
    assert math.copysign(1, back) == math.copysign(1, number)


def test_values_that_json_lacks_are_named(run):
    run.write("odd", loss=float("nan"), deep={"a": [1.0, float("-inf")]}, small=np.float32(0.5), path=run.path)
    line = run.journal.read_text()
    event = json.loads(line, parse_constant=lambda word: pytest.fail(f"{word} is not JSON"))
    assert event["loss"] is None
    assert event["deep"] == {"a": [1.0, None]}
    assert event["not_finite"] == {"loss": "nan", "deep.a[1]": "-inf"}
    assert (event["small"], event["path"]) == (0.5, str(run.path))


def test_a_torn_last_line_is_cut_at_the_first_write(run):
    run.write("step", step=1, loss=0.1)
    run.close()
    whole = run.journal.read_bytes()
    for torn in (b'{"event": "st', b"\x00" * 40 + b"\n", b'{"event"\n'):
        run.journal.write_bytes(whole + torn)
        again = RunFolder(run.path)
        assert [event["step"] for event in again.events()] == [1]
        again.write("step", step=2, loss=0.2)
        again.close()
        assert [event["step"] for event in again.events("step")] == [1, 2]
        run.journal.write_bytes(whole)


def test_damage_in_the_middle_is_an_error_with_its_line(run):
    run.write("a")
    run.write("b")
    run.close()
    run.journal.write_bytes(b"damage\n" + run.journal.read_bytes())
    with pytest.raises(InputError) as caught:
        RunFolder(run.path).events()
    assert caught.value.place == f"{run.journal}:1"


def test_a_repeated_step_is_compared_and_not_written_again(run):
    for step in (1, 2):
        run.write("step", step=step, loss=step / 3, seconds=1.0)
    run.close()
    again = RunFolder(run.path)
    again.write("step", step=2, loss=2 / 3, seconds=9.0)
    assert len(again.events()) == 2
    again.write("step", step=1, loss=0.3333, seconds=1.0)
    assert [event["step"] for event in again.events("step")] == [1, 2]
    (output,) = again.events("divergence")
    assert (output["step"], output["was"], output["now"]) == (1, {"loss": 1 / 3}, {"loss": 0.3333})


def test_two_processes_cannot_write_one_run(run):
    code = "import sys; from lmworks.base.journal import RunFolder; RunFolder(sys.argv[1]).write('other')"
    run.write("mine")
    tried = subprocess.run([sys.executable, "-c", code, run.path], capture_output=True, text=True)
    assert "another process is writing this run" in tried.stderr
    RunFolder(run.path).write("mine too")  # the same process may
    run.close()
    subprocess.run([sys.executable, "-c", code, run.path], check=True)
    assert [event["event"] for event in run.events()] == ["mine", "mine too", "other"]


def test_a_killed_writer_leaves_whole_lines_and_no_lock(run):
    code = (
        "import os, signal, sys; from lmworks.base.journal import RunFolder\nrun = RunFolder(sys.argv[1])\n"
        "for n in range(50): run.write('step', step=n, loss=n / 7)\nos.kill(os.getpid(), signal.SIGKILL)\n"
    )
    assert subprocess.run([sys.executable, "-c", code, run.path]).returncode == -9
    run.write("step", step=50, loss=50 / 7)
    assert [event["loss"] for event in run.events()] == [n / 7 for n in range(51)]


def test_a_full_disk_leaves_the_journal_as_it_was(run, monkeypatch):
    run.write("step", step=1, loss=1.0)
    before = run.journal.read_bytes()
    write = os.pwrite

    def half(handle, data, place):
        if len(data) < 40:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(handle, data[:39], place)

    with monkeypatch.context() as patched:
        patched.setattr(os, "pwrite", half)
        with pytest.raises(InputError, match="no room left"):
            run.write("step", step=2, loss=2.0)
    assert run.journal.read_bytes() == before
    run.write("step", step=2, loss=2.0)
    run.sync()
    assert [event["step"] for event in run.events("step")] == [1, 2]


def test_names_that_are_not_utf8_come_back(run):
    run.write("note", text="caf\udce9.jsonl, half \ud83d")
    assert [event["text"] for event in RunFolder(run.path).events()] == ["caf\udce9.jsonl, half \ud83d"]
