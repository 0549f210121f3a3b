"""Loading and converting ViT-B/8 at full size: seconds, memory, and the ratio to reading the file raw.

    python -m benchmarks.weights [--output=FILE]

The checkpoint is made here, of random numbers, under DINO's own names: safetensors, and PyTorch's zip and legacy
formats if PyTorch is there to write them. Each step runs in a process of its own, because memory is measured by its
peak. The ratio is that of medians of five; the first load of a process also takes its memory from the system.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
from safetensors.numpy import load_file, save_file

from benchmarks.machine import peak
from musc_jax.storage import atomic


def make(folder: Path) -> list[Path]:
    """Writes the checkpoint in every format."""
    rng = np.random.default_rng(0)
    shapes = {"cls_token": (1, 1, 768), "pos_embed": (1, 785, 768), "patch_embed.proj.weight": (768, 3, 8, 8)}
    shapes |= {"patch_embed.proj.bias": (768,), "norm.weight": (768,), "norm.bias": (768,)}
    for i in range(12):
        for name, shape in {
            "norm1": (768,),
            "attn.qkv": (2304, 768),
            "attn.proj": (768, 768),
            "norm2": (768,),
            "mlp.fc1": (3072, 768),
            "mlp.fc2": (768, 3072),
        }.items():
            shapes |= {f"blocks.{i}.{name}.weight": shape, f"blocks.{i}.{name}.bias": shape[:1]}
    entries = {name: (0.02 * rng.standard_normal(shape, np.float32)) for name, shape in shapes.items()}
    files = [folder / "dino.safetensors"]
    save_file(entries, files[0])
    try:
        import torch
    except ImportError:
        return files
    tensors = {name: torch.from_numpy(value) for name, value in entries.items()}
    for name, zipped in (("dino.pth", True), ("dino_legacy.pth", False)):
        torch.save(tensors, folder / name, _use_new_zipfile_serialization=zipped)
        files.append(folder / name)
    return files


def step(kind: str, file: Path) -> dict:
    """One measurement, in this process."""
    import jax

    import weights

    jax.numpy.zeros(3).block_until_ready()
    before = peak() / 2**20
    found: dict[str, float] = {"mb_before": before}
    if kind == "convert":
        started = time.perf_counter()
        weights.convert(file, "dino_vitb8", file.parent / "converted.safetensors")
        found["seconds"] = time.perf_counter() - started
    else:
        ours, raw = [], []
        for _ in range(5):
            started = time.perf_counter()
            backbone = weights.load(file, "dino_vitb8")
            jax.block_until_ready(backbone.variables)
            ours.append(time.perf_counter() - started)
            started = time.perf_counter()
            values = load_file(file) if file.suffix == ".safetensors" else {}
            raw.append(time.perf_counter() - started)
            del values, backbone
        found |= {"seconds": ours[0], "median_seconds": statistics.median(ours)}
        if file.suffix == ".safetensors":
            found["median_seconds_raw"] = statistics.median(raw)
            found["ratio"] = found["median_seconds"] / found["median_seconds_raw"]
    found["mb_peak"] = peak() / 2**20
    return {"step": kind, "file": file.name} | {k: round(v, 3) for k, v in found.items()}


def main() -> None:
    """Runs every step and prints a line for each."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path)
    parser.add_argument("--step", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.step:
        print(json.dumps(step(arguments.step[0], Path(arguments.step[1]))))
        return
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        files = make(Path(folder))
        steps = [(kind, file) for file in files for kind in ("convert", "load")]
        for kind, file in [*steps, ("load", Path(folder) / "converted.safetensors")]:
            command = [sys.executable, "-m", "benchmarks.weights", "--step", kind, str(file)]
            rows.append(json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout))
            print("  ".join(f"{k} {v}" for k, v in rows[-1].items()), flush=True)
    if arguments.output:
        atomic.write_text(
            arguments.output, json.dumps({"command": "python -m benchmarks.weights", "rows": rows}, indent=2) + "\n"
        )


if __name__ == "__main__":
    main()
