"""One forward and backward pass of a model, and everything the methods need out of it.

Hooks note what each layer saw; the mathematics lives in `gram.py` and `fisher.py`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from .. import encoding, models
from ..checkpoints import Checkpoint
from ..checks import InputError, member
from ..encoding import IGNORED, Rows
from ..names import module_of
from ..tasks import Split, Task
from . import fisher, gram, ia3
from .capture import Capture, is_conv1d, is_rms_norm
from .store import FORMAT, Statistics

EXAMPLES = 256  # a task, where nobody says how many
Labels = Literal["empirical", "true"]
MASKS = ("attention_mask", "decoder_attention_mask")
GRAM_MOST = 16_384  # numbers of an output: a vocabulary gets no output-gradient Gram
Batch = tuple[Mapping[str, Tensor], Tensor | None]  # the model's keyword arguments, labels (n,)


class Accumulator:
    """Sums over examples and tokens, by the checkpoint's names."""

    def __init__(
        self,
        model: nn.Module,
        names: Mapping[str, str],
        blocks: int,
        vectors: Mapping[str, ia3.Rescaled] | None = None,
    ) -> None:
        self.model, self.modules = model, dict(model.named_modules())
        self.names, self.blocks, self.vectors = names, blocks, vectors or {}
        self.sums: dict[str, Tensor] = {}
        self.tokens: dict[str, int] = defaultdict(int)
        self.examples = 0

    def add(self, capture: Capture, masks: Sequence[Tensor]) -> None:
        """Add what `capture` noted in one batch; `masks` (examples, tokens) leave padding out, each
        of the layers with as many tokens."""
        self.examples += capture.examples
        # Query, key and value share one input: one Gram for three.  The input itself is kept with
        # it, because the address of a freed one could come back with other contents.
        seen: dict[object, tuple[Tensor, Tensor]] = {}
        for name, owners in self._used(capture).items():
            uses = [use for owner in owners for use in capture.uses[owner]]
            module = self.modules[name]
            if len({type(self.modules[owner]) for owner in owners}) > 1:
                self._tied(name, owners, capture, masks)
            elif isinstance(module, nn.Linear) or is_conv1d(module):
                self._linear(name, uses, capture.examples, masks, seen)
            elif isinstance(module, nn.LayerNorm):
                x, g = _joined(uses, capture.examples, masks)
                weight = fisher.layer_norm_weight(x, g, module.eps)
                self._per_example(f"{name}.weight", weight)
                self._per_example(f"{name}.bias", fisher.bias(g))
            elif is_rms_norm(module):
                x, g = _joined(uses, capture.examples, masks)
                self._per_example(f"{name}.weight", fisher.rms_norm_weight(x, g, module))
            elif isinstance(module, nn.Embedding):
                self._embedding(name, module, uses, capture.examples)
            elif isinstance(module, nn.Conv2d) and fisher.unfolds(module):
                self._convolution(name, module, uses)
        for name, leaf in capture.expanded.items():
            if leaf.grad is not None:
                self._per_example(name, leaf.grad)

    def _used(self, capture: Capture) -> dict[str, list[str]]:
        """The modules that were used, those with one weight together under the first one's name."""
        first = {id(p): module_of(name) for name, p in self.model.named_parameters()}
        groups: dict[str, list[str]] = {}
        for name in capture.uses:
            weight = getattr(self.modules[name], "weight", None)
            groups.setdefault(first.get(id(weight), name), []).append(name)
        return groups

    def _linear(
        self,
        name: str,
        uses: list[tuple[Tensor, Tensor]],
        examples: int,
        masks: Sequence[Tensor],
        seen: dict[object, tuple[Tensor, Tensor]],
    ) -> None:
        layer = module_of(self.names.get(f"{name}.weight", ""))
        x, g = _joined(uses, examples, masks)
        if layer:
            source = uses[0][0] if len(uses) == 1 else x  # before padding was set to zero
            # The whole layout is the key: a view such as hidden[:, 0] starts at the same address.
            key = (source.data_ptr(), tuple(source.shape), source.stride())
            if key not in seen:
                seen[key] = source, gram.gram_sum(x)
            self._sum(f"{layer}.input_gram", seen[key][1])
            self._sum(f"{layer}.input_mean", x.sum((0, 1)))
            if g.shape[-1] <= GRAM_MOST:
                self._sum(f"{layer}.output_gradient_gram", gram.gram_sum(g))
            self.tokens[layer] += sum(
                gram.token_count(gram.tokens_of(used, examples), _mask(used, examples, masks))
                for used, _ in uses
            )
            square = fisher.linear_weight_square_sum(x, g)
            # The Fisher has the parameter's own layout, which Conv1D stores as (d_in, d_out).
            own = square.T if is_conv1d(self.modules[name]) else square
            self._sum(f"{layer}.weight.fisher", own)
            vector = self.vectors.get(f"{layer}.weight")
            if vector is not None:
                self._squares(vector.vector, ia3.vector_gradients(x, g, vector), block=True)
        self._per_example(f"{name}.bias", fisher.bias(g))

    def _tied(
        self, name: str, owners: list[str], capture: Capture, masks: Sequence[Tensor]
    ) -> None:
        """An embedding that is also the output's weight: only its Fisher, of both uses at once."""
        examples = capture.examples
        ids, into, x, out = [], [], [], []
        for owner in owners:
            module = self.modules[owner]
            if isinstance(module, nn.Embedding):
                for used, g in capture.uses[owner]:
                    ids.append(used.reshape(examples, -1))
                    into.append(gram.tokens_of(g, examples))
            elif isinstance(module, nn.Linear):
                seen, g = _joined(capture.uses[owner], examples, masks)
                x.append(seen)
                out.append(g)
                self._per_example(f"{owner}.bias", fisher.bias(g))
        parameter = self.names.get(f"{name}.weight")
        if parameter is not None:
            parts = (torch.cat(part, 1) for part in (ids, into, x, out))
            self._sum(f"{parameter}.fisher", fisher.tied_square_sum(*parts))

    def _embedding(
        self, name: str, module: nn.Embedding, uses: list[tuple[Tensor, Tensor]], examples: int
    ) -> None:
        parameter = self.names.get(f"{name}.weight")
        if parameter is None:
            return
        ids = torch.cat([used.reshape(examples, -1) for used, _ in uses], 1)
        g = torch.cat([gram.tokens_of(gradient, examples) for _, gradient in uses], 1)
        self._sum(f"{parameter}.fisher", fisher.embedding_square_sum(ids, g, module.num_embeddings))

    def _convolution(self, name: str, module: nn.Conv2d, uses: list[tuple[Tensor, Tensor]]) -> None:
        x = torch.cat([fisher.convolution_patches(used, module) for used, _ in uses], 1)
        g = torch.cat([gradient.flatten(2).transpose(1, 2) for _, gradient in uses], 1)
        parameter = self.names.get(f"{name}.weight")
        if parameter is not None:
            square = fisher.linear_weight_square_sum(x, g)
            self._sum(f"{parameter}.fisher", square.reshape(module.weight.shape))
        self._per_example(f"{name}.bias", fisher.bias(g))

    def _per_example(self, name: str, gradients: Tensor) -> None:
        parameter = self.names.get(name)
        if parameter is None:
            return
        self._squares(parameter, gradients, block=gradients[0].numel() <= self.blocks)

    def _squares(self, parameter: str, gradients: Tensor, *, block: bool) -> None:
        square = (gradients**2).sum(0)
        # An expanded parameter keeps its leading 1.
        self._sum(f"{parameter}.fisher", square[None] if gradients.ndim > 2 else square)
        if block:
            rows = gradients.flatten(1)
            self._sum(f"{parameter}.block", rows.T @ rows)

    def _sum(self, name: str, value: Tensor) -> None:
        if name in self.sums:
            self.sums[name] += value
        else:
            self.sums[name] = value.clone()

    def means(self) -> dict[str, Tensor]:
        """The sums divided by N tokens (Grams, means) or by the examples (Fishers, blocks).

        In place, for the sums can be as large as the model: they are the means afterwards.
        """
        return {
            name: value.div_(
                self.examples
                if name.endswith((".fisher", ".block"))
                else self.tokens[module_of(name)]
            )
            for name, value in self.sums.items()
        }


def _joined(
    uses: list[tuple[Tensor, Tensor]], examples: int, masks: Sequence[Tensor]
) -> tuple[Tensor, Tensor]:
    """Inputs and output gradients of all uses of one layer, side by side along the tokens."""
    x = [gram.tokens_of(used, examples, _mask(used, examples, masks)) for used, _ in uses]
    g = [gram.tokens_of(given, examples, _mask(given, examples, masks)) for _, given in uses]
    return (x[0], g[0]) if len(uses) == 1 else (torch.cat(x, 1), torch.cat(g, 1))


def _mask(values: Tensor, examples: int, masks: Sequence[Tensor]) -> Tensor | None:
    """The mask with as many tokens as the values (examples, ..., d) have, if there is one."""
    tokens = values.numel() // (examples * values.shape[-1])
    return next((mask for mask in masks if mask.shape[1] == tokens), None)


def _masks(inputs: Mapping[str, Tensor]) -> list[Tensor]:
    """What an encoder and its decoder read; told apart by their widths."""
    found = [inputs[name] for name in MASKS if name in inputs]
    if len({mask.shape[1] for mask in found}) < len(found):
        raise InputError(
            " and ".join(MASKS),
            expected="different widths, by which layers are told apart",
            found=f"{found[0].shape[1]} both times",
            remedy="Pad the decoder's tokens by one more place.",
        )
    return found


def measure(
    model: nn.Module,
    batches: Iterable[Batch],
    *,
    names: Mapping[str, str] | None = None,
    labels: Labels = "empirical",
    seed: int = 0,
    blocks: int = 0,
    vectors: Mapping[str, ia3.Rescaled] | None = None,
    metadata: Mapping[str, str] | None = None,
    on_batch: Callable[[int], None] | None = None,
) -> Statistics:
    """Statistics of a model from one forward and backward pass a batch.

    `batches`: keyword arguments of the model (an `attention_mask` (n, tokens) leaves padding out)
    and labels: classes (n,), or the token that each place's logits should name (n, tokens), where
    `IGNORED` asks nothing.  `names`: the checkpoint's name of each parameter, by the module's; the
    same names by default.  `blocks`: parameters of at most so many elements get their full block.
    `vectors`: layers with an (IA)³ vector multiplied in, whose own full block is measured always.
    Raises `InputError` for an empty calibration set or a loss that is not finite.
    """
    member("labels", labels, ("empirical", "true"))
    own = {name: name for name, _ in model.named_parameters()} if names is None else names
    accumulator = Accumulator(model, own, blocks, vectors)
    sampler = np.random.default_rng(seed)
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        for inputs, truth in batches:
            examples, masks = len(next(iter(inputs.values()))), _masks(inputs)
            with Capture(model, examples) as capture, torch.enable_grad():
                output = model(**inputs)
                logits = output.logits if hasattr(output, "logits") else output
                if truth is not None and truth.ndim == 2:  # tokens: those that are asked for
                    there = truth != IGNORED
                    logits, truth = logits[there], truth[there]
                scores = torch.log_softmax(logits, -1)
                chosen = _labels(scores, truth, labels, sampler)
                likelihood = scores.gather(1, chosen[:, None]).sum()
                if not torch.isfinite(likelihood):
                    raise InputError("log-likelihood", expected="a finite number", found="none")
                likelihood.backward()
            accumulator.add(capture, masks)
            if on_batch is not None:
                on_batch(accumulator.examples)
    finally:
        for module, training in modes.items():
            module.training = training
    if not accumulator.examples:
        raise InputError("calibration set", expected="at least one example", found="none")
    description = {
        "format": FORMAT,
        "examples": str(accumulator.examples),
        "tokens": str(max(accumulator.tokens.values(), default=accumulator.examples)),
        "seed": str(seed),
        "labels": labels,
        **(metadata or {}),
    }
    return Statistics.of(accumulator.means(), description)


def _labels(
    scores: Tensor, truth: Tensor | None, labels: Labels, sampler: np.random.Generator
) -> Tensor:
    if labels == "empirical":
        if truth is None:
            raise InputError("labels", expected="true labels", found="none", remedy="Use 'true'.")
        return truth.to(scores.device)
    return _sampled(scores, sampler)


def _sampled(scores: Tensor, sampler: np.random.Generator) -> Tensor:
    """A class drawn from each row of log-probabilities (n, classes)."""
    # One uniform number a row, in order: the draw does not depend on the batch size.
    uniform = torch.from_numpy(sampler.random(len(scores))).to(scores.device)
    cumulative = scores.detach().double().exp().cumsum(-1)
    chosen = torch.searchsorted(cumulative, uniform[:, None] * cumulative[:, -1:]).squeeze(1)
    return chosen.clamp_max(scores.shape[-1] - 1)


def measure_task(
    checkpoint: Checkpoint,
    task: Task,
    *,
    examples: int = EXAMPLES,
    batch_size: int = 64,
    labels: Labels = "empirical",
    seed: int = 0,
    blocks: int = 0,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    tensors: Mapping[str, Tensor] | None = None,
    only: Container[str] | None = None,
    on_batch: Callable[[int], None] | None = None,
) -> Statistics:
    """Statistics of a checkpoint directory on seeded draws from its task's train split.

    `tensors` are measured in place of the checkpoint's own: a merge with this checkpoint's head.
    `only`: parameters, by the checkpoint's names; all by default (`passes.py` has the reason).
    """
    encoding.check(checkpoint, task)
    if tensors is None:
        tensors = models.tensors_of(checkpoint, dtype)
    model = models.build(checkpoint.directory, tensors, device=device, dtype=dtype)
    order = np.random.default_rng(seed).permutation(len(task.train))[:examples]
    chosen = task.train.take(order)
    rows = encoding.encode(chosen, checkpoint.directory, device=device, dtype=dtype)
    # Texts of like length side by side; of images nothing moves.
    places = np.argsort(-rows.lengths, kind="stable")
    given, drawn = chosen.labels, labels
    if task.form.kind == "choices" and labels == "true":
        # An answer drawn from all of them; its tokens are then as good as true ones.
        given, drawn = given.copy(), "empirical"
        given[places] = _drawn_answers(model, rows, chosen, places, seed)

    def batches() -> Iterable[Batch]:
        for start in range(0, len(places), batch_size):
            some = places[start : start + batch_size]
            batch = rows.batch(some, given[some] if task.form.kind == "choices" else None)
            classes = torch.from_numpy(chosen.labels[some])
            yield batch.inputs, classes if batch.targets is None else batch.targets

    return measure(
        model,
        batches(),
        names={
            own: name
            for own, name in models.parameter_names(checkpoint.directory, tensors).items()
            if only is None or name in only
        },
        labels=drawn,
        seed=seed,
        blocks=blocks,
        vectors=ia3.rescaled_layers(checkpoint, dtype=dtype, device=device),
        metadata={"fingerprint": checkpoint.fingerprint, "task": task.name, "labels": labels},
        on_batch=on_batch,
    )


def _drawn_answers(
    model: nn.Module, rows: Rows, split: Split, places: np.ndarray, seed: int
) -> np.ndarray:
    """For each example one answer, drawn by the model's own probabilities of all of them."""
    with torch.inference_mode():
        scores = encoding.ask(lambda inputs: model(**inputs).logits, rows, split, places)
    drawn = _sampled(scores.log_softmax(-1), np.random.default_rng(seed))
    return drawn.cpu().numpy()
