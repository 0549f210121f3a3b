"""Pictures of who voted: for the page, and files for what --explain names."""

import io
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image

from launch.output import saved_file
from musc_jax.data import Dataset
from musc_jax.data.formats.resizing import PADDING, make_square
from musc_jax.execution.voting import Question, Vote
from musc_jax.predictions import Predictions
from musc_jax.report.page import PagePicture
from musc_jax.report.votes import Tile, cut_out, stacked, vote_picture
from musc_jax.resolved import Resolved
from musc_jax.storage.paths import readable

# A part of a picture is so many patches wide, and a group of points is shown as so much of the picture.
_PATCHES, _LEAST, _GROUP = 5, 0.12, 1 / 16
_FILE_PIXELS = 2_000_000


class Ask(NamedTuple):
    """What --explain names.

    Attributes:
        sample: Its name.
        pixel: (x, y) in its picture as it is shown; None: the hottest one.
    """

    sample: str
    pixel: tuple[int, int] | None

    def __str__(self) -> str:
        return self.sample if self.pixel is None else f"{self.sample}@{self.pixel[0]},{self.pixel[1]}"


class Drawn:
    """Pictures of who voted."""

    def __init__(
        self,
        dataset: Dataset,
        category: str,
        predictions: Predictions,
        resolved: Resolved,
        k: int,
        first: Mapping[str, str],
    ) -> None:
        self._predictions, self._resolved, self._k, self._first = predictions, resolved, k, first
        self._rows = {sample.name: i for i, sample in enumerate(predictions)}
        self._votes: dict[str, dict[Question, list[Vote]]] = {}
        for vote in predictions.results.votes:
            self._votes.setdefault(vote.question.sample, {}).setdefault(vote.question, []).append(vote)
        place = {name: i for i, name in enumerate(dataset.names(category))}
        self._full = lambda name: dataset.picture(category, place[name], max_pixels=_FILE_PIXELS)

    def page_pictures(self, index: int) -> list[PagePicture]:
        """Of one sample, small, as the page has them."""
        name = self._predictions.samples[index].name
        found = self._votes.get(self._first.get(name, name), {})
        return [
            PagePicture(self.sentence(question), _packed(self._picture(name, votes, full=False)))
            for question, votes in found.items()
        ]

    def file(self, ask: Ask, question: Question) -> tuple[str, bytes]:
        """Name and content of the picture of what was asked for."""
        buffer = io.BytesIO()
        votes = self._votes[question.sample][question]
        self._picture(ask.sample, votes, full=True, pixel=ask.pixel).save(buffer, "PNG")
        return saved_file("explain", str(ask)), buffer.getvalue()

    def sentence(self, question: Question, pixel: tuple[int, int] | None = None) -> str:
        """What the first vote says; `pixel` is the place as it was asked for, (x, y) in the picture as it is shown."""
        vote = self._votes[question.sample][question][0]
        names = ", ".join(voter.sample for voter in vote.lowest[: self._k])
        x, y = pixel or self._shown(question.sample, question.pixel)
        return f"({x}, {y}) is matched best by {names}, of {vote.num_references} others"

    def _shown(self, name: str, pixel: tuple[float, float]) -> tuple[int, int]:
        """(x, y) in the picture as it is shown."""
        sample = self._predictions.results.samples[self._rows[name]]
        side = self._resolved.size
        row, column = ((at + 0.5) / side for at in pixel)
        if sample.full_size is None:
            return int(column * side), int(row * side)
        return from_square(column, row, sample.full_size, sample.fit)

    def _picture(
        self, name: str, votes: Sequence[Vote], *, full: bool, pixel: tuple[int, int] | None = None
    ) -> Image.Image:
        parts = []
        for vote in votes:
            x, y = pixel or self._shown(vote.question.sample, vote.question.pixel)
            own = self._tile(name, vote.place, vote.modality, None, full=full, wide=2.0)
            lowest, highest = (
                [self._tile(v.sample, v.place, vote.modality, v.distance, full=full) for v in side[: self._k]]
                for side in (vote.lowest, vote.highest)
            )
            what = "patch" if vote.modality == "image" else "group of points"
            lowest_ones = f"mean of the {vote.averaged} lowest" if vote.averaged > 1 else "lowest"
            note = (
                f"Each of {vote.num_references} other samples scores this {what} by its own nearest one. The score is "
                f"the {lowest_ones}."
            )
            parts.append(vote_picture(f"{readable(name)}  ({x}, {y})  {vote.modality}", note, own, lowest, highest))
        return stacked(parts)

    def _tile(
        self,
        name: str,
        place: tuple[float, float],
        modality: str,
        distance: float | None,
        *,
        full: bool,
        wide: float = 1.0,
    ) -> Tile:
        sample, config = self._predictions.results.samples[self._rows[name]], self._resolved
        picture = self._full(name) if full else None
        image = sample.image if picture is None else make_square(picture, sample.fit, padding=PADDING)
        patch = _GROUP if modality == "points" or config.image is None else config.image.patch_size / config.size
        height, width = sample.full_size if sample.full_size and sample.fit == "squash" else (1, 1)
        pixels, box = cut_out(
            image,
            (place[0] / config.size, place[1] / config.size),
            patch=patch,
            reach=min(1.0, wide * max(_LEAST, _PATCHES * patch)),
            aspect=float(np.clip(width / height, 1 / 4, 4)),
        )
        return Tile(pixels, box, readable(name), distance)


def _packed(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=80)
    return buffer.getvalue()


def _frame(size: tuple[int, int], fit: str) -> tuple[float, float, float, float]:
    """(left, top, width, height) of the square in pixels of the picture."""
    height, width = size
    if fit == "squash" or height == width:
        return 0, 0, width, height
    side = max(size) if fit == "pad" else min(size)
    return (width - side) // 2, (height - side) // 2, side, side


def to_square(x: float, y: float, size: tuple[int, int], fit: str) -> tuple[float, float]:
    """A place in a picture as a share of the square that is made of it; outside of 0 to 1 what is cropped away."""
    left, top, width, height = _frame(size, fit)
    return (x - left) / width, (y - top) / height


def from_square(x: float, y: float, size: tuple[int, int], fit: str) -> tuple[int, int]:
    """The pixel of the picture at a share of the square."""
    left, top, width, height = _frame(size, fit)
    found = int(np.floor(left + x * width)), int(np.floor(top + y * height))
    return min(max(found[0], 0), size[1] - 1), min(max(found[1], 0), size[0] - 1)
