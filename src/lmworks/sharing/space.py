"""A demo of a model as a Hugging Face Space: a page of Gradio, its requirements, and the header that the hub reads.

The page (space_app.py) uses transformers, so that it runs where lmworks is not installed; demo.json tells it how the
model's inputs looked in its run.
"""

from __future__ import annotations

import json
import shutil
from importlib.resources import files as resources
from pathlib import Path
from typing import Any

import yaml

from lmworks.base.errors import InputError
from lmworks.base.files import atomic_folder, atomic_write
from lmworks.sharing.model_card import Published
from lmworks.sharing.model_use import ModelUse

APP, REQUIREMENTS, README, DEMO, MODEL = "app.py", "requirements.txt", "README.md", "demo.json", "model"
GRADIO = "6.31.0"
"""The version of Gradio that the hub is told to install."""
PACKAGES = ("accelerate", "safetensors", "torch", "transformers>=5.0")
KINDS = {
    "text-generation": "text",
    "text2text-generation": "source",
    "text-classification": "classes",
    "fill-mask": "fill",
}
"""By task of the hub, what the page does; a decoder with a chat template has a conversation instead."""


def check_place(folder: Path, overwrite: bool) -> None:
    """Refuse a place that a demo must not be written to.

    Raises:
        InputError: a file stands there, or a folder that is not empty; with ``overwrite``, one that holds something
            else.
    """
    if not folder.exists():
        return
    if not folder.is_dir():
        raise InputError("a file of this name stands in the way", str(folder), "choose another name")
    names = {file.name for file in folder.iterdir()}
    if names and not overwrite:
        hint = "choose a new or empty folder, or replace it with --overwrite (in Python overwrite=True)"
        raise InputError("is there already and not empty", str(folder), hint)
    if strange := sorted(names - {APP, REQUIREMENTS, README, DEMO, MODEL}):
        fault = f"the folder holds what is not part of a demo: {', '.join(strange[:5])}"
        raise InputError(fault, str(folder), "choose a new or empty folder")


def write(folder: Path, use: ModelUse, published: Published, repo: str | None, model: Path | None) -> None:
    """Write the demo of a model.

    Args:
        folder: where to; ``check_place`` has allowed it.
        use: of the model.
        published: its name and licence.
        repo: owner/name, from which the page takes the model; None: from the folder.
        model: its files, which are copied into the demo; None: they are not.

    Raises:
        InputError: there is no page for such a model.
    """
    settings = {"title": published.name.rpartition("/")[2], "model": repo or MODEL, **demo_of(use, published.name)}
    with atomic_folder(folder) as aside:
        app = (resources("lmworks.sharing") / "space_app.py").read_text(encoding="utf-8")
        atomic_write(aside / APP, app)
        atomic_write(aside / REQUIREMENTS, "\n".join(PACKAGES) + "\n")
        atomic_write(aside / DEMO, json.dumps(settings, ensure_ascii=False, indent=1) + "\n")
        atomic_write(aside / README, _readme(settings["title"], published, repo))
        if model is not None:
            shutil.copytree(model, aside / MODEL)


def demo_of(use: ModelUse, name: str) -> dict[str, Any]:
    """What the page does, and what it puts around a text that a person writes.

    Raises:
        InputError: there is no page for such a model.
    """
    form, kind = use.input_format, KINDS.get(use.pipeline or "")
    if kind is None or (form is not None and form.labels):
        does = "chooses labels by their likelihood" if kind else f"does {use.pipeline or 'what transformers does not'}"
        fault = f"there is no demo of a model that {does}; there is one for {', '.join(KINDS)}"
        raise InputError(fault, name, "leave --space out")
    if form is None:
        return {"kind": "chat" if use.has_template and kind == "text" else kind, "pattern": "{text}", "column": "text"}
    if len(form.columns) > 1:
        fault = f"its inputs are built from {' and '.join(form.columns)}, and the page has one text"
        raise InputError(fault, name, "leave --space out")
    if use.has_template and kind == "text" and form.template != "off":
        kind = "chat"
    pattern, column = form.prompt or form.text, next(iter(form.columns), "text")
    if pattern is None:
        pattern = form.prefix.replace("{", "{{").replace("}", "}}") + "{text}"
        if form.has_prompt and kind == "text":
            pattern += "\n"  # as data/prompts puts it between a prompt and its answer
    return {"kind": kind, "pattern": pattern, "column": column, **({"system": form.system} if form.system else {})}


def _readme(title: str, published: Published, repo: str | None) -> str:
    """The header by which the hub builds and lists a Space, and a line about it."""
    header = {
        "title": title,
        "emoji": "💬",
        "colorFrom": "blue",
        "colorTo": "gray",
        "sdk": "gradio",
        "sdk_version": GRADIO,
        "app_file": APP,
        "models": [repo] if repo else None,
        "license": published.licence,
    }
    present = {key: value for key, value in header.items() if value}
    text = yaml.safe_dump(present, sort_keys=False, allow_unicode=True)
    place = f"`{repo}`" if repo else f"the folder `{MODEL}`"
    about = f"A demo of a model that was trained by lmworks; its weights are in {place}."
    here = f"Here: `pip install gradio=={GRADIO} -r {REQUIREMENTS} && python {APP}`."
    return f"---\n{text}---\n\n{about} {here}\nOn the hub: `hf upload OWNER/NAME . --repo-type space`.\n"
