"""The table of families: how far each is from ``transformers``, and the lines of code that it cost.

Every tiny random model of tests/tiny_families.py is opened here, asked the same as theirs, and both learn from the same
loss; and the classes with the head of a task. ``--write`` puts the tables into docs/families.md.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import importlib
import io
import os
import pkgutil
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "families.md"
BEGIN, END = "<!-- printed by python benchmarks/families.py --write -->", "<!-- end of what is printed -->"
SHARED = ("mapping", "family", "rope", "decoder", "folder", "opened", "registry")
HEADERS = ("family", "variants", "logits", "gradients", "share of the largest gradient", "file", "lines")


def code_lines(path: Path) -> int:
    """Lines that hold code: without blank lines, comments and docstrings."""
    text = path.read_text(encoding="utf-8")
    silent = {number for number, line in enumerate(text.splitlines(), 1) if line.strip()[:1] in ("", "#")}
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            silent |= set(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    return len(text.splitlines()) - len(silent)


def files_of_families() -> dict[str, Path]:
    """model_type -> the file that defines it."""
    import lmworks.families as floor
    from lmworks.families.family import Family

    files: dict[str, Path] = {}
    for module in pkgutil.iter_modules(floor.__path__):
        if module.name in SHARED or module.name.startswith("gguf"):
            continue
        loaded = importlib.import_module(f"lmworks.families.{module.name}")
        families = [value for value in vars(loaded).values() if isinstance(value, Family)]
        files |= {family.name: Path(str(loaded.__file__)) for family in families}
    return files


def measure() -> dict[str, dict[str, tuple[float, float, float]]]:
    """model_type -> variant -> the largest differences of logits, of gradients, and of these as a share."""
    sys.path.insert(0, str(ROOT / "tests"))
    from tiny_families import CASES, differences, open_case, their_class

    results: dict[str, dict[str, tuple[float, float, float]]] = {}
    for name in CASES:
        with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stderr(io.StringIO()):
            model, ours = open_case(name, Path(folder))
            results.setdefault(their_class(name).config_class.model_type, {})[name] = differences(model, ours)
    return results


def table() -> str:
    """The table as Markdown, and what the families share."""
    files, measured = files_of_families(), measure()
    from lmworks.families.registry import OWN

    if missing := sorted(set(files) - set(measured) - {family.name for family in OWN}):
        raise SystemExit(f"there is no tiny model for {', '.join(missing)}: add it to tests/tiny_families.py")
    rows = [HEADERS, ("---", "---:", "---:", "---:", "---:", "---", "---:")]
    for family, variants in measured.items():
        worst = [f"{max(numbers):.1e}" for numbers in zip(*variants.values(), strict=True)]
        rows.append((family, str(len(variants)), *worst, files[family].name, str(code_lines(files[family]))))
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    folder = ROOT / "src" / "lmworks" / "families"
    costs = [f"`{name}.py` {code_lines(folder / f'{name}.py')}" for name in SHARED]
    return "\n".join([*lines, "", _noises(), "", f"What all of them share, in lines: {', '.join(costs)}."])


def _noises() -> str:
    """How far the tiny models are from where they begin; those of some families less than the others."""
    from tiny_families import CASES, Case, their_class

    usual = Case._field_defaults["noise"]
    less: dict[float, set[str]] = {}
    for name, case in CASES.items():
        if case.noise != usual:
            less.setdefault(case.noise, set()).add(their_class(name).config_class.model_type)
    others = "; ".join(f"of {', '.join(sorted(names))}: {noise:g}" for noise, names in sorted(less.items()))
    return (
        f"To every weight of a tiny model normal noise is added, with a standard deviation of {usual:g} ({others}: "
        "where scores of attention are not scaled, a softmax of large ones makes rounding large)."
    )


HEADS_BEGIN, HEADS_END = BEGIN.replace("<!-- printed", "<!-- heads, printed"), "<!-- end of the heads -->"


def table_of_heads() -> str:
    """The classes with the head of a task: the largest difference of any logit, by family and head, as Markdown."""
    from tiny_heads import CASES, difference, make

    from lmworks.families.folder import open_folder
    from lmworks.families.registry import FAMILIES, OWN
    from lmworks.model.head_requests import SEQUENCE, SPANS, TOKENS

    measured: dict[str, dict[str, str]] = {}
    for family, head in CASES:
        with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stderr(io.StringIO()):
            model = make(family, head)
            model.save_pretrained(folder)
            measured.setdefault(family, {})[head] = f"{difference(model, open_folder(folder), head):.1e}"
    heads = (SEQUENCE, TOKENS, SPANS)
    rows = [("family", *(f"For{''.join(map(str.title, head.split('_')))}" for head in heads)), ("---", *["---:"] * 3)]
    for family in FAMILIES:
        if family not in {own.name for own in OWN}:
            rows.append((family, *(measured.get(family, {}).get(head, "–") for head in heads)))
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def main() -> None:
    """Print the table; with ``--write``, put it into its page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help="put the table into docs/families.md")
    arguments = parser.parse_args()
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    for printed, begin, end in ((table(), BEGIN, END), (table_of_heads(), HEADS_BEGIN, HEADS_END)):
        print(printed)
        if arguments.write:
            before, _, rest = PAGE.read_text(encoding="utf-8").partition(begin)
            after = rest.partition(end)[2]
            PAGE.write_text(f"{before}{begin}\n{printed}\n{end}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
