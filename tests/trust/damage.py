"""Damage that knows the form of a file: how bytes of each kind are changed, drawn from a generator.

Of three changes about one is *near*: a number a little larger, a list in another order, a key more,
a picture of another depth.  Such files are often taken, and what is made of them must be right.
The others are values that fit nowhere, and bytes that are wrong.
"""

from __future__ import annotations

import contextlib
import io
import json
import random
import struct
import zipfile
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import yaml

Damage = Callable[[bytes, random.Random], bytes]

NASTY: tuple[Any, ...] = (
    None, True, -1, 0, 10**400, 1e308, float("nan"), float("inf"), "", "..", "/", "²",
    "~nobody/x",
    "a\0b", "x" * 70_000, "\ud800", [], {}, [[]], [None], {"": None}, "../../x", "$(touch x)",
    "(.*)*" * 9 + "!", 2**31, 2**63, -(2**63), 0.5, "1e3", "<script>x</script>", "{{ x }}",
    [[[[[[[[0]]]]]]]], {"a": {"b": {"c": [1, "2", None]}}}, "NaN", "\u202e\u200b", "\x1b[31m",
)  # fmt: skip
RAW = (
    b"", b"\0", b"[" * 100_000, b'{"a":' * 50_000, b"\xff\xfe\0", b"a: &a [*a, *a]", b"5",
    b"[]",
    b"!!int x", b"2020-13-45", b"null", b"- " * 5000, b"&a [*a]", b"PK\x03\x04", b"\x1f\x8b\x08",
    b"\xef\xbb\xbf{}", b'"\\ud800"', b"\x89PNG\r\n\x1a\n", b"{}", b"\n" * 1000, b"PAR1",
)  # fmt: skip
HAPPENS = 0.12  # how often a file is damaged in its bytes alone, whatever its form


def any_bytes(content: bytes, rng: random.Random) -> bytes:
    """Other bytes: cut off, a few bits turned, something put in, a part twice, or nothing alike."""
    way = rng.randrange(6)
    at = rng.randrange(len(content) + 1)
    if way == 0:
        return rng.choice(RAW)
    if way == 1:
        return content[:at]
    if way == 2:
        found = bytearray(content)
        for _ in range(rng.randrange(1, 9) if found else 0):
            found[rng.randrange(len(found))] ^= 1 << rng.randrange(8)
        return bytes(found)
    if way == 3:
        other = rng.randrange(len(content) + 1)
        return content[: max(at, other)] + content[min(at, other) :]
    if way == 4:
        return content + rng.choice(RAW)[:5000]
    return content[:at] + rng.choice(RAW)[:5000] + content[at:]


def or_bytes(change: Damage) -> Damage:
    """A change of a form, or now and then one of bytes; also where the form has none to give."""

    def damaged(content: bytes, rng: random.Random) -> bytes:
        if rng.random() >= HAPPENS:
            with contextlib.suppress(ValueError, yaml.YAMLError, RecursionError, IndexError):
                return change(content, rng)
        return any_bytes(content, rng)

    return damaged


# Plain values -------------------------------------------------------------------------------------


def near(value: Any, rng: random.Random) -> Any:
    """A value that may well be taken in the place of another one."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return value + rng.choice([-2, -1, 1, 2, value, 7 * value])
    if isinstance(value, float):
        return value * rng.choice([0.5, 0.99, 1.01, 2.0, -1.0]) + rng.choice([0.0, 1e-3])
    if isinstance(value, str):
        return rng.choice(
            [value.upper(), f"{value} ", f"{value}2", value[::-1], value[:-1], f"é{value}"]
        )
    if isinstance(value, list):
        return rng.choice([value[::-1], value + value[:1], value[1:], sorted(value, key=repr)])
    if isinstance(value, dict):
        mixed = list(value.items())
        rng.shuffle(mixed)
        return rng.choice([dict(mixed), {**value, "x-more": 1}, dict(mixed[1:])])
    return rng.choice([0, "", False])


def values(content: Any, rng: random.Random) -> Any:
    """Plain values with one of them, somewhere, exchanged, removed or called otherwise."""
    place: Any = content
    while isinstance(place, dict | list) and place:
        key: Any = rng.choice(list(place) if isinstance(place, dict) else range(len(place)))
        inner = place[key]
        if isinstance(inner, dict | list) and inner and rng.random() < 0.8:
            place = inner
            continue
        way = rng.random()
        if way < 0.45:
            place[key] = near(inner, rng)
        elif way < 0.8:
            place[key] = rng.choice(NASTY)
        elif way < 0.9 and isinstance(place, dict):
            place[str(rng.choice(NASTY))[:80]] = place.pop(key)
        else:
            place.pop(key)
        return content
    return rng.choice(NASTY)


def _json(content: bytes, rng: random.Random) -> bytes:
    found = json.loads(content)
    for _ in range(rng.choice([1, 1, 1, 2, 4])):
        found = values(found, rng)
    text = json.dumps(found, indent=rng.choice([None, 1]), ensure_ascii=rng.random() < 0.9)
    return text.encode(rng.choice(["utf-8"] * 9 + ["utf-16"]), "replace")


def _yaml(content: bytes, rng: random.Random) -> bytes:
    found = yaml.safe_load(content)
    for _ in range(rng.choice([1, 1, 1, 2, 4])):
        found = values(found, rng)
    return yaml.safe_dump(found, sort_keys=rng.random() < 0.5).encode("utf-8", "replace")


def _lines_of_json(content: bytes, rng: random.Random) -> bytes:
    lines = content.splitlines(keepends=True)
    at = rng.randrange(len(lines))
    if rng.random() < 0.3:
        return _among(lines, rng)
    lines[at] = json.dumps(values(json.loads(lines[at]), rng)).encode() + b"\n"
    return b"".join(lines)


def _among(lines: list[bytes], rng: random.Random) -> bytes:
    """Lines with one of them removed, twice, elsewhere or in two."""
    at, to = rng.randrange(len(lines)), rng.randrange(len(lines))
    way = rng.randrange(4)
    if way == 0:
        lines.pop(at)
    elif way == 1:
        lines.insert(to, lines[at])
    elif way == 2:
        lines[at], lines[to] = lines[to], lines[at]
    else:
        line = lines[at]
        cut = rng.randrange(len(line) + 1)
        lines[at : at + 1] = [line[:cut], b"\n", line[cut:]]
    return b"".join(lines)


def _lines(content: bytes, rng: random.Random) -> bytes:
    lines = content.splitlines(keepends=True)
    if rng.random() < 0.6:
        return _among(lines, rng)
    said = str(rng.choice(NASTY))[:2000].encode("utf-8", "replace")
    lines[rng.randrange(len(lines))] = said + b"\n"
    return b"".join(lines)


def _table(content: bytes, rng: random.Random) -> bytes:
    """A CSV or TSV with another cell, header, quote, line, coding or width."""
    tab = b"\t" if b"\t" in content else b","
    rows = [line.split(tab) for line in content.splitlines()]
    row = rng.choice(rows)
    way = rng.randrange(6)
    if way < 2:
        said = near(row[-1].decode(), rng) if way else str(rng.choice(NASTY))[:5000]
        row[rng.randrange(len(row))] = str(said).encode("utf-8", "replace")
    elif way == 2:
        row.insert(rng.randrange(len(row) + 1), rng.choice([b"", b'"', b"1", b"x" * 3000]))
    elif way == 3:
        row.pop(rng.randrange(len(row)))
    text = b"\n".join(tab.join(one) for one in rows) + b"\n"
    if way == 4:
        text = text.replace(tab, rng.choice([b";", b"|", b"\t", b","]))
    elif way == 5:
        return text.decode().encode(rng.choice(["utf-16", "utf-8-sig", "utf-32", "cp037"]))
    return text


# Arrays, tensors and archives ---------------------------------------------------------------------


def _safetensors(content: bytes, rng: random.Random, only: str = "") -> bytes:
    length = struct.unpack("<Q", content[:8])[0]
    header, rest = json.loads(content[8 : 8 + length]), bytearray(content[8 + length :])
    names = [n for n in header if n != "__metadata__" and only in n]
    way = rng.random()
    if way < 0.6:  # numbers of one tensor
        low, high = header[rng.choice(names)]["data_offsets"]
        for _ in range(rng.choice([1, 1, 5])):
            at = low + 4 * rng.randrange((high - low) // 4)
            was = struct.unpack("<f", rest[at : at + 4])[0]
            close = [was * 1.01, was + 0.1, -was, 0.0]
            far = [float("nan"), float("inf"), 1e38, -1e30, -1.0, 1e-40]
            number = rng.choice(close if rng.random() < 0.7 else far)
            rest[at : at + 4] = struct.pack(
                "<f", max(min(number, 3e38), -3e38) if number == number else number
            )
    elif way < 0.7:  # two tensors exchanged
        one, other = rng.choice(names), rng.choice(names)
        header[one], header[other] = header[other], header[one]
    elif way < 0.8:
        header.setdefault("__metadata__", {})[rng.choice(["format", "tokens", "x"])] = str(
            rng.choice(NASTY)
        )[:3000]
    else:
        header = values(header, rng)
    told = json.dumps(header).encode()
    told += b" " * (-len(told) % 8)
    return struct.pack("<Q", len(told)) + told + bytes(rest)


def _state(content: bytes, rng: random.Random) -> bytes:
    """What `torch.save` wrote: other plain values, or a tensor of another kind somewhere."""
    found: Any = torch.load(io.BytesIO(content), weights_only=True)
    if rng.random() < 0.5:
        found = values(found, rng)
    else:
        entry = rng.choice(list(found["state"].values()))
        entry["exp_avg_sq"] = _tensor(entry["exp_avg_sq"], rng)
    place = io.BytesIO()
    torch.save(found, place)
    return place.getvalue()


def _tensor(value: torch.Tensor, rng: random.Random) -> torch.Tensor:
    ways: list[Callable[[], torch.Tensor]] = [
        lambda: value * 1.5,
        lambda: value.double(),
        lambda: value.bfloat16(),
        lambda: value * 0,
        lambda: -value,
        lambda: value * torch.inf,
        lambda: value.to(rng.choice([torch.float8_e4m3fn, torch.int8, torch.complex64])),
        lambda: value.reshape(-1),
        lambda: value.reshape(-1)[:1].expand(10**9),
        lambda: value.to_sparse(),
        lambda: value.mT.contiguous().mT if value.dim() > 1 else value[:0],
        lambda: torch.empty(0),
    ]
    return rng.choice(ways)()


def _npz(content: bytes, rng: random.Random) -> bytes:
    with np.load(io.BytesIO(content)) as found:
        arrays = dict(found)
    name = rng.choice(list(arrays))
    array = arrays[name]
    way = rng.randrange(8)
    if way == 0:
        arrays.pop(name)
    elif way == 1:
        arrays[name] = array.astype(
            rng.choice(["int64", "float32", "float64", "U9", "bool", "uint8"])
        )
    elif way == 2:
        arrays[name] = array[:-1]
    elif way == 3:
        arrays[name] = array.reshape(-1)[: rng.randrange(array.size + 1)]
    elif way == 4:
        arrays[name] = array[..., None]
    elif way == 5 and array.dtype.kind == "i":
        arrays[name] = array + rng.choice([-1, 1, 2**40])
    elif way == 6:
        arrays["more"] = np.zeros(3)
    else:
        arrays[name] = array[::-1]
    stream = io.BytesIO()
    (np.savez if rng.random() < 0.5 else np.savez_compressed)(stream, **arrays)
    return stream.getvalue()


def _zip(content: bytes, rng: random.Random) -> bytes:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    stream, names = io.BytesIO(), list(entries)
    chosen = rng.choice(names)
    with zipfile.ZipFile(
        stream, "w", rng.choice([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
    ) as made:
        for name, held in entries.items():
            info, data = zipfile.ZipInfo(name), held
            if name == chosen:
                way = rng.randrange(6)
                said = ["../x", "/x", "a/../../x", "C:\\x", "é" * 300, "a" * 300, "b/c/d", "x.txt"]
                if way < 2:
                    info = zipfile.ZipInfo(rng.choice(said))
                elif way == 2:
                    info.external_attr = rng.choice([0o120777, 0o020600, 0o040755, 0o100644]) << 16
                elif way == 3:
                    data = any_bytes(held, rng)
                elif way == 4:
                    made.writestr(zipfile.ZipInfo(name), held)
                else:
                    continue
            made.writestr(info, data)
    return stream.getvalue()


def _parquet(content: bytes, rng: random.Random) -> bytes:
    import pandas as pd

    frame = pd.read_parquet(io.BytesIO(content))
    way = rng.randrange(6)
    name = rng.choice(list(frame.columns))
    if way == 0:
        frame = frame.drop(columns=name)
    elif way == 1:
        frame[name] = [rng.choice([None, 1, 2]) for _ in range(len(frame))]
    elif way == 2:
        frame = frame.rename(
            columns={name: str(rng.choice(NASTY))[:99].encode("utf-8", "replace").decode()}
        )
    elif way == 3:
        frame[name] = [[1, 2]] * len(frame)
    elif way == 4:
        frame = frame.iloc[: rng.randrange(len(frame))]
    else:
        frame = frame.sample(frac=1.0, random_state=rng.randrange(1000))
    return frame.to_parquet()


# Pictures -----------------------------------------------------------------------------------------

FORMATS = (("PNG", "L"), ("PNG", "RGB"), ("PNG", "RGBA"), ("PNG", "P"), ("PNG", "1"),
           ("PNG", "LA"), ("JPEG", "L"), ("JPEG", "RGB"), ("JPEG", "CMYK"), ("TIFF", "L"),
           ("TIFF", "I;16"), ("TIFF", "F"), ("PNG", "I;16"), ("GIF", "P"), ("BMP", "RGB"),
           ("WEBP", "RGB"))  # fmt: skip


def _picture(content: bytes, rng: random.Random) -> bytes:
    """A picture of another format, depth, size or orientation, or with another header."""
    from PIL import Image

    if content.startswith(b"\x89PNG") and rng.random() < 0.4:
        return _png(content, rng)
    form, mode = rng.choice(FORMATS)
    width, height = rng.choice([(6, 6), (6, 6), (6, 6), (1, 1), (7, 3), (300, 2), (40, 40)])
    top = 65535 if mode == "I;16" else 255
    shown = np.array([rng.randrange(top) for _ in range(width * height)]).reshape(height, width)
    kinds = {"I;16": np.uint16, "F": np.float32}
    image = Image.fromarray(shown.astype(kinds.get(mode, np.uint8)))
    image = image if mode in kinds else image.convert(mode)
    told: dict[str, Any] = {}
    if form in ("JPEG", "PNG", "WEBP", "TIFF") and mode in ("L", "RGB") and rng.random() < 0.5:
        exif = Image.Exif()
        exif[274] = rng.choice([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 255])
        told["exif"] = exif
    stream = io.BytesIO()
    image.save(stream, form, **told)
    made = stream.getvalue()
    return any_bytes(made, rng) if rng.random() < 0.25 else made


def _png(content: bytes, rng: random.Random) -> bytes:
    """A PNG with another field of its header, or another chunk, and right check sums."""
    chunks, at = [], 8
    while at < len(content):
        size = struct.unpack(">I", content[at : at + 4])[0]
        chunks.append((content[at + 4 : at + 8], content[at + 8 : at + 8 + size]))
        at += 12 + size
    way = rng.randrange(4)
    if way == 0:
        width, height, *rest = struct.unpack(">IIBBBBB", chunks[0][1])
        found = [width, height, *rest]
        most = 2**32 if (place := rng.randrange(7)) < 2 else 256
        found[place] = rng.choice([0, 1, 2, 3, 4, 6, 8, 16, 70_000, 2**31 - 1, 2**32 - 1]) % most
        chunks[0] = (b"IHDR", struct.pack(">IIBBBBB", *found))
    elif way == 1:
        chunks.insert(rng.randrange(len(chunks) + 1), rng.choice(chunks))
    elif way == 2:
        kind = rng.choice([b"tEXt", b"zTXt", b"iCCP", b"eXIf", b"tRNS", b"PLTE", b"acTL", b"xxXx"])
        chunks.insert(1, (kind, any_bytes(zlib.compress(b"x" * 999), rng)[:5000]))
    else:
        chunks.pop(rng.randrange(len(chunks)))
    made = b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    )
    return content[:8] + made


def tensors(only: str = "") -> Damage:
    """Damage of a file of safetensors; numbers are those of tensors with `only` in their names."""
    return or_bytes(lambda content, rng: _safetensors(content, rng, only))


JSON, YAML, JSONL, LINES = map(or_bytes, (_json, _yaml, _lines_of_json, _lines))
TABLE, NPZ, ZIP, PARQUET, PICTURE = map(or_bytes, (_table, _npz, _zip, _parquet, _picture))
STATE = or_bytes(_state)


def front(content: bytes, rng: random.Random) -> bytes:
    """A model card with other front matter."""
    head, _, rest = content.removeprefix(b"---\n").partition(b"---\n")
    return b"---\n" + YAML(head, rng) + b"\n---\n" + rest


def text(content: bytes, rng: random.Random) -> bytes:
    """A line of text as somebody might type it."""
    said = content.decode()
    made = rng.choice([str(rng.choice(NASTY))[:5000], near(said, rng), f"{said}/..", f"{said}@x"])
    return str(made).encode("utf-8", "replace")
