"""Write what README.md says about datasets and backbones, from the tables that the program itself goes by.

    python docs/generate.py

A table stands between two comments; of the flags' table only the rows that list datasets are written. A test compares
the README with this.
"""

import re
from pathlib import Path

import weights
from launch import flags as options
from launch import input_flags as inputs
from musc_jax.config import RescoringConfig, usual_windows
from musc_jax.data import DATASETS
from musc_jax.models import VitConfig

README = Path(__file__).parents[1] / "README.md"
_SHOWN = {"rgb": "images", "points": "points", "rgb+points": None}


def datasets() -> str:
    """The published datasets: what each can give, how it is got, and what its folder has."""
    lines = ["| dataset | modalities | fetched | `DIR` has |", "|---|---|---|---|"]
    for name, spec in DATASETS.items():
        if spec.source is not None:
            shown = ", ".join(_SHOWN[modality] for modality in spec.modalities if _SHOWN[modality])
            how = "directly" if spec.source.archives else "by hand"
            lines.append(f"| `{name}` | {shown} | {how} | {spec.source.example} |")
    return "\n".join(lines)


def backbones() -> str:
    """The backbones: architecture, use, and where their parameters are published."""
    columns = "blocks x width | patch | input | blocks used | norm eps | positions | published at | licence"
    lines = [f"| backbone | {columns} |", "|---" * (2 + columns.count("|")) + "|"]
    for name, spec in weights.BACKBONES.items():
        images = isinstance(spec.config, VitConfig)
        links = [f"[{spec.hub_id}](https://huggingface.co/{spec.hub_id})"] if spec.hub_id else []
        links += [f"[original]({spec.url})"] if spec.url else []
        row = [
            f"`{name}`" + " (default)" * (name == options.BACKBONE.default),
            f"{spec.config.depth} x {spec.config.width}",
            str(spec.config.patch_size) if images else "-",
            str(spec.image_size) if images else "-",
            ", ".join(map(str, spec.blocks)),
            f"{spec.config.norm_epsilon if images else spec.config.epsilon:g}",
            spec.config.interpolation if images else "-",
            ", ".join(links),
            spec.licence,
        ]
        lines.append(f"| {' | '.join(row)} |")
    return "\n".join(lines)


def flag_rows() -> dict[str, str]:
    """Rows of the flags' table, by their flags."""
    names = [f"`{name}`" for name in DATASETS]
    listed = f"{', '.join(names[:-1])} or {names[-1]}"
    others = {name: spec.v1_windows for name, spec in DATASETS.items() if spec.v1_windows}
    v1 = [f"`{_numbers(usual_windows('v1'))}` for `v1`"]
    v1 += [f"`{_numbers(windows)}` on `{name}`" for name, windows in others.items()]
    usual = _numbers(RescoringConfig().windows)
    return {
        "dataset": f"| `--dataset` | `{inputs.DATASET.default}` | {listed} |",
        "windows": f"| `--windows` | `{usual}` ({', '.join(v1)}) | windows of the re-scoring |",
    }


def _numbers(values: tuple[int, ...]) -> str:
    return ",".join(map(str, values))


def generated(text: str) -> str:
    """A README with these parts as they are now.

    Raises:
        ValueError: it lacks one of them, or has it twice.
    """
    parts = [
        (rf"(?<=<!-- {table.__name__}: docs/generate.py -->\n\n).*?(?=\n\n<!-- end -->)", table())
        for table in (datasets, backbones)
    ]
    parts += [(rf"^\| `--{flag}` \| .*$", row) for flag, row in flag_rows().items()]
    for pattern, part in parts:
        text, count = re.subn(pattern, lambda _, part=part: part, text, flags=re.S if "<!--" in pattern else re.M)
        if count != 1:
            raise ValueError(f"expected one place for {pattern!r}, found {count}")
    return text


if __name__ == "__main__":
    README.write_text(generated(README.read_text(encoding="utf-8")), encoding="utf-8")
