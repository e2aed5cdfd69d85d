"""New models by name: settings of a recipe, with the source of their numbers.

The presets are data in presets.yaml, which this file does not interpret. Imports no torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from lmworks.base.errors import InputError
from lmworks.base.notation import read_yaml
from lmworks.base.settings import nearest, spelled

DESCRIPTION_KEYS = ("about", "citation", "published")


@dataclass(frozen=True)
class Preset:
    """A new model to train.

    Attributes:
        name: of the preset.
        about: one line, and differences from the published model.
        citation: source of its numbers.
        published: how long the published model was trained.
        values: settings of a recipe.
    """

    name: str
    about: str
    citation: str
    published: str
    values: dict[str, Any]


def preset(name: str) -> Preset:
    """A preset by its name, in which underscores count as hyphens.

    Raises:
        InputError: there is none; the message names the nearest.
    """
    choices = names()
    name = spelled(name, choices)
    if name not in choices:
        near = nearest(name, choices)
        hint = f"did you mean {near[0]}?" if near else f"one of: {', '.join(choices)}"
        raise InputError(f"there is no preset {name!r}", "", f"{hint} (lmworks recipe presets describes them)")
    values = dict(_all()[name])
    about = {key: str(values.pop(key)) for key in DESCRIPTION_KEYS}
    return Preset(name, **about, values={"name": name, **values})


def names() -> list[str]:
    """All names, in the order of the file."""
    return list(_all())


@cache
def _all() -> dict[str, dict[str, Any]]:
    with resources.as_file(resources.files("lmworks.run").joinpath("presets.yaml")) as path:
        return dict(read_yaml(Path(path)))
