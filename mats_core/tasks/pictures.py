"""Pictures as arrays of bytes, decoded once a machine and then read where they lie.

Images of one size stay as they are; others, or all where a size is asked for, are scaled until
their shorter side has that many pixels and cut to the square in the middle, as most image
processors do.  They are turned as their EXIF note says.  Pictures of more than 8 bits are scaled to
0–255, all by the same factor, so that one stays brighter than another.  The decoded arrays lie in
the machine's cache under a name made of the files' contents; they are mapped into memory, so that a
large folder does not have to fit into it.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..checkpoints import staged_file
from ..errors import InputError, MachineError, needed, regular, undisturbed
from ..errors import size as size_of
from ..system import cache_folder

Source = Path | bytes  # an image as it was packed: a file, or its content
DEEP = ("I", "I;16", "I;16B", "I;16L", "I;16N", "F")  # modes of more than 8 bits
GREY = {"1", "L", *DEEP}
SIZE = 224  # pixels of a side, where images differ and none is asked for
ORIENTATION = 0x0112  # of EXIF
LYING = (5, 6, 7, 8)  # orientations by which width and height change places
MOST_PICTURE = 10_000_000  # bytes of an image that is handed over by itself
MOST_PIXELS = 25_000_000  # of such an image
MOST_DECODED = 100_000_000  # of every other one
FORM = 2  # of what is cached: another number, and pictures are decoded again


@dataclass(frozen=True)
class Depth:
    """What the values of deep pictures are brought from to 0–255.

    low, high  the darkest and the brightest value
    """

    low: float
    high: float

    @property
    def said(self) -> str:
        """The scaling in words."""
        return f"values from {self.low:g} to {self.high:g} were scaled to 0–255 in the pictures"


@dataclass(frozen=True)
class Look:
    """What all pictures of a task have in common.

    size      the side to bring all of them to; None where they have one size
    channels  1 if all are grey, else 3
    depth     the range of those with more than 8 bits; None where there are none
    """

    size: int | None
    channels: int
    depth: Depth | None


def _pillow() -> Any:
    return needed("a task of image files", "PIL.Image", "pillow", "data")


def surveyed(files: Sequence[Source]) -> Look:
    """Size, channels and range of pictures; raises `InputError` for one that cannot be read."""
    Image = _pillow()
    sizes, modes, ranges = set(), set(), []
    for file in files:
        try:
            with Image.open(_opened(file)) as image:
                _require_pixels(image)
                # Formats differ in whether the size is that of the picture as it lies.
                lying = image.getexif().get(ORIENTATION) in LYING
                sizes.add((_upright(image) if lying else image).size)
                modes.add(image.mode)
                if image.mode in DEEP:
                    ranges.append(_range(file, np.asarray(image)))
        except InputError:
            raise
        except Exception as error:  # every format of Pillow has its own
            raise _unreadable(file, error) from None
    depth = _depth(ranges, floating="F" in modes) if ranges else None
    return Look(SIZE if len(sizes) > 1 else None, 1 if modes <= GREY else 3, depth)


def _range(file: Source, values: np.ndarray) -> tuple[float, float]:
    low, high = float(values.min()), float(values.max())
    if not np.isfinite((low, high)).all():
        raise _unreadable(file, ValueError("values that are not finite"))
    return low, high


def _depth(ranges: Sequence[tuple[float, float]], *, floating: bool) -> Depth | None:
    """From black to white of pictures with these darkest and brightest values.

    Whole numbers fill 10, 12, 14, 16 or more bits, whichever hold the brightest; those that fit
    into a byte stay as they are.  Fractions go from 0 to 1.  Values below zero, and fractions that
    go further, have no white of their own: it is the brightest of all.
    """
    low, high = min(a for a, _ in ranges), max(b for _, b in ranges)
    if low >= 0 and floating and high <= 1:
        return Depth(0, 1)
    if low >= 0 and high <= 255:
        return None
    if low < 0 or floating:
        return Depth(low, high)
    return Depth(0, next((t for b in (10, 12, 14, 16) if (t := 2**b - 1) >= high), 2**32 - 1))


def _upright(image: Any) -> Any:
    """An opened image, turned as its EXIF note says."""
    return needed("a task of image files", "PIL.ImageOps", "pillow", "data").exif_transpose(image)


def _opened(file: Source) -> Path | io.BytesIO:
    """What Pillow is to open: of a TIFF the content, for it maps plain ones into memory and then
    garbles those that it has to turn."""
    if isinstance(file, bytes):
        return io.BytesIO(file)
    regular(f"image '{file}'", file)
    return io.BytesIO(file.read_bytes()) if file.suffix.lower() in (".tif", ".tiff") else file


def decoded(files: Sequence[Source], size: int | None, look: Look) -> np.ndarray:
    """uint8 images (n, height, width, channels), read-only and mapped from the machine's cache."""
    digest = hashlib.sha256(f"{FORM} {size} {look.channels} {look.depth}".encode())
    for file in files:
        content = file if isinstance(file, bytes) else file.read_bytes()
        digest.update(f"{len(content)}:".encode())
        digest.update(content)
    place = cache_folder() / "tasks" / f"images-{digest.hexdigest()[:32]}.npy"
    if not place.is_file():
        try:
            _decode(files, size, look, place)
        except MachineError:  # a cache that cannot be written costs memory, not the task
            return np.stack([_picture(file, size, look) for file in files])
    return undisturbed(lambda: np.load(place, mmap_mode="r", allow_pickle=False))


def one_picture(content: bytes) -> np.ndarray:
    """One image (height, width, channels) uint8 of a file's content, which is kept nowhere.

    Raises `InputError` for a file of more than `MOST_PICTURE` bytes, more than `MOST_PIXELS`
    pixels, or one that is no image.
    """
    if len(content) > MOST_PICTURE:
        raise InputError(
            "image", expected=f"at most {size_of(MOST_PICTURE)}", found=size_of(len(content)),
            remedy="Make it smaller.",
        )  # fmt: skip
    Image = _pillow()
    try:
        with Image.open(_opened(content)) as image:
            width, height = image.size
    except Exception as error:
        raise _unreadable(content, error) from None
    if width * height > MOST_PIXELS:
        raise InputError(
            "image", expected=f"at most {MOST_PIXELS:,} pixels", found=f"{width} × {height}",
            remedy="Make it smaller.",
        )  # fmt: skip
    return _picture(content, None, surveyed([content]))


def _decode(files: Sequence[Source], size: int | None, look: Look, place: Path) -> None:
    shape = (len(files), *_picture(files[0], size, look).shape)
    with staged_file(place) as draft:  # a reader never sees half of it
        array = np.lib.format.open_memmap(draft, mode="w+", dtype=np.uint8, shape=shape)
        for row, file in enumerate(files):
            array[row] = _picture(file, size, look)
        array.flush()
        del array


def _picture(file: Source, size: int | None, look: Look) -> np.ndarray:
    """(height, width, channels) uint8."""
    Image = _pillow()
    try:
        with Image.open(_opened(file)) as image:
            _require_pixels(image)
            deep = look.depth if image.mode in DEEP else None
            turned = _upright(image)
            grey = Image.fromarray(_scaled(np.asarray(turned), deep)) if deep else turned
            picture = grey.convert("L" if look.channels == 1 else "RGB")
    except InputError:
        raise
    except Exception as error:
        raise _unreadable(file, error) from None
    if size is not None:
        picture = _shortened(picture, size)
        factor = size / min(picture.size)
        width, height = (max(size, round(side * factor)) for side in picture.size)
        picture = picture.resize((width, height), Image.Resampling.BICUBIC)
        left, top = (width - size) // 2, (height - size) // 2
        picture = picture.crop((left, top, left + size, top + size))
    return np.asarray(picture).reshape(picture.height, picture.width, look.channels)


def _require_pixels(image: Any) -> None:
    """Raise `ValueError` for a picture that would take too much memory, before it is decoded."""
    width, height = image.size
    if width * height > MOST_DECODED:
        raise ValueError(f"{width} × {height} pixels, of at most {MOST_DECODED:,}")


def _shortened(picture: Any, size: int) -> Any:
    """The middle of a picture that is so long that it would be too large once it is scaled."""
    short, long = sorted(picture.size)
    if size * (size * long / short) <= MOST_PIXELS:
        return picture
    keep = [min(side, 3 * short) for side in picture.size]
    left, top = ((side - kept) // 2 for side, kept in zip(picture.size, keep, strict=True))
    return picture.crop((left, top, left + keep[0], top + keep[1]))


def _scaled(values: np.ndarray, depth: Depth) -> np.ndarray:
    """Values of a deep picture as bytes."""
    share = (values.astype(np.float64) - depth.low) / (depth.high - depth.low)
    return np.rint(255 * share.clip(0, 1)).astype(np.uint8)


def _unreadable(file: Source, error: Exception) -> InputError:
    shown = f"of {len(file)} bytes" if isinstance(file, bytes) else f"'{file}'"
    said = str(error).partition(" <_io")[0].strip()  # no place in this process's memory
    return InputError(
        f"image {shown}",
        expected="a picture that Pillow can read",
        found=(said or type(error).__name__).splitlines()[0][:200],
        remedy="Remove or replace it.",
    )
