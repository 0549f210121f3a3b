"""What lies beside files of tokens: `features.json`, which says of all of them what arrays cannot say."""

import json
from pathlib import Path
from typing import Any, NamedTuple

from musc_jax.data.formats.files import FileFault, read

NOTES = "features.json"
"""Its name."""

_MODALITIES = ("rgb", "points", "rgb+points")


class FeatureNotes(NamedTuple):
    """What `features.json` says; every entry may be left out.

    Attributes:
        grid: Side of the patch grid.
        stages: How many there are of each modality.
        image_size: Side in pixels of the images and point maps that tokens belong to.
        modality: "rgb", "points" or "rgb+points": what is scored, default all that files have.
        aggregated: They were aggregated over their neighbourhoods, and are scored as they are.
        backbone: What made them; an object with `image` and `points` where these differ.
        licence: Under which it, and they, may be used.
        random: Its parameters were drawn, so that scores say nothing about accuracy.
        made: What the program noted that wrote them; nobody reads it but that.
    """

    grid: int | None = None
    stages: int | None = None
    image_size: int | None = None
    modality: str | None = None
    aggregated: bool = False
    backbone: str | dict[str, str] = "given tokens"
    licence: str = ""
    random: bool = False
    made: Any = None

    def backbone_of(self, kind: str) -> str:
        """The name of what made the tokens of "image" or "points"."""
        return self.backbone if isinstance(self.backbone, str) else self.backbone.get(kind, "given tokens")


def read_notes(path: Path) -> FeatureNotes:
    """Reads a file of notes strictly.

    Args:
        path: The file; where there is none nothing is said.

    Raises:
        FileFault: It is no JSON object, has an entry that nobody knows, or one of another kind; names the way out.
    """
    if not path.exists():
        return FeatureNotes()
    try:
        found = json.loads(read(path).data)
    except (ValueError, RecursionError) as error:
        raise FileFault(path, f"cannot be read as JSON ({error})", "correct it, or leave it out") from None
    if not isinstance(found, dict):
        raise FileFault(path, f"expected an object, received {json.dumps(found)[:40]}", "correct it, or leave it out")
    if unknown := sorted(found.keys() - set(FeatureNotes._fields)):
        known = ", ".join(field for field in FeatureNotes._fields if field != "made")
        raise FileFault(path, f"nobody knows {unknown[0]!r}", f"expected some of {known}")
    for name, value in found.items():
        expected, fine = _KINDS[name]
        if not fine(value):
            raise FileFault(path, f"{name}: expected {expected}, received {json.dumps(value)[:40]}", "correct it")
    grid = found.get("grid")
    return FeatureNotes(**(found | ({"grid": grid[0]} if isinstance(grid, list) else {})))


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _is_grid(value: Any) -> bool:
    return _is_count(value) or (
        isinstance(value, list) and len(value) == 2 and value[0] == value[1] and _is_count(value[0])
    )


def _is_backbone(value: Any) -> bool:
    if isinstance(value, dict):
        return value.keys() <= {"image", "points"} and all(isinstance(name, str) for name in value.values())
    return isinstance(value, str)


_KINDS = {
    "grid": ("the side of a square of patches, or that twice", _is_grid),
    "stages": ("a whole number of at least 1", _is_count),
    "image_size": ("a whole number of at least 1", _is_count),
    "modality": (f"one of {', '.join(_MODALITIES)}", lambda value: value in _MODALITIES),
    "aggregated": ("true or false", lambda value: isinstance(value, bool)),
    "backbone": ('a name, or {"image": NAME, "points": NAME}', _is_backbone),
    "licence": ("a text", lambda value: isinstance(value, str)),
    "random": ("true or false", lambda value: isinstance(value, bool)),
    "made": ("anything", lambda value: True),
}
