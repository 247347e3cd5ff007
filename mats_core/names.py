"""What a tensor's name says about it: pure text, no file is opened.

Names are those of transformers' checkpoints.  Three conventions are told apart here:

fused projections   `attn.in_proj_weight` (nn.MultiheadAttention), `c_attn`, `qkv`: query, key and
                    value stacked in one matrix.  It is merged as the one matrix that it is: the
                    three share one input, so one Gram serves all of them exactly, and B keeps the
                    cross-covariances of their output gradients, which three blocks would drop.
Conv1D              GPT-2 and its relatives store a linear layer as `y = x W + b`, W (d_in, d_out):
                    the transpose of nn.Linear, in which all mathematics here is written.
tables              a row for each token or position: an embedding is looked up, not multiplied.

A routed merge has parts beside a layer's weight, one name each: `encoder.fc1.weight@left`.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence

FUSED = {"in_proj_weight": "in_proj_bias"}
TABLES = frozenset({"wte", "wpe", "shared", "relative_attention_bias"})
CONV1D_MODELS = frozenset({"gpt2", "openai-gpt", "imagegpt", "decision_transformer"})
CONV1D_MODULES = frozenset({"c_attn", "q_attn", "c_proj", "c_fc"})
# Computed by the model's own code; whether a file holds them depends on who saved it.
BUFFER = re.compile(
    r"(^|\.)(position_ids|token_type_ids|num_batches_tracked|relative_position_index"
    r"|(original_)?inv_freq|(\w+_)?mask)$"
)
MASK = re.compile(r"(^|\.)(attn|attention)\.(bias|masked_bias)$")
BESIDE = "@"  # between a weight and the part of a routed merge that lies beside it
RUNNING = ("running_mean", "running_var")
# Signs of a tensor that stands before all blocks; any other one outside of them stands behind.
EMBEDDING = ("embed", "patch", "conv1", "cls_token", "class_token", "ln_pre", "pre_layrnorm")


def group_of(name: str) -> str:
    """`block.3.fc1.weight` → `block.*.fc1.weight`: the key of a group of like layers."""
    return ".".join("*" if part.isdigit() else part for part in name.split("."))


def module_of(name: str) -> str:
    """`encoder.fc1.weight` → `encoder.fc1`."""
    return name.rpartition(".")[0]


def block_of(name: str) -> tuple[str, int] | None:
    """The block that a tensor belongs to, as (stack, number): what shares the name up to its first
    number, `encoder.layer.2.fc1.weight` → (`encoder.layer`, 2); None for one outside of blocks."""
    pieces = name.split(".")
    place = next((i for i, piece in enumerate(pieces) if piece.isdigit()), None)
    return None if place is None else (".".join(pieces[:place]), int(pieces[place]))


def before_blocks(name: str) -> bool:
    """Whether a tensor outside of the blocks stands before them: what makes the embeddings."""
    return any(sign in name.lower() for sign in EMBEDDING)


def depths(names: Iterable[str]) -> dict[str, float]:
    """The relative depth of every tensor: 0 in the first block, 1 in the last.

    Blocks count within their stack; a decoder's follow its encoder's, and stacks whose names
    differ in their last number alone follow each other (`layer1.0`, `layer2.0`).  Of tensors
    outside of blocks, and in a stack of one beside longer ones, embeddings have 0 and others 1.
    """
    names = tuple(names)
    blocks = {name: block for name in names if (block := block_of(name)) is not None}
    placed = {name: _placed(*block) for name, block in blocks.items()}
    lines: dict[str, set[tuple[bool, int, int]]] = {}
    for line, place in placed.values():
        lines.setdefault(line, set()).add(place)
    most = max(map(len, lines.values()), default=0)
    order = {line: sorted(places) for line, places in lines.items() if len(places) > 1 or most == 1}
    found: dict[str, float] = {}
    for name in names:
        line, place = placed.get(name, ("", None))
        if place is not None and line in order:
            found[name] = order[line].index(place) / max(1, len(order[line]) - 1)
        else:
            found[name] = 0.0 if before_blocks(name) else 1.0
    return found


def block_depths(names: Iterable[str]) -> list[float]:
    """The different depths of the blocks, in order: one a block of the longest stack, and those of
    shorter ones; empty without blocks."""
    names = tuple(names)
    found = depths(names)
    return sorted({found[name] for name in names if block_of(name) is not None})


def _placed(stack: str, number: int) -> tuple[str, tuple[bool, int, int]]:
    """The line that a block stands in, and what it is sorted by there."""
    plain = stack.rstrip("0123456789")
    return plain.replace("decoder", "encoder"), (
        "decoder" in stack,
        int(stack[len(plain) :] or 0),
        number,
    )


def common_prefix(names: Iterable[str]) -> str:
    """What all names begin with, up to a dot: `vit.` of a model's tensors; of names of which only
    those in blocks share their first part, that one (`model.` beside `lm_head.weight`)."""
    names = tuple(names)
    for some in (names, [name for name in names if block_of(name) is not None]):
        firsts = {name.partition(".")[0] for name in some}
        if len(firsts) == 1 and all("." in name for name in some):
            first = f"{firsts.pop()}."
            return "" if first[:-1].isdigit() else first
    return ""


def part_name(weight: str, part: str) -> str:
    """The name of a part that lies beside a weight: `fc1.weight`, `left` → `fc1.weight@left`; that
    of the weight itself where the part is empty."""
    return f"{weight}{BESIDE}{part}" if part else weight


def weight_and_part(name: str) -> tuple[str, str]:
    """`fc1.weight@left` → (`fc1.weight`, `left`); the part of a plain tensor is empty."""
    weight, _, part = name.partition(BESIDE)
    return weight, part


def moved(name: str, strip: str, add: str) -> str:
    """A name after a prefix was stripped, where it has it, and another one put before."""
    return add + name.removeprefix(strip)


def prefixes(names: Iterable[str], others: Iterable[str]) -> set[tuple[str, str]]:
    """(stripped, added) of all moves by one prefix that make any of the names one of the others.

    One of the two is empty; a prefix ends with its dot.
    """
    names, others = frozenset(names), frozenset(others)
    return {(prefix, "") for prefix in _before(others, names)} | {
        ("", prefix) for prefix in _before(names, others)
    }


def _before(shorter: Collection[str], longer: Iterable[str]) -> set[str]:
    """What stands before one of the shorter names in a longer one, dot included."""
    return {
        name[:dot]
        for name in longer
        for dot in (found.end() for found in re.finditer(r"\.", name))
        if name[dot:] in shorter
    }


def is_weight(name: str) -> bool:
    """Whether a name is that of a layer's weight: `*.weight`, or a fused projection's."""
    return name.endswith(".weight") or name.rpartition(".")[2] in FUSED


def bias_of(name: str) -> str:
    """The name of a weight's bias: `a.weight` → `a.bias`, `a.in_proj_weight` → `a.in_proj_bias`."""
    module, dot, last = name.rpartition(".")
    return f"{module}{dot}{FUSED.get(last, 'bias')}"


def is_table(name: str) -> bool:
    """Whether a name is that of an embedding table."""
    return "embed" in name.lower() or module_of(name).rpartition(".")[2] in TABLES


def is_matrix(name: str, shape: Sequence[int]) -> bool:
    """Whether a tensor looks like the weight of a linear layer: 2-D, a weight, no embedding.

    Where statistics were measured they decide (`merging/reading.py`); this is the rule without.
    """
    return len(shape) == 2 and is_weight(name) and not is_table(name)


def is_conv1d(name: str, shape: Sequence[int], models: Iterable[str]) -> bool:
    """Whether a weight is stored as (d_in, d_out); `models` are the family's `model_type`s."""
    module = module_of(name).rpartition(".")[2]
    named = len(shape) == 2 and name.endswith(".weight") and module in CONV1D_MODULES
    return named and not CONV1D_MODELS.isdisjoint(models)


def running_statistics(names: Collection[str]) -> frozenset[str]:
    """The running means and variances among some names: each stands beside the other."""
    modules = {module_of(name) for name in names if name.endswith(RUNNING[1])}
    pairs = ([f"{module}.{kind}" for kind in RUNNING] for module in modules)
    return frozenset(name for pair in pairs if all(one in names for one in pair) for name in pair)


def is_buffer(name: str, shape: Sequence[int]) -> bool:
    """Whether a tensor is no parameter: position ids, masks, rotary frequencies, counters."""
    return bool(BUFFER.search(name)) or (len(shape) in (0, 4) and bool(MASK.search(name)))
