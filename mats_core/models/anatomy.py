"""What the classes of transformers hold that a configuration names, built without any weights."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from ..checkpoints import InMemory, Weights, inside, original
from ..families import Anatomy
from ..system import recall
from .architecture import built_from, depths, harmless, quiet

SIZE = 1 << 18  # bytes that the names of one model count as
NAMES = 1 << 14  # of tensors whose new names are remembered, of one model
DEEPEST = 512  # layers that are built whatever the file holds
LEFT_OUT = ("quantization_config", "auto_map")  # need other packages, or fetch code


def anatomy(weights: Weights) -> Anatomy | None:
    """The names that the classes of a model's configuration have; None where they are not known.

    Built on the meta device from the configuration alone: nothing is read or fetched, and code that
    comes with a checkpoint is never run.  A configuration whose class cannot be built gives None.
    """
    content = harmless(dict(weights.config), LEFT_OUT)
    source = original(weights)
    if isinstance(source, InMemory) and source.module is not None:
        content["architectures"] = [type(inside(source.module)).__name__]
    if not content.get("model_type") or not _plausible(content, len(weights.tensors)):
        return None
    key = ("anatomy", built_from(content))
    return recall(key, lambda: _built(content), lambda found: SIZE)


def _plausible(content: Mapping[str, Any], tensors: int) -> bool:
    """Whether a model has no more layers than its file could hold: a million take hours to make."""
    return all(count <= max(DEEPEST, tensors) for _, count in depths(content))


def _built(content: Mapping[str, Any]) -> Anatomy | None:
    import transformers

    try:
        with quiet(), warnings.catch_warnings(), torch.device("meta"):
            warnings.simplefilter("ignore")
            config = transformers.CONFIG_MAPPING[content["model_type"]].from_dict(dict(content))
            model = _model(transformers, config)
            return (
                None if model is None else _described(model, _encoder(transformers, config, model))
            )
    except Exception:  # a class fails in its own ways; what it cannot tell, the files must
        return None


def _model(transformers: Any, config: Any) -> Any:
    name = (getattr(config, "architectures", None) or [""])[0]
    model_class = getattr(transformers, str(name), None)
    if not isinstance(model_class, type):
        return None
    return model_class(config) if issubclass(model_class, transformers.PreTrainedModel) else None


def _encoder(transformers: Any, config: Any, model: Any) -> nn.Module:
    """The base model as AutoModel builds it; the part of the model that it calls so without one."""
    try:
        found = transformers.AutoModel._model_mapping[type(config)]
    except KeyError:
        return model.base_model
    base_class = found[0] if isinstance(found, tuple) else found
    return model if isinstance(model, base_class) else base_class(config)


def _described(model: Any, encoder: nn.Module) -> Anatomy:
    renamings, converters = _conversions(model)
    prefix = str(model.base_model_prefix or "")
    state = model.state_dict()

    @functools.lru_cache(NAMES)
    def renamed(name: str) -> str:
        for one in renamings:
            name, _ = one.rename_source_key(name)
        return name

    @functools.lru_cache(NAMES)
    def loaded(name: str) -> str:
        name = renamed(name)
        for one in converters:
            found, pattern = one.rename_source_key(name)
            if pattern is not None:
                return found
        return name

    patterns = [
        pattern
        for one in (model, encoder)
        for kind in ("unexpected", "missing")
        for pattern in getattr(one, f"_keys_to_ignore_on_load_{kind}", None) or ()
    ]
    ties = getattr(model, "all_tied_weights_keys", None)
    return Anatomy(
        whole=frozenset(state) | {name for name, _ in model.named_buffers()},
        encoder=frozenset(encoder.state_dict()) | {name for name, _ in encoder.named_buffers()},
        prefix=prefix,
        buffers=frozenset(name for one in (model, encoder) for name, _ in one.named_buffers()),
        ignored=tuple(patterns),
        ties=dict(ties) if isinstance(ties, Mapping) else {},
        renamed=renamed,
        loaded=loaded,
    )


def _conversions(model: Any) -> tuple[list[Any], list[Any]]:
    """Renamings of old names, and conversions that also change tensors, of transformers' tables."""
    try:
        from transformers.conversion_mapping import get_model_conversion_mapping
        from transformers.core_model_loading import WeightRenaming
    except ImportError:
        return [], []  # an earlier transformers, which has none
    found = get_model_conversion_mapping(model)
    return (
        [one for one in found if isinstance(one, WeightRenaming)],
        [one for one in found if not isinstance(one, WeightRenaming)],
    )
