"""Pictures of every sort, made when they are needed: sevens that can be read, and what can't be."""

from __future__ import annotations

import io
import os
import socket
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, PngImagePlugin

from tools import photos

Array = np.ndarray[Any, Any]

DRAWN = np.asarray(Image.fromarray(photos.digits()[0][0]).resize((84, 84), Image.Resampling.BICUBIC))
"""A seven, light on dark."""
SEVEN = Image.fromarray(DRAWN)
PAPER = Image.fromarray(255 - DRAWN)


def saved(picture: Image.Image, name: str, **options: Any) -> Callable[[Path], Path]:
    """Makes this picture in a folder, in the format that the name or `format` says."""

    def make(folder: Path) -> Path:
        picture.save(folder / name, **options)
        return folder / name

    return make


def written(content: bytes, name: str = "picture.png") -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        (folder / name).write_bytes(content)
        return folder / name

    return make


def encoded(picture: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    stream = io.BytesIO()
    picture.save(stream, kind, **options)
    return stream.getvalue()


def turned(orientation: int) -> Callable[[Path], Path]:
    """A wide page as a camera saves it that was held so."""
    page = Image.new("L", (168, 84), 255)
    page.paste(PAPER)
    undo = {2: "FLIP_LEFT_RIGHT", 3: "ROTATE_180", 4: "FLIP_TOP_BOTTOM", 5: "TRANSPOSE", 6: "ROTATE_90"}
    undo |= {7: "TRANSVERSE", 8: "ROTATE_270"}
    if orientation in undo:
        page = page.transpose(Image.Transpose[undo[orientation]])
    exif = Image.Exif()
    exif[0x0112] = orientation
    return saved(page, "turned.jpg", exif=exif)


def with_alpha(ink: int, mode: str) -> Image.Image:
    """Ink on nothing."""
    picture = Image.new("LA", SEVEN.size, ink)
    picture.putalpha(SEVEN)
    return picture.convert(mode)


def palette(transparent: bool = False) -> Callable[[Path], Path]:
    picture = PAPER.quantize(16)
    ground = picture.getpixel((0, 0))
    return saved(picture, "palette.png", **({"transparency": ground} if transparent else {}))


def floats(values: Array) -> Callable[[Path], Path]:
    return saved(Image.fromarray(values.astype(np.float32)), "floats.tiff")


def with_holes() -> Array:
    values = DRAWN / 255 - 0.5
    values[0, :3] = np.nan, np.inf, -np.inf
    return values


def several(kind: str) -> Callable[[Path], Path]:
    zero = Image.fromarray(photos.digits()[0][3]).resize(SEVEN.size)
    return saved(SEVEN, f"several.{kind}", save_all=True, append_images=[zero, zero])


def without_adobe(content: bytes) -> bytes:
    """A CMYK JPEG without the marker of the program that wrote it."""
    start = content.index(b"\xff\xee")
    return content[:start] + content[start + 2 + int.from_bytes(content[start + 2 : start + 4], "big") :]


def on_page(size: tuple[int, int], at: tuple[int, int] = (0, 0), digit: Image.Image = PAPER) -> Image.Image:
    page = Image.new("L", size, 255)
    page.paste(digit, at)
    return page


def in_colours(ground: tuple[int, int, int], ink: tuple[int, int, int]) -> Image.Image:
    return Image.composite(Image.new("RGB", SEVEN.size, ink), Image.new("RGB", SEVEN.size, ground), SEVEN)


def colour_key(folder: Path) -> Path:
    """Grey, of which one value is transparent."""
    strong = Image.fromarray(np.where(DRAWN > 100, 30, 200).astype(np.uint8))
    return saved(strong, "key.png", transparency=200)(folder)


def linked(folder: Path) -> Path:
    (folder / "link.png").symlink_to(saved(SEVEN, "target.png")(folder))
    return folder / "link.png"


def in_folders(folder: Path) -> Path:
    (folder / "a" / "b").mkdir(parents=True)
    (folder / "a" / "loop").symlink_to(folder)
    (folder / "a" / "notes.txt").write_text("not asked")
    saved(SEVEN, "seven.PNG")(folder / "a" / "b")
    return folder / "a"


INFO = PngImagePlugin.PngInfo()
INFO.add_text("Comment", "x" * 10000, zip=True)

READ: dict[str, tuple[Callable[[Path], Path], dict[str, Any]]] = {
    "an image of MNIST": (
        saved(Image.fromarray(photos.digits()[0][0]), "a.png"),
        {"inverted": False, "size": [28, 28]},
    ),
    "dark on light": (saved(PAPER, "a.png"), {"inverted": True, "orientation": 1, "background": None}),
    "JPEG": (saved(SEVEN, "a.jpg"), {"size": [84, 84], "pieces": 1, "more_frames": False}),
    "progressive JPEG": (saved(SEVEN, "a.jpg", progressive=True, quality=30), {}),
    "BMP": (saved(SEVEN, "a.bmp"), {}),
    "GIF": (saved(SEVEN, "a.gif"), {"more_frames": False}),
    "TIFF": (saved(SEVEN, "a.tiff"), {}),
    "TIFF, LZW": (saved(SEVEN, "a.tiff", compression="tiff_lzw"), {}),
    "TIFF, fax": (saved(PAPER.convert("1"), "a.tiff", compression="group4"), {"inverted": True}),
    "WebP": (saved(SEVEN, "a.webp"), {}),
    "PGM": (saved(SEVEN, "a.pgm"), {}),
    "PNG named .txt": (written(encoded(SEVEN), "a.txt"), {}),
    "JPEG named .png": (written(encoded(SEVEN, "JPEG"), "a.png"), {}),
    "no ending": (written(encoded(SEVEN, "BMP"), "a"), {}),
    "spaces and umlauts": (written(encoded(SEVEN), " a größe .png"), {}),
    "a line break": (written(encoded(SEVEN), "a\nb.png"), {}),
    "bytes that are no text": (written(encoded(SEVEN), os.fsdecode(b"\xff\xfe.png")), {}),
    "a symbolic link": (linked, {}),
    "folders in a folder": (in_folders, {}),
    "animated GIF": (several("gif"), {"more_frames": True}),
    "animated PNG": (several("png"), {"more_frames": True}),
    "animated WebP": (several("webp"), {"more_frames": True, "background": None}),
    "TIFF of pages": (several("tiff"), {"more_frames": True}),
    "16 bits": (saved(Image.fromarray(DRAWN.astype(np.uint16) * 257), "a.png"), {"inverted": False}),
    "8 bits in 16": (saved(Image.fromarray(DRAWN.astype(np.uint16)), "a.png"), {"inverted": False}),
    "16 bits, TIFF": (saved(Image.fromarray(60000 - DRAWN.astype(np.uint16) * 200), "a.tiff"), {"inverted": True}),
    "32 bits": (saved(Image.fromarray(DRAWN.astype(np.int32) * 8000000 - 9), "a.tiff"), {}),
    "floats": (floats(DRAWN / 255), {"inverted": False}),
    "NaN and infinity": (floats(with_holes()), {"inverted": False}),
    "1 bit": (saved(PAPER.convert("1"), "a.png"), {"inverted": True}),
    "palette": (palette(), {"inverted": True, "background": None}),
    "palette, transparent": (palette(transparent=True), {"background": "white"}),
    "a transparent colour": (colour_key, {"background": "white"}),
    "black on nothing": (saved(with_alpha(0, "RGBA"), "a.png"), {"background": "white", "inverted": True}),
    "white on nothing": (saved(with_alpha(255, "RGBA"), "a.png"), {"background": "black", "inverted": False}),
    "grey on nothing": (saved(with_alpha(60, "LA"), "a.png"), {"background": "white", "inverted": True}),
    "CMYK": (saved(PAPER.convert("CMYK"), "a.jpg"), {"inverted": True}),
    "CMYK without Adobe's marker": (written(without_adobe(encoded(PAPER.convert("CMYK"), "JPEG")), "a.jpg"), {}),
    "CMYK, TIFF": (saved(PAPER.convert("CMYK"), "a.tiff"), {"inverted": True}),
    **{f"orientation {n}": (turned(n), {"orientation": n, "size": [168, 84]}) for n in range(1, 9)},
    "orientation 99": (turned(99), {"orientation": 1}),
    "broken EXIF": (saved(SEVEN, "a.jpg", exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff"), {"orientation": 1}),
    "broken colour profile": (saved(SEVEN, "a.png", icc_profile=b"no profile"), {}),
    "a comment": (saved(SEVEN, "a.png", pnginfo=INFO), {}),
    "wide": (saved(on_page((900, 100), (700, 8)), "a.png"), {"size": [900, 100]}),
    "tall": (saved(on_page((84, 900), (0, 100)), "a.png"), {"size": [84, 900]}),
    "tiny": (saved(SEVEN.resize((12, 12)), "a.png"), {"size": [12, 12]}),
    "huge, 1 bit": (saved(SEVEN.resize((9000, 9000)).convert("1"), "a.png"), {"size": [9000, 9000], "inverted": False}),
    "huge, JPEG": (saved(on_page((6000, 4000), digit=PAPER.resize((4000, 4000))), "a.jpg"), {"size": [6000, 4000]}),
    "red on a green as bright": (saved(in_colours((89, 166, 115), (242, 97, 102)), "a.png"), {}),
    "yellow on white": (saved(in_colours((255, 255, 255), (255, 235, 0)), "a.png"), {}),
    "white on red": (saved(in_colours((180, 20, 20), (255, 255, 255)), "a.png"), {"inverted": False}),
    "a dark picture": (saved(SEVEN.point(lambda value: value // 8), "a.png"), {"inverted": False}),
}


def png_of(width: int, height: int) -> bytes:
    """Only the header of a PNG of this size, and some data."""
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(bytes(1000)))]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in chunks
    )


def bomb() -> bytes:
    """A comment that inflates to 100 MB, in front of a picture's data."""
    content = encoded(SEVEN)
    data = b"Comment\0\0" + zlib.compress(bytes(100 << 20), 9)
    chunk = struct.pack(">I", len(data)) + b"zTXt" + data + struct.pack(">I", zlib.crc32(b"zTXt" + data))
    return content[:33] + chunk + content[33:]


def noise(side: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(100, 200, (side, side)).astype(np.uint8))


def special(name: str, make: Callable[[Path], object]) -> Callable[[Path], Path]:
    def made(folder: Path) -> Path:
        make(folder / name)
        return folder / name

    return made


def listening(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(os.path.relpath(path))  # a socket's whole name has to be short


def linked_pipe(path: Path) -> None:
    os.mkfifo(path.with_name("pipe"))
    path.symlink_to("pipe")


def sparse(path: Path) -> None:
    path.write_bytes(encoded(SEVEN))
    os.truncate(path, 1 << 30)


def flipped_bit(content: bytes) -> bytes:
    at = content.index(b"IDAT") + 40
    return content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]


NOT_A_PICTURE = "not a picture in PNG, JPEG, BMP, GIF, TIFF, WebP or PPM format"
NOT_A_FILE = "not a regular file but a pipe, socket or device"
NOTHING = "nothing is drawn on it"
PHOTO = encoded(on_page((400, 400), (100, 100)), "JPEG")
GREY = Image.fromarray(np.linspace(60, 220, 84 * 84).reshape(84, 84).astype(np.uint8))

REFUSED: dict[str, tuple[Callable[[Path], Path], str]] = {
    "missing": (lambda folder: folder / "a.png", "there is no such file"),
    "a link to nothing": (special("a.png", lambda path: path.symlink_to("nothing")), "there is no such file"),
    "a link to itself": (special("a.png", lambda path: path.symlink_to(path)), "can't be read: "),
    "below a file": (lambda folder: written(b"x")(folder) / "a.png", "can't be read: Not a directory"),
    "a name too long": (lambda folder: folder / ("a" * 300), "can't be read: File name too long"),
    "an empty folder": (special("a", Path.mkdir), "a folder without pictures"),
    "a folder of an empty folder": (special("a/b", lambda path: path.mkdir(parents=True)), "a folder without pictures"),
    "a pipe": (special("a.png", os.mkfifo), NOT_A_FILE),
    "a link to a pipe": (special("a.png", linked_pipe), NOT_A_FILE),
    "a socket": (special("a.png", listening), NOT_A_FILE),
    "a device": (lambda folder: Path("/dev/zero"), NOT_A_FILE),
    "empty": (written(b""), "an empty file"),
    "a gigabyte": (special("a.png", sparse), "the file has 1,024 MB, at most 512 are allowed"),
    "text": (written(b"hello", "a.txt"), NOT_A_PICTURE),
    "text named .png": (written(b"hello"), NOT_A_PICTURE),
    "SVG": (written(b"<svg xmlns='http://www.w3.org/2000/svg'></svg>", "a.svg"), NOT_A_PICTURE),
    "HTML": (written(b"<!DOCTYPE html><img src='a.png'>", "a.html"), NOT_A_PICTURE),
    "PDF": (saved(SEVEN, "a.pdf"), NOT_A_PICTURE),
    "an icon": (saved(SEVEN, "a.ico"), NOT_A_PICTURE),
    "a pickle": (written(b"\x80\x04K\x07."), NOT_A_PICTURE),
    "a signature alone": (written(b"\x89PNG\r\n\x1a\n"), NOT_A_PICTURE),
    "half a PNG": (written(encoded(SEVEN)[:900]), "can't be read: image file is truncated"),
    "half a JPEG": (written(PHOTO[: len(PHOTO) // 2], "a.jpg"), "can't be read: image file is truncated"),
    "half a GIF": (written(encoded(SEVEN, "GIF")[:1200], "a.gif"), "can't be read: image file is truncated"),
    "half a BMP": (written(encoded(SEVEN, "BMP")[:3000], "a.bmp"), "can't be read: image file is truncated"),
    "half a TIFF": (written(encoded(SEVEN, "TIFF")[:3000], "a.tiff"), "can't be read: image file is truncated"),
    "half a WebP": (written(encoded(SEVEN, "WEBP")[:300], "a.webp"), "can't be read: "),
    "a flipped bit": (written(flipped_bit(encoded(SEVEN))), "can't be read: "),
    "a width of 0": (written(png_of(0, 10)), NOT_A_PICTURE),
    "a promise of 144 megapixels": (
        written(png_of(12000, 12000)),
        "it has 12000x12000 pixels, more than the limit of 128 megapixels",
    ),
    "a WebP of 36 megapixels": (
        saved(Image.new("L", (6000, 6000)), "a.webp", quality=1, method=0),
        "it has 6000x6000 pixels, more than the limit of 32 megapixels",
    ),
    "a promise of petabytes": (written(png_of(2**31 - 1, 2**31 - 1)), "more than the limit of 128 megapixels"),
    "a comment of 100 MB": (written(bomb()), "can't be read: Decompressed data too large"),
    "one pixel": (saved(Image.new("L", (1, 1), 200), "a.png"), NOTHING),
    "a line of pixels": (saved(Image.new("L", (1, 1000), 200), "a.png"), NOTHING),
    "all white": (saved(Image.new("RGB", (300, 200), "white"), "a.png"), NOTHING),
    "all black": (saved(Image.new("L", (28, 28)), "a.png"), NOTHING),
    "all transparent": (saved(Image.new("RGBA", (84, 84)), "a.png"), NOTHING),
    "all of one 16-bit grey": (saved(Image.fromarray(np.full((30, 30), 999, np.uint16)), "a.png"), NOTHING),
    "no number in it": (floats(np.full((30, 30), np.nan)), "none of its pixels is a finite number"),
    "uneven light, and nothing else": (saved(GREY, "a.png"), NOTHING),
    "noise": (saved(noise(400), "a.png"), "nothing is drawn on it but noise"),
}
