"""Tokens of any PyTorch model, scored: python examples/torch_features.py DIR, a flat folder of pictures of one product.

Here a torchvision-like network with random weights; put a pretrained one in its place, whatever gives (N, C, h, w).
"""

import sys

import torch

import musc_jax
from musc_jax.data import FolderLayout, open_dataset


def main(folder: str, size: int = 224) -> musc_jax.pipeline.Results:
    """Scores the pictures of a folder and prints the worst."""
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 64, 16, 16), torch.nn.ReLU(), torch.nn.Conv2d(64, 32, 1)).eval()
    dataset = open_dataset("folder", data_dir=folder, cache_dir=".cache", modality="rgb", folder=FolderLayout())
    samples = list(dataset.samples(dataset.categories[0], size=size))
    with torch.inference_mode():
        images = [torch.tensor(sample.image).permute(2, 0, 1)[None] / 255 for sample in samples]
        tokens = torch.cat([model(image).flatten(2).transpose(1, 2) for image in images])  # (N, h * w, C), row by row
    results = musc_jax.score_features(tokens.numpy(), names=[sample.name for sample in samples], size=size)
    for score, sample in sorted(zip(results.pred_scores, results.samples), key=lambda pair: -pair[0])[:5]:
        print(f"{score:.3f}  {sample.name}")
    return results


if __name__ == "__main__":
    main(sys.argv[1])
