"""Images as a vision model takes them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from ..errors import InputError
from ..system import Device
from .architecture import _json


def pixel_values(
    images: np.ndarray,
    directory: Path | None,
    *,
    device: Device = "cpu",
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """Normalised `pixel_values` (n, c, h, w) of uint8 images (n, h, w, c).

    Mean and deviation come from `preprocessor_config.json`, 0.5 where it is missing; size and
    channels from `config.json`, by bilinear resizing and repeating a grey channel.
    """
    settings = _json(directory, "preprocessor_config.json")
    config = _json(directory, "config.json")
    values = torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2).to(device, dtype)
    channels = int(config.get("num_channels", values.shape[1]))
    if values.shape[1] == 1 and channels > 1:
        values = values.expand(-1, channels, -1, -1)
    elif values.shape[1] == 3 and channels == 1:
        values = values.mean(1, keepdim=True)
    elif values.shape[1] != channels:
        raise InputError(
            f"model '{directory}'",
            expected=f"images of {channels} channels",
            found=f"{values.shape[1]}",
        )
    size = config.get("image_size")
    if size is not None:
        wanted = (size, size) if isinstance(size, int) else tuple(size)
        if tuple(values.shape[-2:]) != wanted:
            values = nn.functional.interpolate(
                values, wanted, mode="bilinear", align_corners=False, antialias=True
            )
    mean = torch.tensor(settings.get("image_mean", [0.5] * channels), device=device, dtype=dtype)
    std = torch.tensor(settings.get("image_std", [0.5] * channels), device=device, dtype=dtype)
    return (values / 255 - mean[:, None, None]) / std[:, None, None]
