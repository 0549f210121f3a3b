"""The pictures of `docs/inputs.md`: ways to make a picture square, and masks that mean the same.

python docs/input_pictures.py
"""

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from musc_jax.data.formats.resizing import FITS, PADDING, make_square, resize_image

FOLDER = Path(__file__).parent / "images"
_SIDE, _GAP, _TITLE = 120, 16, 18
_FORMS = {
    "white on black": ((0, 0, 0), (255, 255, 255)),
    "black on white": ((255, 255, 255), (0, 0, 0)),
    "dark red": ((0, 0, 0), (100, 0, 0)),
    "numbers 0 and 1": ((0, 0, 0), (1, 1, 1)),
    "opaque, transparent": ((215, 215, 215), (70, 70, 70)),
}


def _part(width: int, height: int) -> Image.Image:
    """A washer with a scratch."""
    picture = Image.new("RGB", (width, height), (30, 34, 40))
    draw = ImageDraw.Draw(picture)
    x, y, r = width / 2, height / 2, 0.42 * min(width, height)
    draw.ellipse((x - r, y - r, x + r, y + r), fill=(176, 180, 186))
    draw.ellipse((x - r / 2, y - r / 2, x + r / 2, y + r / 2), fill=(30, 34, 40))
    draw.line((x + 0.6 * r, y - 0.3 * r, x + 0.8 * r, y + 0.3 * r), fill=(90, 60, 40), width=max(2, int(r / 12)))
    return picture


def _row(pictures: dict[str, Image.Image]) -> Image.Image:
    """Pictures side by side, each below its title."""
    height = max(picture.height for picture in pictures.values())
    width = sum(picture.width + _GAP for picture in pictures.values()) - _GAP
    row = Image.new("RGB", (width, height + _TITLE), (255, 255, 255))
    draw, left = ImageDraw.Draw(row), 0
    for title, picture in pictures.items():
        draw.text((left, 2), title, fill=(0, 0, 0))
        row.paste(picture, (left, _TITLE))
        draw.rectangle((left, _TITLE, left + picture.width - 1, _TITLE + picture.height - 1), outline=(150, 150, 150))
        left += picture.width + _GAP
    return row


def _fits() -> Image.Image:
    picture = _part(180, 120)
    shown = {"180 x 120": picture}
    for fit in FITS:
        square = resize_image(make_square(np.array(picture), fit, padding=PADDING), size=_SIDE)
        shown[f"--fit={fit}"] = Image.fromarray(square)
    return _row(shown)


def _masks() -> Image.Image:
    defect = np.zeros((_SIDE, _SIDE, 1), bool)
    defect[40:64, 70:92] = True
    return _row({name: Image.fromarray(np.where(defect, *map(np.uint8, pair[::-1]))) for name, pair in _FORMS.items()})


if __name__ == "__main__":
    _fits().save(FOLDER / "fits.png", optimize=True)
    _masks().save(FOLDER / "masks.png", optimize=True)
