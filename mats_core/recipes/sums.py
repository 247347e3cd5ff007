"""Sums over experts beside a merge: what lets an expert be added without the files of the others.

    sums/manifest.json       base, method, options, experts with their weights, and what it digests
    sums/0000.safetensors    of the first layer: name → sum, as `Layer.total` handed it on

A mean over experts, a mean Gram and its right side add up, so a merge by them goes on from its sums
as if all experts had been at hand; where an equation needs each expert's statistics (K-FAC's sum of
Kronecker products is none), these are kept as they are.  One file a layer: it is written before the
journal speaks of the layer, and read when its turn comes.
"""

from __future__ import annotations

import glob
import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..checkpoints import Checkpoint, write_tensors
from ..errors import InputError, listing, parsing, read_json, typed
from ..families import Family
from ..linear import LowRank
from ..methods import Earlier, LayerStatistics
from ..statistics import impossible
from .sections import ExpertEntry

FOLDER = "sums"
MANIFEST = "manifest.json"
FORMAT = "mats-sums-1"
REMEDY = "Merge all experts at once, with 'keep_sums' if more are to come."


@dataclass(frozen=True)
class KeptLayer:
    """One layer of the manifest.

    name     of its tensor
    bias     folded in; None: none is
    matrix   whether methods for linear layers apply
    file     in the folder
    digest   SHA-256 of the file
    """

    name: str
    bias: str | None
    matrix: bool
    file: str
    digest: str


@dataclass(frozen=True)
class EarlierMerge:
    """A finished merge whose sums were kept: its manifest, checked.

    folder       of the merge
    identity     what a merge that adds to it must have in common, by name
    experts      entries of its experts, with their fingerprints
    weights      α_m of each, as they entered
    layers       name → what is kept of the layer
    heads        tensors that were recognised as heads
    digest       SHA-256 of the manifest
    """

    folder: Path
    identity: Mapping[str, Any]
    experts: tuple[ExpertEntry, ...]
    weights: tuple[float, ...]
    layers: Mapping[str, KeptLayer]
    heads: tuple[str, ...]
    digest: str

    @classmethod
    def open(cls, folder: Path) -> EarlierMerge:
        """The sums beside a merge, by their manifest; raises `InputError` where there are none."""
        file = folder / FOLDER / MANIFEST
        if not file.is_file():
            raise InputError(
                f"merge '{folder}' to add to",
                expected="one whose sums were kept",
                found="no sums beside it" if folder.is_dir() else "no such folder",
                remedy="Merge with 'keep_sums: true' in the recipe, or --keep-sums.",
            )
        content = read_json(file)
        try:
            digest = content.pop("digest")
            layers = [typed(KeptLayer, layer) for layer in content["layers"]]
            found = cls(
                folder,
                dict(content["identity"]),
                tuple(ExpertEntry(**entry) for entry in content["experts"]),
                tuple(map(_weight, content["weights"])),
                {layer.name: layer for layer in layers},
                tuple(head for head in content["heads"] if isinstance(head, str)),
                digest,
            )
            beside = all(Path(layer.file).name == layer.file for layer in layers)
            beside = beside and len(found.weights) == len(found.experts)
        except (AttributeError, LookupError, TypeError, ValueError, ArithmeticError):
            raise _changed(file) from None
        if content.get("format") != FORMAT or _digest_of(content) != digest or not beside:
            raise _changed(file)
        return found

    def verify(self) -> None:
        """Raise `InputError` where a file is not the one that the merge wrote."""
        for layer in self.layers.values():
            file = self.folder / FOLDER / layer.file
            if not file.is_file() or digest_of_file(file) != layer.digest:
                raise _changed(file)

    def require(self, identity: Mapping[str, Any]) -> None:
        """Raise `InputError` where a merge has another base, method or options than this one.

        Of what a name holds by keys, only those of `identity` count.
        """
        for name, value in identity.items():
            kept = self.identity.get(name)
            if isinstance(kept, Mapping) and isinstance(value, Mapping):
                kept = {key: kept.get(key) for key in value}
            if kept != value:
                what, then, now = _difference(name, kept, value)
                raise InputError(
                    f"{what} of a merge that adds to '{self.folder}'",
                    expected=f"{then}, as when its sums were kept",
                    found=f"{now}",
                    remedy=REMEDY,
                )

    def heads_with(self, family: Family) -> list[str]:
        """Patterns of all heads: what is one for the experts before is none of one expert alone."""
        mine = {name for name, role in family.roles.items() if role == "head"}
        theirs = {name for name in self.heads if name in family.roles}
        return [glob.escape(name) for name in sorted(mine | theirs)]

    def layer(self, name: str, like: Mapping[str, Any]) -> Earlier:
        """What is kept of a layer; `like`: the dtype and device that it is read to."""
        file = self.folder / FOLDER / self.layers[name].file
        checkpoint = Checkpoint.open(file)
        tensors = {key: checkpoint.read(key, **like) for key in checkpoint.tensors}
        labels = tuple(entry.name for entry in self.experts)
        kinds = {key.split(".")[0] for key in tensors if "." in key}
        with parsing(f"sums '{file}'", "finite sums, and a Gram of every expert", REMEDY):
            if not all(value.isfinite().all() for value in tensors.values()):
                raise ValueError("NaN or infinity")
            grams = [
                LayerStatistics(**{kind: _gram(tensors, kind, index) for kind in kinds})
                for index in range(len(labels))
            ]
        sums = {key: value for key, value in tensors.items() if "." not in key}
        return Earlier(self.weights, labels, sums, tuple(grams))


def _gram(tensors: Mapping[str, Tensor], kind: str, index: int) -> Any:
    """A Gram of one expert, in factors where it was kept so."""
    key = f"{kind}.{index}"
    if key not in tensors:
        return LowRank(tensors[f"{key}.factor"], tensors[f"{key}.rest"])
    wrong = impossible(kind, tensors[key])
    if wrong is not None:
        raise ValueError(f"{wrong[1]} in place of {wrong[0]}")
    return tensors[key]


def _weight(said: Any) -> float:
    if not isinstance(said, int | float) or not math.isfinite(said):
        raise ValueError("no weight")
    return float(said)


def _difference(name: str, kept: Any, value: Any) -> tuple[str, Any, Any]:
    """What differs, and how, as briefly as it can be said."""
    if isinstance(kept, Mapping) and isinstance(value, Mapping):
        key = next(k for k in {**kept, **value} if kept.get(k) != value.get(k))
        return f"option '{key}'", kept.get(key), value.get(key)
    short = 12 if name == "base" else None
    return name, str(kept)[:short], str(value)[:short]


def _changed(file: Path) -> InputError:
    return InputError(
        f"sums '{file}'",
        expected="the file that the merge wrote",
        found="one that was changed since, or none",
        remedy=REMEDY,
    )


def _digest_of(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def digest_of_file(file: Path) -> str:
    """SHA-256 of a file."""
    with file.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


# Writing ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class KeptSums:
    """The sums of a merge under way, written into its output.

    folder   of the sums
    files    layer → its file
    """

    folder: Path
    files: Mapping[str, str]

    @classmethod
    def into(cls, output: Path, layers: Sequence[str]) -> KeptSums:
        """A folder for the sums of these layers."""
        (output / FOLDER).mkdir(exist_ok=True)
        files = {name: f"{index:04d}.safetensors" for index, name in enumerate(layers)}
        return cls(output / FOLDER, files)

    def has(self, layer: str) -> bool:
        """Whether a layer's sums were written."""
        return (self.folder / self.files[layer]).is_file()

    def add(self, layer: str, sums: Mapping[str, Tensor], dtype: torch.dtype) -> None:
        """Write the sums of a layer: they are on the disk when this returns."""
        kept = {name: value.to(dtype) for name, value in sums.items()}
        write_tensors(self.folder / self.files[layer], kept)

    def finish(
        self,
        identity: Mapping[str, Any],
        experts: Sequence[ExpertEntry],
        weights: Sequence[float],
        layers: Mapping[str, tuple[str | None, bool]],
        heads: Sequence[str],
    ) -> None:
        """Write the manifest; `layers`: name → the bias folded in, and whether it is a matrix."""
        rows = [
            {
                "name": name,
                "bias": bias,
                "matrix": matrix,
                "file": self.files[name],
                "digest": digest_of_file(self.folder / self.files[name]),
            }
            for name, (bias, matrix) in layers.items()
        ]
        content = {
            "format": FORMAT,
            "identity": dict(identity),
            "experts": [entry.model_dump(mode="json", exclude_none=True) for entry in experts],
            "weights": list(weights),
            "layers": rows,
            "heads": list(heads),
        }
        content = json.loads(json.dumps(content))
        text = json.dumps({**content, "digest": _digest_of(content)}, indent=1)
        (self.folder / MANIFEST).write_text(text + "\n", "utf-8")


def require_same_layers(
    earlier: EarlierMerge, layers: Mapping[str, tuple[str | None, bool]]
) -> None:
    """Raise `InputError` where other tensors are merged than those whose sums were kept."""
    kept = {name: (layer.bias, layer.matrix) for name, layer in earlier.layers.items()}
    differ = [name for name in {**kept, **layers} if kept.get(name) != layers.get(name)]
    if differ:
        raise InputError(
            f"layers of a merge that adds to '{earlier.folder}'",
            expected="those whose sums were kept",
            found=f"others: {listing(differ, 3)}",
            remedy=REMEDY,
        )
