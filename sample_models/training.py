"""The training loop of the sample family: pre-training one base and fine-tuning experts from it.

Every model is a small `ViTForImageClassification`.  Runs are deterministic on one machine: fixed
seeds, one thread a process, and no data order that depends on the clock.
"""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import ViTConfig, ViTForImageClassification
from transformers.utils import logging

VALIDATION_MOST = 500  # as in mats_core.tasks: the last fifth of the training half is held out
Arrays = Mapping[str, Any]
Progress = Callable[[int, float], None]


@dataclass(frozen=True)
class Settings:
    """The recipe of the family; `sample_models/README.md` tells how it was found."""

    width: int = 192
    layers: int = 4
    heads: int = 6
    hidden: int = 576
    image: int = 24
    patch: int = 6
    base_steps: int = 5000
    base_batch: int = 64
    base_rate: float = 1e-3
    base_images: int = 4000  # a task
    steps: int = 200
    batch: int = 64
    encoder_rate: float = 1e-4
    head_rate: float = 3e-3
    only_matrices: bool = False  # fine-tune only the encoder's linear weights
    seed: int = 0


def new_model(classes: Sequence[str], settings: Settings) -> ViTForImageClassification:
    """A freshly initialised model with a head for `classes`."""
    config = ViTConfig(
        hidden_size=settings.width,
        num_hidden_layers=settings.layers,
        num_attention_heads=settings.heads,
        intermediate_size=settings.hidden,
        image_size=settings.image,
        patch_size=settings.patch,
        num_channels=3,
        id2label=dict(enumerate(classes)),
        label2id={name: index for index, name in enumerate(classes)},
    )
    return ViTForImageClassification(config)


def pixels(images: np.ndarray) -> Tensor:
    """uint8 (n, h, w, 3) as normalised float32 (n, 3, h, w), mean and deviation 0.5."""
    values = torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2)
    return values.float().div_(127.5).sub_(1)


def training_part(arrays: Arrays) -> tuple[np.ndarray, np.ndarray]:
    """The training half without its validation examples."""
    images, labels = arrays["x_train"], arrays["y_train"]
    cut = len(labels) - min(VALIDATION_MOST, len(labels) // 5)
    return images[:cut], labels[:cut]


def train(
    model: nn.Module,
    images: np.ndarray,
    labels: np.ndarray,
    groups: Sequence[dict[str, Any]],
    *,
    steps: int,
    batch: int,
    smoothing: float = 0.0,
    seed: int = 0,
    progress: Progress | None = None,
) -> None:
    """AdamW with warm-up and a cosine to zero, on batches drawn with replacement.

    `groups`: AdamW's parameter groups with their peak `lr`.
    """
    optimiser = torch.optim.AdamW([{**group, "peak": group["lr"]} for group in groups])
    trained = [p for group in optimiser.param_groups for p in group["params"]]
    rng = np.random.default_rng(seed)
    warm_up = max(1, min(200, steps // 10))
    model.train()
    for step in range(steps):
        factor = min(1.0, (step + 1) / warm_up) * 0.5 * (1 + math.cos(math.pi * step / steps))
        for group in optimiser.param_groups:
            group["lr"] = group["peak"] * factor
        rows = rng.integers(0, len(images), batch)
        logits = model(pixel_values=pixels(images[rows])).logits
        loss = nn.functional.cross_entropy(
            logits, torch.from_numpy(labels[rows]), label_smoothing=smoothing
        )
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(trained, 1.0)
        optimiser.step()
        if progress is not None and (step + 1) % 250 == 0:
            progress(step + 1, loss.item())
    model.eval()


def pretrain(
    tasks: Mapping[str, Arrays], settings: Settings, progress: Progress | None = None
) -> ViTForImageClassification:
    """A base, trained as one softmax over the classes of all `tasks`."""
    prepare(settings.seed)
    images, labels, classes = [], [], list[str]()
    for name, arrays in tasks.items():
        images.append(arrays["x_train"])
        labels.append(arrays["y_train"] + len(classes))
        classes += [f"{name}: {label}" for label in arrays["classes"]]
    model = new_model(classes, settings)
    train(
        model,
        np.concatenate(images),
        np.concatenate(labels),
        [{"params": list(model.parameters()), "lr": settings.base_rate, "weight_decay": 0.05}],
        steps=settings.base_steps,
        batch=settings.base_batch,
        smoothing=0.05,
        seed=settings.seed,
        progress=progress,
    )
    return model


def fine_tune(
    base: ViTForImageClassification, arrays: Arrays, settings: Settings
) -> ViTForImageClassification:
    """An expert: the base's encoder and a new head, trained together.

    The head learns faster than the encoder and fits the expert, not the base; that is what makes
    merging visible (findings of the search in README.md).
    """
    prepare(settings.seed + 1)
    model = new_model([str(label) for label in arrays["classes"]], settings)
    model.vit.load_state_dict(base.vit.state_dict())
    encoder = []
    for name, parameter in model.vit.named_parameters():
        matrix = parameter.ndim == 2 and name.endswith(".weight")
        if settings.only_matrices and not matrix:
            parameter.requires_grad_(False)
        else:
            encoder.append(parameter)
    images, labels = training_part(arrays)
    train(
        model,
        images,
        labels,
        [
            {"params": encoder, "lr": settings.encoder_rate, "weight_decay": 0.0},
            {
                "params": list(model.classifier.parameters()),
                "lr": settings.head_rate,
                "weight_decay": 0.0,
            },
        ],
        steps=settings.steps,
        batch=settings.batch,
        seed=settings.seed + 1,
    )
    return model


def prepare(seed: int) -> None:
    """One thread, fixed seed, deterministic kernels, no progress bars."""
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    torch.use_deterministic_algorithms(True)
    logging.set_verbosity_error()
    logging.disable_progress_bar()


def save(model: ViTForImageClassification, folder: Path) -> None:
    """A standard Hugging Face directory in float16 (the merge's arithmetic is float32)."""
    copy.deepcopy(model).half().save_pretrained(folder)
    size = model.config.image_size
    processor = {
        "image_processor_type": "ViTImageProcessor",
        "do_resize": True,
        "size": {"height": size, "width": size},
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": [0.5, 0.5, 0.5],
        "image_std": [0.5, 0.5, 0.5],
    }
    text = json.dumps(processor, indent=2) + "\n"
    (folder / "preprocessor_config.json").write_text(text, "utf-8")


def load(folder: Path) -> ViTForImageClassification:
    """A saved model in float32."""
    return ViTForImageClassification.from_pretrained(folder, dtype=torch.float32)
