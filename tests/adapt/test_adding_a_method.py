"""The page "adding a method" is true: its file and its lines, put where it says, pass the tests of all methods."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "adding_a_method.md"
HERE = Path(__file__).parent

INSTALL = """
import sys, types, importlib.util
from pathlib import Path

def install(name, code, path):
    module = types.ModuleType(name)
    module.__file__ = path
    sys.modules[name] = module
    exec(compile(code, path, "exec"), module.__dict__)

import lmworks.adapt
page, registry, tests = sys.argv[1:4]
install("lmworks.adapt.bitfit", Path(page).read_text(), page)
install("lmworks.adapt.registry", Path(registry).read_text(), registry)
lmworks.adapt.registry = sys.modules["lmworks.adapt.registry"]

import pytest
sys.exit(pytest.main(["-o", "addopts=", "-k", "bitfit or recipes", "-p", "no:cacheprovider", tests]))
"""


def test_the_example_is_a_method(tmp_path):
    code, lines = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    file, registry = tmp_path / "bitfit.py", tmp_path / "registry.py"
    file.write_text(code)
    text = (ROOT / "src" / "lmworks" / "adapt" / "registry.py").read_text(encoding="utf-8")
    import_line, entry = lines.splitlines()
    text = text.replace("from lmworks.adapt.full", f"{import_line}\nfrom lmworks.adapt.full", 1)
    registry.write_text(text.replace("        Full,\n", f"        Full,\n{entry}\n", 1))
    command = [sys.executable, "-c", INSTALL, str(file), str(registry), str(HERE / "test_methods.py")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]
    passed = re.search(r"(\d+) passed", done.stdout)
    parametrized = (HERE / "test_methods.py").read_text(encoding="utf-8").count("\n@methods\n")
    assert passed is not None
    assert int(passed[1]) == parametrized + 1  # and that of the recipes


def test_its_files_are_there():
    text = PAGE.read_text(encoding="utf-8")
    named = {path for path in re.findall(r"`((?:adapt|model)/\w+\.py)`", text) if "bitfit" not in path}
    assert len(named) > 5
    assert [path for path in named if not (ROOT / "src" / "lmworks" / path).is_file()] == []
