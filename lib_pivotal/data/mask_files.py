"""Writing a painted mask where a scan finds it."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from lib_pivotal.data.masks import MASK_FOLDERS
from lib_pivotal.data.pictures import flatten, inspect
from lib_pivotal.errors import DataError
from lib_pivotal.files import replacing

SHAPE_TOLERANCE = 0.02
"""How far the shapes of a mask and its picture may be apart: a mask is laid over its picture from edge to edge."""


def mask_place(picture: Path) -> Path:
    """Where a picture's painted mask is: `mask/NAME.png` beside it, which comes before all other places."""
    wanted = MASK_FOLDERS[0]
    folders = (path for path in picture.parent.iterdir() if path.is_dir() and path.name.lower() == wanted)
    return next(folders, picture.parent / wanted) / f"{picture.stem}.png"


def save_mask(picture: Path, painted: Image.Image) -> Path:
    """Write `painted` (grey counts as it is, transparent is black) as the mask of `picture`; returns its place.

    The file is there whole or not at all; a mask that was there is replaced.
    Raises DataError if the shapes differ or the place cannot be written.
    """
    facts = inspect(picture)
    shape, wanted = painted.width / painted.height, facts.width_px / facts.height_px
    if abs(shape / wanted - 1.0) > SHAPE_TOLERANCE:
        raise DataError(
            f"{picture.name}: a mask of {painted.width}x{painted.height} px does not fit a picture of "
            f"{facts.width_px}x{facts.height_px} px. Paint over the full picture."
        )
    rgba = painted.convert("RGBA")
    grey = flatten(rgba.convert("RGB"), rgba.getchannel("A"), background=(0, 0, 0)).convert("L")
    place = mask_place(picture)
    try:
        place.parent.mkdir(exist_ok=True)
        with replacing(place) as temporary:
            grey.save(temporary, format="PNG")
    except OSError as error:
        raise DataError(
            f"{place}: the mask cannot be written ({error.strerror}). Fix the folder's permissions."
        ) from error
    return place


def paint(
    now: Image.Image | None, strokes: Image.Image, *, weight: float, rest: float, size: tuple[int, int]
) -> Image.Image:
    """A mask of `size` (width, height) in px: `now` where it is given, else grey of `rest`; `weight` under the strokes.

    Weights are grey from 0 (black) to 1 (white); strokes are what is brighter than mid-grey, whatever their own size.
    """
    grey = Image.new("L", size, round(255 * rest)) if now is None else now.convert("L").resize(size)
    under = strokes.convert("L").resize(size).point(lambda value: 255 if value > 127 else 0)
    grey.paste(round(255 * weight), (0, 0, *size), under)
    return grey


def heat_map(picture: Image.Image, mask: Image.Image) -> Image.Image:
    """The picture in grey, redder where the mask is brighter."""
    weights = mask.convert("L").resize(picture.size)
    grey = picture.convert("L").convert("RGB")
    return Image.composite(Image.blend(grey, Image.new("RGB", picture.size, (255, 40, 0)), 0.6), grey, weights)


def remove_mask(picture: Path) -> bool:
    """Take a painted mask away again; False where there was none. Masks in other places stay."""
    place = mask_place(picture)
    if not place.exists():
        return False
    place.unlink()
    return True
