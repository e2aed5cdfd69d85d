"""Checkpoints to resume a run from: trainable weights, optimizer state, position in the data, best evaluation so far.

A checkpoint is a folder ``checkpoint-<step>`` in the run: ``state.safetensors``, ``state.json`` and ``sums.json`` with
the SHA-256 of both. It is written under another name, flushed to the disk and renamed, so that it exists completely or
not at all. Frozen weights are not saved. Knows no network and no loop.
"""

from __future__ import annotations

import json
import shutil
import struct
from collections.abc import Callable, Mapping, MutableMapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import nn

from lmworks.base import process_memory
from lmworks.base.errors import InputError
from lmworks.base.files import atomic_folder, check_disk_space, sha256
from lmworks.base.journal import RunFolder

TENSORS, VALUES, SUMS, NAME = "state.safetensors", "state.json", "sums.json", "checkpoint-"
# The optimizer's state of each weight; the scales where moments have 8 bits.
OPTIMIZER_STATE = ("step", "exp_avg", "exp_avg_sq", "exp_avg_scale", "exp_avg_sq_scale")
DTYPE_NAMES = {torch.float32: "F32", torch.bfloat16: "BF16", torch.uint8: "U8", torch.int64: "I64"}  # of the format
ALIGNMENT = 8  # of the first tensor in the file
DISK_HINT = "free some, or set train.keep_checkpoints lower; then resume the run: it continues from its last checkpoint"


@dataclass
class State:
    """The content of a checkpoint.

    Attributes:
        tensors: by name.
        values: that JSON holds exactly.
        release: called after each tensor that was written; it may take it out of memory.
    """

    tensors: dict[str, torch.Tensor]
    values: dict[str, Any] = field(default_factory=dict)
    release: Callable[[], None] = lambda: None


def save(run: RunFolder, step: int, state: State) -> Path:
    """Write a checkpoint; an existing one of this step is replaced.

    Raises:
        InputError: the disk is full. Nothing half-written is left, and earlier checkpoints are untouched.
    """
    final = run.checkpoints / f"{NAME}{step}"
    run.checkpoints.mkdir(parents=True, exist_ok=True)
    size = sum(tensor.nbytes for tensor in state.tensors.values())
    check_disk_space(run.checkpoints, size, f"the checkpoint of step {step}")
    with atomic_folder(final) as folder:
        _write_tensors(folder / TENSORS, state)
        text = json.dumps({"step": step, **state.values}, indent=1)
        (folder / VALUES).write_text(text, encoding="utf-8")
        sums = {name: sha256(folder / name) for name in (TENSORS, VALUES)}
        (folder / SUMS).write_text(json.dumps(sums), encoding="utf-8")
    return final


def _write_tensors(path: Path, state: State) -> None:
    """Write a safetensors file, one tensor after another, where the library would hold all of them in memory.

    The format: the length of a header, the header (JSON: type, shape and place of each tensor), the tensors' bytes.
    """
    ordered = sorted(
        state.tensors.items(), key=lambda item: (-item[1].dtype.itemsize, item[0])
    )  # aligned to their type
    header, end = {}, 0
    for name, tensor in ordered:
        begin, end = end, end + tensor.nbytes
        place = {"shape": list(tensor.shape), "data_offsets": [begin, end]}
        header[name] = {"dtype": DTYPE_NAMES[tensor.dtype], **place}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % ALIGNMENT)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for _, tensor in ordered:
            file.write(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
            state.release()


def steps(run: RunFolder) -> list[int]:
    """Steps of the run's checkpoints, ascending; their checksums are not verified."""
    numbers = (path.name.removeprefix(NAME) for path in run.checkpoints.glob(f"{NAME}*") if path.is_dir())
    return sorted(int(step) for step in numbers if step.isdecimal())


def read(run: RunFolder, step: int) -> State:
    """The checkpoint of a step, its checksums verified.

    Raises:
        InputError: a file is missing or damaged.
    """
    folder = run.checkpoints / f"{NAME}{step}"
    hint = "delete this folder; the run then continues from the checkpoint before it"
    try:
        sums = json.loads((folder / SUMS).read_text(encoding="utf-8"))
        for name in (TENSORS, VALUES):
            if sha256(folder / name) != sums[name]:
                raise InputError(f"{name} is damaged: it is not what was written", str(folder), hint)
        values = json.loads((folder / VALUES).read_text(encoding="utf-8"))
        return State(load_file(folder / TENSORS), values)
    except (OSError, ValueError, KeyError, TypeError) as fault:
        raise InputError(f"the checkpoint is incomplete or damaged: {fault}", str(folder), hint) from fault


def newest(run: RunFolder, say: Callable[[str], None] = print) -> tuple[int, State] | None:
    """The newest intact checkpoint, or None if none was ever written.

    Args:
        run: the run.
        say: called with a message about each damaged checkpoint that is skipped.

    Raises:
        InputError: all checkpoints are damaged.
    """
    saved = steps(run)
    for step in reversed(saved):
        try:
            return step, read(run, step)
        except InputError as fault:
            say(f"{fault.place}: {fault.fault}; trying the checkpoint before it")
    if saved:
        raise InputError(
            "no checkpoint of this run is intact",
            str(run.checkpoints),
            "start the run again in a new folder",
        )
    return None


def prune(run: RunFolder, keep: int, best: int | None = None) -> None:
    """Delete all but the newest ``keep`` checkpoints and the best one, and partial ones that a killed process left."""
    for partial in run.checkpoints.glob(f".{NAME}*"):
        shutil.rmtree(partial, ignore_errors=True)
    for step in steps(run)[:-keep]:
        if step != best:
            shutil.rmtree(run.checkpoints / f"{NAME}{step}", ignore_errors=True)


OptimizerStates = MutableMapping[nn.Parameter, dict[str, torch.Tensor]]


def capture(named: Mapping[str, nn.Parameter], states: OptimizerStates) -> dict[str, torch.Tensor]:
    """Weights by name, and the optimizer's state of each."""
    tensors: dict[str, torch.Tensor] = {}
    for name, parameter in named.items():
        tensors[f"parameter.{name}"] = parameter
        tensors |= {
            f"optimizer.{key}.{name}": value for key, value in states[parameter].items() if key in OPTIMIZER_STATE
        }
    return tensors


def restore(
    tensors: Mapping[str, torch.Tensor],
    named: Mapping[str, nn.Parameter],
    restore_state: Callable[[nn.Parameter, dict[str, torch.Tensor]], None] | None = None,
) -> None:
    """Set weights to the values that :func:`capture` returned.

    Args:
        tensors: these values.
        named: weights by name.
        restore_state: called with each weight whose optimizer has a state, and that state, which it copies.
    """
    with torch.no_grad():
        for name, parameter in named.items():
            saved = {key: tensors.get(f"optimizer.{key}.{name}") for key in OPTIMIZER_STATE}
            state = {key: value for key, value in saved.items() if value is not None}
            parameter.copy_(tensors[f"parameter.{name}"])
            if restore_state is not None and state:
                restore_state(parameter, state)
            process_memory.release_mapped((value.data_ptr(), value.nbytes) for value in state.values())
