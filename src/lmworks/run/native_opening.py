"""Opens a model for texts and likelihoods: by the native engine, where it computes the model; else by PyTorch.

What the native engine computes is kept packed in the cache, so that the next opening imports no torch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from lmworks.language_model import engine_cache

if TYPE_CHECKING:
    from lmworks.language_model.model import LanguageModel
    from lmworks.language_model.native_model import NativeModel

Notes = Callable[[Iterable[str]], None]


def open_native(
    source: str, base: str | None, head: str | None, notes: Notes, is_required: bool = False
) -> LanguageModel | NativeModel:
    """The model from the cache of packed weights; where it is not there, it is packed.

    Args:
        source: of the model.
        base: of an adapter: its base, where that has moved.
        head: of a run of several tasks: the head that the model has.
        notes: gets what opening had to say.
        is_required: whether a model that the engine does not compute is refused.

    Raises:
        InputError: there is no such model, or it is required of the engine, which does not compute it.
    """
    model = None
    if head is None:
        model = engine_cache.open_cached(source, base) or _open_beside_base(source, base, notes)
    if model is not None:
        notes(model.notes)
        return model
    return _pack(source, base, head, notes, is_required)


def _open_beside_base(source: str, base: str | None, notes: Notes) -> NativeModel | None:
    """Of an adapter that the native engine computes: pack its base, which serves all of its adapters, and open both."""
    stored = engine_cache.base_to_store(source, base)
    if stored is None:
        return None
    from lmworks.language_model.opening import open_saved_model, read_config

    if read_config(stored).architecture != "decoder":
        return None
    model = open_saved_model(stored, storage="stored").prepare("float32")
    if model.engine_fault:  # said of the adapter
        return None
    notes(engine_cache.store(model))
    return engine_cache.open_cached(source, base)


def _pack(source: str, base: str | None, head: str | None, notes: Notes, is_required: bool) -> LanguageModel:
    """Open a model by PyTorch and give its weights to the native engine, which is kept for the next opening."""
    from lmworks.base.errors import InputError
    from lmworks.language_model.ngram import NgramLanguageModel
    from lmworks.language_model.opening import unfinished_run
    from lmworks.run.checkpoint_model import load

    storage = None if unfinished_run(source, base=base, head=head) else "stored"
    model = load(source, storage=storage, base=base, head=head)
    if not isinstance(model, NgramLanguageModel):
        model.prepare("float32")
        fault = model.engine_fault
        if fault and is_required:
            raise InputError(f"the native engine does not compute this model: {fault}", source, "--backend torch")
        if fault and model.architecture == "decoder":
            model.notes.append(f"computed by PyTorch, since the native engine does not compute this model: {fault}")
    notes(model.notes)
    is_own = storage is not None and head is None
    if not isinstance(model, NgramLanguageModel) and not model.engine_fault and is_own:
        notes(engine_cache.store(model))
    return model
