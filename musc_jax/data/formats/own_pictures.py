"""Pictures of people's own folders, read as viewers show them: turned as their camera noted, all bits, transparency.

`pictures` reads those of published datasets, whose numbers must stay; here nothing has been published. `docs/inputs.md`
states the rules. As in `files`, what is wrong with a file is a `FileFault`.
"""

import hashlib
import io
import threading
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Shaped, UInt8
from PIL import ExifTags, Image, UnidentifiedImageError

from musc_jax.data.formats import pictures
from musc_jax.data.formats.bit_depths import (
    colors_of_planes,
    has_planes,
    has_wide_colors,
    stated_bits,
    wide_colors,
)
from musc_jax.data.formats.files import DECODE_ERRORS, MAX_PIXELS, Content, FileFault, brief
from musc_jax.data.formats.remarks import overheard

EXTENSIONS = pictures.EXTENSIONS | {
    ".apng", ".avif", ".dib", ".gif", ".heic", ".heif", ".hif", ".j2k", ".jfif", ".jp2", ".jpe", ".pbm", ".pgm",
    ".pnm", ".ppm",
}  # fmt: skip
"""What counts as a picture, in lower case."""

_FORMATS = ("PNG", "JPEG", "BMP", "DIB", "TIFF", "WEBP", "GIF", "PPM", "JPEG2000", "AVIF")
# A picture that is decoded whole before it is scaled down has at most so many times the pixels that are kept.
_WHOLE = 8
_SAMPLE_FORMAT = 339  # of TIFF
_ORIENTATION, _PHOTOMETRIC = ExifTags.Base.Orientation, ExifTags.Base.PhotometricInterpretation
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
# Formats in which a byte is at most so many pixels (of BMP's runs).
_HARDLY_PACKED, _MOST_A_BYTE = ("BMP", "DIB", "PPM"), 128
# One large picture at a time: each takes gigabytes while it is decoded.
_LARGE = threading.Lock()
_LIMIT = threading.Lock()


class Header(NamedTuple):
    """What a file says of its picture before it is decoded.

    Attributes:
        size: (height, width) as it is shown.
        orientation: as EXIF counts it, 1 to 8; 1: as it is stored.
        frames: how many pictures are in the file; the first one is read.
        wide: whether its values may have more than 8 bits.
        bits: of its values, where the file says so.
        scaled: whether such values have been scaled up to 16 bits, if they use all of them (PNG's sBIT).
        transparent: whether it has transparency.
        noisy: whether it was packed as JPEG is, with noise around edges.
        profile: which colour profile it has, as a digest; "": none, or sRGB.
    """

    size: tuple[int, int]
    orientation: int
    frames: int
    wide: bool
    bits: int | None
    scaled: bool
    transparent: bool
    noisy: bool
    profile: str = ""


@dataclass(frozen=True, eq=False)
class Picture:
    """A decoded file, turned as it is shown, its values as they are stored.

    Attributes:
        header: what the file says.
        pixels: (height, width) grey or (height, width, 3); 8 bits, or 16 if it is wide. Smaller than the header says if
            it was read at reduced size.
        alpha: how opaque, 0 to 255; None: everywhere.
        inverted: whether 0 is white.
        halved: whether the lower 8 of its 16 bits could not be read; then the upper 8 are here.
        indices: of the colours of a palette; only if it was read whole.
    """

    header: Header
    pixels: Shaped[np.ndarray, "h w *colors"]
    alpha: UInt8[np.ndarray, "h w"] | None
    inverted: bool = False
    halved: bool = False
    indices: UInt8[np.ndarray, "h w"] | None = None

    @property
    def largest(self) -> int:
        """The largest value, or what it may be where half of it is not known."""
        largest = int(self.pixels.max(initial=0))
        return largest << 8 | 255 if self.halved else largest

    @property
    def hidden(self) -> bool:
        """Whether the file says that it is transparent everywhere: then colours are meant, and alpha is an error."""
        return self.alpha is not None and not self.alpha.any()

    @property
    def reduced(self) -> bool:
        """Whether it was read at reduced size."""
        return self.pixels.shape[:2] != self.header.size


def read_header(content: Content) -> Header:
    """What a file says of its picture.

    Raises:
        FileFault: it is no picture.
    """
    with overheard():
        try:
            with _opened(content) as picture:
                return _header(content, picture)
        except DECODE_ERRORS as error:
            raise _unreadable(content, error) from None


def decode(
    content: Content, *, max_pixels: int = MAX_PIXELS, whole: bool = False, enough: int | None = None
) -> Picture:
    """Decode a file's first picture.

    Args:
        content: the file.
        max_pixels: a picture of more is read at reduced size.
        whole: never at reduced size; one that is far larger is refused all the same.
        enough: so many pixels are all that is needed: a JPEG of many more is decoded smaller, which is faster.

    Raises:
        FileFault: no readable picture, far larger than `max_pixels`, or not of whole numbers of up to 16 bits.
    """
    with overheard():
        try:
            with _opened(content) as picture:
                header = _header(content, picture)
                if header.size[0] * header.size[1] <= max_pixels:
                    _draft(picture, enough)
                    return _decoded(content, picture, header, 1, whole)
                with _LARGE:
                    factor = _reduction(content, picture, header, max_pixels, whole)
                    return _decoded(content, picture, header, factor, whole)
        except DECODE_ERRORS as error:
            raise _unreadable(content, error) from None


def turned(pixels: Shaped[np.ndarray, "h w *rest"], orientation: int) -> Shaped[np.ndarray, "h2 w2 *rest"]:
    """An array of pixels turned from what is stored to what is shown."""
    if orientation in (5, 6, 7, 8):
        pixels = pixels.swapaxes(0, 1)
    # As `Image.Transpose` has it, of what now has the shown shape.
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return np.ascontiguousarray(pixels)


def _unreadable(content: Content, error: BaseException) -> FileFault:
    if _is_heif(content):
        return FileFault(
            content.path,
            f"is HEIC or HEIF, as phones write it, and is not read ({brief(error)})",
            "save it as JPEG or PNG, or install the extra `heic` (pip install pillow-heif)",
        )
    if isinstance(error, MemoryError):
        return FileFault(content.path, "is too large for the memory there is", "save it smaller")
    is_tiff = content.data[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
    what = "of a form that is not read" if is_tiff and isinstance(error, UnidentifiedImageError) else brief(error)
    return FileFault(content.path, f"is no readable picture ({what})", "save it again as PNG or JPEG")


def _is_heif(content: Content) -> bool:
    """By its brand; the suffix may be .jpg, as phones name what they send."""
    start = content.data[:64]
    brands = (b"heic", b"heix", b"hevc", b"heim", b"heis", b"hevm", b"mif1", b"msf1")
    return start[4:8] == b"ftyp" and b"avif" not in start and any(brand in start[8:] for brand in brands)


def _opened(content: Content) -> Image.Image:
    if _is_heif(content):
        try:
            from pillow_heif.as_plugin import HeifImageFile
        except ImportError:
            raise ValueError("pillow-heif is not installed") from None
        return HeifImageFile(io.BytesIO(content.data))
    Image.init()
    formats = [name for name in _FORMATS if name in Image.OPEN]  # Pillow may be built without some
    file = io.BytesIO(content.data)
    try:
        return Image.open(file, formats=formats)
    except Image.DecompressionBombError:
        pass
    # Pillow's own limit is a setting of the process; the plugins know nothing of it. `decode` has one of its own.
    for name in formats:
        factory, accepts = Image.OPEN[name]
        if accepts is not None and accepts(content.data[:16]) is True:
            file.seek(0)
            return factory(file, "")
    raise ValueError("of no known format")


def _header(content: Content, picture: Image.Image) -> Header:
    tags: Any = getattr(picture, "tag_v2", {})
    # Pillow turns a TIFF by itself, and some versions give its turned size, others the stored one.
    is_tiff = picture.format == "TIFF"
    width, height = (int(tags[tag]) for tag in (256, 257)) if is_tiff else picture.size
    orientation = int(tags.get(_ORIENTATION, 1)) if is_tiff else _orientation(content, picture)
    orientation = orientation if orientation in _TURNS else 1
    size = (width, height) if orientation >= 5 else (height, width)
    bits, scaled = stated_bits(content, picture)
    compression = str(picture.info.get("compression", ""))
    return Header(
        size=size,
        orientation=orientation,
        frames=1 if picture.format in ("MPO", "HEIF") else getattr(picture, "n_frames", 1),  # previews, depth
        wide=picture.mode.startswith("I") or has_wide_colors(content, picture),
        bits=bits,
        scaled=scaled,
        transparent=picture.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in picture.info,
        noisy=picture.format in ("JPEG", "MPO", "HEIF", "AVIF")
        or (picture.format == "WEBP" and b"VP8L" not in content.data[:64])
        or "jpeg" in compression,
        profile=_profile(picture.info.get("icc_profile")),
    )


def _profile(data: object) -> str:
    if not isinstance(data, bytes) or any("sRGB".encode(code) in data for code in ("ascii", "utf-16-be")):
        return ""
    return hashlib.sha256(data).hexdigest()[:8] if data else ""


def _orientation(content: Content, picture: Image.Image) -> int:
    """As EXIF or XMP has it; Pillow decodes a whole PNG to find out, whose notes may come last."""
    if picture.format == "PNG" and not any(k in content.data for k in (b"eXIf", b"exif", b"Orientation")):
        return 1
    try:
        return int(picture.getexif().get(_ORIENTATION, 1))
    except DECODE_ERRORS:  # notes that are damaged say nothing, the picture may be sound
        return 1


def _draft(picture: Image.Image, enough: int | None) -> None:
    """Lets a JPEG be decoded smaller, as long as it keeps so many pixels."""
    width, height = picture.size
    if enough is None or picture.format not in ("JPEG", "MPO"):
        return
    factor = next((k for k in (8, 4, 2) if (width // k) * (height // k) >= enough), 1)
    if factor > 1:
        picture.draft(picture.mode, (width // factor, height // factor))


def _reduction(content: Content, picture: Image.Image, header: Header, max_pixels: int, whole: bool) -> int:
    """How many times smaller a large picture is made after decoding; a JPEG is decoded smaller as far as that goes."""
    width, height = picture.size
    if picture.format in _HARDLY_PACKED and width * height > _MOST_A_BYTE * len(content.data):
        fault = f"claims {width} x {height} pixels, which its {len(content.data)} bytes do not hold"
        raise FileFault(content.path, f"is a damaged picture: it {fault}")
    if picture.format in ("JPEG", "MPO") and not whole:
        factor = next((k for k in (2, 4, 8) if width * height <= max_pixels * k * k), 8)
        picture.draft(picture.mode, (width // factor, height // factor))
        width, height = picture.size
    pixels = width * height
    if pixels > _WHOLE * max_pixels:
        size = f"{header.size[1]} x {header.size[0]}"
        raise FileFault(
            content.path,
            f"is {size} pixels large, over {_WHOLE} times the {max_pixels} that are kept",
            "save it smaller, or raise --max_pixels",
        )
    factor = 1
    while not whole and pixels > max_pixels * factor * factor:
        factor += 1
    return factor


def _decoded(content: Content, picture: Image.Image, header: Header, factor: int, whole: bool) -> Picture:
    mode = picture.mode
    tags: Any = getattr(picture, "tag_v2", {})
    if mode == "L" and 2 in (tags.get(_SAMPLE_FORMAT) or ()):
        raise FileFault(content.path, "holds signed numbers of 8 bits, not a picture", "convert it to unsigned ones")
    if mode == "F":
        raise FileFault(content.path, "holds floating-point numbers, not a picture", "convert it to 8 or 16 bits")
    low, planar = None, header.wide and has_planes(picture) and not mode.startswith("I")
    if planar:
        low = colors_of_planes(content)
    else:
        _load(picture)
        if header.wide and not mode.startswith("I"):
            low = wide_colors(content, picture)
    if picture.format != "TIFF" and header.orientation != 1:
        picture = picture.transpose(_TURNS[header.orientation])
    alpha: np.ndarray | None = None
    if mode.startswith("I"):
        pixels = np.array(picture)
        if pixels.min() < 0 or pixels.max() > 65535:
            raise FileFault(content.path, "has values outside of 16 bits", "convert it to 8 or 16 bits")
        pixels = pixels.astype(np.uint16)
        if isinstance(key := picture.info.get("transparency"), int):
            alpha = np.where(pixels == key, np.uint8(0), np.uint8(255))
    elif low is not None:
        pixels, alpha = low
        if picture.format != "TIFF" or planar:  # of others Pillow has turned them
            pixels, alpha = turned(pixels, header.orientation), _turn(alpha, header)
    else:
        pixels, alpha = _plain(picture)
    if factor > 1:
        pixels, alpha = _shrunk(pixels, factor), None if alpha is None else _shrunk(alpha, factor)
    # Pillow turns grey of 8 bits and less round, 16 bits it leaves.
    inverted = mode.startswith("I") and tags.get(_PHOTOMETRIC) == 0
    halved = header.wide and low is None and not mode.startswith("I")
    palette = np.array(picture) if whole and picture.mode == "P" else None
    return Picture(header, pixels, alpha, inverted, halved, palette)


def _load(picture: Image.Image) -> None:
    """Decode; the TIFF and WebP plugins look at Pillow's limit once more, which is put aside for that moment."""
    try:
        picture.load()
    except Image.DecompressionBombError:
        with _LIMIT:
            usual = Image.MAX_IMAGE_PIXELS
            try:
                Image.MAX_IMAGE_PIXELS = None
                picture.load()
            finally:
                Image.MAX_IMAGE_PIXELS = usual


def _turn(part: np.ndarray | None, header: Header) -> np.ndarray | None:
    return None if part is None else turned(part, header.orientation)


def _plain(picture: Image.Image) -> tuple[np.ndarray, np.ndarray | None]:
    """Colours of 8 bits, or grey, and how opaque they are."""
    if picture.mode in ("RGBa", "La"):
        picture = picture.convert("RGBA")
    elif picture.mode == "PA" or "transparency" in picture.info:
        picture = picture.convert("LA" if picture.mode in ("1", "L") else "RGBA")
    elif picture.mode in ("1", "L"):
        return np.array(picture.convert("L")), None
    if picture.mode in ("LA", "RGBA"):
        pixels = np.array(picture)
        return pixels[..., 0] if picture.mode == "LA" else pixels[..., :3], pixels[..., -1]
    return np.array(picture if picture.mode == "RGB" else picture.convert("RGB")), None


def _shrunk(pixels: np.ndarray, factor: int) -> np.ndarray:
    """Means of blocks; Pillow shrinks no pictures of 16 bits."""
    if pixels.dtype == np.uint8:
        return np.array(Image.fromarray(pixels).reduce(factor))
    starts = [np.arange(0, length, factor) for length in pixels.shape[:2]]
    rows = []
    for top in starts[0]:
        block = pixels[top : top + factor].mean(axis=0)
        sums = np.add.reduceat(block, starts[1], axis=0)
        counts = np.diff(np.append(starts[1], pixels.shape[1]))
        rows.append(np.round(sums / counts.reshape(-1, *[1] * (block.ndim - 1))).astype(pixels.dtype))
    return np.stack(rows)
