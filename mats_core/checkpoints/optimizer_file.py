"""Second moments that Adam and AdamW keep of their gradients, read from a file of their state.

Forms that are read: what `optimizer.state_dict()` gives, saved by `torch.save` (the `optimizer.pt`
of the Trainer of transformers), alone or within a training's checkpoint; the same with the
parameters' names as keys (torch.distributed's `get_optimizer_state_dict`); and safetensors with
`<parameter>.exp_avg_sq`.  Pickles are opened by PyTorch's reader of tensors and plain values alone,
which runs no code; what it does not know is refused.
"""

from __future__ import annotations

import hashlib
import math
import pickle
import re
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import (
    InputError,
    existing,
    foreseen,
    listing,
    machine_error,
    parsing,
    reason,
    shell,
    size,
)
from ..system import require_memory
from .files import Checkpoint
from .folder import SAFE

SECOND, STEP = "exp_avg_sq", "step"
WITHIN = ("optimizer", "optimizer_state_dict", "optim", "optimizer_states")  # of a whole checkpoint
LEADS = ("optim.state.", "optimizer.state.", "state.")
BETA2 = 0.999  # of Adam, where a safetensors file says nothing
MOST_PLAIN = 1 << 26  # bytes of a pickle beside its tensors; a model of 2,000 has 1 MB
KINDS = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
OTHERS = {
    "momentum_buffer": "SGD with momentum",
    "square_avg": "RMSprop",
    "exp_avg_sq_row": "Adafactor, which keeps row and column means alone",
    "state2": "an 8-bit Adam, whose moments are quantised",
}


@dataclass(frozen=True)
class Moment:
    """Second moment of one parameter's gradient, as an optimiser of the Adam family keeps it.

    value   v (the parameter's shape), the decaying mean of squared gradients
    step    number of the updates that it is made of
    beta2   decay β₂
    """

    value: Tensor
    step: int
    beta2: float

    @property
    def shape(self) -> tuple[int, ...]:
        """The parameter's shape."""
        return tuple(self.value.shape)

    @property
    def corrected(self) -> Tensor:
        """v / (1 − β₂^step), without the bias of its start at zero; float32."""
        return self.value.float() / (1 - self.beta2**self.step)


@dataclass(frozen=True)
class SecondMoments:
    """Second moments of an optimiser, in the order of its parameter groups.

    groups   a moment a parameter in each group; None for one that was never updated
    names    the parameters' names in the same order, where the file has them; else None
    path     of the file
    digest   SHA-256 of the file
    """

    groups: tuple[tuple[Moment | None, ...], ...]
    names: tuple[tuple[str, ...], ...] | None
    path: Path
    digest: str

    @classmethod
    def open(cls, path: str | Path) -> SecondMoments:
        """The second moments that a file holds.

        Raises `InputError` for a file that needs code or more memory than is free, for the state
        of other optimisers, and for moments that no training leaves behind.
        """
        place = existing("optimiser state", path)
        thing = f"optimiser state '{place}'"
        if place.is_dir():
            raise InputError(
                thing,
                expected="a file",
                found="a directory",
                remedy=f"Name the file in it, such as '{place / 'optimizer.pt'}'.",
            )
        with parsing(thing, "the state of Adam or AdamW"):  # in whichever way another one is built
            groups, names = (_of_safetensors if _is_safe(place) else _of_pickle)(thing, place)
        if not any(moment for group in groups for moment in group):
            raise InputError(thing, expected="second moments of parameters", found="none")
        with foreseen(thing), place.open("rb") as handle:
            digest = hashlib.file_digest(handle, "sha256").hexdigest()
        return cls(groups, names, place, digest)


Groups = tuple[tuple[Moment | None, ...], ...]
Names = tuple[tuple[str, ...], ...] | None


def _is_safe(path: Path) -> bool:
    return path.suffix == SAFE


# safetensors --------------------------------------------------------------------------------------


def _of_safetensors(thing: str, path: Path) -> tuple[Groups, Names]:
    held = Checkpoint.open(path)
    ending = f".{SECOND}"
    own = [name for name in held.tensors if name.endswith(ending)]
    if not own:
        raise InputError(
            thing,
            expected=f"tensors named <parameter>.{SECOND}",
            found=listing(held.tensors) or "none",
        )
    said = held.metadata
    beta2 = _number(f"'beta2' of {thing}", said.get("beta2", str(BETA2)))
    moments: dict[str, Moment] = {}
    for name in own:
        stem = name.removesuffix(ending)
        key = f"{stem}.{STEP}"
        step = held.read(key) if key in held.tensors else said.get(STEP)
        moments[_plain(stem)] = _moment(f"'{name}' of {thing}", held.read(name), step, beta2)
    return (tuple(moments.values()),), (tuple(moments),)


def _plain(name: str) -> str:
    return next((name.removeprefix(lead) for lead in LEADS if name.startswith(lead)), name)


def _number(thing: str, said: Any, expected: str = "a number") -> float:
    try:
        return float(said)
    except (TypeError, ValueError, RuntimeError, OverflowError):
        kind = "" if isinstance(said, str | int | float) else f"{type(said).__name__} "
        found = f"{kind}'{said}'" if isinstance(said, str) else kind.strip() or "too large a number"
        raise InputError(thing, expected=expected, found=found) from None


# Pickles of tensors -------------------------------------------------------------------------------


def _of_pickle(thing: str, path: Path) -> tuple[Groups, Names]:
    state = _state(thing, _loaded(thing, path))
    groups, entries = state["param_groups"], state["state"]
    if not isinstance(entries, Mapping) or not isinstance(groups, Sequence) or not groups:
        raise InputError(
            thing, expected="'state' by parameter and a list 'param_groups'", found="other kinds"
        )
    by_name = all(isinstance(key, str) for key in entries) and bool(entries)
    found: list[tuple[Moment | None, ...]] = []
    names: list[tuple[str, ...]] = []
    for number, group in enumerate(groups):
        whose = f"parameter group {number} of {thing}"
        keys = group.get("params") if isinstance(group, Mapping) else None
        if not isinstance(keys, Sequence) or isinstance(keys, str):
            raise InputError(whose, expected="a list 'params'", found="none")
        beta2 = _beta2(whose, group) if keys else BETA2
        found.append(tuple(_entry(thing, entries, key, beta2) for key in keys))
        said = keys if by_name else group.get("param_names")
        names.append(_names(whose, said, len(keys)))
    known = all(len(own) == len(group) for own, group in zip(names, found, strict=True))
    return tuple(found), tuple(names) if known else None


def _loaded(thing: str, path: Path) -> Any:
    """What a file of `torch.save` holds, if that is tensors and plain values."""
    with foreseen(thing):
        _require_budget(thing, path)
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise _needs_code(thing, path, error) from None
    except (RuntimeError, ValueError, TypeError, KeyError, AttributeError, EOFError, OSError,
            MemoryError, IndexError, AssertionError) as error:  # fmt: skip
        machine = machine_error(thing, error)
        raise machine or InputError(
            thing,
            expected="a file that torch.save wrote",
            found=f"one that cannot be read: {reason(error)}",
            remedy="Copy or save it again; it may be cut short.",
        ) from None


def _require_budget(thing: str, path: Path) -> None:
    """Raise `InputError` for a file that would unpack to more than its size, or than is free."""
    require_memory(thing, path.stat().st_size)
    if not zipfile.is_zipfile(path):
        return
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
    packed = [one.filename for one in entries if one.compress_type != zipfile.ZIP_STORED]
    plain = sum(one.file_size for one in entries if one.filename.endswith(".pkl"))
    if packed or plain > MOST_PLAIN:
        raise InputError(
            thing,
            expected=f"stored tensors, and at most {size(MOST_PLAIN)} beside them",
            found=f"a compressed '{packed[0]}'" if packed else f"{size(plain)} beside them",
            remedy="Save the optimiser's state_dict() by torch.save.",
        )


def _needs_code(thing: str, path: Path, error: Exception) -> InputError:
    asked = re.search(r"GLOBAL ([\w.]+)", str(error))
    command = (
        'python -c \'import sys, torch; d = torch.load(sys.argv[1], map_location="cpu", '
        'weights_only=False); torch.save({"state": {k: {n: v for n, v in one.items() if n in '
        '("step", "exp_avg_sq")} for k, one in d["state"].items()}, "param_groups": '
        '[{"betas": tuple(g["betas"]), "params": list(g["params"])} for g in d["param_groups"]]}, '
        f"sys.argv[2])' {shell(str(path))} {shell(str(path.with_name('moments.pt')))}"
    )
    return InputError(
        thing,
        expected="tensors and plain values, which are read without running code",
        found=f"'{asked[1]}', which needs code" if asked else "objects that need code",
        remedy=f"Convert it once, on a machine you trust it on: {command}",
    )


def _state(thing: str, held: Any) -> Mapping[str, Any]:
    """The optimiser's part of what was loaded."""
    if isinstance(held, Mapping):
        if "state" in held and "param_groups" in held:
            return held
        inner = next((held[key] for key in WITHIN if key in held), None)
        if isinstance(inner, Sequence) and len(inner) == 1:
            inner = inner[0]
        if isinstance(inner, Mapping) and "state" in inner and "param_groups" in inner:
            return inner
    shown = listing(map(str, held)) if isinstance(held, Mapping) else type(held).__name__
    raise InputError(
        thing,
        expected="'state' and 'param_groups', as optimizer.state_dict() gives them",
        found=shown or "nothing",
        remedy="Name the optimiser's file, optimizer.pt of the Trainer; of several optimisers in "
        "one file save that of the model alone.",
    )


def _beta2(whose: str, group: Mapping[str, Any]) -> float:
    betas = group.get("betas")
    if not isinstance(betas, Sequence) or len(betas) != 2:
        raise InputError(
            whose,
            expected="'betas', as Adam and AdamW have them",
            found="none" if betas is None else f"another {type(betas).__name__}",
            remedy="The state of other optimisers has no second moments.",
        )
    return _number(f"β₂ of {whose}", betas[1])


def _names(whose: str, said: Any, count: int) -> tuple[str, ...]:
    """The names of a group's parameters; none where the file lacks them."""
    if said is None:
        return ()
    names = tuple(map(str, said)) if isinstance(said, Sequence) else ()
    if len(names) != count:
        raise InputError(whose, expected=f"{count} 'param_names'", found=str(len(names)))
    return names


def _entry(thing: str, entries: Mapping[Any, Any], key: Any, beta2: float) -> Moment | None:
    if not isinstance(key, int | str):
        kind = type(key).__name__
        raise InputError(thing, expected="parameters by numbers or names", found=f"a {kind}")
    entry = entries.get(key)
    whose = f"parameter {key} of {thing}"
    if entry is None or (isinstance(entry, Mapping) and not entry):
        return None
    value = entry.get(SECOND) if isinstance(entry, Mapping) else None
    if not isinstance(value, Tensor):
        held = listing(map(str, entry)) if isinstance(entry, Mapping) else type(entry).__name__
        other = next((told for mark, told in OTHERS.items() if mark in held), "")
        raise InputError(
            whose,
            expected=f"'{SECOND}', the second moment of Adam and AdamW",
            found=other or held,
            remedy="Measure the expert on its task instead.",
        )
    return _moment(whose, value, entry.get(STEP), beta2)


def _moment(whose: str, value: Tensor, step: Any, beta2: float) -> Moment:
    """A moment that a training can have left; raises `InputError` for any other."""
    count = _number(f"step of {whose}", step, "the number of updates")
    wrong: Iterator[tuple[str, str]] = (
        (expected, found) for expected, found, bad in _conditions(value, count, beta2) if bad()
    )
    for expected, found in wrong:
        raise InputError(whose, expected=expected, found=found)
    return Moment(value, int(count), beta2)


def _conditions(
    value: Tensor, step: float, beta2: float
) -> Iterator[tuple[str, str, Callable[[], bool]]]:
    yield "β₂ from 0 to below 1", f"{beta2:g}", lambda: not 0 <= beta2 < 1
    yield (
        "at least one update, as a whole number",
        f"{step:g}",
        lambda: not (step >= 1 and math.isfinite(step) and step == int(step)),
    )
    yield (
        f"a dense tensor of {listing(map(str, KINDS))}",
        f"{value.dtype}, {value.layout}",
        lambda: value.layout != torch.strided or value.dtype not in KINDS or value.is_meta,
    )
    yield (
        "a tensor whose numbers are all stored",
        f"{value.numel()} numbers in {value.untyped_storage().nbytes()} bytes",
        lambda: value.untyped_storage().nbytes() < value.numel() * value.element_size(),
    )
    yield (
        "finite squares, none below zero",
        "NaN, infinity or a negative number",
        lambda: bool(value.numel()) and not (value.isfinite().all() and float(value.min()) >= 0),
    )
    largest = float(value.max()) / (1 - beta2**step) if value.numel() else 0.0
    yield (
        "squares that float32 holds without the bias of their start",
        f"{largest:.3g}",
        lambda: largest > torch.finfo(torch.float32).max,
    )
