"""From the names in an adapter's file to the modules of its base.

peft writes `base_model.model.<module>.lora_A.weight`, with or without the adapter's own name
(`.default`) before the last part.  `<module>` is the name in the model that was trained, which may
have a prefix that the base's file lacks (`bert.`), lack one that it has, or follow transformers'
own renaming of an architecture.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass

from ..errors import InputError, listing
from ..names import moved, prefixes

PREFIX = "base_model.model."
PART = re.compile(
    r"(?P<module>.+?)\.(?P<part>lora_A|lora_B|lora_embedding_A|lora_embedding_B|ia3_l)"
    r"(\.(?P<adapter>(?!weight$|bias$)[^.]+))?(\.(?P<last>weight|bias))?$"
)
FOREIGN = re.compile(r"\.(lora_magnitude_vector|lora_E|ranknum|lora_diag|hada_|lokr_|oft_|vera_)")
SAVED = re.compile(r"\.modules_to_save\.(?:[^.]+\.(?=[^.]+$))?")


@dataclass(frozen=True)
class Parts:
    """The tensors of an adapter's file, sorted by what they are.

    modules   module → part (`lora_A`, `ia3_l`, `lora_B.bias`, ...) → the key in the file
    whole     a parameter's name in the trained model → the key of its replacement
    """

    modules: Mapping[str, Mapping[str, str]]
    whole: Mapping[str, str]


def sort_out(names: Iterable[str], thing: str) -> Parts:
    """Sort the names in an adapter's file.  Raises `InputError` for parts of another method."""
    modules: dict[str, dict[str, str]] = defaultdict(dict)
    whole: dict[str, str] = {}
    adapters: set[str] = set()
    for key in names:
        name = key.removeprefix(PREFIX)
        found = PART.match(name)
        if FOREIGN.search(name):
            raise InputError(
                thing,
                expected="the tensors of LoRA or (IA)³",
                found=f"'{key}'",
                remedy="The file belongs to another method than its adapter_config.json says.",
            )
        if found is None:
            whole[SAVED.sub(".", name).replace(".base_layer.", ".")] = key
            continue
        adapters.add(found["adapter"] or "default")
        part = found["part"] + (".bias" if found["last"] == "bias" else "")
        modules[found["module"]][part] = key
    if len(adapters) > 1:
        raise InputError(
            thing,
            expected="one adapter",
            found=f"{len(adapters)}: {listing(sorted(adapters))}",
            remedy="Save each with save_pretrained(selected_adapters=[...]).",
        )
    return Parts(modules, whole)


# Which module of the base is meant ----------------------------------------------------------------


@dataclass(frozen=True)
class Translation:
    """How the trained model's names become the base's: a prefix less, or one more, then `names`."""

    strip: str = ""
    add: str = ""
    names: Mapping[str, str] | None = None

    def parameter(self, name: str, parameters: Container[str]) -> str:
        """The base's name of a parameter; a name that the base lacks (a head) stays."""
        ours = moved(name, self.strip, self.add)
        found = ours if self.names is None else self.names.get(ours, ours)
        if found in parameters:
            return found
        return name if name in parameters else name.removeprefix(self.strip)


def translate(
    modules: Sequence[str],
    parameters: Iterable[str],
    renamed: Callable[[], Mapping[str, str]],
    thing: str,
) -> Translation:
    """The one translation under which every adapted module's weight is a parameter of the base.

    `renamed` gives transformers' names of the base's parameters, as a mapping to the file's; it is
    called only where the names in the file do not match.
    Raises `InputError` that lists the modules without a counterpart, or two prefixes that both fit.
    """
    if not modules:  # nothing but whole modules was saved
        return Translation()
    parameters = frozenset(parameters)
    found = _prefix(modules, parameters, thing)
    if found is not None:
        return Translation(*found)
    names = renamed()
    found = _prefix(modules, frozenset(names), thing)
    if found is not None:
        return Translation(*found, names)
    lost = [module for module in modules if f"{module}.weight" not in parameters]
    raise InputError(
        thing,
        expected="modules of the base, by its names or with one prefix more or less",
        found=f"no match for {listing(lost, 4)}",
        remedy="Is this the base that it was trained on? A tied output layer (lm_head) is "
        "not stored separately and cannot be adapted apart from the embedding.",
    )


def _prefix(
    modules: Sequence[str], parameters: frozenset[str], thing: str
) -> tuple[str, str] | None:
    """(stripped, added), or None where no prefix brings every module to the base."""
    weights = [f"{module}.weight" for module in modules]
    if all(weight in parameters for weight in weights):
        return "", ""
    fit = [
        (strip, add)
        for strip, add in sorted(prefixes(weights[:1], parameters), key=lambda pair: pair[::-1])
        if all(w.startswith(strip) and moved(w, strip, add) in parameters for w in weights)
    ]
    if len(fit) > 1:
        raise InputError(
            thing,
            expected="modules that match the base by one prefix",
            found=f"two: {listing(f'{s or a}' for s, a in fit)}",
            remedy="Give the base as the class of model that the adapter was trained on.",
        )
    return fit[0] if fit else None
