"""From rows to what a model is called with: processors and tokenizers are known here alone.

`encode` turns a split into `Rows`, which hand out batches of tensors; `answers` reads what the
model says about a batch as one row of numbers an example:

    image, text   the logits of the classes
    choices       log p(answer | prompt) of every answer: a sum over its tokens, or that divided by
                  their number or by the length of its text; -∞ of an empty one, which a row with
                  fewer answers than others has
    language      the loss of the text that should follow (nats, a sum over its tokens), its tokens

Causal models read prompt and answer as one text; of the tokens of all answers, those after the
longest beginning that they share with the prompt are counted.  Encoder-decoder models read the
prompt and are asked for the answer, its end token included (as MaTS asks T5).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..system import Device
from ..tasks import Length, Split
from .images import pixel_values
from .sizes import Shapes
from .tokens import IGNORED, Tokenised, padding, tokenised

Call = Callable[[Mapping[str, Tensor]], Tensor]  # keyword arguments → logits
BATCH = 128  # of small images: the activations stay near the caches
TOKENS = 8192  # of one batch of texts, padding included


@dataclass(frozen=True)
class Batch:
    """A batch of examples as a model takes them.

    rows     (n,), their indices among those that were asked for
    inputs   keyword arguments of the model; of choices k sequences an example, side by side
    targets  (sequences, tokens), the token that the logits at each position should name, `IGNORED`
             where nothing is asked; None for classes
    lengths  (sequences,), what an answer's log-likelihood is divided by; None where that is nothing
             or the number of its tokens
    """

    rows: np.ndarray
    inputs: Mapping[str, Tensor]
    targets: Tensor | None = None
    lengths: Tensor | None = None


def encode(
    split: Split,
    directory: Path | None,
    *,
    device: Device = "cpu",
    dtype: torch.dtype = torch.float32,
    kept: int = 0,
    shapes: Shapes | None = None,
) -> Rows:
    """The examples of a split, encoded for the model in `directory`.

    `kept`: images are prepared once if they take at most so many bytes.  `shapes` of the model's
    tensors: texts are held against its embeddings, whatever its configuration says.  Raises
    `InputError` for a task that this kind of model cannot be asked, or a directory without
    tokenizer files.
    """
    if split.form.kind == "image":
        prepare = functools.partial(pixel_values, directory=directory, device=device, dtype=dtype)
        return Pixels(split, prepare, kept)
    return Texts(tokenised(split, directory, shapes), device, _lengths(split))


def _lengths(split: Split) -> Tensor | None:
    """(n · k,): the length of every answer in the unit that a task of choices names, if it does."""
    unit = split.form.length_normalised
    if not isinstance(unit, Length):
        return None
    return torch.tensor([unit.of(str(one)) for row in split.inputs for one in row[1:]])


def answers(logits: Tensor, batch: Batch, split: Split) -> Tensor:
    """A model's logits as (examples, numbers): see the module's text."""
    if batch.targets is None:
        return logits
    likelihoods, tokens = token_likelihoods(logits, batch.targets)
    if split.form.kind == "language":
        return torch.stack([-likelihoods, tokens.to(likelihoods.dtype)], 1)
    if batch.lengths is not None:
        likelihoods = likelihoods / batch.lengths
    elif split.form.length_normalised:
        likelihoods = likelihoods / tokens.clamp(min=1)
    likelihoods = likelihoods.masked_fill(tokens == 0, -math.inf)  # an answer that is not offered
    return likelihoods.reshape(len(batch.rows), -1)


def ask(call: Call, rows: Rows, split: Split, places: np.ndarray) -> Tensor:
    """The model's `answers` to the examples at `places` of a split, in this order."""
    parts, order = [], []
    for batch in rows.batches(places):
        parts.append(answers(call(batch.inputs), batch, split))
        order.append(batch.rows)
    back = torch.from_numpy(np.argsort(np.concatenate(order)))
    found = torch.cat(parts)
    return found[back.to(found.device)]


def token_likelihoods(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Σ log p(target) over the tokens of each sequence (sequences,), and how many these are."""
    there = targets != IGNORED
    # The whole (sequences, tokens, vocabulary) need not be normalised, only what is asked.
    scores = torch.log_softmax(logits[there].float(), -1)
    each = scores.gather(1, targets[there][:, None])[:, 0]
    which = there.nonzero()[:, 0]
    sums = torch.zeros(len(targets), dtype=each.dtype, device=each.device)
    return sums.index_add(0, which, each), there.sum(1)


# Images -------------------------------------------------------------------------------------------


class Pixels:
    """Images as `pixel_values`, which `prepare` makes of them.

    split     the examples
    lengths   (n,), all alike
    nbytes    that are held for the next batch
    """

    def __init__(self, split: Split, prepare: Callable[[np.ndarray], Tensor], kept: int) -> None:
        self.split, self._prepare = split, prepare
        self.lengths = np.ones(len(split), dtype=np.int64)
        self._whole: Tensor | None = None
        if kept and len(self) and prepare(split.inputs[:1]).nbytes * len(self) <= kept:
            self._whole = prepare(split.inputs)
        self.nbytes = 0 if self._whole is None else self._whole.nbytes

    def __len__(self) -> int:
        return len(self.split)

    def batch(self, places: np.ndarray, answers: np.ndarray | None = None) -> Batch:
        """The examples at `places`, in this order."""
        return self._batch(np.arange(len(places)), places)

    def batches(self, places: np.ndarray) -> Iterator[Batch]:
        """The examples at `places` in batches of a suitable size, in their order."""
        for start in range(0, len(places), BATCH):
            some = places[start : start + BATCH]
            yield self._batch(np.arange(start, start + len(some)), some)

    def _batch(self, rows: np.ndarray, places: np.ndarray) -> Batch:
        if self._whole is None:
            values = self._prepare(self.split.inputs[places])
        else:
            values = self._whole[torch.from_numpy(places).to(self._whole.device)]
        return Batch(rows, {"pixel_values": values})


# Texts --------------------------------------------------------------------------------------------


class Texts:
    """Tokenised texts, padded to the longest of each batch.

    tokens    of all examples
    lengths   (n,), tokens of each example
    answers   (n · k,), lengths of the answers' texts, where their likelihoods are divided by them
    nbytes    none: tokens are remembered for themselves
    """

    nbytes = 0

    def __init__(self, tokens: Tokenised, device: Device, answers: Tensor | None = None) -> None:
        self.tokens, self.device = tokens, device
        self.answers = answers
        self.lengths = tokens.lengths

    def __len__(self) -> int:
        return len(self.lengths)

    def batch(self, places: np.ndarray, answers: np.ndarray | None = None) -> Batch:
        """The examples at `places`, in this order; of choices only the given `answers` (n,)."""
        return self._batch(np.arange(len(places)), places, answers)

    def batches(self, places: np.ndarray) -> Iterator[Batch]:
        """The examples at `places` in batches of a suitable size, in any order."""
        # Texts of like length side by side: less padding is less work.
        order = np.argsort(-self.lengths[places], kind="stable")
        start, each = 0, self.tokens.each
        while start < len(order):
            longest = int(self.lengths[places[order[start]]])
            count = max(1, min(BATCH, TOKENS // max(1, each * longest)))
            rows = order[start : start + count]
            yield self._batch(rows, places[rows])
            start += count

    def _batch(
        self, rows: np.ndarray, places: np.ndarray, answers: np.ndarray | None = None
    ) -> Batch:
        each = self.tokens.each
        which = np.arange(each)[None] if answers is None else answers[:, None]
        texts = (places[:, None] * each + which).reshape(-1)
        chosen = [self.tokens.texts[i] for i in texts]
        padded = {
            name: torch.from_numpy(values).to(self.device)
            for name, values in padding(chosen, self.tokens.pad).items()
        }
        targets = padded.pop("targets", None)
        if self.answers is None:
            return Batch(rows, padded, targets)
        return Batch(rows, padded, targets, self.answers[texts].to(self.device))


Rows = Pixels | Texts  # the encoded examples of a split, by index
