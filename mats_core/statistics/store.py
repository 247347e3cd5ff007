"""The file format `mats-statistics-1`: one safetensors file an expert, sharable without its data.

Tensors, by the names of the checkpoint's own modules and parameters:

    <module>.input_gram              A (d_in, d_in)
    <module>.input_mean              μ (d_in,); needed to fold biases in and to centre
    <module>.output_gradient_gram    B (d_out, d_out)
    <module>.input_factor            F (k, d_in) with A = FᵀF + ρ I, in place of `input_gram` where
    <module>.input_rest              it was measured in low rank; ρ, a scalar (`sketch.py`)
    <module>.output_gradient_factor  the same of B
    <module>.output_gradient_rest
    <parameter>.fisher               F, the parameter's shape
    <parameter>.block                (numel, numel), for small parameters, where asked for

Metadata, all strings: `format`, `examples`, `tokens`, `seed`, `labels` (`empirical` or `true`),
`fingerprint` of the checkpoint, and `task`; where there is something to tell also `notes` and
`left_out`, a sentence a line: what was measured example by example, and what could not be measured.
"""

from __future__ import annotations

import contextlib
import itertools
import re
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from ..checkpoints import Checkpoint, TensorFileWriter, all_finite, require_file, staged_file
from ..errors import InputError, existing
from ..linear import LowRank
from ..names import is_weight, module_of
from ..system import Device, Shown
from .possible import impossible

FORMAT = "mats-statistics-1"
SUFFIX = ".safetensors"
_NUMBERS = itertools.count()
FACTORED = ("input_gram", "output_gradient_gram")  # kinds that may be there in factors instead
FACTORS = ("input_factor", "input_rest", "output_gradient_factor", "output_gradient_rest")
OF_PARAMETERS = ("fisher", "block")  # the others are of modules
TOLD = ("notes", "left_out")  # metadata of sentences, a line each
KINDS = (*FACTORED, "input_mean", *OF_PARAMETERS, *FACTORS)


def require_output(
    path: Path, reads: Iterable[tuple[str, Path]] = (), *, force: bool = False
) -> None:
    """Raise `InputError` where a statistics file cannot be written without a loss.

    An existing one is replaced with `force`, a file of another kind never, nor one of `reads`.
    """
    ours = False
    if Path(path).is_file():
        with contextlib.suppress(InputError, OSError):
            ours = Checkpoint.open(path).metadata.get("format") == FORMAT
    require_file(Path(path), reads, force=force, kind="statistics file", ours=ours)
    if Path(path).suffix != SUFFIX:
        raise InputError(
            f"output '{path}'",
            expected=f"a name that ends in {SUFFIX}",
            found=f"'{Path(path).name}'",
            remedy=f"Name it '{path}{SUFFIX}'.",
        )


def factor_names(name: str) -> tuple[str, str] | None:
    """The names of a Gram's factor and rest; None for another kind of statistics."""
    if name.rpartition(".")[2] not in FACTORED:
        return None
    stem = name.removesuffix("_gram")
    return f"{stem}_factor", f"{stem}_rest"


def whole_name(name: str) -> str:
    """The name of the Gram that a factor or its rest stands for; any other name as it is."""
    for end in ("_factor", "_rest"):
        if name.endswith(end):
            return name.removesuffix(end) + "_gram"
    return name


@dataclass(frozen=True, repr=False)
class Statistics(Shown):
    """Statistics of one checkpoint, in memory or read lazily from a file.

    shapes     shape of every stored tensor, by names such as `fc1.input_gram` (see `store.py`)
    metadata   strings: examples, tokens, seed, labels, fingerprint of the checkpoint, task
    source     path of the file, or `memory:` and a number
    """

    shapes: Mapping[str, tuple[int, ...]]
    metadata: Mapping[str, str]
    _read: Callable[[str], Tensor]
    source: str = "memory"
    _file: Checkpoint | None = None

    def __repr__(self) -> str:
        """One line; the names are many."""
        examples = self.metadata.get("examples", "?")
        kinds = ", ".join(sorted(self.kinds))
        return f"Statistics({examples} examples, {len(self.layers)} layers: {kinds})"

    @classmethod
    def of(cls, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> Statistics:
        """Statistics in memory, of tensors under the names of the file format, and metadata."""
        shapes = {name: tuple(value.shape) for name, value in tensors.items()}
        # A name of its own: what is remembered of one expert must not pass for another's.
        return cls(shapes, dict(metadata), tensors.__getitem__, f"memory:{next(_NUMBERS)}")

    @classmethod
    def open(cls, path: str | Path) -> Statistics:
        """The statistics of a file, whose tensors are read when they are asked for.

        Raises `InputError` if its format is unknown or it holds no statistics.
        """
        checkpoint = Checkpoint.open(existing("statistics", path))
        found = checkpoint.metadata.get("format", FORMAT)
        # "pt" is what other writers of safetensors put there: taken as a file of unknown origin.
        if found not in (FORMAT, "pt"):
            raise InputError(
                f"statistics '{path}'",
                expected=f"format '{FORMAT}'",
                found=f"'{found}'",
                remedy="Measure again with this version.",
            )
        shapes = {
            name: entry.shape
            for name, entry in checkpoint.tensors.items()
            if name.rpartition(".")[2] in KINDS
        }
        if not shapes:
            raise InputError(
                f"statistics '{path}'",
                expected="tensors named <module>.input_gram, <parameter>.fisher, ...",
                found="none",
                remedy="Is this the model instead of its statistics?",
            )
        return cls(shapes, checkpoint.metadata, checkpoint.read, str(path), checkpoint)

    def under(self, names: Mapping[str, str]) -> Statistics:
        """The same statistics under other names: `names` has the wanted one for every parameter.

        A statistic of a module is renamed with the module's parameters.
        """
        if all(own == name for own, name in names.items()):
            return self
        stems = {module_of(own): module_of(name) for own, name in names.items()} | dict(names)
        own_names = {}
        for stored in self.shapes:
            stem, _, kind = stored.rpartition(".")
            own_names[f"{stems.get(stem, stem)}.{kind}"] = stored
        return self._renamed(own_names)

    def shared(self, aliases: Mapping[str, str]) -> Statistics:
        """The same statistics under every name of a tensor: `aliases` has its first for the others.

        What is stored under a name stays that name's own.
        """
        groups: dict[str, list[str]] = {}
        for name, leader in aliases.items():
            groups.setdefault(leader, [leader]).append(name)
        own_names = {name: name for name in self.shapes}
        for names in groups.values():
            modules = [module_of(name) for name in names if is_weight(name)]
            for kind in KINDS:
                stems = names if kind in OF_PARAMETERS else modules
                held = [stem for stem in stems if f"{stem}.{kind}" in self.shapes]
                for stem in stems if held else ():
                    own_names.setdefault(f"{stem}.{kind}", f"{held[0]}.{kind}")
        return self if len(own_names) == len(self.shapes) else self._renamed(own_names)

    def reordered(
        self,
        shapes: Mapping[str, tuple[int, ...]],
        metadata: Mapping[str, str],
        put: Callable[[str, Tensor], Tensor],
    ) -> Statistics:
        """The same statistics with entries elsewhere: of the tensors in `shapes`, each as `put`
        gives it for its name and value."""
        return replace(self, shapes=shapes, metadata=metadata, _read=partial(_put, self._read, put))

    def _renamed(self, own_names: Mapping[str, str]) -> Statistics:
        shapes = {name: self.shapes[stored] for name, stored in own_names.items()}
        return replace(self, shapes=shapes, _read=partial(_read_as, self._read, own_names))

    def save(self, path: str | Path) -> None:
        """Write the file whole or not at all, tensor by tensor.

        A statistics file that exists is replaced; raises `InputError` for one of another kind.
        """
        require_output(Path(path), force=True)
        specs = {name: (self._read(name).dtype, shape) for name, shape in self.shapes.items()}
        told = dict(self.metadata)
        with staged_file(Path(path)) as place, TensorFileWriter(place, specs, told) as writer:
            for name in specs:
                writer.add(name, self._read(name))

    def stored(self, name: str) -> Tensor:
        """One tensor as it is stored, unchecked."""
        return self._read(name)

    def check(self, fingerprint: str) -> None:
        """Raise `InputError` if this was measured on another checkpoint; warn if no file says.

        What could not be measured is a warning, too.
        """
        self.warn()
        own = self.metadata.get("fingerprint", "")
        if not own:
            warnings.warn(
                f"statistics '{self.source}' do not say which checkpoint they were measured on; "
                "taken as they are",
                stacklevel=2,
            )
        elif own != fingerprint:
            raise InputError(
                f"statistics '{self.source}'",
                expected=f"those of the checkpoint with fingerprint {fingerprint[:12]}",
                found=f"fingerprint {own[:12]}",
                remedy="They were measured on another checkpoint; run `measure` on this one.",
            )

    def require_unchanged(self) -> None:
        """Raise `InputError` where the file is not the one any more that was opened."""
        if self._file is not None:
            self._file.require_unchanged()

    @property
    def digest(self) -> str | None:
        """The fingerprint of the file's contents; None in memory."""
        return None if self._file is None else self._file.fingerprint

    def warn(self) -> None:
        """Warn of what could not be measured."""
        for sentence in self.metadata.get("left_out", "").splitlines():
            warnings.warn(f"statistics '{self.source}': {sentence}", stacklevel=3)

    @property
    def notes(self) -> tuple[str, ...]:
        """How this was measured, where that is not by batches alone: a sentence each."""
        said = (self.metadata.get(key, "") for key in TOLD)
        return tuple(sentence for text in said for sentence in text.splitlines())

    @property
    def tokens(self) -> int | None:
        """Number of tokens that were measured; None where the metadata lack it."""
        return self.number("tokens")

    def number(self, key: str) -> int | None:
        """A whole number of the metadata; None where there is none, or another text."""
        value = self.metadata.get(key, "")
        return int(value) if re.fullmatch("[0-9]{1,18}", value) else None

    @property
    def kinds(self) -> frozenset[str]:
        """The kinds of statistics that can be read; a Gram in factors counts as the whole one."""
        stored = {name.rpartition(".")[2] for name in self.shapes}
        factored = {kind for kind in FACTORED if kind.replace("_gram", "_factor") in stored}
        return frozenset(stored | factored)

    def __contains__(self, name: str) -> bool:
        """Whether a statistic was measured: stored as it is, or as a Gram's factor."""
        names = factor_names(name)
        return name in self.shapes or (names is not None and all(n in self.shapes for n in names))

    @property
    def layers(self) -> tuple[str, ...]:
        """Modules with an input Gram, whole or in factors."""
        ends = (".input_gram", ".input_factor")
        return tuple(name.rpartition(".")[0] for name in self.shapes if name.endswith(ends))

    def factored(
        self, name: str, size: int, *, dtype: torch.dtype = torch.float32, device: Device = "cpu"
    ) -> LowRank | None:
        """A Gram (size, size) in factors, or None where it was not measured in low rank.

        `name` is the whole Gram's, `<module>.input_gram`.  Raises `InputError` as `read` does.
        """
        names = factor_names(name)
        if names is None or any(n not in self.shapes for n in names):
            return None
        rank = (self.shapes[names[0]] or (0,))[0]
        factor = self.read(names[0], (rank, size), dtype=dtype, device=device)
        rest = self.read(names[1], (), dtype=dtype, device=device)
        assert factor is not None
        assert rest is not None
        return LowRank(factor, rest.expand(size))

    def read(
        self,
        name: str,
        shape: tuple[int, ...],
        *,
        dtype: torch.dtype = torch.float32,
        device: Device = "cpu",
    ) -> Tensor | None:
        """One tensor, or None where it was not measured; a Gram in factors is multiplied out.

        Raises `InputError` if its shape is not `shape`, a number in it is not finite, or no model
        could have it: a Gram that is not symmetric, a negative Fisher (see `possible.py`).
        """
        if name not in self.shapes:
            factors = self.factored(name, shape[-1], dtype=dtype, device=device) if shape else None
            return None if factors is None else factors.dense()
        if self.shapes[name] != shape:
            raise self._wrong(name, f"shape {list(shape)}", f"{list(self.shapes[name])}")
        value = self._read(name).to(device=device, dtype=dtype)
        if not all_finite(value):
            raise self._wrong(name, "finite numbers", "NaN or infinity")
        if odd := impossible(name.rpartition(".")[2], value):
            raise self._wrong(name, *odd)
        return value

    def _wrong(self, name: str, expected: str, found: str) -> InputError:
        thing, remedy = f"'{name}' of statistics '{self.source}'", "Measure this checkpoint again."
        return InputError(thing, expected=expected, found=found, remedy=remedy)


def _put(read: Callable[[str], Tensor], put: Callable[[str, Tensor], Tensor], name: str) -> Tensor:
    return put(name, read(name))


def _read_as(read: Callable[[str], Tensor], own_names: Mapping[str, str], name: str) -> Tensor:
    return read(own_names[name])
