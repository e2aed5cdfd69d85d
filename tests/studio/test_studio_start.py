"""The tab Start: runs as processes that outlive the server, their plan before, their curves meanwhile."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import contextmanager

import psutil
import pytest

pytest.importorskip("uvicorn")

from studio_server import running
from tiny_comparisons import comparison
from tiny_model import options, save_questions, save_tiny

from lmworks.base.errors import InputError
from lmworks.base.journal import RunFolder
from lmworks.studio import processes, progress

SETTINGS = {name.lstrip("-"): value for name, value in zip(options()[::2], options()[1::2], strict=True)}
"""Of a short run of the tiny model."""
LONG = {**SETTINGS, "train.steps": "1200", "train.checkpoint_every": "100", "lora.dropout": "0.1"}
"""Of one that goes on for some seconds."""
SLOW_MACHINE = 240.0


@pytest.fixture(name="home", scope="module")
def _home(tmp_path_factory):
    home = tmp_path_factory.mktemp("home")
    save_tiny(home / "work" / "tiny")
    save_questions(home / "work" / "faq.jsonl")
    return home


@pytest.fixture(name="studio", scope="module")
def _studio(home):
    with running([home / "work"]) as studio:
        yield studio


# Progress


def test_a_journal_is_read_as_it_grows(tmp_path):
    run = RunFolder.create(tmp_path / "run", "")
    reader = progress.JournalReader(run.path)
    assert progress.JournalReader(tmp_path / "nothing").read() == []
    run.write("start", model="tiny", data="faq.jsonl", method="lora", task={"name": "instructions"})
    run.write("evaluation", when="before", held_out={"loss": 3.0})
    assert [event["event"] for event in reader.read()] == ["start", "evaluation"]
    run.write("session", steps=10, from_step=0)
    run.write("step", step=1, loss=2.5, learning_rate=0.1)
    run.write("step", step=2, loss=float("nan"), learning_rate=0.1)
    with run.journal.open("ab") as file:
        file.write(b'{"event": "step", "step"')
    events = reader.read()
    assert progress.curve_points(events)["loss"] == [[1, 2.5]]
    assert progress.progress_of(events) == {"steps": 10, "step": 2, "stage": "training"}
    with run.journal.open("ab") as file:
        file.write(b': 3, "loss": 2.0}\n')
    assert progress.curve_points(reader.read())["loss"] == [[3, 2.0]]
    assert reader.read() == []


def test_the_state_of_a_run_is_what_its_folder_says(tmp_path):
    assert progress.state_of(tmp_path / "nothing").state == "failed"
    run = RunFolder.create(tmp_path / "run", "")
    assert progress.state_of(run.path).state == "failed"
    run.write("start", model="tiny", data="faq.jsonl", method="lora")
    if hasattr(os, "fork"):
        assert progress.state_of(run.path).state == "running"  # this process has its lock
    for step in range(1, 2000):
        run.write("step", step=step, loss=1.0, note="x" * 40)
    run.close()
    state = progress.state_of(run.path)
    assert (state.state, state.is_ours, state.about["model"], state.about["step"]) == ("stopped", False, "tiny", 1999)
    with run:
        run.write("finish", seconds=1.0)
    assert progress.state_of(run.path).state == "finished"


# Processes


@contextmanager
def served(folder):
    """``lmworks studio`` in a process of its own: the process, and a function that asks it."""
    command = [*processes.COMMAND, "studio", "--folder", str(folder), "--port", "0", "--stop_limit", "2"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            url, token = re.search(r"(http\S+)/studio\?token=(\S+)", process.stdout.readline()).groups()
            headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}

            def ask(path, body=None):
                content = None if body is None else json.dumps(body).encode()
                asked = urllib.request.Request(f"{url}/studio/api/start/{path}", content, headers)
                try:
                    with urllib.request.urlopen(asked, timeout=60) as response:
                        return json.load(response)
                except urllib.error.HTTPError as error:
                    return json.load(error)

            wait_for(lambda: is_up(url))
            yield process, ask
        finally:
            process.kill()


def is_up(url):
    try:
        with urllib.request.urlopen(f"{url}/health", timeout=60) as response:
            return response.status == 200
    except urllib.error.URLError:  # it does not listen yet
        return False


def wait_for(condition):
    end = time.monotonic() + SLOW_MACHINE
    while not (value := condition()):
        assert time.monotonic() < end, "it did not come"
        time.sleep(0.05)
    return value


def losses(run):
    return [(event["step"], event["loss"]) for event in RunFolder(run).events("step")]


@pytest.mark.timeout(900)
def test_a_run_outlives_the_server_is_stopped_and_resumed_bit_for_bit(home):
    work = home / "work"
    body = {"verb": "tune", "model": "tiny", "data": "faq.jsonl", "name": "long", "settings": LONG}
    with served(work) as (server, ask):
        begun = ask("begin", body)
        assert begun["run"] == "runs/long"
        assert "error" in ask("begin", body)  # there is its folder, or its process
        process = processes.read(work / "runs" / "long")
        wait_for(lambda: ask("watch?run=runs/long")["points"]["loss"])
        server.send_signal(signal.SIGKILL)
        server.wait()
    assert process.is_alive
    with served(work) as (server, ask):
        (run,) = ask("runs")["runs"]
        assert (run["run"], run["state"], run["is_ours"], run["words"]) == ("runs/long", "running", True, process.words)
        before = len(losses(work / "runs" / "long"))
        wait_for(lambda: len(losses(work / "runs" / "long")) > before)  # it goes on
        assert "is running" in ask("resume", {"run": "runs/long"})["error"]["message"]
        assert ask("stop", {"run": "runs/long"})["stops"] == 1
        stopped = wait_for(lambda: (run := ask("watch?run=runs/long"))["state"] != "running" and run)
        assert (stopped["state"], stopped["failure"], stopped["progress"]["stage"]) == ("stopped", "", "stopped")
        assert 0 < len(losses(work / "runs" / "long")) < 1200
        assert "go on with: lmworks resume" in stopped["text"]
        assert ask("resume", {"run": "runs/long"})["state"] == "running"
        server.send_signal(signal.SIGTERM)
        assert server.wait() == 0
    wait_for(lambda: progress.state_of(work / "runs" / "long").state == "finished")
    whole = [*processes.COMMAND, *shlex.split(begun["command"].replace("runs/long", "runs/whole"))[1:]]
    subprocess.run(whole, cwd=work, check=True, capture_output=True)
    assert losses(work / "runs" / "long") == losses(work / "runs" / "whole")
    assert len(losses(work / "runs" / "long")) == 1200
    assert not RunFolder(work / "runs" / "long").events("divergence")


def test_a_run_that_is_refused_says_why_and_can_be_taken_off_the_list(home, studio):
    (home / "work" / "short.jsonl").write_text('{"prompt": "a"}\n{"text": "b"}\n')
    body = {"verb": "tune", "model": "tiny", "data": "short.jsonl", "name": "refused"}
    assert studio.ask("POST", "/studio/api/start/begin", body)[1]["run"] == "runs/refused"

    def listed():
        runs = studio.ask("GET", "/studio/api/start/runs")[1]["runs"]
        return next((run for run in runs if run["run"] == "runs/refused"), None)

    run = wait_for(lambda: (run := listed())["state"] != "running" and run)
    assert run["state"] == "failed"
    assert "short.jsonl" in run["failure"]
    assert "hint: " in run["failure"]
    assert studio.ask("POST", "/studio/api/start/resume", {"run": "runs/refused"})[0] == 400
    assert studio.ask("POST", "/studio/api/start/forget", {"run": "runs/refused"})[0] == 200
    assert listed() is None
    assert not (home / "work" / "runs" / ".refused.process").exists()


def test_the_plan_comes_before_the_start_and_ends_with_its_request(studio):
    body = {"verb": "tune", "model": "tiny", "data": "faq.jsonl", "settings": SETTINGS}
    status, text, _ = studio.ask("POST", "/studio/api/start/plan", body)
    assert status == 200
    events = [json.loads(line.removeprefix("data: ")) for line in text.split("\n\n")[:-2]]
    assert any("line" in event for event in events)
    assert [name for name, _ in events[-1]["rows"]] == ["parameters", "work", "time", "memory", "disk"]
    assert text.endswith("data: [DONE]\n\n")
    me = psutil.Process()

    def children():
        return {child.pid for child in me.children() if child.status() != psutil.STATUS_ZOMBIE}

    before = children()
    asked = urllib.request.Request(
        f"{studio.url}/studio/api/start/plan",
        json.dumps({**body, "settings": {**SETTINGS, "lora.rank": "3"}}).encode(),
        {"Authorization": "Bearer a-token-of-the-tests", "Content-Type": "application/json"},
    )
    with urllib.request.urlopen(asked, timeout=60):
        wait_for(lambda: children() - before)
    wait_for(lambda: not children() - before)


def test_a_plan_that_is_refused_says_why(studio):
    body = {"verb": "tune", "model": "tiny", "data": "faq.jsonl", "settings": {"data.max_tokens": "100000"}}
    text = studio.ask("POST", "/studio/api/start/plan", body)[1]
    failure = json.loads(text.split("\n\n")[-3].removeprefix("data: "))["failure"]
    assert "the model's context is 256 tokens" in failure
    status, answer, _ = studio.ask("POST", "/studio/api/start/plan", {**body, "verb": "compare", "settings": {}})
    assert (status, "as a part of its budget" in answer["error"]["message"]) == (400, True)


@pytest.mark.parametrize("path", ["stop", "resume", "forget"])
def test_what_is_no_run_here_is_not_touched(studio, path):
    for name in ("", "..", "/etc", "runs/nothing", "tiny"):
        status, answer, _ = studio.ask("POST", f"/studio/api/start/{path}", {"run": name})
        assert (status, answer["error"]["code"]) == (400, "invalid_value")


def test_a_record_of_another_process_of_that_number_is_not_alive(tmp_path):
    run = tmp_path / "run"
    folder = tmp_path / ".run.process"
    me = psutil.Process()
    processes._write(folder, processes.RunProcess(["tune"], me.pid, me.create_time() - 3600))
    assert not processes.read(run).is_alive
    with pytest.raises(InputError, match="no process of the studio works on it"):
        processes.stop(run)
    processes._write(folder, processes.RunProcess(["tune"], me.pid, me.create_time()))
    assert processes.read(run).is_alive
    with pytest.raises(InputError, match="is being worked on already"):
        processes.start(run, ["runs"], tmp_path)
    (folder / processes.RECORD).write_text("{")
    assert processes.read(run) is None


def test_a_command_is_run_with_its_output_kept(tmp_path):
    processes.start(tmp_path / "runs" / "x", ["recipe", "presets", "--preset", "tinygpt"], tmp_path)
    wait_for(lambda: not processes.read(tmp_path / "runs" / "x").is_alive)
    text, end = processes.output_of(tmp_path / "runs" / "x")
    assert "tinygpt" in text
    assert processes.output_of(tmp_path / "runs" / "x", end) == ("", end)
    assert list(processes.runs_with_process(tmp_path / "runs")) == [tmp_path / "runs" / "x"]
    assert sys.executable == processes.COMMAND[0]


def test_a_comparison_is_followed_by_its_table_and_the_run_that_is_going(home, studio):
    folder = home / "work" / "comparisons" / "one"
    state = comparison(["majority", "lora"], seeds=1)
    state.results[1].state, state.recommendation = "open", {}
    state.write(folder)
    trial = RunFolder.create(folder / "lora" / "seed-0", "")
    trial.write("start", model="tiny")
    trial.write("step", step=1, loss=2.0, learning_rate=0.1)
    _, seen, _ = studio.ask("GET", "/studio/api/start/watch?run=comparisons/one")
    assert (seen["kind"], seen["state"], seen["about"]["step"], seen["about"]["steps"]) == (
        "comparison",
        "running",
        1,
        2,
    )
    assert (seen["trial"], seen["is_new"], seen["points"]["loss"]) == ("lora/seed-0", True, [[1, 2.0]])
    assert seen["table"]["heads"][:2] == ["contender", "accuracy"]
    assert {row[0] for row in seen["table"]["rows"]} == {"majority class", "LoRA"}
    trial.write("step", step=2, loss=1.0, learning_rate=0.1)
    trial.close()
    query = f"run=comparisons/one&trial=lora/seed-0&journal={seen['journal']}"
    _, later, _ = studio.ask("GET", f"/studio/api/start/watch?{query}")
    assert (later["is_new"], later["points"]["loss"], later["state"]) == (False, [[2, 1.0]], "stopped")
    comparison(["majority", "lora"], seeds=1, recommendation={}).write(folder)
    assert progress.state_of(folder).state == "finished"
    comparison(["majority", "lora"], seeds=1).write(folder)
    _, ended, _ = studio.ask("GET", "/studio/api/start/watch?run=comparisons/one")
    assert ended["state"] == "finished"
    assert ended["table"]["recommendation"][0].startswith("recommended: ")
    assert [
        run["run"] for run in studio.ask("GET", "/studio/api/start/runs")[1]["runs"] if run["kind"] == "comparison"
    ] == []
