"""Which class of transformers a configuration names, and what the files beside the weights say."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..checkpoints import Weights
from ..errors import InputError


def padding_token(config: Any) -> int:
    """The padding token of the configuration, else its end token: padding is masked, but models
    that look for it must find this one."""
    for name in ("pad_token_id", "eos_token_id"):
        token = getattr(config, name, None)
        if token is not None:
            return int(token[0] if isinstance(token, list) else token)
    return 0


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


def _json(directory: Path | None, name: str) -> dict[str, Any]:
    return json.loads(file_text(directory, name) or "{}")


def file_text(directory: Path | None, name: str) -> str:
    """The text of a file beside a checkpoint; empty where it is missing."""
    file = directory / name if directory else None
    return file.read_text("utf-8") if file and file.is_file() else ""
