"""What a file is by its first bytes, where its name says something else."""

from __future__ import annotations

FETCH = "Fetch the file itself: git lfs pull, or hf download."
PAGE = "It was downloaded from a page instead of the file: use hf download."
UNPACK = "Unpack it, and name what is in it."
NAME = "Give it the ending of what it is."
AS_CSV = "Save it as .csv from the program that made it."
BEGIN = 16  # bytes that tell
# Letters alone tell nothing where a table may begin with them: those of control characters do.
BEGINNINGS: tuple[tuple[bytes, str, str], ...] = (
    (b"version https://", "a pointer of Git LFS", FETCH),
    (b"<!doctype", "a page of HTML", PAGE),
    (b"<html", "a page of HTML", PAGE),
    (b"pk\x03\x04", "a zip archive (a workbook of Excel and a pickle of PyTorch are such, too)",
     UNPACK),
    (b"\x1f\x8b", "a file packed by gzip", UNPACK),
    (b"bzh91ay&sy", "a file packed by bzip2", UNPACK),
    (b"\xfd7zxz", "a file packed by xz", UNPACK),
    (b"7z\xbc\xaf", "a 7-Zip archive", UNPACK),
    (b"(\xb5/\xfd", "a file packed by zstd", UNPACK),
    (b"par1\x15", "a table in Parquet", NAME),
    (b"\x93numpy", "an array of NumPy", NAME),
    (b"gguf\x02", "weights quantised for llama.cpp", NAME),
    (b"gguf\x03", "weights quantised for llama.cpp", NAME),
    (b"\x89hdf", "a file in HDF5", NAME),
    (b"\xd0\xcf\x11\xe0", "a workbook of an old Excel", AS_CSV),
    (b"sqlite format 3", "a database of SQLite", AS_CSV),
    (b"%pdf-", "a PDF", AS_CSV),
    *((b"\x80" + bytes([protocol]), "a pickle", NAME) for protocol in range(2, 6)),
)  # fmt: skip


def beginning(first: bytes) -> tuple[str, str] | None:
    """What a file is that begins with these bytes, and the way out; None for any other one."""
    lower = first[:BEGIN].lstrip(b"\xef\xbb\xbf\r\n\t ").lower()
    return next((told[1:] for told in BEGINNINGS if lower.startswith(told[0])), None)
