"""Photos of handwritten digits, drawn from MNIST's test digits: how often is each kind read right?

`python -m tools.photos RUN [--count N] [--save FOLDER]` prints a table of kinds of photos, and of MNIST's own images. A
digit is drawn with some pen on some paper, turned a little, lit, blurred, made noisy and saved as JPEG of quality 40.
"""

from __future__ import annotations

import argparse
import io
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageColor
from scipy import ndimage

from runners.data.sources.idx import Mnist, read_idx
from runners.errors import CheckpointError, ImageError
from runners.prediction import Predictor

Array = np.ndarray[Any, Any]
Random = np.random.Generator
Size = tuple[int, int]
Kind = Callable[[Array, Size, Random], Array]

WHITE, BLACK, BLUE, RED, PALE_BLUE, GREEN, PINK, WOOD, COFFEE, BOARD, CHALK, GRAPHITE = (
    np.array(ImageColor.getrgb(f"#{colour}")) / 255
    for colour in "f0eee6 232328 23328c be232d a5bee1 59a673 f26166 523826 805933 294233 e6e6dc 4c4c50".split()
)


def enlarged(image: Array, height: int) -> Array:
    """A 28x28 digit this high, with crisp strokes."""
    large = Image.fromarray(image.astype(np.float32) / 255).resize((height, height), Image.Resampling.BICUBIC)
    return np.asarray(np.clip((ndimage.gaussian_filter(np.asarray(large), height / 100) - 0.4) * 5, 0, 1))


def skeleton(mask: Array) -> Array:
    """The middle line of strokes (Zhang and Suen, 1984, A fast parallel algorithm for thinning digital patterns)."""
    mask = np.pad(mask, 1)
    around = [(1, 0), (1, -1), (0, -1), (-1, -1), (-1, 0), (-1, 1), (0, 1), (1, 1)]
    before = None
    while before is None or (mask != before).any():
        before = mask
        for corner in (0, 4):
            p = [np.roll(mask, shift, (0, 1)) for shift in around]
            rises = sum((~p[i] & p[(i + 1) % 8]).astype(int) for i in range(8))
            count = np.sum(p, axis=0)
            north, east, south, west = (p[(i + corner) % 8] for i in (0, 2, 4, 6))
            keeps_side = ~(north & east & south) & ~(east & south & west)
            mask = mask & ~((count >= 2) & (count <= 6) & (rises == 1) & keeps_side)
    return mask[1:-1, 1:-1]


def pen(image: Array, height: int, width: float) -> Array:
    """The digit drawn anew with a pen whose width is this share of the digit's height, 20 of 28 pixels."""
    distance = ndimage.distance_transform_edt(~skeleton(enlarged(image, 112) > 0.5)).astype(np.float32)
    far = np.asarray(Image.fromarray(distance).resize((height, height), Image.Resampling.BICUBIC)) * (height / 112)
    return np.clip(width * height * 0.36 - far + 0.5, 0, 1)


def pen_of(low: float, high: float) -> Callable[[Array, Size, Random], Array]:
    """Draws strokes of a width between these, the digit taking 32 to 64 % of the shorter side."""
    return lambda image, size, random: pen(image, tall(size, random), random.uniform(low, high))


def tall(size: Size, random: Random) -> int:
    return round(min(size) * random.uniform(0.45, 0.9))


def marker(image: Array, size: Size, random: Random) -> Array:
    """Strokes as MNIST has them."""
    return enlarged(image, tall(size, random))


def dots(image: Array, size: Size, random: Random) -> Array:
    height = tall(size, random)
    left = np.argwhere(skeleton(enlarged(image, 112) > 0.5)) * (height / 112)
    empty = np.ones((height, height), bool)
    while len(left):
        row, column = left[0].astype(int)
        empty[row, column] = False
        left = left[np.hypot(*(left - left[0]).T) > height * 0.075]
    return np.asarray(np.clip(height * 0.026 - ndimage.distance_transform_edt(empty) + 0.5, 0, 1))


def pieces(image: Array, size: Size, random: Random) -> Array:
    """The pen was lifted: two gaps across the digit."""
    stroke = pen_of(0.08, 0.12)(image, size, random)
    rows, columns = np.indices(stroke.shape) / len(stroke) - 0.5
    for _ in range(2):
        angle, offset = random.uniform(0, np.pi), random.uniform(-0.15, 0.15)
        stroke = stroke * (np.abs(rows * np.sin(angle) + columns * np.cos(angle) - offset) > 0.02)
    return stroke


def somewhere(stroke: Array, size: Size, random: Random, margin: float = 0.08, part: Any = None) -> Array:
    """Turned by up to 8 degrees, on an empty page; `part` of the free rows and columns are above and left of it."""
    turned = ndimage.rotate(stroke, random.uniform(-8, 8), reshape=False, order=1)
    (box,) = ndimage.find_objects((turned > 0.5).astype(int))
    cut = turned[box]
    free = [max(0, s - c - 2 * round(margin * s)) for s, c in zip(size, cut.shape, strict=True)]
    part = random.uniform(0, 1, 2) if part is None else part
    top, left = (round(margin * s + f * p) for s, f, p in zip(size, free, part, strict=True))
    page = np.zeros(size)
    page[top : top + cut.shape[0], left : left + cut.shape[1]] = cut[: size[0] - top, : size[1] - left]
    return page


def draw(ink: Array, page: Array, colour: Array) -> Array:
    """Ink [H, W] of a colour over a page [H, W, 3] or of one colour."""
    drawn: Array = page * (1 - ink[..., None]) + colour * ink[..., None]
    return drawn


def on_paper(strokes: Kind = marker, paper: Array = WHITE, colour: Array = BLACK, **where: Any) -> Kind:
    return lambda image, size, random: draw(
        somewhere(strokes(image, size, random), size, random, **where), paper, colour
    )


def ramp(size: Size, random: Random) -> Array:
    """From 0 to 1 across the picture, in some direction."""
    angle = random.uniform(0, 2 * np.pi)
    rows, columns = np.indices(size)
    slope = rows * np.sin(angle) + columns * np.cos(angle)
    return np.asarray((slope - slope.min()) / np.ptp(slope))


def lamp(size: Size, random: Random) -> Array:
    rows, columns = np.indices(size)
    centre = random.uniform(0.3, 0.7, 2) * size
    far = np.hypot(rows - centre[0], columns - centre[1]) / max(size)
    return np.asarray(0.25 + 0.75 * np.exp(-3 * far**2))


def shadow(size: Size, random: Random) -> Array:
    """Half of the light is taken away beyond a straight edge."""
    return soft(ramp(size, random) < random.uniform(0.35, 0.65), size, random)


def leaves(size: Size, random: Random) -> Array:
    """Round shadows, some as large as the digit."""
    return soft(ndimage.gaussian_filter(random.normal(0, 1, size), min(size) / 8) > 0, size, random)


def soft(dark: Array, size: Size, random: Random) -> Array:
    return np.asarray(ndimage.gaussian_filter(np.where(dark, 0.45, 1.0), random.uniform(0.004, 0.015) * min(size)))


def in_light(light: Callable[[Size, Random], Array]) -> Kind:
    return lambda image, size, random: on_paper()(image, size, random) * light(size, random)[..., None]


def lines(size: Size, random: Random, squared: bool = False) -> Array:
    """Where lines are printed on paper."""
    step, width = min(size) / random.uniform(10, 18), random.uniform(0.002, 0.004) * min(size)
    tilt = np.tan(np.deg2rad(random.uniform(-3, 3)))
    rows, columns = np.indices(size)
    across = [rows + tilt * columns, columns - tilt * rows][: 1 + squared]
    far = np.min([np.abs(a % step - step / 2) for a in across], axis=0)
    return np.asarray(np.clip(width / 2 + 0.5 - far, 0, 1))


def ruled(colour: Array, squared: bool = False, strength: float = 1) -> Kind:
    def scene(image: Array, size: Size, random: Random) -> Array:
        paper = draw(strength * lines(size, random, squared), WHITE, colour)
        return on_paper(pen_of(0.06, 0.12), paper, BLUE if colour is PALE_BLUE else BLACK)(image, size, random)

    return scene


def on_a_table(scene: Kind) -> Kind:
    """The sheet, turned a little, lies on dark wood that is seen all around it."""

    def table(image: Array, size: Size, random: Random) -> Array:
        top, left = (round(0.19 * s) for s in size)
        inner = (size[0] - 2 * top, size[1] - 2 * left)
        page = np.pad(scene(image, inner, random), ((top, top), (left, left), (0, 0)), mode="edge")
        sheet = np.zeros(size)
        margin = [round(random.uniform(0.05, 0.14) * s) for s in size]
        sheet[margin[0] : -margin[0], margin[1] : -margin[1]] = 1
        sheet = ndimage.rotate(sheet, random.uniform(-3, 3), reshape=False, order=1)
        grain = ndimage.gaussian_filter(random.normal(0, 1, size), 3)
        return draw(1 - sheet, page, WOOD * (1 + 0.15 * grain / grain.std())[..., None])

    return table


def desk(image: Array, size: Size, random: Random) -> Array:
    """All at once: a thin pen, ruled paper, a table, a shadow and a lamp."""
    light = shadow(size, random) * lamp(size, random)
    return np.asarray(on_a_table(ruled(PALE_BLUE))(image, size, random) * light[..., None])


def one_dark_side(image: Array, size: Size, random: Random) -> Array:
    page = on_paper()(image, size, random)
    return np.pad(page, ((0, 0), (round(random.uniform(0.05, 0.3) * size[1]), 0), (0, 0)), constant_values=0.1)


def tight(image: Array, size: Size, random: Random) -> Array:
    """Nothing but the digit, cut at its edges."""
    page = on_paper()(image, size, random)
    (box,) = ndimage.find_objects((page.mean(-1) < 0.5).astype(int))
    return np.asarray(page[box])


def touching(image: Array, size: Size, random: Random) -> Array:
    """At an edge of the picture, or in a corner."""
    part = (random.choice([0, 0.5, 1]), random.choice([0, 1]))
    return on_paper(margin=0, part=part)(image, size, random)


def chalk(image: Array, size: Size, random: Random) -> Array:
    smears = ndimage.gaussian_filter(random.normal(0, 1, size), 40)
    board = BOARD * (1 + 0.25 * smears / smears.std())[..., None]
    rough = ndimage.gaussian_filter(random.uniform(-0.5, 0.5, size), 1.5)
    ink = somewhere(pen_of(0.06, 0.12)(image, size, random), size, random) * np.clip(0.9 + 4 * rough, 0.2, 0.95)
    return draw(ink, board, CHALK) * (1 - 0.4 * ramp(size, random))[..., None]


def pencil(image: Array, size: Size, random: Random) -> Array:
    rough = ndimage.gaussian_filter(random.uniform(-0.5, 0.5, size), 1)
    ink = somewhere(pen_of(0.04, 0.08)(image, size, random), size, random)
    return draw(ink * np.clip(0.3 + 0.8 * rough, 0.05, 0.5), WHITE, GRAPHITE)


def stained(image: Array, size: Size, random: Random) -> Array:
    """Crumbs, and the faint ring of a cup."""
    page = on_paper()(image, size, random)
    rows, columns = np.indices(size)
    for _ in range(8):
        row, column = random.uniform(0.02, 0.98, 2) * size
        crumb = np.clip(random.uniform(0.003, 0.008) * min(size) - np.hypot(rows - row, columns - column), 0, 1)
        page = draw(crumb, page, BLACK)
    row, column = random.uniform(0, 1, 2) * size
    ring = np.clip(8 - np.abs(np.hypot(rows - row, columns - column) - 0.15 * min(size)), 0, 1)
    return draw(0.2 * ring, page, COFFEE)


def boxed(image: Array, size: Size, random: Random, open_side: bool = False) -> Array:
    """In the printed box of a form, of which one side may be missing."""
    ink = somewhere(pen_of(0.06, 0.12)(image, size, random), size, random, margin=0.12)
    (inside,) = ndimage.find_objects((ink > 0.5).astype(int))
    gap, width = (
        round(random.uniform(0.03, 0.08) * min(size)),
        int(random.integers(6, 12) if open_side else random.integers(2, 6)),
    )
    box = np.zeros(size)
    for grown, value in ((gap + width, 1), (gap, 0)):
        box[tuple(slice(part.start - grown, part.stop + grown) for part in inside)] = value
    if open_side:
        rows, columns = inside
        sides: list[Any] = [
            np.s_[: rows.start],
            np.s_[rows.stop :],
            np.s_[:, : columns.start],
            np.s_[:, columns.stop :],
        ]
        box[sides[int(random.integers(4))]] = 0
    return draw(np.maximum(ink, box), WHITE, BLACK)


def night(image: Array, size: Size, random: Random) -> Array:
    return 0.5 * on_paper()(image, size, random) + random.normal(0, 0.1, (*size, 3))


def plotted(image: Array, size: Size, random: Random) -> Array:
    """An image of MNIST, light on dark, on a white page."""
    side = round(min(size) * random.uniform(0.5, 0.8))
    top, left = (round(random.uniform(0.05 * s, 0.95 * s - side)) for s in size)
    page = np.ones(size)
    page[top : top + side, left : left + side] = np.asarray(Image.fromarray(image).resize((side, side))) / 255
    return np.repeat(page[..., None], 3, axis=2)


KINDS: dict[str, Kind] = {
    "even light": on_paper(),
    "light from one side": in_light(lambda size, random: 1 - 0.7 * ramp(size, random)),
    "lamp": in_light(lamp),
    "shadow": in_light(shadow),
    "round shadows": in_light(leaves),
    "sheet on a table": on_a_table(on_paper()),
    "one dark side": one_dark_side,
    "ruled": ruled(PALE_BLUE),
    "squared": ruled(PALE_BLUE, squared=True),
    "dark ruling": ruled(BLACK, strength=0.8),
    "boxed": boxed,
    "box open on a side": lambda image, size, random: boxed(image, size, random, open_side=True),
    "stained": stained,
    "thin pen": on_paper(pen_of(0.025, 0.05), colour=BLUE),
    "thick pen": on_paper(pen_of(0.18, 0.24)),
    "red ink": on_paper(pen_of(0.06, 0.12), colour=RED),
    "red on green": on_paper(paper=GREEN, colour=PINK),
    "pencil": pencil,
    "chalk": chalk,
    "in pieces": on_paper(pieces, colour=BLUE),
    "dotted": on_paper(dots),
    "small": on_paper(lambda image, size, random: pen(image, round(min(size) * random.uniform(0.14, 0.2)), 0.1)),
    "touching the edge": touching,
    "cut tightly": tight,
    "night": night,
    "plotted": plotted,
    "desk": desk,
}


def photo(kind: str, image: Array, random: Random, sides: Size = (600, 1000)) -> bytes:
    """What a camera makes of such a scene: a JPEG, each side between these two."""
    height, width = random.integers(*sides, 2).tolist()
    scene = KINDS[kind](image, (height, width), random)
    scene = ndimage.gaussian_filter(scene, (*[random.uniform(0.0012, 0.0024) * min(height, width)] * 2, 0))
    scene = scene + random.normal(0, 0.025, scene.shape)
    return encoded(Image.fromarray((scene.clip(0, 1) * 255).astype(np.uint8)), "JPEG", quality=40)


def encoded(picture: Image.Image, kind: str, **options: int) -> bytes:
    """A picture as a file of this format."""
    stream = io.BytesIO()
    picture.save(stream, kind, **options)
    return stream.getvalue()


def photos(kind: str, images: Array, sides: Size = (600, 1000)) -> Iterator[bytes]:
    """One of each image, the same ones every time."""
    for number, image in enumerate(images):
        yield photo(kind, image, np.random.default_rng([number, *kind.encode()]), sides)


def digits() -> tuple[Array, Array]:
    """The images and labels of MNIST's test file."""
    folder = Mnist().path
    return read_idx(folder / "t10k-images-idx3-ubyte.gz"), read_idx(folder / "t10k-labels-idx1-ubyte.gz")


def accuracy(predictor: Predictor, files: Iterable[bytes], labels: Array, folder: Path) -> float:
    """The share of pictures that are read right, each written to the folder before."""
    right: list[bool] = []
    for content, label in zip(files, labels, strict=False):
        ending = "png" if content.startswith(b"\x89PNG") else "jpg"
        file = folder / f"{len(right):04d}-is-{label}.{ending}"
        file.write_bytes(content)
        try:
            right.append(predictor.predict(file).ranking[0][0] == str(label))
        except ImageError:
            right.append(False)
    return float(np.mean(right))


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m tools.photos", description="How often are photos of digits read right?"
    )
    parser.add_argument("run", help="a run directory, or a checkpoint in it")
    parser.add_argument("--count", type=int, default=100, help="photos of each kind (default 100)")
    parser.add_argument("--save", type=Path, help="keep the photos in this folder")
    options = parser.parse_args()
    try:
        predictor = Predictor.load(options.run)
    except CheckpointError as error:
        sys.exit(f"error: {error}")
    images, labels = digits()
    with tempfile.TemporaryDirectory() as scratch:
        rows: dict[str, Iterable[bytes]] = {
            "MNIST's own images": (encoded(Image.fromarray(image), "PNG") for image in images[:1000]),
            **{kind: photos(kind, images[: options.count]) for kind in KINDS},
        }
        for kind, pictures in rows.items():
            folder = (options.save or Path(scratch)) / kind
            folder.mkdir(parents=True, exist_ok=True)
            print(f"{kind:20} {accuracy(predictor, pictures, labels, folder):6.1%}", flush=True)


if __name__ == "__main__":
    main()
