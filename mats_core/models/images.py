"""Images as a vision model takes them: prepared by the settings of its own image processor.

Where the settings of `preprocessor_config.json` come to a change of scale alone, the numbers are
computed here, many times faster and the same; everything else (resizing, cropping, other orders of
channels, processors of other kinds) is transformers' own processor's.  Code that comes with a
checkpoint is never run.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..checkpoints import read_config
from ..errors import InputError, parsing, read_json
from ..system import Device, recall
from .architecture import file_text, quiet

FILES = ("preprocessor_config.json", "processor_config.json")
# Processors that do nothing but resize, rescale and normalise; "": the file names none.
PLAIN = {
    "", "ViTImageProcessor", "ViTImageProcessorFast", "ViTImageProcessorPil", "ViTFeatureExtractor",
}  # fmt: skip
BYTE = 1 / 255  # the usual `rescale_factor`
# Settings whose values are looked at, or that change nothing where an image has its size already.
READ = {"do_resize", "size", "do_rescale", "rescale_factor", "do_normalize", "image_mean",
        "image_std", "do_flip_channel_order"}  # fmt: skip
IDLE = {"resample", "do_convert_rgb", "image_processor_type", "feature_extractor_type",
        "processor_class", "data_format", "return_tensors", "crop_size", "default_to_square",
        "disable_grouping"}  # fmt: skip
LARGEST = 1e30  # of a number in the settings: beyond it arithmetic in float32 ends
PROCESSOR = 1 << 12  # bytes that a remembered processor counts as


def pixel_values(
    images: np.ndarray,
    directory: Path | None,
    *,
    device: Device = "cpu",
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """The `pixel_values` (n, c, h, w) that a model's image processor makes of uint8 images
    (n, h, w, c).

    Without a `preprocessor_config.json`: mean and deviation 0.5, the size of `config.json`, by
    bilinear resizing.  Grey channels are repeated where the model takes colours, and colours
    averaged where it takes grey.  Raises `InputError` for settings that no processor of
    transformers follows.
    """
    settings = _settings(directory)
    file = None if directory is None else directory / "config.json"
    config = read_config(file) if file is not None and file.is_file() else {}
    channels = _number(config.get("num_channels"), f"'num_channels' in '{file}'", images.shape[3])
    if images.shape[3] not in (channels, 1, 3) or channels not in (images.shape[3], 1, 3):
        raise InputError(
            f"model '{directory}'",
            expected=f"images of {channels} channels",
            found=f"{images.shape[3]}",
        )
    if directory is not None and not _is_a_scale(settings, images.shape[1:3]):
        processor = _processor(directory, settings)
        if processor is not None:
            return _processed(processor, images, channels, directory).to(device, dtype)
    values = torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2).to(device, dtype)
    if values.shape[1] == 1 and channels > 1:
        values = values.expand(-1, channels, -1, -1)
    elif channels == 1 and values.shape[1] > 1:
        values = values.mean(1, keepdim=True)
    size = None if "size" in settings else config.get("image_size")
    if size is not None:
        sides = size if isinstance(size, list) and len(size) == 2 else [size, size]
        wanted = tuple(_number(side, f"'image_size' in '{file}'") for side in sides)
        if tuple(values.shape[-2:]) != wanted:
            values = nn.functional.interpolate(
                values, wanted, mode="bilinear", align_corners=False, antialias=True
            )
    return _scaled(values, settings, channels)


def _scaled(values: Tensor, settings: Mapping[str, Any], channels: int) -> Tensor:
    """Channels turned around, numbers rescaled and normalised, as the settings say."""
    if settings.get("do_flip_channel_order"):
        values = values.flip(1)
    if settings.get("do_rescale", True):
        (factor,) = _reals(settings, "rescale_factor", (BYTE,), 1)
        values = values / 255 if factor == BYTE else values * factor
    if not settings.get("do_normalize", True):
        return values
    place: Any = {"device": values.device, "dtype": values.dtype}
    mean, std = (
        torch.tensor(_reals(settings, key, (0.5,), channels), **place).reshape(-1, 1, 1)
        for key in ("image_mean", "image_std")
    )
    return (values - mean) / std


def _settings(directory: Path | None) -> dict[str, Any]:
    """The image processor's settings beside a checkpoint; empty without a file."""
    for name in FILES if directory is not None else ():
        file = directory / name  # type: ignore[operator]
        if not file.is_file():
            continue
        content = read_json(file)
        if name == FILES[1]:  # of a processor of several parts
            content = content.get("image_processor", {}) if isinstance(content, dict) else None
        if not isinstance(content, dict):
            raise InputError(f"'{file}'", expected="a JSON object", found=type(content).__name__)
        if content:
            return content
    return {}


def _is_a_scale(settings: Mapping[str, Any], sides: tuple[int, ...]) -> bool:
    """Whether the settings change nothing but the scale of images of this size."""
    kind = settings.get("image_processor_type") or settings.get("feature_extractor_type") or ""
    if (
        not isinstance(kind, str)
        or kind not in PLAIN
        or any(value and key not in READ | IDLE for key, value in settings.items())
    ):
        return False
    if kind and not {"image_mean", "image_std"} <= settings.keys():
        return False  # the class's own, which transformers knows
    lists = (settings.get(key, [0.5]) for key in ("image_mean", "image_std"))
    if not all(isinstance(one, list) and one and all(map(_is_real, one)) for one in lists):
        return False
    if not _is_real(settings.get("rescale_factor", BYTE)):
        return False
    if not settings.get("do_resize", True):
        return True
    size = settings.get("size")
    if size is None:
        return not kind
    if isinstance(size, Mapping):
        return (size.get("height"), size.get("width")) == tuple(sides)
    return (size, size) == tuple(sides)


def _is_real(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < LARGEST


def _reals(
    settings: Mapping[str, Any], key: str, default: Sequence[float], most: int
) -> Sequence[float]:
    """The numbers of a setting: one for all channels, or one for each of `most`."""
    value = settings.get(key, default)
    values = value if isinstance(value, list | tuple) else [value]
    if len(values) not in (1, most) or not all(map(_is_real, values)):
        raise InputError(
            f"'{key}' of the image processor",
            expected="a number" if most == 1 else f"a number, or one for each of {most} channels",
            found=repr(value)[:40],
        )
    return values


def _number(value: Any, thing: str, default: int | None = None) -> int:
    if value is None and default is not None:
        return default
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise InputError(thing, expected="a number of at least 1", found=repr(value)[:40])
    return value


# transformers' own processor ----------------------------------------------------------------------


def _processor(directory: Path, settings: Mapping[str, Any]) -> Any:
    """transformers' image processor; None where nothing says which it would be."""
    texts = tuple(file_text(directory, name) for name in (*FILES, "config.json"))
    return recall(
        ("image processor", *texts), lambda: _loaded(directory, settings), lambda _: PROCESSOR
    )


def _loaded(directory: Path, settings: Mapping[str, Any]) -> Any:
    from transformers import AutoImageProcessor

    said = {"local_files_only": True, "trust_remote_code": False}
    try:
        with quiet():
            return AutoImageProcessor.from_pretrained(directory, **said)
    except Exception as error:
        kind = settings.get("image_processor_type") or settings.get("feature_extractor_type")
        if not kind and "size" not in settings:
            return None  # mean and deviation alone
        raise InputError(
            f"image processor of '{directory}'",
            expected="one that transformers has",
            found=f"{kind or 'none named'} ({str(error).strip().splitlines()[0][:200]})",
            remedy="Some need another package (torchvision); code of a checkpoint is never run.",
        ) from None


def _processed(processor: Any, images: np.ndarray, channels: int, directory: Path) -> Tensor:
    """What a processor makes of images, one row each."""
    from PIL import Image

    if images.shape[3] == 1 and channels > 1:
        images = np.repeat(images, channels, 3)
    elif channels == 1 and images.shape[3] > 1:
        images = np.round(images.mean(3, keepdims=True)).astype(np.uint8)
    asked: dict[str, Any] = {"return_tensors": "pt"}
    given: list[Any] = [Image.fromarray(one) for one in images] if channels == 3 else list(images)
    if channels != 3:
        asked["input_data_format"] = "channels_last"
    thing = f"image processor of '{directory}'"
    with parsing(thing, "settings that transformers follows"), quiet():
        found = processor(given, **asked).get("pixel_values")
    if not isinstance(found, Tensor) or found.ndim != 4 or len(found) != len(images):
        shape = f"a tensor {list(found.shape)}" if isinstance(found, Tensor) else "none"
        raise InputError(
            thing, expected="pixel_values (n, channels, height, width)", found=shape,
            remedy="A model that reads images in another form cannot be asked here.",
        )  # fmt: skip
    return found
