"""An `nn.Module` from a checkpoint directory, through transformers.

transformers renames parameters when it loads (`encoder.layer.0.attention.attention.query` in the
file may be `layers.0.attention.q_proj` in the module).  Everything here speaks the file's names;
the translation is read off by loading tensors that carry their own number (`parameter_names`).
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from .checkpoints import Checkpoint
from .checks import InputError, listing


def tensors_of(checkpoint: Checkpoint, dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    """All tensors of a checkpoint, floating-point ones as `dtype`."""
    return {
        name: checkpoint.read(name, dtype=dtype if entry.dtype.is_floating_point else None)
        for name, entry in checkpoint.tensors.items()
    }


def build(
    directory: Path | None,
    tensors: Mapping[str, Tensor],
    *,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> nn.Module:
    """The module that `directory`'s config describes, holding `tensors`, in evaluation mode.

    Raises `InputError` when the architecture is unknown to transformers or a tensor is missing;
    code that comes with a checkpoint is never run.
    """
    config, model_class = _architecture(directory)
    with _quiet():
        model, loading = model_class.from_pretrained(
            None,
            config=config,
            state_dict=dict(tensors),
            dtype=dtype,
            output_loading_info=True,
        )
    if loading["missing_keys"]:
        raise InputError(
            f"model '{directory}'",
            expected=f"every parameter of {model_class.__name__}",
            found=f"no {listing(sorted(loading['missing_keys']))}",
            remedy="Was it saved with its head?",
        )
    return model.to(device).eval()


def load(
    checkpoint: Checkpoint,
    *,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> nn.Module:
    """The module of a checkpoint directory."""
    return build(checkpoint.directory, tensors_of(checkpoint, dtype), device=device, dtype=dtype)


def parameter_names(directory: Path | None, tensors: Mapping[str, Tensor]) -> dict[str, str]:
    """The checkpoint's name for each parameter name of the module, by loading numbered tensors.

    A parameter that transformers assembles from several tensors has no single name and is left
    out: its statistics could not be matched with a tensor of the file.
    """
    names = list(tensors)
    numbered = {
        name: torch.full(tuple(tensors[name].shape), float(number))
        for number, name in enumerate(names)
    }
    model = build(directory, numbered)
    found: dict[str, str] = {}
    for parameter, value in model.named_parameters():
        first = value.reshape(-1)[0]
        if bool((value == first).all()):
            found[parameter] = names[int(first)]
    return found


def _architecture(directory: Path | None) -> tuple[Any, Any]:
    if directory is None:
        raise InputError(
            "model",
            expected="a directory with config.json",
            found="a bare .safetensors file",
            remedy="Raw families can be merged, but not measured or evaluated.",
        )
    import transformers  # seconds to import, and not needed to merge

    try:
        config = transformers.AutoConfig.from_pretrained(
            directory, local_files_only=True, trust_remote_code=False
        )
    except (ValueError, OSError, KeyError) as error:
        raise InputError(
            f"'{directory / 'config.json'}'",
            expected="a model type that transformers knows",
            found=str(error).splitlines()[0],
        ) from None
    name = (getattr(config, "architectures", None) or [""])[0]
    model_class = getattr(transformers, name, None) if name else None
    if model_class is None or not hasattr(model_class, "from_pretrained"):
        raise InputError(
            f"'{directory / 'config.json'}'",
            expected="'architectures' with a class of transformers",
            found=repr(name),
        )
    return config, model_class


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    from transformers.utils import logging

    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()


def pixel_values(
    images: np.ndarray,
    directory: Path | None,
    *,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """uint8 images (n, h, w, c) as normalised `pixel_values` (n, c, h, w).

    Mean and deviation come from `preprocessor_config.json`, 0.5 where there is none; size and
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


def _json(directory: Path | None, name: str) -> dict[str, Any]:
    file = directory / name if directory else None
    return json.loads(file.read_text("utf-8")) if file and file.is_file() else {}
