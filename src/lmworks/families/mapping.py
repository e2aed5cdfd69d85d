"""Tables of names between a published model's tensors and ours: rows that are read both ways.

A row says that one of their tensors is one of ours (Rename) or several of ours, one under another (Split), perhaps
transposed. ``{i}`` stands for the number of a layer. A table names every tensor of a model; a
tensor that it does not name is an error. The same rows translate module names for adapters on disk. Independent of
configs, files and families. Imports torch only where tensors are joined.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from lmworks.base.errors import InputError

if TYPE_CHECKING:
    import torch

SHOWN = 6  # names listed in an error before it says how many more there are


@dataclass(frozen=True)
class Rename:
    """One of theirs is one of ours.

    Attributes:
        theirs: their tensor's name.
        ours: our tensor's name.
        transpose: theirs is stored (in, out), as GPT-2's Conv1D does; ours is (out, in).
        single: theirs has a first dimension of size 1 that ours lacks, as BART's bias of the logits does.
    """

    theirs: str
    ours: str
    transpose: bool = False
    single: bool = False

    @property
    def parts(self) -> tuple[str, ...]:
        """Our names, in the order in which theirs holds them."""
        return (self.ours,)


@dataclass(frozen=True)
class Split:
    """One of theirs holds several of ours, one under another along their output dimension.

    Attributes:
        theirs: their tensor's name.
        ours: our tensors' names, from the first row down.
        sizes: rows of each; None: equal shares.
        transpose: as for Rename; undone before splitting.
    """

    theirs: str
    ours: tuple[str, ...]
    sizes: tuple[int, ...] | None = None
    transpose: bool = False

    @property
    def parts(self) -> tuple[str, ...]:
        """Our names, in the order in which theirs holds them."""
        return self.ours


Row = Rename | Split


@dataclass(frozen=True)
class ModulePart:
    """Where one of our modules lies in their model: part ``index`` of ``count`` of ``module``, perhaps transposed."""

    module: str
    index: int = 0
    count: int = 1
    transpose: bool = False


def expand(rows: Iterable[Row], layers: int) -> list[Row]:
    """Write a row with ``{i}`` out for every layer."""
    expanded: list[Row] = []
    for row in rows:
        if "{i}" not in row.theirs:
            expanded.append(row)
            continue
        for layer in range(layers):
            theirs = row.theirs.replace("{i}", str(layer))
            if isinstance(row, Rename):
                expanded.append(replace(row, theirs=theirs, ours=row.ours.replace("{i}", str(layer))))
            else:
                ours = tuple(name.replace("{i}", str(layer)) for name in row.ours)
                expanded.append(replace(row, theirs=theirs, ours=ours))
    return expanded


def to_ours(
    rows: Sequence[Row],
    theirs: Mapping[str, torch.Tensor],
    shapes: Mapping[str, Sequence[int]] | None = None,
    ignored: Sequence[str] = (),
    place: str = "",
) -> dict[str, torch.Tensor]:
    """Their tensors by their names -> our tensors by our names.

    Args:
        rows: the table, written out for every layer.
        theirs: their tensors; each is read once, so this may load them as asked.
        shapes: our shapes by our names, to be checked.
        ignored: regular expressions of their names that are knowingly left out (masks and tables we compute).
        place: the file, for errors.

    Raises:
        InputError: a tensor is missing, is not in the table, or has another shape than the config says.
    """
    _check_names(rows, theirs, ignored, place)
    ours: dict[str, torch.Tensor] = {}
    for row in rows:
        tensor = theirs[row.theirs]
        if not tensor.ndim or (row.transpose and tensor.ndim > 2):
            fault = f"{row.theirs} has shape {tuple(tensor.shape)}, which no weight of the model has"
            raise InputError(fault, place, _SHAPE_HINT)
        if row.transpose:
            tensor = tensor.t()
        if isinstance(row, Rename):
            pieces: Sequence[torch.Tensor] = (tensor[0] if row.single and len(tensor) == 1 else tensor,)
        else:
            sizes = row.sizes or _equal(row, len(tensor), place)
            if sum(sizes) != len(tensor):
                raise InputError(f"{row.theirs} has {len(tensor)} rows, not {sum(sizes)}", place, _SHAPE_HINT)
            pieces = tensor.split(list(sizes))
        for name, piece in zip(row.parts, pieces, strict=True):
            if shapes is not None and tuple(piece.shape) != tuple(shapes[name]):
                raise InputError(
                    f"{row.theirs} has shape {tuple(theirs[row.theirs].shape)}, "
                    f"which makes {name} {tuple(piece.shape)}, not {tuple(shapes[name])}",
                    place,
                    _SHAPE_HINT,
                )
            ours[name] = piece.contiguous()
    return ours


def to_theirs(rows: Sequence[Row], ours: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Our tensors by our names -> theirs by theirs; contiguous, so that they can be written.

    Raises:
        InputError: the table and ``ours`` do not have the same tensors.
    """
    import torch

    named = {name for row in rows for name in row.parts}
    if named != set(ours):
        raise InputError(
            f"this model's tensors are not those of the format it is to be written in: "
            f"too many {_some(set(ours) - named)}, missing {_some(named - set(ours))}",
            hint="merge or detach adapters and quantized linears first",
        )
    theirs: dict[str, torch.Tensor] = {}
    for row in rows:
        pieces = [ours[name] for name in row.parts]
        tensor = pieces[0] if len(pieces) == 1 else torch.cat(pieces)
        if isinstance(row, Rename) and row.single:
            tensor = tensor[None]
        theirs[row.theirs] = (tensor.t() if row.transpose else tensor).contiguous()
    return theirs


def their_place(rows: Iterable[Row], module: str) -> ModulePart | None:
    """Our module's path (``layers.3.self_attn.q_proj``) -> where it lies in their model, or None."""
    weight_name = module + ".weight"
    for row in rows:
        if weight_name in row.parts:
            theirs = row.theirs.removesuffix(".weight")
            return ModulePart(theirs, row.parts.index(weight_name), len(row.parts), row.transpose)
    return None


def our_modules(rows: Iterable[Row], module: str) -> tuple[str, ...]:
    """Their module's path -> our modules' paths, in the order in which theirs holds them; empty where unknown."""
    weight_name = module + ".weight"
    for row in rows:
        if row.theirs == weight_name:
            return tuple(name.removesuffix(".weight") for name in row.parts)
    return ()


_SHAPE_HINT = "the weights are not of the model that the config describes: fetch both again from one place"


def _check_names(rows: Sequence[Row], theirs: Mapping[str, torch.Tensor], ignored: Sequence[str], place: str) -> None:
    known = {row.theirs for row in rows}
    if missing := known - set(theirs):
        raise InputError(f"tensors are missing: {_some(missing)}", place, _SHAPE_HINT)
    left = [re.compile(pattern) for pattern in ignored]
    unknown = {name for name in theirs if name not in known and not any(p.fullmatch(name) for p in left)}
    if unknown:
        raise InputError(
            f"tensors are not part of the model that the config describes: {_some(unknown)}", place, _SHAPE_HINT
        )


def _equal(row: Split, rows: int, place: str) -> tuple[int, ...]:
    share, rest = divmod(rows, len(row.ours))
    if rest:
        raise InputError(f"{row.theirs} has {rows} rows, which are not {len(row.ours)} equal parts", place, _SHAPE_HINT)
    return (share,) * len(row.ours)


def _some(names: set[str]) -> str:
    if not names:
        return "none"
    listed = ", ".join(sorted(names)[:SHOWN])
    return listed if len(names) <= SHOWN else f"{listed} and {len(names) - SHOWN} more"
