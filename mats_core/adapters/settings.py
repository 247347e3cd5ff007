"""`adapter_config.json`: what kind of adapter a directory holds, and what is refused by name.

Only what is known not to matter passes: a setting that this version has never heard of may change
what the weights mean, and is refused as well.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import regex

from ..errors import InputError, cut, existing, parsing, read_json, reason

CONFIG = "adapter_config.json"
PATIENCE = 0.5  # seconds that a pattern may take on one name
LONGEST = 1000  # characters of a module's name that patterns are tried on
MOST_PATTERNS = 1000  # of an adapter
MOST_RANK, MOST_ALPHA = 1_000_000, 1e9
WEIGHTS = "adapter_model.safetensors"
MERGE_FIRST = (
    "Merge it into its base once with peft's merge_and_unload(), save that with save_pretrained, "
    "and name the saved directory as the expert."
)
NO_WEIGHTS = "It changes what the model is fed and none of its weights: there is nothing to merge."

Kind = Literal["lora", "ia3"]
KINDS: dict[str, Kind] = {"LORA": "lora", "IA3": "ia3"}
TITLES = {
    "ADALORA": "AdaLoRA", "ADAPTION_PROMPT": "adaption prompt (LLaMA-Adapter)", "BOFT": "BOFT",
    "FOURIERFT": "FourierFT", "HRA": "HRA", "LN_TUNING": "LayerNorm tuning", "LOHA": "LoHa",
    "LOKR": "LoKr", "MULTITASK_PROMPT_TUNING": "multitask prompt tuning", "OFT": "OFT",
    "P_TUNING": "p-tuning", "POLY": "Polytropon", "PREFIX_TUNING": "prefix tuning",
    "PROMPT_TUNING": "prompt tuning", "RANDLORA": "RandLoRA", "SHIRA": "SHiRA",
    "TRAINABLE_TOKENS": "trainable tokens", "VBLORA": "VB-LoRA", "VERA": "VeRA", "XLORA": "X-LoRA",
}  # fmt: skip
PROMPTS = frozenset(
    {
        "ADAPTION_PROMPT", "CARTRIDGE", "CPT", "MULTITASK_PROMPT_TUNING", "P_TUNING",
        "PREFIX_TUNING", "PROMPT_TUNING",
    }
)  # fmt: skip

# Settings of a LoRA that change what its weights mean.
VARIANTS = {
    "alora_invocation_tokens": "activated LoRA (aLoRA)",
    "arrow_config": "Arrow routing",
    "kasa_config": "KaSA",
    "layer_replication": "layer replication",
    "megatron_config": "Megatron layers",
    "monteclora_config": "MonteCLoRA",
    "target_parameters": "target_parameters (LoRA on a bare parameter)",
    "trainable_token_indices": "trainable tokens",
    "use_bdlora": "block-diagonal LoRA",
    "use_dora": "DoRA",
    "use_qalora": "QALoRA (a quantised base)",
    "velora_config": "VeLoRA",
    "ensure_weight_tying": "LoRA with ensure_weight_tying",
}
# These change the base's own weights when the adapter is made, so that B·A is no update of it.
INITIALISED = {
    "pissa": "PiSSA", "corda": "CorDA", "olora": "OLoRA", "loftq": "LoftQ (a quantised base)",
    "lora_ga": "LoRA-GA", "mica": "MiCA",
}  # fmt: skip
# Read here, or without a part in the weights.
KNOWN = frozenset(
    {
        "alpha_pattern", "auto_mapping", "base_model_name_or_path", "bias", "corda_config",
        "enable_lora", "eva_config", "exclude_modules", "fan_in_fan_out", "feedforward_modules",
        "inference_mode", "init_ia3_weights", "init_lora_weights", "layers_pattern",
        "layers_to_transform", "loftq_config", "lora_alpha", "lora_bias", "lora_dropout",
        "lora_ga_config", "megatron_core", "merge_weights", "modules_to_save", "peft_type",
        "peft_version", "qalora_group_size", "r", "rank_pattern", "revision", "runtime_config",
        "target_modules", "task_type", "use_rslora",
    }
)  # fmt: skip


@dataclass(frozen=True)
class Settings:
    """What an adapter says about itself; the names of tensors are in its weights.

    base_model   `base_model_name_or_path`: shown, never opened
    saved        `modules_to_save`: modules that were trained whole
    """

    kind: Kind
    rank: int = 8
    alpha: float = 8
    ranks: Mapping[str, int] = field(default_factory=dict)
    alphas: Mapping[str, float] = field(default_factory=dict)
    rank_stabilised: bool = False
    transposed: bool = False
    base_model: str = ""
    task_type: str = ""
    architecture: str = ""
    saved: tuple[str, ...] = ()

    def rank_of(self, module: str) -> int:
        """r of a module, `rank_pattern` included."""
        return int(_by_pattern(self.ranks, module, self.rank))

    def scale_of(self, module: str) -> float:
        """α/r, or α/√r for rsLoRA (arXiv 2312.03732), by the r and α of the module."""
        rank, alpha = self.rank_of(module), _by_pattern(self.alphas, module, self.alpha)
        return float(alpha) / (math.sqrt(rank) if self.rank_stabilised else rank)


def _by_pattern(patterns: Mapping[str, Any], module: str, default: Any) -> Any:
    """peft's rule: the first pattern that matches the end of the name, from a dot or its start."""
    for pattern, value in patterns.items():
        if matches(rf"(.*\.)?({pattern})$", module, f"pattern '{pattern}' of an adapter"):
            return value
    return default


def matches(pattern: str, text: str, thing: str) -> bool:
    """Whether a regular expression that others wrote matches the beginning of a text.

    Raises `InputError` about `thing` where it is none, or goes back and forth for too long.
    """
    try:
        return regex.match(pattern, text[:LONGEST], timeout=PATIENCE) is not None
    except TimeoutError:
        found = f"one that takes more than {PATIENCE:g} s to try on '{text[:80]}'"
    except Exception as error:  # nested too deep, too large a count: not `regex.error` alone
        found = reason(error)
    raise InputError(thing, expected="a plain regular expression", found=found) from None


def is_adapter(path: Path) -> bool:
    """Whether a directory is that of a PEFT adapter."""
    return os.path.isfile(path / CONFIG)  # also where a name is longer than a system takes


def read_settings(path: Path) -> Settings:
    """The settings of an adapter directory.

    Raises `InputError` that names the method, and the way out, for all that is not LoRA or (IA)³.
    """
    file = existing("adapter configuration", path / CONFIG)
    content = read_json(file)
    if not isinstance(content, dict) or not isinstance(content.get("peft_type"), str):
        raise InputError(f"'{file}'", expected="a JSON object with 'peft_type'", found="none")
    content = {**content, "peft_type": content["peft_type"].upper()}
    with parsing(f"'{file}'", "the settings of a LoRA or (IA)³ adapter"):
        _refuse(path, content)
        return _settings(content)


def _settings(content: Mapping[str, Any]) -> Settings:
    mapping = content.get("auto_mapping") or {}
    settings = Settings(
        kind=KINDS[content["peft_type"]],
        rank=int(content.get("r", 8)),
        alpha=float(content.get("lora_alpha", 8)),
        ranks={str(key): int(r) for key, r in (content.get("rank_pattern") or {}).items()},
        alphas={str(key): float(a) for key, a in (content.get("alpha_pattern") or {}).items()},
        rank_stabilised=bool(content.get("use_rslora")),
        transposed=bool(content.get("fan_in_fan_out")),
        base_model=str(content.get("base_model_name_or_path") or ""),
        task_type=str(content.get("task_type") or ""),
        architecture=str(mapping.get("base_model_class") or ""),
        saved=tuple(str(name) for name in content.get("modules_to_save") or ()),
    )
    if len(settings.ranks) + len(settings.alphas) > MOST_PATTERNS:
        raise ValueError(f"more than {MOST_PATTERNS} patterns")
    for rank in (settings.rank, *settings.ranks.values()):
        if settings.kind == "lora" and not 1 <= rank <= MOST_RANK:
            raise ValueError(f"rank {cut(str(rank), 20)}")
    for alpha in (settings.alpha, *settings.alphas.values()):
        if not abs(alpha) <= MOST_ALPHA:  # NaN as well
            raise ValueError(f"alpha {alpha}")
    return settings


def _refuse(path: Path, content: Mapping[str, Any]) -> None:
    method = content["peft_type"]
    if method not in KINDS:
        raise _refusal(path, str(TITLES.get(method, method)), prompt=method in PROMPTS)
    for name, title in VARIANTS.items():
        if content.get(name):
            raise _refusal(path, title)
    initialised = str(content.get("init_lora_weights") or "").lower()
    for name, title in INITIALISED.items():
        if initialised.startswith(name):
            raise _refusal(path, f"LoRA initialised by {title}, which changes the base as well")
    unknown = sorted(k for k, value in content.items() if value and k not in KNOWN | {*VARIANTS})
    if unknown:
        raise _refusal(path, f"an adapter with the setting '{unknown[0]}', which is not known here")


def _refusal(path: Path, title: str, *, prompt: bool = False) -> InputError:
    return InputError(
        f"adapter '{path}'",
        expected="LoRA, rsLoRA or (IA)³",
        found=title,
        remedy=NO_WEIGHTS if prompt else MERGE_FIRST,
    )
