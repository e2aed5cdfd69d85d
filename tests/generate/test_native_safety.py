"""Interrupted calls, forks and ends of processes: the native engine stays usable, or says why not; nothing hangs."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from test_native_stepper import network_of

from lmworks.generate.decode import decode
from lmworks.generate.native_stepper import NativeStepper
from lmworks.generate.native_weights import native_stepper, weights_of
from lmworks.generate.sampling import SamplingSettings
from lmworks.generate.stepper import RowStart
from lmworks.kernels.native_module import native_module

pytestmark = pytest.mark.skipif(native_module() is None, reason="no native kernels")

LIMIT = 120  # seconds after which a process is taken to hang
TORCH = "import torch\ntorch.set_num_threads(3)\n"
BEGINNING = f"""
import os, signal, sys, threading, time
from pathlib import Path
signal.alarm({LIMIT})
from lmworks.generate.engine_file import open_engine
from lmworks.generate.native_stepper import NativeStepper
from lmworks.generate.stepper import RowStart
from lmworks.kernels.native_module import native_module

kernels = native_module()
kernels.set_num_threads(3)
engine = open_engine(Path(sys.argv[1]))

def logits():
    stepper = NativeStepper(engine, 97, 96)
    stepper.prefill([RowStart([5, 6, 7])])
    stepper.step([4])
    return stepper.logits.tobytes()

def generate(started):
    stepper = NativeStepper(engine, 97, 96)
    while True:
        stepper.prefill([RowStart(range(90))])
        started.set()

def fork(child):
    pid = os.fork()
    if pid == 0:
        signal.alarm({LIMIT})
        child()
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
"""
FORK = """
before = logits()
code = fork(lambda: sys.exit(0 if logits() == before else 3))
print(code, kernels.thread_pool(), logits() == before)
"""
FORK_WITH_TORCH = """
before = logits()
team = kernels.thread_pool()

def child():
    same = logits() == before and kernels.thread_pool() == "own" and kernels.num_threads() == 3
    os._exit(0 if same else 3)

print(fork(child), team, logits() == before)
"""
FORK_DURING_A_STEP = """
started = threading.Event()
threading.Thread(target=generate, args=(started,), daemon=True).start()
started.wait()

def child():
    try:
        logits()
    except RuntimeError as error:
        os._exit(7 if "forked while another thread computed" in str(error) else 3)
    os._exit(0)

codes = set()
for _ in range(200):
    codes.add(fork(child))
    if 7 in codes:
        break
print(codes - {0})
"""
SIZES = """
started = threading.Event()
threading.Thread(target=generate, args=(started,), daemon=True).start()
started.wait()
print(len([engine.sizes() for _ in range(500)]))
"""
DAEMON = """
started = threading.Event()
threading.Thread(target=generate, args=(started,), daemon=True).start()
started.wait()
print(started.is_set())
"""


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of the engine, which a process opens without torch."""
    path = tmp_path_factory.mktemp("safety") / "engine.safetensors"
    weights_of(network_of()).save(path)
    return path


def run(code: str, weights: Path, first: str = "") -> str:
    """What a process prints to its end, which comes without an error."""
    words = [sys.executable, "-W", "ignore", "-c", first + BEGINNING + code, str(weights)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=2 * LIMIT)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.strip()


@pytest.fixture
def interrupting_signal() -> Iterator[signal.Signals]:
    """A signal that acts as Ctrl-C does; the test runner may have SIGINT to itself."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGUSR1, interrupt)
    yield signal.SIGUSR1
    signal.signal(signal.SIGUSR1, before)


def test_a_text_goes_on_after_it_was_cancelled_between_tokens() -> None:
    network, settings = network_of(), SamplingSettings(max_tokens=20)
    whole = [token.id for (token,) in decode(native_stepper(network), [[5, 6, 7]], settings, set())]
    stepper = native_stepper(network)
    steps = decode(stepper, [[5, 6, 7]], settings, set())
    text = [next(steps)[0].id for _ in range(8)]
    steps.close()
    assert stepper.lengths == [3 + 7]  # the last token was chosen, but not read yet
    while len(text) < 20:
        stepper.step([text[-1]])
        text.append(int(stepper.logits[0].argmax()))
    assert text == whole


@pytest.mark.parametrize("calls", ["extend", "add"])
def test_an_interrupted_call_leaves_the_rows_as_they_were(calls: str, interrupting_signal: signal.Signals) -> None:
    network = network_of(max_position_embeddings=2048)
    engine = weights_of(network).engine
    stepper, fresh = NativeStepper(engine, 97, 2048), NativeStepper(engine, 97, 2048)
    tokens = torch.randint(0, 97, (2000,)).tolist()
    for own in (stepper, fresh):
        own.prefill([RowStart(tokens[:3])])
    before = engine.sizes()[1]

    def compute(timer: threading.Timer) -> None:
        timer.start()
        while True:
            if calls == "extend":
                stepper.extend(tokens)
                stepper.truncate(3)
            else:
                stepper.add([RowStart(tokens)])
                stepper.keep([0])

    for delay in (0.0, 0.02, 0.05):
        timer = threading.Timer(delay, os.kill, (os.getpid(), interrupting_signal))
        with pytest.raises(KeyboardInterrupt):
            compute(timer)
        timer.join()
        if len(stepper.lengths) > 1:  # it came after the call
            stepper.keep([0])
        assert [engine.length(number) for number in stepper._numbers] == stepper.lengths
        stepper.truncate(3)
        if calls == "add":
            assert engine.sizes()[1] == before  # nothing is left of what was being read
        stepper.step([7])
        fresh.step([7])
        assert (stepper.logits == fresh.logits).all()
        for own in (stepper, fresh):
            own.truncate(3)


def test_a_forked_process_has_threads_of_its_own(weights: Path) -> None:
    assert run(FORK, weights) == "0 own True"


def test_a_forked_process_does_not_wait_for_the_threads_of_torch(weights: Path) -> None:
    assert run(FORK_WITH_TORCH, weights, TORCH) in ("0 OpenMP of PyTorch True", "0 own True")


def test_a_process_forked_during_a_step_says_so(weights: Path) -> None:
    assert run(FORK_DURING_A_STEP, weights) == "{7}"


@pytest.mark.parametrize("first", ["", TORCH], ids=["own threads", "threads of torch"])
def test_a_process_ends_while_a_thread_generates(weights: Path, first: str) -> None:
    for _ in range(5):
        assert run(DAEMON, weights, first) == "True"


def test_sizes_are_read_while_a_thread_generates(weights: Path) -> None:
    assert run(SIZES, weights) == "500"
