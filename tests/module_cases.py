"""Modules as people bring them: a hand-written MLP, a ResNet, a ViT; none from transformers."""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

CLASSES = 4


class Mlp(nn.Module):
    """Two linear layers on flat images."""

    def __init__(self, d_in: int = 64, width: int = 24, classes: int = CLASSES) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(d_in, width), nn.Linear(width, width)
        self.out = nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.fc2(self.fc1(x.flatten(1)).relu()).relu())


class Block(nn.Module):
    """torchvision's BasicBlock."""

    def __init__(self, wide: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(wide, wide, 3, padding=1, bias=False), nn.BatchNorm2d(wide)
        self.conv2, self.bn2 = nn.Conv2d(wide, wide, 3, padding=1, bias=False), nn.BatchNorm2d(wide)

    def forward(self, x: Tensor) -> Tensor:
        inner = self.bn1(self.conv1(x)).relu()
        return (x + self.bn2(self.conv2(inner))).relu()


class ResNet(nn.Module):
    """torchvision's layout: convolutions without bias, BatchNorm, `fc`."""

    def __init__(self, wide: int = 6, classes: int = CLASSES) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(1, wide, 3, padding=1, bias=False), nn.BatchNorm2d(wide)
        self.layer1 = nn.Sequential(Block(wide))
        self.fc = nn.Linear(wide, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.layer1(self.bn1(self.conv1(x)).relu()).mean((2, 3)))


class Attention(nn.Module):
    """timm's: one linear layer for query, key and value."""

    def __init__(self, wide: int, heads: int = 2) -> None:
        super().__init__()
        self.heads, self.qkv, self.proj = heads, nn.Linear(wide, 3 * wide), nn.Linear(wide, wide)

    def forward(self, x: Tensor) -> Tensor:
        n, tokens, wide = x.shape
        q, k, v = self.qkv(x).reshape(n, tokens, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        mixed = functional.scaled_dot_product_attention(q, k, v)
        return self.proj(mixed.transpose(1, 2).reshape(n, tokens, wide))


class Vit(nn.Module):
    """timm's layout: patch embedding, class token, `blocks`, `norm`, `head`."""

    def __init__(self, wide: int = 12, classes: int = CLASSES) -> None:
        super().__init__()
        self.patch_embed = nn.Conv2d(1, wide, 4, stride=4)
        self.cls_token = nn.Parameter(torch.randn(1, 1, wide) / 8)
        self.pos_embed = nn.Parameter(torch.randn(1, 5, wide) / 8)
        self.norm1, self.attn = nn.LayerNorm(wide), Attention(wide)
        self.norm2, self.mlp = nn.LayerNorm(wide), nn.Linear(wide, wide)
        self.norm, self.head = nn.LayerNorm(wide), nn.Linear(wide, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch_embed(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.cls_token.expand(len(x), -1, -1), x], 1) + self.pos_embed
        x = x + self.attn(self.norm1(x))
        return self.head(self.norm(x + self.mlp(self.norm2(x)))[:, 0])


KINDS: dict[str, Callable[[], nn.Module]] = {"mlp": Mlp, "resnet": ResNet, "vit": Vit}


def images(count: int = 24, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Images (count, 1, 8, 8) whose class is the bright pair of rows, and the classes."""
    generator = torch.Generator().manual_seed(seed)
    y = torch.randint(CLASSES, (count,), generator=generator)
    x = torch.randn(count, 1, 8, 8, generator=generator)
    for image, label in zip(x, y, strict=True):
        image[0, 2 * label : 2 * label + 2] += 1.5
    return x, y


def family(kind: str, experts: int = 3, seed: int = 0) -> tuple[nn.Module, dict[str, nn.Module]]:
    """A base and experts near it, with statistics of BatchNorm of their own; in training mode."""
    torch.manual_seed(seed)
    base = KINDS[kind]()
    found = {}
    for number in range(experts):
        torch.manual_seed(seed + 10 + number)
        expert = copy.deepcopy(base)
        for parameter in expert.parameters():
            parameter.data += 0.1 * torch.randn_like(parameter)
        expert(images(32, seed + number)[0])  # moves running means
        found[f"e{number}"] = expert
    return base, found


def loader(count: int = 24, batch: int = 8, seed: int = 0) -> list[tuple[Tensor, Tensor]]:
    """Batches `(x, y)` as a DataLoader gives them."""
    x, y = images(count, seed)
    return list(zip(x.split(batch), y.split(batch), strict=True))


def fishers(model: nn.Module, x: Tensor, y: Tensor) -> dict[str, Tensor]:
    """Each parameter's mean squared gradient, one example after the other."""
    model = copy.deepcopy(model).eval()
    total: dict[str, Tensor] = {}
    for one in range(len(x)):
        model.zero_grad()
        functional.cross_entropy(model(x[one : one + 1]), y[one : one + 1]).backward()
        for name, value in model.named_parameters():
            if value.grad is not None:
                total[name] = total.get(name, 0) + value.grad.to_dense() ** 2 / len(x)
    return total
