"""Which files of a folder are its weights, and what to say of a folder that has none.

The order is transformers': a whole file goes before an index, whose shards may be those of an
earlier save.  Of pickles the weights are named, never an optimizer's state.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from ..errors import (
    BEGIN,
    InputError,
    beginning,
    existing,
    foreseen,
    listing,
    read_json,
    regular,
    shell,
)

STEMS = ("model", "diffusion_pytorch_model")  # as transformers and diffusers call their weights
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")
SAFE, INDEX = ".safetensors", ".safetensors.index.json"
SHARD = re.compile(r"-\d+-of-\d+$")
# What a trainer saves beside the weights, whatever its suffix.
STATE = re.compile(
    r"(optimizer|optim|scheduler|scaler|rng_state|random_states|training_args|trainer_state"
    r"|sampler|dataloader|events\.out\.tfevents|zero_pp_rank|.*_optim_states)([._-]|\d|$).*"
)
ADAPTER = "adapter_config.json"
OTHERWISE = "Save the model with save_pretrained, and name that folder."
OTHER_FORMATS = {
    ".gguf": (
        "weights quantised for llama.cpp",
        "Load it with transformers' from_pretrained(…, gguf_file=…), which dequantises it, and "
        "save_pretrained that.",
    ),
    ".h5": ("weights of TensorFlow", "Load them with from_pretrained(…, from_tf=True) of "
            "transformers 4, and save_pretrained that."),
    ".msgpack": ("weights of Flax", "Load them with from_pretrained(…, from_flax=True) of "
                 "transformers 4, and save_pretrained that."),
    ".onnx": ("a model exported as ONNX", "Name the folder of the model that it was made from."),
    ".distcp": ("a distributed checkpoint", "Gather it into one model first: accelerate "
                "merge-weights FOLDER OUTPUT."),
}  # fmt: skip


@dataclass(frozen=True)
class Found:
    """The files that hold a checkpoint's weights.

    files     one, or the shards
    promised  the tensors that their index says they hold; none without an index
    stem      the name of the files without numbers and suffix, such as `model`
    """

    files: tuple[Path, ...]
    promised: frozenset[str] = frozenset()
    stem: str = STEMS[0]


def weight_files(path: Path) -> Found:
    """The weights of a directory, a `.safetensors` file or an index.

    Raises `InputError` that says where the weights lie, or how to convert them.
    """
    if not path.is_dir():
        return _of_file(path)
    for stem in STEMS:
        single, index = path / f"{stem}{SAFE}", path / f"{stem}{INDEX}"
        if single.is_file():
            if index.is_file():
                read_json(index)  # of an earlier save; a damaged one tells of one that broke off
            return Found((single,), stem=stem)
        if index.is_file():
            return _indexed(index, stem)
    names = _names(path)
    if ADAPTER in names:
        raise InputError(
            f"'{path}' is a PEFT adapter",
            expected="a whole checkpoint",
            found="an update of one",
            remedy="Name it as an expert beside its base, in a recipe or a family.yaml (on the "
            "command line: --base).",
        )
    indices = [name for name in names if name.endswith(INDEX)]
    if len(indices) == 1:
        return _indexed(path / indices[0], indices[0].removesuffix(INDEX))
    found = [name for name in names if name.endswith(SAFE) and not STATE.match(name)]
    if len(found) == 1 and not _is_part(found[0]):
        return Found((path / found[0],), stem=SHARD.sub("", found[0].removesuffix(SAFE)))
    raise _no_weights(path, names, found)


def _is_part(name: str) -> bool:
    """Whether a file is one shard of several: `model-00001-of-00002`; the others may be missing."""
    shard = SHARD.search(name.removesuffix(SAFE))
    return shard is not None and int(shard[0].rpartition("-")[2]) > 1


def _of_file(path: Path) -> Found:
    if path.name.endswith(INDEX):
        return _indexed(path, path.name.removesuffix(INDEX))
    if path.suffix != SAFE:
        raise _refusal(path)
    regular(f"checkpoint '{path}'", path)
    if _is_part(path.name):
        raise InputError(
            f"checkpoint '{path}'",
            expected="a whole model",
            found="one shard of several",
            remedy=f"Name the folder '{path.parent}', which needs all of them and their index.",
        )
    known = path.name.removesuffix(SAFE)
    return Found((path,), stem=known if known in STEMS else STEMS[0])


def _names(folder: Path) -> list[str]:
    with foreseen(f"checkpoint '{folder}'"):
        return sorted(one.name for one in folder.iterdir() if not one.name.startswith("."))


def _indexed(index: Path, stem: str) -> Found:
    try:
        weight_map = read_json(index)["weight_map"]
        names = sorted(set(weight_map.values()))
        tensors = frozenset(weight_map)
    except (KeyError, TypeError, AttributeError):
        raise InputError(
            f"'{index}'", expected="a JSON object with a 'weight_map'", found="something else"
        ) from None
    for name in names:
        if not isinstance(name, str) or Path(name).name != name or not name.endswith(SAFE):
            raise InputError(
                f"'{index}'", expected="shards in its own folder, by name", found=f"{name!r}"
            )
    files = (existing("shard", index.parent / name) for name in names)
    return Found(tuple(regular(f"shard '{file}'", file) for file in files), tensors, stem)


# What to say of a folder without weights ----------------------------------------------------------


def _no_weights(path: Path, names: list[str], found: list[str]) -> InputError:
    wanted = "model.safetensors, or shards with model.safetensors.index.json"
    if found:
        shards = all(SHARD.search(name.removesuffix(SAFE)) for name in found)
        return InputError(
            f"checkpoint '{path}'",
            expected=wanted,
            found=f"{len(found)} "
            f"{'shards without their index' if shards else 'other .safetensors files'}: "
            f"{listing(found)}",
            remedy="Copy the index as well, and all that it names."
            if shards
            else "Point at one file.",
        )
    if (pickled := _pickled(names)) is not None:
        return _refusal(path / pickled)
    for suffix, (what, remedy) in OTHER_FORMATS.items():
        if other := [name for name in names if name.endswith(suffix)]:
            told = f"{what}: {listing(other)}"
            return InputError(f"checkpoint '{path}'", expected=wanted, found=told, remedy=remedy)
    found_below, remedy = _below(path, names)
    return InputError(
        f"checkpoint '{path}'",
        expected=wanted,
        found=found_below or "no .safetensors file",
        remedy=remedy or "Save the model with save_pretrained first.",
    )


def _pickled(names: list[str]) -> str | None:
    """The pickle that holds weights: pytorch_model.bin before others, an index before shards."""
    found = [name for name in names if not STATE.match(name) and is_pickle(name)]
    ranks = ("pytorch_model.bin", "pytorch_model.bin.index.json", "diffusion_pytorch_model.bin")
    return min(found, key=lambda n: (ranks.index(n) if n in ranks else len(ranks), n), default=None)


def _below(path: Path, names: list[str]) -> tuple[str, str]:
    """What lies in the subfolders of a folder without weights, and what to name instead."""
    folders = [name for name in names if (path / name).is_dir()]
    if "snapshots" in folders:  # of the hub's cache
        folders += [f"snapshots/{name}" for name in _names(path / "snapshots")]
    adapters = [name for name in folders if (path / name / ADAPTER).is_file()]
    if adapters:
        count = "an adapter" if len(adapters) == 1 else f"{len(adapters)} adapters"
        told = f"{count} in its subfolders: {listing(adapters)}"
        return told, f"Name one of them, such as '{path / adapters[0]}'."
    distributed = [
        name for name in folders if any((path / name).glob("*.distcp")) or _zero(path / name)
    ]
    if distributed:
        zero = _zero(path / distributed[0])
        gather = (
            "python zero_to_fp32.py . . --safe_serialization, in that folder"
            if zero
            else f"accelerate merge-weights {shell(str(path / distributed[0]))} OUTPUT"
        )
        told = f"a distributed checkpoint in {listing(distributed)}"
        return told, f"Gather it into one model first: {gather}."
    inside = [name for name in folders if _loadable(path / name)]
    if not inside:
        return "", ""
    inside.sort(key=_step)
    told = f"none there; its weights lie in {listing(inside)}"
    which = "that folder" if len(inside) == 1 else "one of these folders"
    return told, f"Name {which}, such as '{path / inside[-1]}'."


def _loadable(folder: Path) -> bool:
    """Whether weights lie in a folder that can be opened, or converted."""
    try:
        names = [one.name for one in folder.iterdir()]
    except OSError:
        return False
    return any(name.endswith((SAFE, *PICKLES)) and not STATE.match(name) for name in names)


def _zero(folder: Path) -> bool:
    return any(folder.glob("*zero_pp_rank_*"))


def _step(name: str) -> tuple[int, str]:
    """`checkpoint-500` before `checkpoint-1000`."""
    numbers = re.findall(r"\d+", name)
    return int(numbers[-1]) if numbers else -1, name


def is_weights(name: str) -> bool:
    """Whether a file of this name holds weights, of any format, or the state of a training."""
    lower = name.lower()
    suffixes = (SAFE, *PICKLES, *OTHER_FORMATS)
    return lower.endswith(suffixes) or lower.endswith(".index.json")


def is_pickle(name: str) -> bool:
    """Whether a file of this name is a pickle, or the index of some."""
    return name.endswith((*PICKLES, ".bin.index.json"))


def is_shard(name: str) -> bool:
    """Whether a file is one of several that hold one model together."""
    return SHARD.search(name.removesuffix(SAFE)) is not None


def _refusal(path: Path) -> InputError:
    if path.suffix in OTHER_FORMATS:
        what, remedy = OTHER_FORMATS[path.suffix]
        expected = "a .safetensors file or a directory"
        return InputError(f"'{path}'", expected=expected, found=what, remedy=remedy)
    if path.name.endswith(".bin.index.json"):
        return InputError(
            f"'{path}' is the index of pickles",
            expected="safetensors",
            found="'.bin', which can run code when it is opened",
            remedy="Load that folder with transformers' from_pretrained, on a machine you trust it "
            "on, and save_pretrained it.",
        )
    if path.suffix not in PICKLES:
        with foreseen(f"'{path}'"), regular(f"'{path}'", path).open("rb") as handle:
            found, remedy = beginning(handle.read(BEGIN)) or (f"'{path.name}'", OTHERWISE)
        expected = "a .safetensors file or a directory"
        return InputError(f"'{path}'", expected=expected, found=found, remedy=remedy)
    # Names go in as arguments, quoted: this line is made to be pasted into a shell.
    command = (
        "python -c 'import sys, torch; from safetensors.torch import save_file; "
        'd = torch.load(sys.argv[1], map_location="cpu", weights_only=True); '
        "save_file({k: v.clone().contiguous() for k, v in d.items()}, sys.argv[2])' "
        f"{shell(str(path))} {shell(str(path.with_suffix(SAFE)))}"
    )
    return InputError(
        f"'{path}' is a pickle",
        expected="safetensors",
        found=f"'{path.suffix}', which can run code when it is opened",
        remedy=f"Convert it once, on a machine you trust it on: {command}",
    )
