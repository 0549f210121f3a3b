"""One sample as the rest of the library sees it, and the errors of those that cannot be read or scored."""

from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float32, Int32, UInt8


class DataError(ValueError):
    """Bad input data; its text is a complete report, every line naming a file and the way out."""


class SampleError(ValueError):
    """A sample that was read but cannot be scored.

    Attributes:
        name: The sample's.
        problem: What is wrong with it, and the way out.
    """

    def __init__(self, name: str, problem: str) -> None:
        super().__init__(name, problem)  # both are arguments, so that pickling finds them again
        self.name, self.problem = name, problem

    def __str__(self) -> str:
        return f"sample {self.name}: {self.problem}"


@dataclass(frozen=True, eq=False)
class SampleTokens:
    """Tokens of one sample that are there already, so that no backbone need run.

    Attributes:
        image: of each stage, in row order.
        points: of each stage, a token for each group of the cloud.
        pixels: flat pixel, row * size + column, of each group's centre; none where it is not known.
        curvature: of each group, 0 to 1/3; None counts as 0, flat.
        embedding: of the image, for version 1.
    """

    image: tuple[Float32[np.ndarray, "M _"], ...] = ()
    points: tuple[Float32[np.ndarray, "G _"], ...] = ()
    pixels: Int32[np.ndarray, "_"] = field(default_factory=partial(np.zeros, 0, np.int32))
    curvature: Float32[np.ndarray, "G"] | None = None
    embedding: Float32[np.ndarray, "E"] | None = None


@dataclass(frozen=True, eq=False)
class Sample:
    """One sample, resized to a square of side `size`.

    Attributes:
        name: unique in its category, for example `"000"`; fit to be a file name.
        image: RGB, 0 to 255. It stays 8-bit: a quarter of the bytes to move to a device.
        points: metres; (0, 0, 0) where there is no point. None in modality `"rgb"`.
        gt_mask: True on defects. None where the dataset has no mask for this sample.
        gt_label: 1 defective, 0 good, by the full-size mask (a defect too small to survive the
            resizing still counts). None where unknown.
        image_path: the file that the image came from.
        full_size: (height, width) of that file's picture as it is shown; None where there is no grid of pixels.
        fit: how the picture was made square, one of `musc_jax.data.formats.resizing.FITS`.
        tokens: where they stand in for a backbone.
        roi: True inside of its region of interest; what is outside never counts, neither as a defect nor as a match.
            None: all of it counts.
        vouches: whether it may score others. One that is known to be defective is scored and does not score.
    """

    name: str
    image: UInt8[np.ndarray, "size size 3"]
    points: Float32[np.ndarray, "size size 3"] | None
    gt_mask: Bool[np.ndarray, "size size"] | None
    gt_label: int | None
    image_path: Path
    full_size: tuple[int, int] | None = None
    fit: str = "squash"
    tokens: SampleTokens | None = None
    roi: Bool[np.ndarray, "size size"] | None = None
    vouches: bool = True
