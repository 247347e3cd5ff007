"""An `nn.Module` from a checkpoint directory, through transformers.

transformers renames parameters when it loads (`encoder.layer.0.attention.attention.query` in the
file may be `layers.0.attention.q_proj` in the module).  Everything here speaks the file's names;
the translation is read off by loading tensors that carry their own number (`parameter_names`).
"""

from __future__ import annotations

import contextlib
import functools
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..checkpoints import Checkpoint
from ..errors import InputError, listing


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
    config, model_class = architecture(directory)
    with quiet():
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
    if "SequenceClassification" in model_class.__name__ and config.pad_token_id is None:
        # A decoder looks for each text's last token, and has to know what is none.
        model.config.pad_token_id = padding_token(config)
    return model.to(device).eval()


def load(
    checkpoint: Checkpoint,
    *,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> nn.Module:
    """The module of a checkpoint directory."""
    return build(checkpoint.directory, tensors_of(checkpoint, dtype), device=device, dtype=dtype)


Forward = Callable[[Mapping[str, Tensor], Mapping[str, Tensor]], Tensor]


def forward(
    directory: Path | None, tensors: Mapping[str, Tensor], *, device: torch.device | str = "cpu"
) -> Forward:
    """A function (tensors, inputs) → logits for tensors with these names and shapes; inputs are
    the model's keyword arguments.

    The module is built once for each configuration and holds no weights of its own; tensors are
    used where they lie, in their own dtype as float32.  Raises `InputError` as `build` does.
    """
    if directory is None:
        architecture(directory)  # raises
    config = file_text(directory, "config.json")
    shapes = tuple((name, tuple(value.shape)) for name, value in tensors.items())
    return _forward(_Plan(directory, config, shapes), str(device))


@dataclass(frozen=True)
class _Plan:
    """What a module is built from; equal if the contents are."""

    directory: Path | None = field(compare=False)
    config: str
    shapes: tuple[tuple[str, tuple[int, ...]], ...]


@functools.lru_cache(maxsize=32)
def _forward(plan: _Plan, device: str) -> Forward:
    like = {name: torch.empty(shape, device="meta") for name, shape in plan.shapes}
    names = _names(plan.directory, like)
    zeros = {name: torch.zeros(shape) for name, shape in plan.shapes}
    module = build(plan.directory, zeros, device=device)
    whole = all(parameter in names for parameter, _ in module.named_parameters())
    if whole:
        _emptied(module)

    def called(tensors: Mapping[str, Tensor], inputs: Mapping[str, Tensor]) -> Tensor:
        own = {name: _floating(tensors[source]) for name, source in names.items()}
        return torch.func.functional_call(module, own, kwargs=dict(inputs)).logits

    def rebuilt(tensors: Mapping[str, Tensor], inputs: Mapping[str, Tensor]) -> Tensor:
        # transformers puts a parameter of this architecture together from several tensors.
        return build(plan.directory, tensors, device=device)(**inputs).logits

    return called if whole else rebuilt


def _floating(value: Tensor) -> Tensor:
    return value.float() if value.is_floating_point() else value


def _emptied(module: nn.Module) -> None:
    """Free all parameters; what was tied stays tied, so that one tensor serves all its places."""
    shells: dict[int, nn.Parameter] = {}
    for owner in module.modules():
        for name, parameter in owner._parameters.items():
            if parameter is not None:
                shell = nn.Parameter(parameter.to("meta"), False)
                owner._parameters[name] = shells.setdefault(id(parameter), shell)


def parameter_names(directory: Path | None, tensors: Mapping[str, Tensor]) -> dict[str, str]:
    """The checkpoint's name for each parameter name of the module, by loading numbered tensors.

    A parameter that transformers assembles from several tensors has no single name and is left
    out: its statistics could not be matched with a tensor of the file.
    """
    return _names(directory, tensors, buffers=False)


def _names(
    directory: Path | None, tensors: Mapping[str, Tensor], *, buffers: bool = True
) -> dict[str, str]:
    """`parameter_names`, and those of the buffers that are saved (running means and the like)."""
    names = list(tensors)
    numbered = {
        name: torch.full(tuple(tensors[name].shape), float(number))
        for number, name in enumerate(names)
    }
    model = build(directory, numbered)
    saved = model.state_dict()
    values = dict(model.named_parameters())
    if buffers:
        values |= {name: value for name, value in model.named_buffers() if name in saved}
    found: dict[str, str] = {}
    for own, value in values.items():
        first = value.reshape(-1)[0]
        if bool((value == first).all()):
            found[own] = names[int(first)]
    return found


def padding_token(config: Any) -> int:
    """The configuration's own token, else the end token: padding is masked, but models that look
    for it must find this one."""
    for name in ("pad_token_id", "eos_token_id"):
        token = getattr(config, name, None)
        if token is not None:
            return int(token[0] if isinstance(token, list) else token)
    return 0


def ties_word_embeddings(checkpoint: Checkpoint) -> bool:
    """Whether the model of a checkpoint ties its output to its embedding when it is loaded.

    Where `config.json` does not say, the architecture's own default decides; False for a model
    that transformers does not know.
    """
    said = checkpoint.config.get("tie_word_embeddings")
    if said is not None or checkpoint.directory is None:
        return bool(said)
    try:
        config, _ = architecture(checkpoint.directory)
    except InputError:
        return False
    return bool(getattr(config, "tie_word_embeddings", False))


TASK_CLASSES = {
    "SEQ_CLS": "MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES",
    "TOKEN_CLS": "MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING_NAMES",
    "QUESTION_ANS": "MODEL_FOR_QUESTION_ANSWERING_MAPPING_NAMES",
    "CAUSAL_LM": "MODEL_FOR_CAUSAL_LM_MAPPING_NAMES",
    "SEQ_2_SEQ_LM": "MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES",
}


def class_for(model_type: str, task: str) -> str:
    """The class of transformers for a kind of model and a task (peft's names); empty if unknown."""
    if task not in TASK_CLASSES:
        return ""
    from transformers.models.auto import modeling_auto

    return str(getattr(modeling_auto, TASK_CLASSES[task]).get(model_type) or "")


def architecture(directory: Path | None) -> tuple[Any, Any]:
    """The configuration in a directory and the class of transformers that it names."""
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
def quiet() -> Iterator[None]:
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
    return json.loads(file_text(directory, name) or "{}")


def file_text(directory: Path | None, name: str) -> str:
    """The text of a file beside a checkpoint; empty where there is none."""
    file = directory / name if directory else None
    return file.read_text("utf-8") if file and file.is_file() else ""
