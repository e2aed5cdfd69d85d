"""Damaged copies of model files, and a process that opens them one after the other.

    python tests/fuzzing.py SOURCE SCRATCH BEGIN END

damages SOURCE (a GGUF file, or a model folder) as the numbers from BEGIN to END say, each in the same way whoever
asks, and opens each copy in SCRATCH. It prints the number of a copy before opening it, so that one that crashes the
process, or keeps it busy for ever, is known; ``opened`` and ``refused`` count those that open and those that an
InputError refuses. Anything else ends it with the error.
"""

from __future__ import annotations

import json
import random
import shutil
import struct
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

SCALARS = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}  # bytes of GGUF's types of numbers
STRING, ARRAY = 8, 9
EDGES = [
    0,
    1,
    2,
    3,
    7,
    8,
    31,
    32,
    33,
    255,
    2**15,
    2**16 - 1,
    2**31 - 1,
    2**31,
    2**32 - 1,
    2**40,
    2**62,
    2**63,
    2**64 - 1,
]
VALUES: list[Any] = [None, True, 0, 1, -1, 3, 2**31, 2**63, 1e30, 0.5, "", "x", [], {}, [1, "x"]]
ADDRESS_SPACE = 16 << 30
"""Bytes; a size that is believed before it is checked fails to be allocated, rather than bringing the machine down."""


class Span(NamedTuple):
    """A number of a GGUF file's header: a count, a length, a type, a size, an offset or a value."""

    begin: int
    size: int


def spans(data: bytes) -> list[Span]:
    """The numbers of the header of a whole GGUF file."""
    found: list[Span] = []
    at = 4

    def number(size: int) -> int:
        nonlocal at
        found.append(Span(at, size))
        at += size
        return int.from_bytes(data[at - size : at], "little")

    def text() -> None:
        nonlocal at
        length = number(8)
        at += length

    def value(kind: int) -> None:
        if kind == STRING:
            text()
        elif kind == ARRAY:
            inner, count = number(4), number(8)
            for _ in range(count):
                value(inner)
        else:
            number(SCALARS[kind])

    number(4)
    tensors, pairs = number(8), number(8)
    for _ in range(pairs):
        text()
        value(number(4))
    for _ in range(tensors):
        text()
        for _ in range(number(4)):
            number(8)
        number(4)
        number(8)
    found.append(Span(at, 0))  # where the header ends
    return found


def damaged_gguf(data: bytes, chance: random.Random) -> bytes:
    """A GGUF file with one to three faults; most of them are in its header."""
    *numbers, end = spans(data)
    wide = [span for span in numbers if span.size > 1]
    result = bytearray(data)
    for _ in range(chance.choice((1, 1, 2, 3))):
        fault = chance.randrange(10)
        if fault < 5:
            span = chance.choice(wide if chance.random() < 0.5 else _outer(wide))
            _change_number(result, span, chance)
        elif fault < 7:
            _flip(result, 0, end.begin, chance)
        elif fault == 7:
            _flip(result, end.begin, len(data), chance)
        elif fault == 8:
            begin = chance.randrange(4, end.begin)
            del result[begin : begin + chance.choice((1, 4, 8, 64))]
        else:
            del result[chance.randrange(len(result) + 1) :]
    return bytes(result)


def _outer(numbers: list[Span]) -> list[Span]:
    """The numbers at both ends of the header: counts and sizes of the model, and the descriptions of tensors. The
    lengths of a vocabulary's texts, between them, are most of all numbers."""
    return numbers[:60] + numbers[-150:]


def _change_number(result: bytearray, span: Span, chance: random.Random) -> None:
    if span.begin + span.size > len(result):
        return
    before = int.from_bytes(result[span.begin : span.begin + span.size], "little")
    near = [
        before + 1,
        before - 1,
        2 * before,
        before // 2,
        before + 32,
        before ^ (1 << chance.randrange(8 * span.size)),
    ]
    after = chance.choice(near if chance.random() < 0.6 else EDGES) % (1 << 8 * span.size)
    result[span.begin : span.begin + span.size] = after.to_bytes(span.size, "little")


def _flip(result: bytearray, begin: int, end: int, chance: random.Random) -> None:
    """Another byte somewhere, or another bit."""
    if begin >= min(end, len(result)):
        return
    at = chance.randrange(begin, min(end, len(result)))
    result[at] = chance.randrange(256) if chance.random() < 0.5 else result[at] ^ (1 << chance.randrange(8))


def damaged_safetensors(data: bytes, chance: random.Random) -> bytes:
    """A safetensors file with one fault in its header's length, in the descriptions of its tensors, or anywhere."""
    size = struct.unpack("<Q", data[:8])[0]
    text, tensors = data[8 : 8 + size], data[8 + size :]
    fault = chance.randrange(8)
    if fault == 0:
        wrong = chance.choice([*EDGES, size - 1, size + 1, size + 8, len(data), len(data) - 8])
        return struct.pack("<Q", wrong % 2**64) + text + tensors
    if fault == 1:
        return data[: chance.randrange(len(data))]
    if fault in (2, 3):
        result = bytearray(data)
        _flip(result, 0, (8 + size) if fault == 2 else len(data), chance)
        return bytes(result)
    header = json.loads(text)
    for _ in range(chance.choice((1, 1, 2))):
        _change_description(header, chance)
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + tensors


def _change_description(header: dict[str, Any], chance: random.Random) -> None:
    """Another type, shape or place of a tensor; or a tensor more, less, or by another name."""
    name = chance.choice([name for name in header if name != "__metadata__"])
    entry = header[name]
    fault = chance.randrange(7)
    if not isinstance(entry, dict) or fault == 0:
        header[chance.choice(["x", name + "x", name.replace("0", "7")])] = header.pop(name)
    elif fault == 1:
        entry["dtype"] = chance.choice(["F16", "BF16", "F64", "I32", "U8", "BOOL", "F8_E4M3", "F4", "?", None, 3])
    elif fault == 2:
        entry["shape"] = chance.choice(
            [[], [0], [1], entry["shape"][::-1], [*entry["shape"], 1], [2**40, 2**40], "x", None]
        )
    elif fault == 3 and entry.get("shape"):
        entry["shape"] = [size if chance.random() < 0.5 else chance.choice(EDGES) for size in entry["shape"]]
    elif fault == 4:
        begin, end = entry.get("data_offsets") or (0, 4)
        pairs = [(begin + 4, end), (begin, end + 4), (end, begin), (begin, 2**63), (-1, end), (0, end - begin)]
        entry["data_offsets"] = chance.choice([*pairs, (begin,), None])
    elif fault == 5:
        del header[name]
    else:
        header[name] = chance.choice(VALUES)


def damaged_json(data: bytes, chance: random.Random) -> bytes:
    """A JSON object with another value of a key, or a byte that is another."""
    if chance.random() < 0.2:
        result = bytearray(data)
        _flip(result, 0, len(data), chance)
        return bytes(result)
    values = json.loads(data)
    name = chance.choice(list(values))
    near = [values[name] * 2, values[name] + 1, -values[name]] if type(values[name]) in (int, float) else []
    values[name] = chance.choice([*near, *VALUES])
    return json.dumps(values).encode()


def damage(source: Path, target: Path, number: int) -> None:
    """Write the copy of this number."""
    chance = random.Random(number)
    if source.is_file():
        target.unlink(missing_ok=True)  # an earlier copy may still be mapped
        target.write_bytes(damaged_gguf(source.read_bytes(), chance))
        return
    if target.exists():
        shutil.rmtree(target)
    shutil.copytree(source, target)
    changes: dict[str, Callable[[bytes, random.Random], bytes]] = {"model.safetensors": damaged_safetensors}
    if chance.random() < 0.25:
        changes = {chance.choice(["config.json", "config.json", "generation_config.json"]): damaged_json}
    for name, change in changes.items():
        if (target / name).is_file():
            (target / name).write_bytes(change((target / name).read_bytes(), chance))


def open_all(source: Path, scratch: Path, numbers: range) -> Counter[str]:
    """Open the copies of these numbers; how many opened and how many were refused."""
    from lmworks.base.errors import InputError
    from lmworks.families.folder import open_folder
    from lmworks.families.gguf import open_gguf

    target = scratch / ("model.gguf" if source.is_file() else "model")
    counts: Counter[str] = Counter()
    for number in numbers:
        print(number, flush=True)
        damage(source, target, number)
        try:
            open_gguf(target) if source.is_file() else open_folder(target)
            counts["opened"] += 1
        except InputError as error:
            if not (error.fault and str(scratch) in error.place):
                raise AssertionError(f"the error names no fault, or not the file: {error}") from error
            counts["refused"] += 1
    return counts


def main() -> None:
    import resource

    import torch

    torch.set_num_threads(1)
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE, ADDRESS_SPACE))
    source, scratch, begin, end = sys.argv[1:]
    print(json.dumps(open_all(Path(source), Path(scratch), range(int(begin), int(end)))))


if __name__ == "__main__":
    main()
