"""The model that a command names: its options, and opening it."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

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
    """What computes, for the commands by which a model writes, or says how likely texts are."""
    text = (
        "what computes: native: the engine of lmworks, on a CPU; torch: PyTorch, with weights widened to float32 "
        "(default: native where it computes the model)"
    )
    parser.add_argument("--backend", choices=["native", "torch"], help=text)


def add_kv_cache(parser: argparse.ArgumentParser) -> None:
    """In which precision the native engine keeps keys and values."""
    text = (
        "precision of the native engine's KV cache; int8 takes half the memory of float16 "
        "(default: float16, or float32 where the weights are)"
    )
    parser.add_argument("--kv-cache", choices=["float16", "int8"], help=text)


def open_model(args: argparse.Namespace) -> LanguageModel:
    """The model that the arguments name, computed by PyTorch; its notes go to standard error."""
    from lmworks.run.checkpoint_model import load

    model = load(args.model, base=args.base, head=getattr(args, "head", None))
    _print_notes(model.notes)
    return model


def open_writer(args: argparse.Namespace) -> LanguageModel | NativeModel:
    """The model that the arguments name, for texts and likelihoods by the backend that they name; notes go to standard
    error.

    Raises:
        InputError: there is no such model, or the native engine is asked for and does not compute it.
    """
    model = open_model(args) if args.backend == "torch" else _open_native(args)
    if (kv_cache := getattr(args, "kv_cache", None)) is not None:
        _choose_kv_cache(model, kv_cache)
    return model


def _open_native(args: argparse.Namespace) -> LanguageModel | NativeModel:
    """The model from the cache of packed weights; where it is not there, it is packed."""
    from lmworks.run.native_opening import open_native

    head = getattr(args, "head", None)
    return open_native(args.model, args.base, head, _print_notes, args.backend == "native")


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


def _choose_kv_cache(model: LanguageModel | NativeModel, kv_cache: str) -> None:
    """Have the native engine keep keys and values in a precision."""
    from lmworks.base.errors import InputError
    from lmworks.language_model.native_model import NativeModel

    if not isinstance(model, NativeModel) and getattr(model, "engine_weights", None) is None:
        fault = "the precision of the KV cache is chosen for the native engine, which does not compute this model"
        raise InputError(fault, f"--kv-cache {kv_cache}", "leave it out")
    model.kv_cache = kv_cache


def open_classifier(args: argparse.Namespace) -> Any:
    """The classifier that the arguments name: a decoder that labels texts in words is computed by the backend that they
    name, every other by PyTorch, or by counts of words.

    Raises:
        InputError: there is no such model, or the native engine is asked for and does not compute it.
    """
    from lmworks.base.errors import InputError
    from lmworks.run.load import load

    if args.backend != "torch" and _labels_in_words(args.model, args.head):
        return open_writer(args)
    if args.backend == "native":
        fault = "the native engine labels texts by decoders that a run taught to write labels"
        raise InputError(fault, args.model, "leave --backend out")
    return load(args.model, base=args.base, head=args.head)


def _labels_in_words(source: str, head: str | None) -> bool:
    """Whether a run taught a model to write labels, finished or not."""
    from lmworks.base.files import expand_home
    from lmworks.base.journal import JOURNAL
    from lmworks.language_model.input_format import InputFormat
    from lmworks.language_model.saved_source import find_saved

    run = expand_home(source)
    is_unfinished = (run / JOURNAL).is_file() and not (run / "final").is_dir()
    path = run if is_unfinished else find_saved(source, head=head).path
    form = InputFormat.read(path) if path.is_dir() else None
    return form is not None and form.kind == "label"


def _print_notes(notes: Iterable[str]) -> None:
    for note in notes:
        print(f"note: {note}", file=sys.stderr)
