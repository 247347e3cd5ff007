"""The vision family: a small ViT, pre-trained on four image tasks, fine-tuned on eight others."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from . import training
from .data import Data, Examples, read_images
from .muon import Muon

Batch = tuple[dict[str, Tensor], Tensor]


@dataclass(frozen=True)
class Vision:
    """The recipe; README.md tells how it was found."""

    name: str = "vision"
    title: str = "A small ViT on eight image tasks"
    # Broad: natural photographs, street scenes, printed and handwritten strokes, 85 classes.
    pretraining: tuple[str, ...] = ("gtsrb", "chars74k_fonts", "cifar10_gray", "omniglot_scripts")
    tasks: tuple[str, ...] = (
        "mnist", "fashion_mnist", "usps", "oracle_mnist",
        "sign_digits", "trashnet", "quickdraw3", "dtd10_patches",
    )  # fmt: skip
    heads: tuple[str, ...] = ("classifier.*",)
    image: int = 32
    patch: int = 8
    width: int = 192
    layers: int = 4
    attention_heads: int = 6
    hidden: int = 576
    base_steps: int = 5000
    base_batch: int = 64
    base_rate: float = 2e-3
    base_matrix_rate: float = 0.02
    steps: int = 400
    batch: int = 64
    encoder_rate: float = 4e-4
    head_rate: float = 3e-3
    shift: int = 2  # pixels, at most, in each direction
    seed: int = 0

    def read(self, data: Path, task: str) -> Data:
        return read_images(data / "images", task)

    def write_tasks(self, data: Path, out: Path) -> dict[str, str]:
        """Copy the tasks' files; task → reference from the family's folder."""
        folder = out / "tasks"
        folder.mkdir(parents=True, exist_ok=True)
        for task in self.tasks:
            shutil.copyfile(data / "images" / f"{task}.npz", folder / f"{task}.npz")
        return {task: f"tasks/{task}.npz" for task in self.tasks}

    def write_base(self, data: Path, folder: Path) -> None:
        """Pre-train with a head a task; the heads lie side by side in one classifier."""
        training.prepare(self.seed)
        rows, labels, task_of, classes = [], [], [], list[str]()
        for number, task in enumerate(self.pretraining):
            part = self.read(data, task)
            rows.append(part.training.rows)
            labels.append(part.training.labels + len(classes))
            classes += [f"{task}: {name}" for name in part.classes]
            task_of += [number] * len(part.classes)
        model = self._model(classes)
        _initialise(model)
        numbers = torch.tensor(task_of)
        training.train(
            model,
            self._drawn(
                Examples(np.concatenate(rows), np.concatenate(labels)),
                self.base_batch,
                self.seed,
            ),
            self._optimisers(model),
            steps=self.base_steps,
            smoothing=0.05,
            alike=numbers[:, None] == numbers,
            progress=lambda step, loss: print(
                f"base: step {step} of {self.base_steps}, loss {loss:.2f}", flush=True
            ),
        )
        self.save(model, folder, folder)

    def fine_tune(self, base: Path, classes: Sequence[str], examples: Examples) -> Any:
        """An expert for `examples`: small steps for the encoder, large ones for the new head."""
        training.prepare(self.seed + 1)
        model = self._model(classes)
        model.vit.load_state_dict(self.load(base).vit.state_dict())
        training.train(
            model,
            self._drawn(examples, self.batch, self.seed + 1),
            [
                torch.optim.AdamW(
                    [
                        {"params": list(model.vit.parameters()), "lr": self.encoder_rate},
                        {"params": list(model.classifier.parameters()), "lr": self.head_rate},
                    ]
                )
            ],
            steps=self.steps,
        )
        return model

    def save(self, model: Any, base: Path, folder: Path) -> None:
        model.save_pretrained(folder)
        processor = {
            "image_processor_type": "ViTImageProcessor",
            "do_resize": True,
            "size": {"height": self.image, "width": self.image},
            "do_rescale": True,
            "rescale_factor": 1 / 255,
            "do_normalize": True,
            "image_mean": [0.5],
            "image_std": [0.5],
        }
        text = json.dumps(processor, indent=2) + "\n"
        (folder / "preprocessor_config.json").write_text(text, "utf-8")

    def load(self, folder: Path) -> Any:
        from transformers import ViTForImageClassification

        return ViTForImageClassification.from_pretrained(folder, dtype=torch.float32).eval()

    def batches(self, base: Path, examples: Examples) -> Iterator[Batch]:
        """All examples once, in order, as they are."""
        for start in range(0, len(examples), 250):
            yield (
                {"pixel_values": _pixels(examples.rows[start : start + 250])},
                torch.from_numpy(examples.labels[start : start + 250]),
            )

    def _optimisers(self, model: Any) -> list[torch.optim.Optimizer]:
        """Muon for the encoder's matrices, AdamW for everything else.

        From random weights, AdamW alone is at chance after 200 steps, Muon is not.
        """
        matrices = [p for p in model.vit.parameters() if p.ndim == 2]
        inner = {id(p) for p in matrices}
        others = [p for p in model.parameters() if id(p) not in inner]
        return [
            Muon(matrices, lr=self.base_matrix_rate, weight_decay=0.05),
            torch.optim.AdamW(others, lr=self.base_rate, weight_decay=0.05),
        ]

    def _drawn(self, examples: Examples, size: int, seed: int) -> Iterator[Batch]:
        """Endless batches drawn with replacement, each image shifted."""
        rng = np.random.default_rng(seed)
        reach, side = self.shift, examples.rows.shape[-1]
        padded = np.pad(examples.rows, ((0, 0), (reach, reach), (reach, reach)), mode="edge")
        while True:
            rows = rng.integers(0, len(examples), size)
            offsets = rng.integers(0, 2 * reach + 1, (size, 2))
            images = np.stack(
                [
                    padded[row, top : top + side, left : left + side]
                    for row, (top, left) in zip(rows, offsets, strict=True)
                ]
            )
            yield {"pixel_values": _pixels(images)}, torch.from_numpy(examples.labels[rows])

    def _model(self, classes: Sequence[str]) -> Any:
        from transformers import ViTConfig, ViTForImageClassification

        return ViTForImageClassification(
            ViTConfig(
                hidden_size=self.width,
                num_hidden_layers=self.layers,
                num_attention_heads=self.attention_heads,
                intermediate_size=self.hidden,
                image_size=self.image,
                patch_size=self.patch,
                num_channels=1,
                id2label=dict(enumerate(classes)),
                label2id={name: index for index, name in enumerate(classes)},
            )
        )


@torch.no_grad()
def _initialise(model: Any) -> None:
    """Positions and pixels that tell the patches apart from the first step on.

    The usual start (all weights of deviation 0.02) leaves them nearly alike, and the first hundreds
    of steps are spent on nothing else.  Positions: half of the 2-D sines of He et al. 2022 (MAE).
    """
    embeddings = model.vit.embeddings
    projection = embeddings.patch_embeddings.projection.weight
    torch.nn.init.normal_(projection, std=projection[0].numel() ** -0.5)
    patches, width = embeddings.position_embeddings.shape[1] - 1, projection.shape[0]
    side = math.isqrt(patches)
    frequencies = 10_000 ** -(torch.arange(width // 4) / (width // 4))
    angles = torch.outer(torch.arange(side), frequencies)
    waves = torch.cat([angles.sin(), angles.cos()], 1)  # (side, width / 2)
    rows, columns = waves.repeat_interleave(side, 0), waves.repeat(side, 1)
    embeddings.position_embeddings.zero_()
    embeddings.position_embeddings[0, 1:] = torch.cat([rows, columns], 1) / 2


def _pixels(images: np.ndarray) -> Tensor:
    """uint8 (n, h, w) as normalised float32 (n, 1, h, w), mean and deviation 0.5."""
    return torch.from_numpy(images).unsqueeze(1).float().div_(127.5).sub_(1)


ALL = Vision(
    name="vision_all",
    title="A small ViT on twelve image tasks",
    tasks=(*Vision.tasks, *Vision.pretraining),
)
