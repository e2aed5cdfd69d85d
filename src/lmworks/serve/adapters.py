"""LoRA adapters in a folder, loaded beside the models of a server and dropped again, each under a name of its own.

The native engine computes each sequence with its own adapter on one copy of the weights. A dropped adapter is forgotten
once the answers that have it have ended.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import replace
from functools import partial
from pathlib import Path, PurePosixPath

from lmworks.adapt.adapter_base import is_adapter
from lmworks.adapt.native_lora import NotComputed
from lmworks.base.errors import InputError
from lmworks.base.figures import list_names
from lmworks.base.files import expand_home
from lmworks.language_model.native_model import NativeModel
from lmworks.serve.served_model import ServedModel

FINAL = "final"
"""In a run's folder, its result."""


def adapters_in(folder: str | Path) -> list[str]:
    """The folders within a folder that are adapters, or runs with one as their result, sorted.

    Raises:
        InputError: the folder cannot be read.
    """
    place = expand_home(folder)
    try:
        return sorted(path.name for path in place.iterdir() if _adapter_in(path) is not None)
    except OSError as error:
        hint = "give a folder whose folders are adapters, or runs that trained one"
        raise InputError(f"cannot be read ({error.strerror})", str(place), hint) from error


class AdapterFolder:
    """The adapters in a folder, and the models that they may be loaded onto. One thread calls at a time.

    Args:
        folder: of adapters, or of runs that have one as their result.
        models: those of the server, before it has begun; adapters are loaded onto those in the native engine.
    """

    def __init__(self, folder: str | Path, models: Iterable[ServedModel]) -> None:
        self._folder = expand_home(folder)
        self._bases = [(served, base) for served in models if (base := _base_of(served)) is not None]
        self._numbers = itertools.count(1)

    def names(self) -> list[str]:
        """The adapters that are there, sorted; raises as :func:`adapters_in`."""
        return adapters_in(self._folder)

    def load(self, name: str, path: str = "", base: str | None = None) -> ServedModel:
        """Load an adapter.

        Args:
            name: as requests name it.
            path: its folder within this one; default: as it is named.
            base: the model that it belongs to; default: the first that it fits.

        Raises:
            InputError: there is none, or it fits no model.
        """
        adapter, faults = self._find(path or name), list[InputError]()
        for served, own in self._bases:
            if base in (None, served.name):
                try:
                    return self._put(name, adapter, served, own)
                except NotComputed:
                    raise
                except InputError as error:
                    faults.append(error)
        if faults:
            raise faults[0]
        known = list_names([served.name for served, _ in self._bases]) or "none"
        named = "no model here" if base is None else f"no model {base[:80]!r} that"
        raise InputError(f"there is {named} takes adapters", "base_model_name", f"those that do: {known}")

    def _put(self, name: str, adapter: Path, served: ServedModel, base: NativeModel) -> ServedModel:
        """An adapter of a model as a model of its own, with its tokenizer and its format of inputs."""
        inner = f"{name}#{next(self._numbers)}"  # the next one of this name is another one
        model = replace(base, source=str(adapter), notes=[])
        model.add_adapter(inner, adapter)
        model.use_adapter(inner)
        forget = partial(model.remove_adapter, inner)
        if model.labels:
            forget()
            hint = f"serve it as a model of its own: lmworks serve {name}={adapter}"
            raise InputError("labels texts, and writes none", str(adapter), hint)
        adapted = ServedModel(name, model, served.scheduler, adapter=inner, parent=served.name)
        adapted.forget, adapted.notes = forget, model.notes
        return adapted

    def _find(self, path: str) -> Path:
        """The folder of an adapter within this one."""
        parts, found = PurePosixPath(path).parts, None
        if parts and not path.startswith("/") and ".." not in parts and "\0" not in path:
            found = _adapter_in(self._folder / path)
        if found is None:
            there = list_names(self.names()) or "none"
            raise InputError(
                f"there is no adapter {path[:80]!r} in the server's folder", "lora_path", f"there: {there}"
            )
        return found


def drop(served: ServedModel) -> None:
    """Forget an adapter once no answer has it."""
    assert served.scheduler is not None
    assert served.adapter is not None
    served.scheduler.drop_adapter(served.adapter, served.forget)


def _base_of(served: ServedModel) -> NativeModel | None:
    """A model without its adapter, over the same engine; None of one that takes no adapters."""
    model = served.model
    if not isinstance(model, NativeModel) or served.scheduler is None:
        return None
    with model.adapter(None):
        return replace(model, few_shot=None)


def _adapter_in(path: Path) -> Path | None:
    """The adapter that a folder holds, or that a run has as its result."""
    return next((folder for folder in (path, path / FINAL) if is_adapter(folder)), None)
