"""A compiled module that cannot be used is reported once and kills no process; tried in copies of the package."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import lmworks
from lmworks.kernels.native_module import API_VERSION, native_module

PACKAGE = Path(lmworks.__file__).parent
needs_kernels = pytest.mark.skipif(native_module() is None, reason="the native kernels are not compiled here")
DESCRIBE = "from lmworks.kernels.native_module import describe; print(describe())"
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

    def run(code, setting="auto"):
        # -S and PyTorch's folder given: the finder of an editable installation would find the compiled module first
        paths = os.pathsep.join((str(tmp_path), str(Path(torch.__file__).parents[1])))
        environment = {**os.environ, "PYTHONPATH": paths, "LMWORKS_KERNELS": setting}
        done = subprocess.run([sys.executable, "-S", "-c", code], env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return tmp_path / "lmworks" / "kernels", run


def _module_file():
    return Path(native_module().__file__)


def _write(folder, content):
    (folder / _module_file().name).write_bytes(content)


def _truncated(folder):
    content = _module_file().read_bytes()
    _write(folder, content[: len(content) // 3])


def _of_another_python(folder):
    shutil.copy(_module_file(), folder / "_native.cpython-39-x86_64-linux-gnu.so")


def _of_another_module(folder):
    import _ctypes

    shutil.copy(_ctypes.__file__, folder / _module_file().name)


HARM = {
    "garbage": (lambda folder: _write(folder, b"not an ELF file\n" * 99), "cannot be loaded"),
    "empty": (lambda folder: _write(folder, b""), "cannot be loaded"),
    "truncated": (_truncated, "is truncated"),
    "another Python": (_of_another_python, "another Python (_native.cpython-39"),
    "another module": (_of_another_module, "cannot be loaded"),
}


@needs_kernels
@pytest.mark.parametrize("harm", HARM)
def test_pytorch_computes_and_the_fault_is_said_once(copied, harm):
    folder, run = copied
    damage, fault = HARM[harm]
    damage(folder)
    line = run(DESCRIBE)
    assert line.startswith("none: ")
    assert line.count(fault) == 1
    assert line.count("pip install --force-reinstall --no-deps lmworks") == 1
    if harm == "truncated":
        assert run(COMPUTE) == "True\n"


def test_without_a_library(copied):
    assert "because there was no C++ compiler" in copied[1](DESCRIBE)
    assert copied[1](COMPUTE) == "True\n"


@needs_kernels
@pytest.mark.parametrize(
    ("setting", "fault"),
    [
        ("avx9000", "LMWORKS_KERNELS=avx9000 is not available here"),
        ("portabel", "did you mean portable?"),
        ("of", "did you mean off?"),
        ("neon", "is not available here"),
    ],
)
def test_instruction_sets_that_are_not_available(copied, setting, fault):
    folder, run = copied
    shutil.copy(_module_file(), folder)
    line = run(DESCRIBE, setting)
    assert line.count(fault) == 1
    assert line.startswith(native_module().instruction_sets()[0])
    if setting == "neon":
        assert run(COMPUTE, setting) == "True\n"


@needs_kernels
@pytest.mark.parametrize("setting", ["", "AUTO", "portable"])
def test_settings_that_are_accepted(copied, setting):
    folder, run = copied
    shutil.copy(_module_file(), folder)
    line = run(DESCRIBE, setting)
    assert "not available" not in line
    assert line.startswith("portable" if setting == "portable" else native_module().instruction_sets()[0])


@needs_kernels
def test_a_module_of_another_version_is_not_used(copied):
    folder, run = copied
    shutil.copy(_module_file(), folder)
    text = (folder / "native_module.py").read_text()
    (folder / "native_module.py").write_text(text.replace(f"API_VERSION = {API_VERSION}", "API_VERSION = 1000"))
    assert "another version of lmworks" in run(DESCRIBE)
