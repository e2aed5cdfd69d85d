"""GGUF files as the gguf library writes them, and as damage leaves them."""

from __future__ import annotations

import random
import struct
from pathlib import Path

import fuzzing
import gguf
import numpy as np
import pytest
import torch

from lmworks.base.errors import InputError
from lmworks.families import gguf_file
from lmworks.families.gguf_file import READABLE, GGUFFile

TYPES = gguf.GGMLQuantizationType


def write(path: Path, tensors: dict[str, tuple[np.ndarray, TYPES]]) -> Path:
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_uint32("llama.block_count", 2)
    writer.add_float32("llama.small", 1e-5)
    writer.add_bool("yes", True)
    writer.add_array("texts", ["a", "", "ü€"])
    writer.add_array("numbers", [1, 2, 3])
    for name, (data, kind) in tensors.items():
        writer.add_tensor(name, data, raw_dtype=kind)
    finish(writer)
    return path


def finish(writer: gguf.GGUFWriter) -> None:
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def test_metadata_is_what_was_written(tmp_path: Path) -> None:
    file = GGUFFile(write(tmp_path / "m.gguf", {"t": (np.ones((2, 3), np.float32), TYPES.F32)}))
    assert file.metadata["general.architecture"] == "llama"
    assert file.metadata["llama.block_count"] == 2
    assert file.metadata["llama.small"] == np.float32(1e-5)
    assert file.metadata["yes"] is True
    assert file.metadata["texts"] == ["a", "", "ü€"]
    assert file.metadata["numbers"].tolist() == [1, 2, 3]
    assert file.tensors["t"].shape == (2, 3)


@pytest.mark.parametrize("name", READABLE)
def test_every_type_is_read_as_the_library_reads_it(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Quantized by the library where it can, else random bytes with halves as scales that are numbers."""
    kind = TYPES[name]
    generator = np.random.default_rng(5)
    values = generator.standard_normal((6, 512), np.float32)
    if name.startswith("TQ"):  # three levels
        values = np.sign(values)
    try:
        stored = gguf.quantize(values, kind)
        wanted = gguf.dequantize(stored, kind)
        assert np.abs(wanted - values).max() < 0.5
    except NotImplementedError:
        block, width = gguf.GGML_QUANT_SIZES[kind]
        halves = generator.uniform(-2, 2, (6, 512 // block * width // 2)).astype(np.float16)
        stored = halves.view(np.uint8)
        wanted = gguf.dequantize(stored, kind)
    monkeypatch.setattr(gguf_file, "CHUNK", 1024)  # several chunks
    file = GGUFFile(write(tmp_path / "m.gguf", {"t": (stored, kind), "u": (values, TYPES.F32)}))
    read = file.read(["t", "u"])
    assert read["t"].shape == (6, 512)
    np.testing.assert_array_equal(read["t"].numpy(), wanted)
    np.testing.assert_array_equal(read["u"].numpy(), values)
    half = file.read(["t"], torch.bfloat16)["t"]
    torch.testing.assert_close(half, torch.from_numpy(wanted.astype(np.float32)).bfloat16(), equal_nan=True)


def test_other_types_are_refused_by_name(tmp_path: Path) -> None:
    stored = np.zeros((1, gguf.GGML_QUANT_SIZES[TYPES.IQ4_XS][1]), np.uint8)
    file = GGUFFile(write(tmp_path / "m.gguf", {"t": (stored, TYPES.IQ4_XS)}))
    with pytest.raises(InputError, match="IQ4_XS"):
        file.read(["t"])


def test_weights_in_memory_do_not_reach_the_file(tmp_path: Path) -> None:
    path = write(tmp_path / "m.gguf", {"t": (np.ones((2, 3), np.float32), TYPES.F32)})
    before = path.read_bytes()
    GGUFFile(path).read(["t"])["t"].add_(1.0)
    assert path.read_bytes() == before


def test_a_file_cut_anywhere_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "m.gguf", {"t": (np.ones((4, 8), np.float32), TYPES.F32)})
    whole = path.read_bytes()
    cut = tmp_path / "cut.gguf"
    for size in range(0, len(whole), 3):
        cut.write_bytes(whole[:size])
        with pytest.raises(InputError) as caught:
            GGUFFile(cut)
        assert "cut.gguf" in str(caught.value)


def test_random_damage_gives_nothing_but_input_errors(tmp_path: Path) -> None:
    whole = write(tmp_path / "m.gguf", {"t": (np.ones((4, 8), np.float32), TYPES.F32)}).read_bytes()
    path, chance = tmp_path / "bad.gguf", random.Random(11)
    refused = 0
    for _ in range(300):
        bad = bytearray(whole)
        for _ in range(chance.randint(1, 4)):
            bad[chance.randrange(len(bad) - 128)] = chance.randrange(256)
        path.write_bytes(bad)
        try:
            file = GGUFFile(path)
            file.read(list(file.tensors))
        except InputError:
            refused += 1
    assert refused > 100


def damaged(path: Path, place: int, value: int) -> Path:
    """The file with another number in its header, counted from the end: offset -2, type -3, rows -4, columns -5."""
    data = bytearray(path.read_bytes())
    span = fuzzing.spans(bytes(data))[place]
    data[span.begin : span.begin + span.size] = value.to_bytes(span.size, "little")
    path.write_bytes(data)
    return path


@pytest.mark.parametrize(
    ("place", "value", "fault"),
    [
        (-2, 64, "begins 64 bytes behind the header, not 32"),
        (-2, 0, "begins 0 bytes behind the header, not 32"),
        (-3, int(TYPES.F16), None),
        (-3, 99, "unknown type 99"),
        (-4, 0, "has no elements"),
        (-4, 2**63, "should end at byte"),
        (-6, 0, "0 dimensions"),
        (-6, 2**32 - 1, "dimensions"),
    ],
)
def test_a_tensor_that_is_not_where_its_size_puts_it_is_refused(
    place: int, value: int, fault: str | None, tmp_path: Path
) -> None:
    """Its type alone shows where another tensor follows."""
    ones = (np.ones((2, 3), np.float32), TYPES.F32)
    path = damaged(write(tmp_path / "m.gguf", {"t": ones, "u": ones}), place, value)
    if fault is None:
        assert GGUFFile(path).tensors["u"].size == 12
        return
    with pytest.raises(InputError, match=fault):
        GGUFFile(path)


@pytest.mark.parametrize(("name", "fault"), [("tensor", "tensor 'tensor1'"), ("number", "key 'number1'")])
def test_what_stands_there_twice_is_refused(name: str, fault: str, tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    for number in (1, 2):
        writer.add_uint32(f"number{number}", number)
        writer.add_tensor(f"tensor{number}", np.ones(4, np.float32))
    finish(writer)
    path.write_bytes(path.read_bytes().replace(f"{name}2".encode(), f"{name}1".encode()))
    with pytest.raises(InputError, match=f"{fault} stands there twice"):
        GGUFFile(path)


def test_a_split_file_that_counts_other_parts_than_its_name_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "m-00001-of-00003.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_uint64("split.count", 2**62)
    writer.add_tensor("t", np.ones(4, np.float32))
    finish(writer)
    with pytest.raises(InputError, match="its name does not tell the names of the others"):
        GGUFFile(path)


def test_what_is_not_gguf_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(b"PK\x03\x04" + bytes(100))
    with pytest.raises(InputError, match="does not begin with GGUF"):
        GGUFFile(path)
    path.write_bytes(b"GGUF" + struct.pack("<IQQ", 1, 0, 0))
    with pytest.raises(InputError, match="version 1"):
        GGUFFile(path)
    with pytest.raises(InputError, match="cannot be opened"):
        GGUFFile(tmp_path / "none.gguf")


def split(folder: Path, count: int = 5) -> list[Path]:
    """A file of some tensors, written in parts of two."""
    writer = gguf.GGUFWriter(None, "llama", split_max_tensors=2)
    writer.add_uint32("llama.block_count", 2)
    for number in range(count):
        writer.add_tensor(f"t{number}", np.full((2, 3), number, np.float32), raw_dtype=TYPES.F32)
    folder.mkdir(exist_ok=True)
    writer.write_header_to_file(folder / "m.gguf")
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return sorted(folder.iterdir())


def test_any_part_of_a_split_model_opens_all(tmp_path: Path) -> None:
    paths = split(tmp_path / "parts")
    assert [path.name for path in paths] == [f"m-0000{number}-of-00003.gguf" for number in (1, 2, 3)]
    for path in paths:
        file = GGUFFile(path)
        assert file.metadata["llama.block_count"] == 2
        tensors = file.read(list(file.tensors))
        assert {name: tensor.unique().tolist() for name, tensor in tensors.items()} == {
            f"t{number}": [number] for number in range(5)
        }


def test_what_is_no_whole_split_model_is_named(tmp_path: Path) -> None:
    paths = split(tmp_path / "parts")
    joined = tmp_path / "joined.gguf"
    joined.write_bytes(b"".join(path.read_bytes() for path in paths))
    with pytest.raises(InputError, match="joined byte by byte"):
        GGUFFile(joined)
    alone = tmp_path / "renamed.gguf"
    alone.write_bytes(paths[1].read_bytes())
    with pytest.raises(InputError, match="part 2 of 3, and its name"):
        GGUFFile(alone)
    paths[2].rename(tmp_path / "away")
    with pytest.raises(InputError, match=r"m-00003-of-00003\.gguf is not beside it"):
        GGUFFile(paths[0])
    paths[2].write_bytes(paths[1].read_bytes())
    with pytest.raises(InputError, match="part 2 of 3, its name that it is part 3"):
        GGUFFile(paths[0])


def test_the_other_byte_order_is_said(tmp_path: Path) -> None:
    writer = gguf.GGUFWriter(tmp_path / "big.gguf", "llama", endianess=gguf.GGUFEndian.BIG)
    writer.add_tensor("t", np.ones((2, 3), np.float32), raw_dtype=TYPES.F32)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(InputError, match="big-endian"):
        GGUFFile(tmp_path / "big.gguf")
    (tmp_path / "m.gguf.part2of3").write_bytes(b"middle of a file")
    with pytest.raises(InputError) as caught:
        GGUFFile(tmp_path / "m.gguf.part2of3")
    assert "cat" in caught.value.hint
