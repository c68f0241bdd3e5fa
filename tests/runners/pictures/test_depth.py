"""Pictures of more than 8 bits: the same picture in any depth and container is prepared alike."""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from runners.cli import predict
from runners.data.sources.folder import Folder
from runners.errors import ImageError
from runners.pictures.digits import prepare_digit
from runners.pictures.reading import prepare_plain, read_picture
from tests.runners.pictures.odd_pictures import PAPER

Array = np.ndarray[Any, Any]
PIXELS = np.asarray(PAPER)
PIXELS = np.where(PIXELS.max() == PIXELS, 255, PIXELS)


def scaled(pixels: Array, white: float) -> Array:
    return np.rint(pixels / 255 * white)


def tiff(pixels: Array, kind: str, order: str = "<", inverted: bool = False) -> bytes:
    """An uncompressed TIFF of numbers of this kind, such as `u2`, or of 12 bits, two in three bytes."""
    if kind == "u12":
        first, second = pixels.astype(int).reshape(-1, 2).T
        data = np.stack([first >> 4, (first & 15) << 4 | second >> 8, second & 255], -1).astype(np.uint8).tobytes()
        bits = 12
    else:
        data, bits = pixels.astype(f"{order}{kind}").tobytes(), 8 * int(kind[1:])
    height, width = pixels.shape
    tags = {256: width, 257: height, 258: bits, 259: 1, 262: 0 if inverted else 1, 273: 8, 277: 1, 278: height}
    tags |= {279: len(data), 339: {"u": 1, "i": 2, "f": 3}[kind[0]]}
    entries = b"".join(struct.pack(f"{order}HHII", tag, 4, 1, value) for tag, value in sorted(tags.items()))
    if order == ">":  # shorts, because one decoder takes no longs there
        entries = b"".join(struct.pack(">HHIHH", tag, 3, 1, value, 0) for tag, value in sorted(tags.items()))
    head = struct.pack(f"{order}2sHI", b"II" if order == "<" else b"MM", 42, 8 + len(data))
    return head + data + struct.pack(f"{order}H", len(tags)) + entries + bytes(4)


def png(pixels: Array, colour_type: int) -> bytes:
    """A PNG of 16 bits: grey (0), colour (2), or either with alpha (4, 6), which is full."""
    bands = [pixels] * (3 if colour_type & 2 else 1) + [np.full_like(pixels, 65535)] * (colour_type >> 2)
    rows = np.stack(bands, -1).astype(">u2").reshape(len(pixels), -1)
    data = b"".join(b"\0" + row.tobytes() for row in rows)
    header = struct.pack(">IIBBBBB", *pixels.shape[::-1], 16, colour_type, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(data)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
        for name, content in chunks
    )


def pgm(pixels: Array, white: int, magic: str = "P5") -> bytes:
    head = f"{magic}\n{pixels.shape[1]} {pixels.shape[0]}\n{white}\n".encode()
    values = np.repeat(scaled(pixels, white).ravel(), 3 if magic == "P6" else 1)
    if magic == "P2":
        return head + " ".join(str(int(value)) for value in values).encode()
    return head + values.astype(">u2" if white > 255 else "u1").tobytes()


def pfm(pixels: Array) -> bytes:
    return f"Pf\n{pixels.shape[1]} {pixels.shape[0]}\n-1.0\n".encode() + pixels[::-1].astype("<f4").tobytes()


TWINS: dict[str, tuple[Callable[[Array], bytes], int]] = {
    "16 bits, PNG": (lambda pixels: png(scaled(pixels, 65535), 0), 65535),
    "16 bits, PNG, grey and alpha": (lambda pixels: png(scaled(pixels, 65535), 4), 255),
    "16 bits, PNG, colour": (lambda pixels: png(scaled(pixels, 65535), 2), 255),
    "16 bits, PNG, colour and alpha": (lambda pixels: png(scaled(pixels, 65535), 6), 255),
    "16 bits, TIFF": (lambda pixels: tiff(scaled(pixels, 65535), "u2"), 65535),
    "16 bits, big-endian TIFF": (lambda pixels: tiff(scaled(pixels, 65535), "u2", ">"), 65535),
    "16 bits, white is 0": (lambda pixels: tiff(scaled(255 - pixels, 65535), "u2", inverted=True), 65535),
    "16 bits, PGM": (lambda pixels: pgm(pixels, 65535), 65535),
    "16 bits, PGM as text": (lambda pixels: pgm(pixels, 65535, "P2"), 65535),
    "16 bits, PPM": (lambda pixels: pgm(pixels, 65535, "P6"), 255),
    "12 bits, TIFF": (lambda pixels: tiff(scaled(pixels, 4095), "u12"), 4095),
    "12 bits, PGM": (lambda pixels: pgm(pixels, 4095), 65535),
    "5 bits and more, PGM": (lambda pixels: pgm(pixels, 1000), 65535),
    "32 bits": (lambda pixels: tiff(scaled(pixels, 2**32 - 1), "u4"), 2**32 - 1),
    "32 bits with a sign": (lambda pixels: tiff(scaled(pixels, 2**31 - 1), "i4"), 2**31 - 1),
    "32 bits with a sign, big-endian": (lambda pixels: tiff(scaled(pixels, 2**31 - 1), "i4", ">"), 2**31 - 1),
    "floats": (lambda pixels: tiff(pixels / 255, "f4"), 1),
    "floats, big-endian": (lambda pixels: tiff(pixels / 255, "f4", ">"), 1),
    "floats, white is 0": (lambda pixels: tiff(1 - pixels / 255, "f4", inverted=True), 1),
    "floats, PFM": (lambda pixels: pfm(pixels / 255), 1),
}
"""Files that hold a picture of bytes in more bits, and the value that is white."""

PARTS: dict[str, tuple[Callable[[Array], bytes], int]] = {
    "12 bits in 16, PNG": (lambda pixels: png(scaled(pixels, 4095), 0), 4095),
    "12 bits in 16, TIFF": (lambda pixels: tiff(scaled(pixels, 4095), "u2"), 4095),
    "16 bits with a sign": (lambda pixels: tiff(scaled(pixels, 32767), "i2"), 32767),
    "8 bits in 16": (lambda pixels: png(pixels.astype(int), 0), 255),
    "8 bits in 32": (lambda pixels: tiff(pixels, "i4"), 255),
    "12 bits in 32": (lambda pixels: tiff(scaled(pixels, 4095), "u4"), 4095),
    "16 bits in 32": (lambda pixels: tiff(scaled(pixels, 65535), "u4"), 65535),
    "bytes as floats": (lambda pixels: tiff(pixels, "f4"), 255),
    "16 bits as floats": (lambda pixels: tiff(scaled(pixels, 65535), "f4"), 65535),
}
"""Files that use a part of their range: seen by the largest value, so only in a picture with a white pixel."""


def read(content: bytes, folder: Path) -> Image.Image:
    (folder / "picture").write_bytes(content)
    return read_picture(folder / "picture")


@pytest.mark.parametrize("kind", [*TWINS, *PARTS])
def test_the_same_picture_in_any_depth(kind: str, tmp_path: Path) -> None:
    make, white = {**TWINS, **PARTS}[kind]
    found = read(make(PIXELS), tmp_path)
    assert found.info["white"] == white
    for prepare in (prepare_plain, prepare_digit):
        expected = prepare(Image.fromarray(PIXELS), (1, 28, 28)).pixels
        assert np.abs(prepare(found, (1, 28, 28)).pixels - expected).max() <= 1 / 255 + 1e-6


@pytest.mark.parametrize("kind", TWINS)
def test_pictures_of_one_brightness_differ(kind: str, tmp_path: Path) -> None:
    """Also one that is nearly black: no other pixel decides on a pixel's brightness."""
    for value in (0, 1, 7, 60, 128, 254, 255):
        found = prepare_plain(read(TWINS[kind][0](np.full((4, 6), value)), tmp_path), (1, 4, 6)).pixels
        assert np.abs(found - value / 255).max() <= 1 / 255 + 1e-6, value


def test_a_large_picture_is_shrunk_as_bytes_are(tmp_path: Path) -> None:
    rows, columns = np.indices((2100, 5000))
    pixels = ((rows // 8 + columns // 8) % 256).astype(np.uint8)
    Image.fromarray(pixels).save(tmp_path / "bytes.png", compress_level=1)
    expected = np.asarray(read_picture(tmp_path / "bytes.png"), float)
    for content in (tiff(scaled(pixels, 65535), "u2"), tiff(scaled(pixels, 2**32 - 1), "u4"), tiff(pixels / 255, "f4")):
        assert np.abs(np.asarray(read(content, tmp_path), float) - expected).max() <= 1


def test_values_outside_of_the_range(tmp_path: Path) -> None:
    """Below 0 and what isn't finite is black; floats that no depth can hold are relative to the largest."""
    values = np.array([[-1, np.nan, np.inf, -np.inf, 0.5, 1]])
    assert np.asarray(read(tiff(values, "f4"), tmp_path)).tolist() == [[0, 0, 0, 0, 128, 255]]
    assert np.asarray(read(tiff(values[:, 4:] * 1e6, "f4"), tmp_path)).tolist() == [[128, 255]]
    assert np.asarray(read(tiff(np.array([[-5, 0, 65535]]), "i4"), tmp_path)).tolist() == [[0, 0, 255]]
    assert np.asarray(read(tiff(np.full((1, 1), 3e38), "f4"), tmp_path)).tolist() == [[255]]
    with pytest.raises(ImageError, match="none of its pixels is a finite number"):
        read(tiff(np.full((2, 2), np.nan), "f4"), tmp_path)


def test_json_says_which_value_is_white(trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for make, white in (TWINS["16 bits, PNG"], PARTS["12 bits in 16, PNG"]):
        (tmp_path / "a.png").write_bytes(make(PIXELS))
        assert predict.main([str(trained), str(tmp_path / "a.png"), "--json"]) == 0
        answer = json.loads(capsys.readouterr().out)
        assert (answer["label"], answer["white"]) == ("7", white)


def test_a_dataset_says_if_white_differs(tmp_path: Path) -> None:
    for name, value in (("a", 4000), ("b", 4200)):
        (tmp_path / name).mkdir()
        for number in range(3):
            picture = Image.fromarray(np.full((5, 5), value, np.uint16))
            picture.save(tmp_path / name / f"{number}.png")
    source = Folder(str(tmp_path), val_examples=1)
    source.read()
    assert list(source.notes) == ["the value that is white differs between the pictures: 4095 in 3, 65535 in 3"]
    (tmp_path / "b" / "0.png").write_bytes(tiff(np.full((5, 5), 3e38), "f4"))  # a white beyond 64 bits
    source.read()
    assert "4095 in 3, 65535 in 2, 3" in source.notes[-1]
