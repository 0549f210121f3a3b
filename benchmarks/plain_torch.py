"""The same statements in PyTorch, where it is installed, as one would write them first. Unimproved on purpose."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn


def device() -> torch.device:
    """Where PyTorch runs here."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def wait() -> None:
    """Until PyTorch's device is done."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def tensor(x: np.ndarray) -> torch.Tensor:
    """Puts an array on PyTorch's device."""
    return torch.as_tensor(np.array(x), device=device())


@torch.no_grad()
def mutual_scores(features: torch.Tensor, interval: float = 0.3) -> torch.Tensor:
    """(N, M, C) -> (N, M): each sample against all others at once by `torch.cdist`, both directions computed."""
    n, m, c = features.shape
    rows = []
    for i in range(n):
        others = torch.cat([features[:i], features[i + 1 :]])
        distance = torch.cdist(features[i], others.reshape(-1, c)).reshape(m, n - 1, m).min(-1).values
        rows.append(torch.topk(distance, max(1, int((n - 1) * interval)), largest=False).values.mean(-1))
    return torch.stack(rows)


@torch.no_grad()
def interval_average(scores: torch.Tensor, interval: float = 0.3) -> torch.Tensor:
    """Mean of the lowest values of each row by `torch.topk`."""
    return torch.topk(scores, max(1, int(scores.shape[-1] * interval)), largest=False).values.mean(-1)


@torch.no_grad()
def farthest_points(points: torch.Tensor, num: int) -> torch.Tensor:
    """(P, 3) -> (num,): one loop, argmax over all points at each step."""
    nearest = torch.full((len(points),), torch.inf, device=points.device)
    chosen = torch.zeros(num, dtype=torch.long, device=points.device)
    for i in range(1, num):
        nearest = torch.minimum(nearest, ((points - points[chosen[i - 1]]) ** 2).sum(-1))
        chosen[i] = torch.argmax(nearest)
    return chosen


@torch.no_grad()
def neighbors(queries: torch.Tensor, points: torch.Tensor, k: int) -> torch.Tensor:
    """(Q, 3), (P, 3) -> (Q, k): all distances, then `torch.topk`."""
    return torch.topk(torch.cdist(queries, points), k, largest=False).indices


class GroupEncoder(nn.Module):
    """The mini-PointNet with the modules of the released program, random weights, stored statistics."""

    def __init__(self) -> None:
        super().__init__()
        self.first_conv = nn.Sequential(nn.Conv1d(3, 128, 1), nn.BatchNorm1d(128), nn.ReLU(), nn.Conv1d(128, 256, 1))
        self.second_conv = nn.Sequential(nn.Conv1d(512, 512, 1), nn.BatchNorm1d(512), nn.ReLU(), nn.Conv1d(512, 384, 1))

    def forward(self, groups: torch.Tensor) -> torch.Tensor:
        """(G, K, 3) -> (G, 384)."""
        x = self.first_conv(groups.transpose(2, 1))
        x = torch.cat([x.max(2, keepdim=True).values.expand_as(x), x], 1)
        return self.second_conv(x).max(2).values


def group_encoder() -> GroupEncoder:
    """In evaluation mode, on PyTorch's device."""
    return GroupEncoder().eval().to(device())


def vit_b8(depth: int = 12) -> nn.Module:
    """A transformers ViT-B/8 at 224, random weights, scaled-dot-product attention, evaluation mode."""
    from transformers import ViTConfig, ViTModel

    sizes = {"hidden_size": 768, "num_hidden_layers": depth, "num_attention_heads": 12, "intermediate_size": 3072}
    return ViTModel(ViTConfig(image_size=224, patch_size=8, **sizes), add_pooling_layer=False).eval().to(device())


def inference(module: nn.Module, half: bool = False) -> Callable[[torch.Tensor], Any]:
    """The module's call without gradients, its input in bfloat16 where asked."""

    @torch.no_grad()
    def run(x: torch.Tensor) -> Any:
        return module(x.bfloat16() if half else x)

    return run
