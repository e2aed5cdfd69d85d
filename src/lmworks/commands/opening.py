"""The model that a command names: its options, and opening it."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lmworks.language_model.model import LanguageModel
    from lmworks.language_model.native_encoder import NativeEncoder
    from lmworks.language_model.native_model import NativeModel


def add_base(parser: argparse.ArgumentParser) -> None:
    """Where the base of an adapter lies, for every command that opens a model."""
    text = "of an adapter: the model that it was trained on, where that is no longer at its place"
    parser.add_argument("--base", metavar="FOLDER", help=text)


def add_head(parser: argparse.ArgumentParser) -> None:
    """Which head a model has, for commands that use one."""
    parser.add_argument("--head", metavar="NAME", help="of a run of several tasks: the task whose head is used")


def add_backend(parser: argparse.ArgumentParser) -> None:
    """What computes, for the commands by which a model writes."""
    text = (
        "what computes: native: the engine of lmworks, on a CPU; torch: PyTorch, with weights widened to float32 "
        "(default: native where it computes the model)"
    )
    parser.add_argument("--backend", choices=["native", "torch"], help=text)


def open_model(args: argparse.Namespace) -> LanguageModel:
    """The model that the arguments name, computed by PyTorch; its notes go to standard error."""
    from lmworks.run.checkpoint_model import load

    model = load(args.model, base=args.base, head=getattr(args, "head", None))
    _print_notes(model.notes)
    return model


def open_writer(args: argparse.Namespace) -> LanguageModel | NativeModel:
    """The model that the arguments name, for generation by the backend that they name; notes go to standard error.

    Raises:
        InputError: there is no such model, or the native engine is asked for and does not compute it.
    """
    if args.backend == "torch":
        return open_model(args)
    from lmworks.language_model import engine_cache

    model = engine_cache.open_cached(args.model) if args.base is None else None
    if model is not None:
        _print_notes(model.notes)
        return model
    return _pack(args)


def open_encoder(args: argparse.Namespace) -> LanguageModel | NativeEncoder:
    """The model that the arguments name, for vectors by the backend that they name; notes go to standard error.

    Raises:
        InputError: there is no such model, or the native engine is asked for and does not compute it.
    """
    if args.backend == "torch":
        return open_model(args)
    from lmworks.base import machine
    from lmworks.base.errors import InputError
    from lmworks.language_model import engine_cache

    cached = engine_cache.open_cached_encoder(args.model) if args.base is None else None
    if cached is not None:
        _print_notes(cached.notes)
        return cached
    model, fault = open_model(args), "it computes vectors of texts by encoders"
    notes: list[str] = []
    if model.architecture == "encoder":
        precision, reason = machine.choose_precision("auto")
        fault = model.prepare(precision).encoder_fault
        notes = [f"matrix products in {reason}", *engine_cache.store_encoder(model)]
    if fault and args.backend == "native":
        raise InputError(f"the native engine does not compute this model: {fault}", args.model, "--backend torch")
    if fault:
        notes = [f"computed by PyTorch, since the native engine does not compute this model: {fault}"]
    _print_notes(notes)
    return model


def _pack(args: argparse.Namespace) -> LanguageModel:
    """Open a model by PyTorch and give its weights to the native engine, which is kept for the next opening."""
    from lmworks.base.errors import InputError
    from lmworks.language_model import engine_cache
    from lmworks.language_model.ngram import NgramLanguageModel
    from lmworks.language_model.opening import unfinished_run
    from lmworks.run.checkpoint_model import load

    storage = None if unfinished_run(args.model, base=args.base) else "stored"
    model = load(args.model, storage=storage, base=args.base)
    if not isinstance(model, NgramLanguageModel):
        model.prepare("float32")
        fault = model.engine_fault
        if fault and args.backend == "native":
            raise InputError(f"the native engine does not compute this model: {fault}", args.model, "--backend torch")
        if fault and model.architecture == "decoder":
            model.notes.append(f"computed by PyTorch, since the native engine does not compute this model: {fault}")
    _print_notes(model.notes)
    if not isinstance(model, NgramLanguageModel) and not model.engine_fault and storage is not None:
        _print_notes(engine_cache.store(model))
    return model


def _print_notes(notes: Iterable[str]) -> None:
    for note in notes:
        print(f"note: {note}", file=sys.stderr)
