"""Plain text: read from a file, checked for characters that UTF-8 cannot write, cut into lines.

Knows no format and no tokenizer.
"""

from __future__ import annotations

import re
import shlex
from pathlib import Path

from lmworks.base.errors import InputError

_LINE_END = re.compile(r"\r\n|\n|\r")
_BETWEEN_WORDS = re.compile(r"(?<=\w)(?=[ \n]\w)")
_SEARCHED = 10_000  # characters before the end of a piece in which a place to cut is looked for


def split_lines(text: str) -> list[str]:
    r"""The lines of a text without their ends: ``\n``, ``\r\n`` or ``\r``.

    ``str.splitlines`` would also cut at a form feed, U+0085, U+2028 and others, which may stand inside a line.
    """
    lines = _LINE_END.split(text)
    return lines if lines[-1] else lines[:-1]


def cut_between_words(text: str, size: int) -> list[int]:
    """Where the pieces of a text begin, each of at most ``size`` characters: between two words, before the single space
    or end of line that divides them, where there is such a place near a piece's end.

    No pre-tokenizer in use joins what stands on both sides, so tokens of the pieces are those of the whole.
    """
    begins = [0]
    while len(text) - begins[-1] > size:
        end = begins[-1] + size
        places = [match.start() for match in _BETWEEN_WORDS.finditer(text, max(begins[-1] + 1, end - _SEARCHED), end)]
        begins.append(places[-1] if places else end)
    return begins


def text_fault(text: str) -> str | None:
    """What is wrong with the first character that UTF-8 cannot write, or None.

    Such a character is one half of a surrogate pair. Python's `surrogateescape` puts U+DC80 to U+DCFF where a byte was
    that is not UTF-8 (command line, file names); JSON has others as ``\\ud83d``.
    """
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        code = ord(text[error.start])
        if 0xDC80 <= code <= 0xDCFF:
            offset = len(text[: error.start].encode("utf-8", errors="surrogateescape")) + 1
            return f"not UTF-8: byte {offset} is 0x{code - 0xDC00:02x}"
        return f"character {error.start + 1} is half of a surrogate pair (U+{code:04X}), which is no text"
    return None


def check_text(text: str, place: str) -> str:
    """The text, unless it holds a character that UTF-8 cannot write.

    Raises:
        InputError: it does; names the first one.
    """
    fault = text_fault(text)
    if fault is not None:
        raise InputError(fault, place, "write the text in UTF-8")
    return text


def read_text(path: str | Path) -> str:
    r"""A UTF-8 file as one text; a byte order mark is left out, and lines end with ``\n``.

    Raises:
        InputError: the file cannot be read, or has a byte that is not UTF-8: names the line and the byte.
    """
    path = Path(path)
    try:
        raw = path.read_bytes().removeprefix(b"\xef\xbb\xbf")
    except OSError as error:
        raise InputError(f"cannot be read ({error.strerror})", str(path), "give a text file") from error
    try:
        return _LINE_END.sub("\n", raw.decode("utf-8"))
    except UnicodeDecodeError as error:
        number, begin = raw.count(b"\n", 0, error.start) + 1, raw.rfind(b"\n", 0, error.start) + 1
        fault = byte_fault(error.start - begin, raw[error.start])
        raise InputError(fault, f"{path}:{number}", convert_hint(path)) from error


def byte_fault(offset: int, value: int) -> str:
    """Which byte of a line is not UTF-8; the offset counts from 0, the message from 1."""
    return f"not UTF-8: byte {offset + 1} of the line is 0x{value:02x}"


def convert_hint(path: Path, encoding: str = "LATIN1") -> str:
    """How to make a UTF-8 file of one in another encoding."""
    name = shlex.quote(path.name)
    return f"convert the file: iconv -f {encoding} -t UTF-8 {name} > {shlex.quote('utf8-' + path.name)}"
