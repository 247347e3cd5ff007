"""The settings of a module of transformers, in files that `from_pretrained` reads."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from torch import nn

from ..checkpoints import inside, unquantised


def save_settings(module: nn.Module, folder: Path) -> None:
    """Write `config.json` of a model of transformers, and `generation_config.json` of one that
    generates; nothing for any other module.  Wrappers of training are read through.

    They say what `save_pretrained` would write, which also changes the module's own configuration;
    this does not.
    """
    model: Any = inside(module)
    if not any(kind.__name__ == "PreTrainedModel" for kind in type(model).__mro__):
        return
    content = unquantised(json.loads(model.config.to_json_string()))
    content.pop("torch_dtype", None)
    content["architectures"] = [type(model).__name__.removeprefix("FSDP")]
    content["dtype"] = str(model.dtype).removeprefix("torch.")
    (folder / "config.json").write_text(json.dumps(content, indent=2) + "\n", "utf-8")
    if getattr(model, "generation_config", None) is not None and model.can_generate():
        model.generation_config.to_json_file(folder / "generation_config.json")
