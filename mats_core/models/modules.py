"""An `nn.Module` from a checkpoint directory, through transformers.

transformers renames parameters when it loads (`encoder.layer.0.attention.attention.query` in the
file may be `layers.0.attention.q_proj` in the module).  Everything here speaks the file's names;
the translation is read off by loading numbered tensors (`parameter_names`).
"""

from __future__ import annotations

import contextlib
import copy
import functools
import threading
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..checkpoints import Tensors, Weights
from ..errors import InputError, listing, parsing
from ..system import Device, recall
from .architecture import architecture, built_from, file_text, padding_token, quiet
from .choosing import routed_by
from .replaying import Again
from .routing import parted
from .sizes import fitted, shapes_of
from .unplaced import Unplaced


def tensors_of(checkpoint: Weights, dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    """All tensors of a checkpoint, floating-point ones as `dtype`."""
    return {
        name: checkpoint.read(name, dtype=dtype if entry.dtype.is_floating_point else None)
        for name, entry in checkpoint.tensors.items()
    }


def build(
    directory: Path | None,
    tensors: Tensors,
    *,
    device: Device = "cpu",
    dtype: torch.dtype = torch.float32,
) -> nn.Module:
    """The module that `directory`'s config describes, holding `tensors`, in evaluation mode.

    Raises `InputError` when the architecture is unknown to transformers, a tensor is missing, or
    the model has no place for one of a block (see `Unplaced`); code that comes with a checkpoint is
    never run.  Of a routed merge the module adds the branches that lie beside its weights.
    """
    tensors, beside = parted(tensors)
    known = fitted(directory, shapes_of(tensors))
    config, model_class = copy.deepcopy(known.config), known.model_class
    thing = f"model '{directory}'"
    expected = f"a {model_class.__name__} as its config.json describes it"
    with parsing(thing, expected, "Is that config.json the one of these weights?"), quiet():
        model, loading = model_class.from_pretrained(
            None,
            config=config,
            state_dict=dict(tensors),
            dtype=dtype,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # told below, with both shapes
        )
    if loading["mismatched_keys"]:
        name, ours, wanted = sorted(map(tuple, loading["mismatched_keys"]))[0]
        more = f", and {n} more" if (n := len(loading["mismatched_keys"]) - 1) else ""
        raise InputError(
            f"model '{directory}'",
            expected=f"the shapes of its config.json, for '{name}' {list(wanted)}",
            found=f"{list(ours)}{more}",
            remedy="Use the config.json that was saved with these weights.",
        )
    if loading["missing_keys"]:
        raise InputError(
            thing,
            expected=f"every parameter of {model_class.__name__}",
            found=f"no {listing(sorted(loading['missing_keys']))}",
            remedy="Was it saved with its head?",
        )
    # A name that transformers has changed is none of ours: its shape is not known.
    left = {n: tuple(tensors[n].shape) if n in tensors else () for n in loading["unexpected_keys"]}
    Unplaced.among(left, model.state_dict(), model.base_model_prefix).require(thing, config)
    if "SequenceClassification" in model_class.__name__ and config.pad_token_id is None:
        # A decoder looks for each text's last token, and has to know what is none.
        model.config.pad_token_id = padding_token(config)
    if beside:
        own = {name: {p: v.to(device) for p, v in parts.items()} for name, parts in beside.items()}
        tuple(routed_by(own, parameter_names(directory, tensors)).attached(model))
    return model.to(device).eval()


MODULE = 1 << 20  # bytes of a module without its weights, which is what is remembered
Forward = Callable[[Tensors, Tensors], Tensor]


def forward(
    directory: Path | None,
    tensors: Tensors,
    *,
    device: Device = "cpu",
    again: Again | None = None,
) -> Forward:
    """A function (tensors, inputs) → logits for tensors with these names and shapes; inputs are
    the model's keyword arguments.  `again`: what need not run again of models before it.

    The module is built once for each configuration and holds no weights itself; tensors are
    used where they lie, in their own dtype as float32.  Raises `InputError` as `build` does.
    """
    return functools.partial(_shell(directory, tensors, device).logits, directory, again=again)


def features(
    directory: Path | None, tensors: Tensors, head: Collection[str], *, device: Device = "cpu"
) -> Forward:
    """A function (tensors, inputs) → features (n, d) that the model's head reads.

    head   names of its tensors

    Of a head that reads every token their mean, padding left out.  Raises `InputError` as `build`
    does, and where no module is made of the head alone.
    """
    shell = _shell(directory, tensors, device)
    return functools.partial(shell.features, directory, frozenset(head))


def _shell(directory: Path | None, tensors: Tensors, device: Device) -> _Shell:
    if directory is None:
        architecture(directory)  # raises
    config = built_from(file_text(directory, "config.json"))
    shapes = tuple(shapes_of(tensors).items())
    return recall(
        ("forward", config, shapes, str(device)),
        lambda: _Shell(directory, dict(shapes), str(device)),
        lambda built: MODULE,
    )


class _Shell:
    """A module without weights, which takes those of each call by the names of the file.

    It serves all models that are built alike; `directory` of a call is the model's that is asked.
    """

    def __init__(
        self, directory: Path | None, shapes: Mapping[str, tuple[int, ...]], device: str
    ) -> None:
        self._device = device
        names = list(shapes)
        module = _numbered(directory, shapes, device=device)
        self._names = _read_off(module, names, buffers=True)
        # Else transformers puts a parameter of this architecture together from several tensors.
        whole = all(parameter in self._names for parameter, _ in module.named_parameters())
        self._module = module if whole else None
        if whole:
            _emptied(module)
        # The call puts the tensors into the module: one thread at a time.
        self._alone = threading.Lock()

    def logits(
        self,
        directory: Path | None,
        tensors: Tensors,
        inputs: Tensors,
        again: Again | None = None,
    ) -> Tensor:
        return self._called(directory, tensors, inputs, again=again).logits

    def features(
        self, directory: Path | None, head: frozenset[str], tensors: Tensors, inputs: Tensors
    ) -> Tensor:
        read: list[Tensor] = []

        def note(module: nn.Module, given: tuple[Any, ...]) -> None:
            if not read and given and isinstance(given[0], Tensor):
                read.append(given[0].detach())

        self._called(directory, tensors, inputs, head, note)
        if not read:
            raise InputError(
                f"model '{directory}'", expected="a head that reads features", found="none"
            )
        return _pooled(read[0], inputs.get("attention_mask"))

    def _called(
        self,
        directory: Path | None,
        tensors: Tensors,
        inputs: Tensors,
        head: frozenset[str] = frozenset(),
        note: Callable[[nn.Module, tuple[Any, ...]], None] | None = None,
        again: Again | None = None,
    ) -> Any:
        """What the model returns; `note` is called with what each module of the head reads."""
        thing, remedy = f"model '{directory}'", "Do config.json and weights agree?"
        asking = (thing, "inputs that it takes", remedy)
        module = self._module or build(directory, tensors, device=self._device)
        with self._alone, contextlib.ExitStack() as stack:
            if note is not None:
                for own in _of_head(module, self._names, head):
                    stack.callback(own.register_forward_pre_hook(note).remove)
            if self._module is None:
                stack.enter_context(parsing(*asking))
                return module(**inputs)
            if beside := parted(tensors)[1]:
                for handle in routed_by(beside, self._names).attached(module):
                    stack.callback(handle.remove)
            if again is not None and not beside:
                stack.enter_context(again.used(module, self._names, inputs))
            held = ((name, tensors[source]) for name, source in self._names.items())
            values = {n: v.float() if v.is_floating_point() else v for n, v in held}
            stack.enter_context(parsing(*asking))
            return torch.func.functional_call(module, values, kwargs=dict(inputs))


def _of_head(
    module: nn.Module, names: Mapping[str, str], head: frozenset[str]
) -> Iterator[nn.Module]:
    """The modules all of whose parameters belong to the head."""
    for place, own in module.named_modules():
        parameters = [f"{place}.{name}" for name, _ in own.named_parameters()]
        if place and parameters and all(names.get(name) in head for name in parameters):
            yield own


def _pooled(read: Tensor, mask: Tensor | None) -> Tensor:
    """One row an example: of several tokens or places their mean, without padding."""
    if read.ndim == 2:
        return read
    if read.ndim > 3:  # channels first
        return read.flatten(2).mean(2)
    tokens = read.reshape(len(read), -1, read.shape[-1])
    if mask is None or mask.shape != tokens.shape[:2]:
        return tokens.mean(1)
    there = mask.to(tokens)[:, :, None]
    return (tokens * there).sum(1) / there.sum(1).clamp_min(1)


def _emptied(module: nn.Module) -> None:
    """Free all parameters; what was tied stays tied, so that one tensor serves all its uses."""
    shells: dict[int, nn.Parameter] = {}
    for owner in module.modules():
        for name, parameter in owner._parameters.items():
            if parameter is not None:
                shell = nn.Parameter(parameter.to("meta"), False)
                owner._parameters[name] = shells.setdefault(id(parameter), shell)


def parameter_names(
    directory: Path | None, tensors: Tensors, *, buffers: bool = False
) -> dict[str, str]:
    """The checkpoint's name for each parameter name of the module, by loading numbered tensors.

    A parameter that transformers assembles from several tensors has no single name and is left
    out: its statistics could not be matched with a tensor of the file.  `buffers`: also of those
    that are saved (running means and the like).
    """
    shapes = {name: tuple(one.shape) for name, one in tensors.items()}
    return _read_off(_numbered(directory, shapes), list(shapes), buffers=buffers)


def with_names(
    directory: Path | None, shapes: Mapping[str, tuple[int, ...]], *, buffers: bool = False
) -> tuple[nn.Module, dict[str, str]]:
    """The module of a checkpoint with tensors of these names and shapes, and the checkpoint's name
    for each of its parameters (`parameter_names`); its numbers say nothing."""
    module = _numbered(directory, shapes)
    return module, _read_off(module, list(shapes), buffers=buffers)


def _numbered(
    directory: Path | None, shapes: Mapping[str, tuple[int, ...]], *, device: Device = "cpu"
) -> nn.Module:
    """The module of tensors of these shapes, all entries of each of which are its number."""
    tensors = {
        name: torch.full(shape, float(number))
        for number, (name, shape) in enumerate(shapes.items())
    }
    return build(directory, tensors, device=device)


def _read_off(module: nn.Module, names: Sequence[str], *, buffers: bool) -> dict[str, str]:
    """The name of the tensor that each parameter of a numbered module holds, where it is one."""
    saved = module.state_dict()
    values = dict(module.named_parameters())
    if buffers:
        values |= {name: value for name, value in module.named_buffers() if name in saved}
    found: dict[str, str] = {}
    for own, value in values.items():
        first = value.reshape(-1)[0]
        if bool((value == first).all()):
            found[own] = names[int(first)]
    return found
