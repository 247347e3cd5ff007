"""Which class of transformers a configuration names, and what the files beside the weights say."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Container, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..checkpoints import Weights, read_config, unquantised
from ..errors import InputError, foreseen, parsing, plain_json, read_json
from ..system import temporary_folder, uncollected

# Settings of how a model is run, which may fetch compiled code, and the ones that are harmless.
RUNNERS = ("implementation", "implementation_internal", "use_kernels", "kernel_config")
HARMLESS = (None, "eager", "sdpa")
DEPTHS = ("layer", "layers", "depth", "depths", "blocks")  # ends of what counts layers


def padding_token(config: Any) -> int:
    """The padding token of the configuration, else its end token: padding is masked, but models
    that look for it must find this one.  One that the embedding does not have is none."""
    for name in ("pad_token_id", "eos_token_id"):
        token = getattr(config, name, None)
        first: Any = token[0] if isinstance(token, list) and token else token
        if is_token(config, first):
            return int(first)
    return 0


def is_token(config: Any, token: Any) -> bool:
    """Whether a configuration's model has a row of its embedding for this token."""
    text = config.get_text_config() if hasattr(config, "get_text_config") else config
    size = getattr(text, "vocab_size", None)
    return isinstance(token, int) and token >= 0 and (not isinstance(size, int) or token < size)


def ties_word_embeddings(checkpoint: Weights) -> bool:
    """Whether the model of a checkpoint ties its output to its embedding when it is loaded.

    Where `config.json` does not say, the default of the architecture decides; False for a model
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
    with uncollected():
        import transformers  # seconds to import, and not needed to merge

        config = _configuration(directory / "config.json")
        name = (getattr(config, "architectures", None) or [""])[0]
        model_class = getattr(transformers, name, None) if name and isinstance(name, str) else None
    if model_class is None or not hasattr(model_class, "from_pretrained"):
        raise InputError(
            f"'{directory / 'config.json'}'",
            expected="'architectures' with a class of transformers",
            found=repr(name),
        )
    # Weights are numbers here: quantised ones are refused, a note that was left behind is nothing.
    vars(config).pop("quantization_config", None)
    pad = getattr(config, "pad_token_id", None)
    if pad is not None and not is_token(config, pad):
        # -1 and the like: padding is masked, but an embedding is not built with such a row.
        usual = getattr(type(config)(), "pad_token_id", None)
        config.pad_token_id = usual if is_token(config, usual) else None
    return config, model_class


def _configuration(file: Path) -> Any:
    """transformers' configuration of a `config.json`: in the forms that it expects, without what
    would quantise the model or fetch code to run it."""
    content = read_config(file) if file.is_file() else {}
    settings = harmless(unquantised(content))
    with parsing(f"'{file}'", "a model type and settings that transformers knows"), quiet():
        if file.is_file() and settings == read_json(file) and _plain(file):
            return _from(file.parent)
        with temporary_folder("configuration") as folder:
            (folder / "config.json").write_text(json.dumps(settings), "utf-8")
            return _from(folder)


def _plain(file: Path) -> bool:
    """Whether a file of JSON is in UTF-8 without a mark: the one form that transformers reads."""
    raw = file.read_bytes()
    return plain_json(raw) == raw


def _from(folder: Path) -> Any:
    from transformers import AutoConfig

    said: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
    return AutoConfig.from_pretrained(folder, **said)


def harmless(value: Any, without: Container[str] = ()) -> Any:
    """The same settings without those that say how a model is run, but for the usual ways.

    without   names of further settings that are left out, of a model's parts, too
    """
    if isinstance(value, list):
        return [harmless(one, without) for one in value]
    if not isinstance(value, dict):
        return value
    return {
        key: harmless(one, without)
        for key, one in value.items()
        if key not in without and (one in HARMLESS or not str(key).endswith(RUNNERS))
    }


def built_from(config: Any) -> str:
    """A text that is the same for configurations, as a file's text or parsed, from which the same
    module is built: of the names of classes only their number counts."""
    if isinstance(config, str):
        try:
            content = json.loads(config)
        except ValueError:  # no JSON: refused where it is read
            return config
    else:
        content = config
    if not isinstance(content, dict):
        return str(config)
    content = dict(content)
    names, numbers = content.get("id2label"), content.get("label2id")
    if isinstance(names, dict) and isinstance(numbers, dict) and len(names) == len(numbers):
        content["id2label"] = len(names)
        del content["label2id"]
    return json.dumps(content, sort_keys=True, default=str)


def depths(settings: Mapping[str, Any]) -> Iterator[tuple[str, int]]:
    """The name and the number of every count of layers in a configuration, and in its parts."""
    for name, value in settings.items():
        if isinstance(value, Mapping):
            yield from depths(value)
        elif str(name).endswith(DEPTHS):
            values = value if isinstance(value, list) else [value]
            yield from ((str(name), one) for one in values if type(one) is int)


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


def saved_names(module: nn.Module) -> dict[str, str]:
    """The name that `save_pretrained` gives each entry of a module's state dict.

    Empty for a module that is not from transformers, or that is saved under the names that it has.
    Entries that are split or stacked on saving have no single name and keep theirs.
    """
    if not any(kind.__module__.startswith("transformers.") for kind in type(module).__mro__):
        return {}
    try:
        from transformers.core_model_loading import revert_weight_conversion
    except ImportError:
        return {}  # an earlier transformers, which renames nothing
    own = {n: torch.empty(v.shape, device="meta") for n, v in module.state_dict().items()}
    reverted: Any = revert_weight_conversion
    saved = {id(value): name for name, value in reverted(module, own).items()}
    found = {name: saved.get(id(value), name) for name, value in own.items()}
    return found if any(name != other for name, other in found.items()) else {}


def file_text(directory: Path | None, name: str) -> str:
    """The text of a file beside a checkpoint; empty where it is missing."""
    file = directory / name if directory else None
    if file is None or not file.is_file():
        return ""
    with foreseen(f"'{file}'"):
        return file.read_text("utf-8", "replace")
