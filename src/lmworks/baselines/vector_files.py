"""Files of word vectors, as word2vec, GloVe and fastText publish them, read and written.

- word2vec text, and fastText's ``.vec``: a line ``V E``, then a line for each word: the word and E numbers, with spaces
  between.
- GloVe: the same without the first line.
- word2vec binary: the line ``V E``, then for each word: the word, a space, E little-endian float32, a line end (which
  gensim leaves out).

Text is read line by line and binary files from a memory map; in both cases the vectors themselves are what is held.
"""

from __future__ import annotations

import itertools
import mmap
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from lmworks.base.errors import InputError
from lmworks.base.figures import count_of
from lmworks.base.files import atomic_file, expand_home
from lmworks.text.plain_text import convert_hint

VectorFormat = Literal["text", "binary", "glove", "fasttext"]
FORMATS: dict[str, VectorFormat] = {".txt": "text", ".vec": "text", ".bin": "binary"}
"""Ending of a file's name -> the format in which it is written. "fasttext" is written by baselines/fasttext_file."""

HEADER = re.compile(rb"\s*(\d{1,12})[ \t]+(\d{1,7})\s*")
COMPRESSED = {b"\x1f\x8b\x08": "gunzip -k", b"PK\x03\x04": "unzip"}
"""First bytes of a compressed file, and what unpacks it."""
BLOCK = 1 << 20
TOO_LARGE = float(np.finfo(np.float32).max) * (1 + 2**-25)
"""From here on a number becomes infinite in float32."""


class VectorFile(NamedTuple):
    """What a file of word vectors holds.

    Attributes:
        words: (V) in the order of the file, each once.
        vectors: (V, E) float32.
        notes: what a person should know: words that stood there twice.
    """

    words: list[str]
    vectors: np.ndarray
    notes: list[str]


# Reading


def read_vectors(path: str | Path, limit: int | None = None, errors: str = "strict") -> VectorFile:
    """Word vectors of a file in any of the formats, which is recognised by the content.

    Args:
        path: the file.
        limit: read only this many words, the first ones: the most frequent in files of word2vec, GloVe and fastText.
        errors: what becomes of words that are not UTF-8, as in ``bytes.decode``: "strict" refuses the file.

    Raises:
        InputError: the file cannot be read, or is damaged; names the line, or the number of the word.
    """
    path = expand_home(path)
    try:
        with path.open("rb") as file:
            first = file.readline(BLOCK)
            head = first + file.read(4096)
    except OSError as error:
        raise InputError(f"cannot be read ({error.strerror})", str(path), "give a file of word vectors") from error
    for begin, command in COMPRESSED.items():
        if head.startswith(begin):
            raise InputError("is compressed", str(path), f"unpack it first: {command} {path.name}")
    if not head.strip():
        raise InputError("is empty", str(path), "give a file of word vectors")
    header = HEADER.fullmatch(first)
    if header is None:
        return _read_text(path, None, limit, errors)
    size, width = int(header[1]), int(header[2])
    _check_header(path, size, width)
    if _is_binary(head[len(first) :], width, path):
        return _read_binary(path, len(first), (size, width), limit, errors)
    return _read_text(path, (size, width), limit, errors)


def _check_header(path: Path, size: int, width: int) -> None:
    """That a file is long enough for what its first line says, before room is made for it."""
    if not size or not width:
        raise InputError(f"holds {size} words of {width} numbers", f"{path}:1", "give a file that has some")
    least = size * (2 * width + 1)  # bytes: a word of one character, and numbers of one digit
    if path.stat().st_size < least:
        fault = f"the first line says {count_of(size, 'word')} of {count_of(width, 'number')}; the file is too short"
        raise InputError(fault, f"{path}:1", "the file is cut off: fetch or write it again")


def _is_binary(rest: bytes, width: int, path: Path) -> bool:
    """Whether the numbers of the first word are written as bytes.

    If they do not read as numbers, a control character among them decides, or the file's name, so that a damaged text
    file is still reported as one.
    """
    tail = rest.lstrip(b"\n").partition(b" ")[2]
    parts = tail.partition(b"\n")[0].split()
    complete = parts if b"\n" in tail else parts[:-1]  # what was read of the file may end within a number
    if complete and all(map(_is_number, complete)):
        return False
    return path.suffix == ".bin" or any(byte < 0x20 and byte not in b"\t\r\n" for byte in tail[: 4 * width])


def _read_text(path: Path, header: tuple[int, int] | None, limit: int | None, errors: str) -> VectorFile:
    """A text file, with the shape that its first line says or without such a line."""
    size, width = header or _shape_without_header(path)
    wanted = min(size, limit or size)
    vectors = np.empty((wanted, width), dtype=np.float32)
    words: dict[str, None] = {}
    count = 0
    with path.open("rb") as file:
        before = 1 if header else 0  # lines before the first word's
        for line in itertools.islice(file, before, None):
            if count == wanted:
                if wanted == size:
                    fault = f"there are more lines than the {count_of(size, 'word')} that the first line says"
                    raise InputError(fault, f"{path}:{before + count + 1}", "correct the first line")
                break
            count += 1
            word, row = _parse_line(line, width, f"{path}:{before + count}", path, errors)
            if word not in words:
                vectors[len(words)] = row
                words[word] = None
    if count < wanted:
        fault = f"the first line says {count_of(size, 'word')}, and {count:,} are there"
        raise InputError(fault, f"{path}:{before + count}", "the file is cut off: fetch or write it again")
    return VectorFile(list(words), vectors[: len(words)], _notes(count - len(words)))


def _shape_without_header(path: Path) -> tuple[int, int]:
    """The shape of a text file whose first line does not say it, by counting its lines."""
    with path.open("rb") as file:
        first = file.readline(BLOCK)
        width = first.rstrip().count(b" ")
        if not width or b"\0" in first:
            hint = "word2vec's files begin with a line of two numbers, GloVe's with a word and its numbers"
            raise InputError("is no file of word vectors", f"{path}:1", hint)
        ends, last = first.count(b"\n"), first[-1:]
        while block := file.read(BLOCK):
            ends, last = ends + block.count(b"\n"), block[-1:]
    return ends + (last != b"\n"), width


def _parse_line(line: bytes, width: int, place: str, path: Path, errors: str) -> tuple[str, list[float]]:
    """The word of a line and its numbers. Some words of fastText's and GloVe's files have spaces in them."""
    parts = line.rstrip(b" \r\n").rsplit(b" ", width)
    if len(parts) <= width or not parts[0]:
        fault = f"a word and {count_of(width, 'number')} are expected, and there are {len(line.split())} parts"
        raise InputError(fault, place, "the line is damaged: fetch or write the file again")
    try:
        if b"_" in line[len(parts[0]) :]:  # Python reads 1_000 as a number
            raise ValueError
        row = [float(part) for part in parts[1:]]
    except ValueError:
        wrong = next(part for part in parts[1:] if not _is_number(part))
        fault = f"{wrong[:30].decode('utf-8', 'replace')!r} is no number"
        raise InputError(fault, place, "the line is damaged: fetch or write the file again") from None
    if not all(abs(value) < TOO_LARGE for value in row):
        raise InputError("a number is not finite", place, "the line is damaged: fetch or write the file again")
    return _decode(parts[0], place, convert_hint(path), errors), row


def _is_number(part: bytes) -> bool:
    try:
        float(part)
    except ValueError:
        return False
    return b"_" not in part


def _decode(word: bytes, place: str, hint: str, errors: str) -> str:
    try:
        return word.decode("utf-8", errors)
    except UnicodeDecodeError as error:
        fault = f"the word is not UTF-8: its byte {error.start + 1} is 0x{word[error.start]:02x}"
        raise InputError(fault, place, hint) from error


def _read_binary(path: Path, begin: int, header: tuple[int, int], limit: int | None, errors: str) -> VectorFile:
    """A binary file; ``begin`` is where its first word stands."""
    size, width = header
    wanted = min(size, limit or size)
    vectors = np.empty((wanted, width), dtype=np.float32)
    words: dict[str, None] = {}
    position = begin
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        for number in range(1, wanted + 1):
            place = f"{path}, word {number}"
            space = content.find(b" ", position)
            end = space + 1 + 4 * width
            if space < 0 or end > len(content):
                fault = f"the file ends here, and its first line says {count_of(size, 'word')}"
                raise InputError(fault, place, "the file is cut off: fetch or write it again")
            hint = "in Python: lmworks.word_vectors(path, errors='replace')"
            word = _decode(content[position:space].lstrip(b"\n"), place, hint, errors)
            row = np.frombuffer(content[space + 1 : end], dtype="<f4")
            if not word or not np.isfinite(row).all():
                fault = "the word is empty" if not word else "a number is not finite"
                raise InputError(fault, place, "the file is damaged: fetch or write it again")
            if word not in words:
                vectors[len(words)] = row
                words[word] = None
            position = end
        if wanted == size and content[position:].strip(b"\n"):
            fault = f"more follows the {count_of(size, 'word')} that the first line says"
            raise InputError(fault, f"{path}, byte {position + 1}", "the file is damaged: fetch or write it again")
    return VectorFile(list(words), vectors[: len(words)], _notes(wanted - len(words)))


def _notes(repeated: int) -> list[str]:
    return [f"{count_of(repeated, 'word')} left out that stood there before"] if repeated else []


# Writing


def write_vectors(
    path: str | Path, words: Sequence[str], vectors: np.ndarray, file_format: VectorFormat | None = None
) -> Path:
    """Write word vectors; what is read back is the same to the last bit.

    Args:
        path: the file; one that is there is replaced.
        words: (V).
        vectors: (V, E) float32.
        file_format: "text" (word2vec's), "binary" (word2vec's), "glove"; default: by the ending .txt, .vec or .bin.

    Raises:
        InputError: the ending says no format, a word has a space or a line end in it, or the file cannot be written.
    """
    path = expand_home(path)
    file_format = file_format or format_of(path)
    encoded = [word.encode("utf-8") for word in words]
    for word in encoded:
        if not word or b" " in word or b"\n" in word or b"\r" in word:
            fault = f"the word {word.decode()!r} is empty, or has a space or a line end in it"
            raise InputError(fault, str(path), "leave it out: the formats have a space after each word")
    with atomic_file(path) as file:
        if file_format != "glove":
            file.write(b"%d %d\n" % vectors.shape)
        for word, row in zip(encoded, np.ascontiguousarray(vectors, dtype="<f4"), strict=True):
            if file_format == "binary":
                file.write(word + b" " + row.tobytes() + b"\n")
            else:
                file.write(word + b" " + " ".join(row.astype(str)).encode("ascii") + b"\n")
    return path


def format_of(path: Path) -> VectorFormat:
    """The format that a file's name asks for.

    Raises:
        InputError: it asks for none.
    """
    file_format = FORMATS.get(path.suffix.lower())
    if file_format is None:
        hint = "name it .txt or .vec (text), or .bin (word2vec's binary format)"
        raise InputError("the name does not say in which format to write", str(path), hint)
    return file_format
