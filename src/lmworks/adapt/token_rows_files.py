"""Trained rows of tokens <-> what PEFT's files have of them: ``trainable_token_indices`` in the config, and a tensor
``token_adapter.trainable_tokens_delta`` of the rows themselves for each table.

PEFT also writes whole tables where its vocabulary was grown: rows that differ from the base's are read. Its own layer
leaves out the bias of a head (BERT's) until it is merged; here it is kept.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

import torch

from lmworks.adapt.peft_files import PREFIX, PeftFiles, written_module
from lmworks.adapt.token_rows import EmbeddingRows, HeadRows, TokenRows, table_rows, table_size
from lmworks.base.errors import InputError
from lmworks.base.json_file import wrong_kind
from lmworks.families.family import Family
from lmworks.families.mapping import their_place
from lmworks.model import vocabulary
from lmworks.model.surgery import put
from lmworks.model.transformer import Transformer

KEY = "trainable_token_indices"
ROWS = ".token_adapter.trainable_tokens_delta"
WHOLE = (".token_adapter.base_layer.weight", ".weight")
"""Ends of the names of tables that are written whole."""
TABLES: dict[str, type[TokenRows]] = {"embed_tokens": EmbeddingRows, "lm_head": HeadRows}
AGAIN, OTHER_BASE = "fetch or save the adapter again", "load the adapter onto the base that it was trained on"


class Rows(NamedTuple):
    """Rows of a table: n ids in ascending order, (n, E)."""

    ids: list[int]
    rows: torch.Tensor


def to_files(network: Transformer, family: Family) -> PeftFiles:
    """What the files have of trained rows; nothing where there are none."""
    tables = {name: table for name in TABLES if isinstance(table := getattr(network, name), TokenRows)}
    modules = {name: _their_module(name, network, family) for name in tables}
    ids: dict[str, list[int]] = {modules[name]: table.indices.tolist() for name, table in tables.items()}
    config: Any = {module.rpartition(".")[2]: indices for module, indices in ids.items()}
    if set(tables) == {"embed_tokens"}:
        config = ids[modules["embed_tokens"]]
    tensors = {f"{PREFIX}{modules[name]}{ROWS}": table.token_rows.detach() for name, table in tables.items()}
    return PeftFiles({KEY: config} if tables else {}, tensors)


def read(network: Transformer, files: PeftFiles, family: Family) -> tuple[dict[str, Rows], PeftFiles]:
    """The rows of an adapter by table, and its files without them.

    Args:
        network: the base.
        files: of the adapter.
        family: of the base.

    Raises:
        InputError: rows are missing, or are not of this base.
    """
    if not files.config.get(KEY):
        return {}, files
    tensors, tables = dict(files.tensors), {}
    ids_by_module = _ids_by_module(network, files, family)
    for name in _tables_of(network):
        module, table = _their_module(name, network, family), getattr(network, name)
        whole = next((tensors.pop(key) for end in WHOLE if (key := f"{PREFIX}{module}{end}") in tensors), None)
        rows = Rows([], torch.empty(0, 0)) if whole is None else _differing(table, whole)
        if module in ids_by_module:
            trained = tensors.pop(f"{PREFIX}{module}{ROWS}", None)
            rows = _replaced(rows, ids_by_module[module], trained, module, files)
        if rows.ids:
            tables[name] = rows
            if rows.rows.shape[1] != table_rows(table, [0]).shape[1]:
                fault = f"the rows of {module} are {rows.rows.shape[1]} wide, the model's are not"
                raise InputError(fault, files.weights_path, OTHER_BASE)
    if network.lm_head is None:
        _drop_copies(tensors, files, _their_module("embed_tokens", network, family))
    _check_added(network, tables, files)
    return tables, replace(files, tensors=tensors)


def put_rows(network: Transformer, tables: dict[str, Rows]) -> None:
    """Put rows into the tables of a base, whose vocabulary grows where they are of more tokens than it has."""
    for name, (ids, rows) in tables.items():
        table = getattr(network, name)
        put(network, name, TABLES[name](table, ids, rows).train(network.training))
        vocabulary.set_size(network, max(network.config.vocab_size, ids[-1] + 1))


def _tables_of(network: Transformer) -> list[str]:
    return [name for name in TABLES if getattr(network, name) is not None]


def _their_module(table: str, network: Transformer, family: Family) -> str:
    place = their_place(family.table(network.config), table)
    if place is None:
        raise InputError(f"the format of a {family.name} model has no place for rows of {table}")
    return written_module(place.module, family, network.config)


def _ids_by_module(network: Transformer, files: PeftFiles, family: Family) -> dict[str, list[int]]:
    """The ids whose rows are trained, by their names of the tables."""
    value, place = files.config[KEY], files.config_path
    modules = {name: _their_module(name, network, family) for name in _tables_of(network)}
    if not isinstance(value, dict):
        return {modules["embed_tokens"]: _checked_ids(value, place)}
    by_module: dict[str, list[int]] = {}
    others: dict[str, Any] = {}
    for key, ids in value.items():
        module = next((module for module in modules.values() if f".{module}".endswith(f".{key}")), None)
        if module is None:
            others[key] = ids
        else:
            by_module[module] = _checked_ids(ids, place)
    # a head that has the embeddings' matrix repeats their ids
    copied = by_module.get(modules["embed_tokens"]) if network.lm_head is None else None
    for key, ids in others.items():
        if copied is None or ids != copied:
            fault = f"{KEY}: a {family.name} model has no table of tokens {key!r}"
            raise InputError(fault, place, OTHER_BASE)
    return by_module


def _checked_ids(value: Any, place: str) -> list[int]:
    if not isinstance(value, list) or not all(type(number) is int and number >= 0 for number in value):
        raise wrong_kind(KEY, value, place, list)
    if not value:
        raise InputError(f"{KEY} names a table and no id of it", place, AGAIN)
    if len(set(value)) < len(value):
        raise InputError(f"{KEY} names an id twice", place, AGAIN)
    return value


def _differing(table: torch.nn.Module, whole: torch.Tensor) -> Rows:
    """The rows of a whole table that the base's lacks, or has otherwise."""
    size = min(table_size(table), len(whole))
    differs = torch.ones(len(whole), dtype=torch.bool)
    differs[:size] = (table_rows(table, range(size)) != whole[:size].float()).any(1)
    return Rows(differs.nonzero().squeeze(1).tolist(), whole[differs])


def _replaced(rows: Rows, ids: list[int], trained: torch.Tensor | None, module: str, files: PeftFiles) -> Rows:
    """Rows with those that were trained."""
    if trained is None or len(trained) != len(ids):
        count = "no" if trained is None else len(trained)
        fault = f"there are {count} rows of {module} for the {len(ids)} ids of {KEY}"
        raise InputError(fault, files.weights_path, AGAIN)
    by_id = dict(zip(rows.ids, rows.rows, strict=True)) | dict(zip(ids, trained, strict=True))
    order = sorted(by_id)
    return Rows(order, torch.stack([by_id[number].float() for number in order]))


def _drop_copies(tensors: dict[str, torch.Tensor], files: PeftFiles, embeddings: str) -> None:
    """Drop what a head that has the embeddings' matrix repeats of them.

    Raises:
        InputError: it repeats them otherwise.
    """
    for end in (ROWS, WHOLE[0]):
        for key in [key for key in tensors if key.endswith(end)]:
            original = files.tensors.get(f"{PREFIX}{embeddings}{end}")
            if original is None or not torch.equal(tensors.pop(key), original):
                fault = f"{key} differs from the embeddings, whose matrix the head has in this model"
                raise InputError(fault, files.weights_path, OTHER_BASE)


def _check_added(network: Transformer, tables: dict[str, Rows], files: PeftFiles) -> None:
    """Refuse an adapter of more tokens than the base has that lacks the rows of some of them."""
    size = max(rows.ids[-1] + 1 for rows in tables.values())
    for name in _tables_of(network):
        known = set(tables[name].ids) if name in tables else set()
        if missing := set(range(network.config.vocab_size, size)) - known:
            fault = f"the adapter has tokens up to {size - 1}, but no row of {name} for token {min(missing)}"
            hint = f"train the rows of all new tokens, of {' and '.join(_tables_of(network))}"
            raise InputError(fault, files.config_path, hint)
