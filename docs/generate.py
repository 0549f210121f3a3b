"""Write the tables of datasets, backbones, flags and exports in these pages, from what the program itself goes by.

    python docs/generate.py

A table stands between two comments. A test compares the pages with this.
"""

import importlib
import inspect
import re
from pathlib import Path
from types import ModuleType

from absl.flags import Flag

import musc_jax
import weights
from launch import (
    compare,
    convert_weights,
    distributed,
    doctor,
    features,
    fetch,
    fetch_weights,
    prepare,
    reproduce,
    score_flags,
)
from launch import flags as options
from launch import input_flags as inputs
from launch.own_flags import OwnFlags
from musc_jax import data, metrics, report
from musc_jax.data import DATASETS
from musc_jax.models import VitConfig

DOCS = Path(__file__).parent
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
    columns = (
        "blocks x width | patch | input | blocks used | norm eps | positions | published at | licence | compared on"
    )
    lines = [f"| backbone | {columns} |", "|---" * (2 + columns.count("|")) + "|"]
    published = {dataset: report.published_settings_of(dataset) for dataset in DATASETS}
    for name, spec in weights.BACKBONES.items():
        images = isinstance(spec.config, VitConfig)
        links = [f"[{spec.hub_id}](https://huggingface.co/{spec.hub_id})"] if spec.hub_id else []
        links += [f"[original]({spec.url})"] if spec.url else []
        links += [f"[asked for]({spec.ask_at})"] if spec.ask_at else []
        row = [
            f"`{name}`" + " (default)" * (name == options.BACKBONE.default),
            f"{spec.config.depth} x {spec.config.width}",
            str(spec.config.patch_size) if images else "-",
            str(spec.image_size) if images else "-",
            ", ".join(map(str, spec.blocks)),
            f"{spec.config.norm_epsilon if images else spec.config.epsilon:g}",
            spec.config.interpolation if images else "-",
            ", ".join(links),
            f"[{spec.licence}]({spec.terms})" if spec.terms else spec.licence,
            ", ".join(dataset for dataset, settings in published.items() if any(name in one for one in settings))
            or "-",
        ]
        lines.append(f"| {' | '.join(row)} |")
    return "\n".join(lines)


def flags() -> str:
    """Every flag of every command, with its default and its help."""
    reading = [flag for flag in options.flags.all if flag.name in inputs.NAMES]
    scoring = [flag for flag in options.flags.all if flag.name not in inputs.NAMES]
    return "\n\n".join(
        f"## {heading}\n\n{_table_of(chosen)}"
        for heading, chosen in {
            "`score`": score_flags.flags.all,
            "`score`, `eval` and `features`: the files": reading,
            "`score`, `eval` and `features`: the computation": scoring,
            "`eval` on several hosts": distributed.flags.all,
            "`features`": _own(features.flags),
            "`fetch`": fetch.flags.all,
            "`prepare`": prepare.flags.all,
            "`compare`": compare.flags.all,
            "`reproduce`": reproduce.flags.all,
            "`weights fetch`": fetch_weights.flags.all,
            "`weights convert`": convert_weights.flags.all,
            "`doctor`": doctor.flags.all,
        }.items()
    )


def _own(some: OwnFlags) -> list[Flag]:
    """Flags of a command that the commands above do not have."""
    return [flag for flag in some.all if flag not in options.flags.all]


def _table_of(chosen: list[Flag]) -> str:
    rows = [f"| `--{flag.name}` | {_default(flag)} | {_text(flag)} |" for flag in chosen]
    return "\n".join(["| flag | default | |", "|---|---|---|", *rows])


def _default(flag: Flag) -> str:
    if flag.name == "workers":
        return "processors"  # not those of the machine that wrote the page
    value = flag.default
    if value is None or value == []:
        return ""
    if isinstance(value, bool):
        return "on" if value else "off"
    text = ",".join(map(str, value)) if isinstance(value, list) else f"{value:g}" if value.__class__ is float else value
    return f"`{str(text).replace(str(weights.default_folder().parent), '~/.cache/musc_jax')}`"


def _text(flag: Flag) -> str:
    """The help without what absl adds to it, and the values that are possible behind it."""
    text = re.sub(r"^<.*?>: |;\s+repeat this option.*$", "", flag.help, flags=re.S)
    if values := getattr(flag.parser, "enum_values", None):
        text += f" Values: {', '.join(f'`{value}`' for value in values)}."
    return re.sub(r"\s+", " ", text).replace("|", "\\|")


def api() -> str:
    """Every export, under the themes that `musc_jax/__init__.py` has them in."""
    themes: dict[str, list[str]] = {}
    for line in inspect.getsource(musc_jax).partition("__all__ = [")[2].partition("\n]")[0].splitlines()[1:]:
        text = line.strip()
        if text.startswith("# "):
            themes[text[2:]] = []
        else:
            themes[list(themes)[-1]].append(f"musc_jax.{text.strip(',').strip(chr(34))}")
    for heading, module in (("Samples from disk", data), ("Metrics", metrics), ("Weights", weights)):
        themes[heading] = [f"{module.__name__}.{name}" for name in _exports(module)]
    themes["The whole pipeline"] = ["musc_jax.pipeline.score", "musc_jax.pipeline.Results"]
    return "\n\n".join(
        f"## {theme}\n\n```{{eval-rst}}\n" + "\n\n".join(filter(None, map(_documented, names))) + "\n```"
        for theme, names in themes.items()
    )


def _exports(module: ModuleType) -> list[str]:
    own = [name for name, value in vars(module).items() if getattr(value, "__module__", None) == module.__name__]
    return list(getattr(module, "__all__", [name for name in own if not name.startswith("_")]))


def _documented(name: str) -> str:
    module, _, attribute = name.rpartition(".")
    value = getattr(importlib.import_module(module), attribute)
    if inspect.isfunction(value):
        return f".. autofunction:: {name}"
    return f".. autoclass:: {name}\n   :members:" if inspect.isclass(value) else ""


TABLES = {"datasets.md": datasets, "backbones.md": backbones, "flags.md": flags, "api.md": api}
"""Pages, and what of each of them is written here."""


def generated(page: str, text: str) -> str:
    """A page with its table as it is now.

    Args:
        page: One of `TABLES`.
        text: The page as it was.

    Raises:
        ValueError: It lacks the place of its table, or has it twice.
    """
    table = TABLES[page]
    place = rf"(?<=<!-- {table.__name__}: docs/generate.py -->\n\n).*?(?=\n\n<!-- end -->)"
    text, count = re.subn(place, lambda _: table(), text, flags=re.S)
    if count != 1:
        raise ValueError(f"{page}: expected one place for {place!r}, found {count}")
    return text


if __name__ == "__main__":
    for page in TABLES:
        path = DOCS / page
        path.write_text(generated(page, path.read_text(encoding="utf-8")), encoding="utf-8")
