"""A library of kernels that cannot be used is told, once, and ends no process: tried in copies of the package."""

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

import lmworks
from lmworks.kernels.library import library

PACKAGE = Path(lmworks.__file__).parent
needs_kernels = pytest.mark.skipif(library() is None, reason="the native kernels were not built here")
SAY = "from lmworks.kernels.library import describe; print(describe())"
COMPUTE = """
import torch
from lmworks.kernels import norms
x = torch.ones(2, 4, requires_grad=True)
norms.rms_norm(x, torch.ones(4), 0.0).sum().backward()
print(x.grad.abs().max().item() < 1e-6)
"""


@pytest.fixture(name="copied")
def _copied(tmp_path):
    """The package without its kernels, and a way to run code with it: code, LMWORKS_KERNELS -> what is printed."""
    ignored = shutil.ignore_patterns("__pycache__", "_native*", "native")
    shutil.copytree(PACKAGE, tmp_path / "lmworks", ignore=ignored)

    def run(code, wanted="auto"):
        # -S and the packages' folder by hand: an editable installation's finder would find the built library first
        paths = os.pathsep.join([str(tmp_path), *{sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}])
        own = {**os.environ, "PYTHONPATH": paths, "LMWORKS_KERNELS": wanted}
        done = subprocess.run([sys.executable, "-S", "-c", code], env=own, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return tmp_path / "lmworks" / "kernels", run


def _built():
    return Path(library().__file__)


def _torn(where):
    content = _built().read_bytes()
    (where / _built().name).write_bytes(content[: len(content) // 3])


def _of_another_python(where):
    shutil.copy(_built(), where / "_native.cpython-39-x86_64-linux-gnu.so")


def _of_another_kind(where):
    import _ctypes

    shutil.copy(_ctypes.__file__, where / _built().name)


HARM = {
    "garbage": (lambda where: (where / _built().name).write_bytes(b"no library at all\n" * 99), "cannot be loaded"),
    "empty": (lambda where: (where / _built().name).write_bytes(b""), "cannot be loaded"),
    "torn": (_torn, "is torn"),
    "another Python": (_of_another_python, "another Python (_native.cpython-39"),
    "another module": (_of_another_kind, "cannot be loaded"),
}


@needs_kernels
@pytest.mark.parametrize("harm", HARM)
def test_falls_back_and_says_so_once(copied, harm):
    where, run = copied
    do, said = HARM[harm]
    do(where)
    told = run(SAY)
    assert told.startswith("none: ")
    assert told.count(said) == 1
    assert told.count("pip install --force-reinstall --no-deps lmworks") == 1
    if harm == "torn":
        assert run(COMPUTE) == "True\n"


def test_without_a_library(copied):
    assert "for want of a C++ compiler" in copied[1](SAY)
    assert copied[1](COMPUTE) == "True\n"


@needs_kernels
@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        ("avx9000", "LMWORKS_KERNELS=avx9000 is not to be had here"),
        ("portabel", "did you mean portable?"),
        ("of", "did you mean off?"),
        ("neon", "is not to be had here"),
    ],
)
def test_sets_that_are_not_to_be_had(copied, wanted, said):
    where, run = copied
    shutil.copy(_built(), where)
    told = run(SAY, wanted)
    assert told.count(said) == 1
    assert told.startswith(library().instruction_sets()[0])
    if wanted == "neon":
        assert run(COMPUTE, wanted) == "True\n"


@needs_kernels
@pytest.mark.parametrize("wanted", ["", "AUTO", "portable"])
def test_words_that_are_understood(copied, wanted):
    where, run = copied
    shutil.copy(_built(), where)
    told = run(SAY, wanted)
    assert "not to be had" not in told
    assert told.startswith("portable" if wanted == "portable" else library().instruction_sets()[0])


@needs_kernels
def test_an_older_edition_is_not_used(copied):
    where, run = copied
    shutil.copy(_built(), where)
    text = (where / "library.py").read_text()
    (where / "library.py").write_text(text.replace("EDITION = 2", "EDITION = 3"))
    assert "another version of lmworks" in run(SAY)
