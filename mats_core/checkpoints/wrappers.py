"""What training wrappers put into the names of tensors, read through wherever a model is opened.

torch.compile, FSDP and activation checkpointing put a component of their own anywhere in a name
(`layers.0._fsdp_wrapped_module.q.weight`); data-parallel training puts one before all names
(`module.q.weight`).  None of them is a part of the model.
"""

from __future__ import annotations

from collections.abc import Iterable

from torch import nn

INSIDE = frozenset(
    {
        "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module", "_fpw_module",
    }
)  # fmt: skip
BEFORE = ("module.", "_forward_module.", "_module.")  # where every name has it


def unwrapped(names: Iterable[str]) -> dict[str, str]:
    """Each name → the name without its wrappers; all as they are where two would become one."""
    names = list(names)
    found = {name: _without_inside(name) for name in names}
    while lead := _shared_lead(found.values()):
        found = {name: plain.removeprefix(lead) for name, plain in found.items()}
    whole = all(found.values()) and len(set(found.values())) == len(names)
    return found if whole else {name: name for name in names}


def inside(module: nn.Module) -> nn.Module:
    """The module that torch.compile, checkpointing or parallel training wrapped; any other as it
    is."""
    children = dict(module.named_children())
    if len(children) == 1 and children.keys() <= INSIDE | {lead[:-1] for lead in BEFORE}:
        return inside(*children.values())
    return module


def _without_inside(name: str) -> str:
    if "_" not in name:
        return name
    return ".".join(part for part in name.split(".") if part not in INSIDE)


def _shared_lead(names: Iterable[str]) -> str:
    """The wrapper that stands before all names; empty where none does."""
    names = list(names)
    leads = (lead for lead in BEFORE if all(name.startswith(lead) for name in names))
    return next(leads, "") if names else ""
