"""What the form of the tab Start asks for: the words of a command, checked as the command checks them."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import Literal

from pydantic import Field

from lmworks.base.errors import InputError
from lmworks.base.notation import parse_value, write_yaml
from lmworks.base.settings import build, merge, parse_overrides
from lmworks.baselines import tfidf_settings
from lmworks.comparisons.comparison_settings import CompareSettings
from lmworks.comparisons.comparison_state import is_comparison
from lmworks.comparisons.contender_recipes import checked
from lmworks.run import classical_recipe, ngram_recipe
from lmworks.run import recipe as recipes
from lmworks.serve.schemas import Body
from lmworks.studio import settings_form
from lmworks.studio.folders import Folders, shown
from lmworks.studio.sources import data_word, model_word, path_word

FORM = "the form"
"""Where settings come from, for errors."""
PLACES = {"tune": "runs", "pretrain": "runs", "compare": "comparisons"}
"""Folders of the first root in which runs are started."""
NAME = re.compile(r"\w[\w.+-]{0,99}")


class RunBody(Body):
    """A run to plan or to start.

    Attributes:
        verb: of the command.
        model, data: as the page names them (studio/sources).
        name: of the run's folder; empty: by time and model.
        method: of comparisons several, with commas between them; empty: the default.
        task: empty: what suits rows and model.
        settings: dotted name -> value as it is typed on a command line.
    """

    verb: Literal["tune", "pretrain", "compare"]
    model: str = Field(max_length=1000)
    data: str = Field(max_length=1000)
    name: str = Field("", max_length=200)
    method: str = Field("", max_length=1000)
    task: str = Field("", max_length=100)
    settings: dict[str, str] = Field(default_factory=dict, max_length=1000)


class RunRequest:
    """A run that was asked for.

    Args:
        body: of the request.
        folders: of the studio.

    Attributes:
        model, data: as the command names them.
        overrides: the options of its settings.

    Raises:
        InputError: the model or the data are not in the folders, or a setting is none of the form's.
    """

    def __init__(self, body: RunBody, folders: Folders) -> None:
        self.body, self.folders = body, folders
        self.model = model_word(folders, body.model, body.verb == "pretrain")
        self.data = data_word(folders, body.data)
        settings_form.check_names(body.settings, settings_form.settings_of(body.verb, self.model))
        self.overrides = [f"--{name}={self._value(name, text)}" for name, text in body.settings.items()]

    @property
    def folder(self) -> Path:
        """The folder of the run, which is new.

        Raises:
            InputError: its name is none, or there is such a folder.
        """
        name = self.body.name.strip() or f"{time.strftime('%Y%m%d-%H%M%S')}-{_plain(self.body.model)}"
        if not NAME.fullmatch(name):
            hint = "letters, digits, hyphens, underscores and dots, a letter or a digit first"
            raise InputError("is no name for the folder of a run", shown(name), hint)
        place = PLACES[self.body.verb]
        folder = self.folders.path(self.folders.name(self.folders.first / place / name))
        if folder.exists():
            raise InputError("is there already", f"{place}/{name}", "choose another name")
        return folder

    def words(self, verb: str, folder: Path | None = None) -> list[str]:
        """The command after ``lmworks``.

        Args:
            verb: that of the body, or "plan".
            folder: of the run; None: it is not named.
        """
        body = self.body
        method = "--methods" if body.verb == "compare" else "--method"
        named = {method: body.method.replace(" ", ""), "--task": body.task}
        options = [f"{name}={value}" for name, value in named.items() if value]
        out = [] if folder is None else [f"--out={path_word(self.folders, folder)}"]
        return [verb, self.model, self.data, *options, *out, *self.overrides]

    def check(self) -> None:
        """Check the settings as the command does before it opens anything.

        Raises:
            InputError: one cannot be used.
        """
        body, values = self.body, parse_overrides(self.overrides)
        named = {"methods" if body.verb == "compare" else "method": body.method}
        values |= {name: value for name, value in named.items() if value}
        if body.verb == "compare":
            values |= {"model": self.model, "source": self.data} | ({"task": body.task} if body.task else {})
            checked(build(CompareSettings, values, FORM))
            return
        values = merge(values, {"data": {"source": self.data}} | ({"task": {"name": body.task}} if body.task else {}))
        if body.verb == "pretrain":
            resolve = ngram_recipe.resolve if ngram_recipe.is_preset(self.model) else recipes.from_preset
            resolve(self.model, values, FORM)
        elif tfidf_settings.is_preset(self.model):
            classical_recipe.resolve(self.model, values, FORM)
        else:
            recipes.resolve({**values, "model": self.model}, FORM)

    def _value(self, name: str, text: str) -> str:
        """The value of a setting as a command line has it; files and models lie in the studio's folders."""
        kind = settings_form.SOURCES.get(name)
        if kind is None:
            return text
        word = data_word if kind == "data" else model_word
        value = parse_value(text.strip())
        if isinstance(value, list):
            return write_yaml([word(self.folders, str(part)) for part in value], flow=True)
        return write_yaml(word(self.folders, text), flow=True)


def resume_words(run: Path, folders: Folders) -> list[str]:
    """The command that goes on with a run or a comparison, after ``lmworks``."""
    word = path_word(folders, run)
    return ["compare", f"--out={word}"] if is_comparison(run) else ["resume", word]


def _plain(model: str) -> str:
    """The last part of a model's name, in letters, digits, dots and hyphens."""
    return re.sub(r"[^A-Za-z0-9.]+", "-", Path(model.rpartition(":")[2]).name).strip("-.") or "model"
