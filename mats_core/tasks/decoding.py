"""The bytes of a table as text, whatever program wrote them."""

from __future__ import annotations

import gzip
import io
import re
from pathlib import Path
from typing import Any

from ..errors import BEGIN, InputError, beginning, regular
from ..system import require_memory

# The longer marks first: UTF-32 in little-endian order begins as UTF-16 does.
MARKS = (
    (b"\xef\xbb\xbf", "utf-8"),
    (b"\xff\xfe\x00\x00", "utf-32-le"),
    (b"\x00\x00\xfe\xff", "utf-32-be"),
    (b"\xff\xfe", "utf-16-le"),
    (b"\xfe\xff", "utf-16-be"),
)
PIECE = 1 << 24  # bytes that are unpacked at once
READ = 4  # times its bytes that a text takes in memory while its rows are made
GZIP = b"\x1f\x8b"
HALF = re.compile("[\ud800-\udfff]")
UNKNOWN = "\N{REPLACEMENT CHARACTER}"


def read_text(thing: str, path: Path) -> tuple[str, str]:
    """The text of a file (also of one packed by gzip), and a remark where its encoding was guessed,
    else "".

    Byte-order marks decide; without one it is UTF-8, UTF-16 (every second byte of the beginning is
    zero), or the Windows alphabet of Western Europe.  Lines end as the file has it.  Raises
    `InputError` for an archive, a page of HTML, and whatever else is told by its first bytes.
    """
    regular(thing, path)
    require_memory(thing, READ * path.stat().st_size)
    content = path.read_bytes()
    if content.startswith(GZIP) or path.suffix.lower() == ".gz":
        content = _unpacked(thing, content)
    if told := beginning(content[:BEGIN]):
        raise InputError(thing, expected="a text", found=told[0], remedy=told[1])
    for mark, encoding in MARKS:
        if content.startswith(mark):
            return content[len(mark) :].decode(encoding), ""
    if b"\0" in content[:2]:
        order = "utf-16-be" if content[0] == 0 else "utf-16-le"
        return content.decode(order), f"'{path.name}' is read as {order.upper()}"
    try:
        return content.decode("utf-8"), ""
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
    try:
        text, name = content.decode("cp1252"), "Windows-1252"
    except UnicodeDecodeError:
        text, name = content.decode("latin-1"), "Latin-1"
    return text, f"'{path.name}' is read as {name}, for line {line} is not UTF-8"


def _unpacked(thing: str, content: bytes) -> bytes:
    """What gzip has packed, piece by piece: it may be a thousand times as much."""
    found = bytearray()
    with gzip.open(io.BytesIO(content)) as stream:
        while block := stream.read(PIECE):
            found += block
            require_memory(thing, READ * len(found))
    return bytes(found)


def lines(text: str) -> list[str]:
    """The lines of a text: of Unix, of Windows, or of an old Macintosh.

    Other characters that `str.splitlines` knows, such as U+2028, may stand inside a line of JSON.
    """
    return io.StringIO(text, newline=None).read().split("\n")


def whole_characters(value: Any) -> tuple[Any, int]:
    """A value of JSON without half characters, and how many were replaced by U+FFFD.

    Half a character is what is left of an emoji where a text in UTF-16 was cut.
    """
    if isinstance(value, str):
        return HALF.subn(UNKNOWN, value)
    if isinstance(value, dict):
        inside = [(name, whole_characters(one)) for name, one in value.items()]
        return {n: one for n, (one, _) in inside}, sum(count for _, (_, count) in inside)
    if isinstance(value, list):
        found = [whole_characters(one) for one in value]
        return [one for one, _ in found], sum(count for _, count in found)
    return value, 0
