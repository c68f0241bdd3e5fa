"""Pickles as their grammar has them: plain data and arrays, written in every way there is, with a few wrong parts."""

from __future__ import annotations

import pickletools
import random
import struct
from collections.abc import Callable, Iterator
from typing import Any

from runners.files import safe_unpickler

ARGUMENTS = {"uint1": 1, "uint2": 2, "uint4": 4, "uint8": 8, "int4": 4, "float8": 8}
WORDS = (b"numpy", b"ndarray", b"dtype", b"os", b"system", b"_reconstruct", b"f4", b"O", b"<", b"\xff\xfe", b"")
MULTIARRAY = (b"numpy._core.multiarray", b"numpy.core.multiarray")  # of numpy 2 and of numpy 1
UNKNOWN = ((b"os", b"system"), (b"builtins", b"eval"), (b"numpy", b"load"), (b"numpy.core", b"_reconstruct"))
TYPES = {b"f4": (4, b"<"), b"f8": (8, b"<"), b"i8": (8, b"<"), b"i4": (4, b"<"), b"u1": (1, b"|"), b"b1": (1, b"|")}
EVERY = list(pickletools.opcodes)
ALLOWED = [opcode for opcode in EVERY if opcode.name in safe_unpickler.ACTIONS and opcode.name != "PROTO"]


def grammatical(count: int, seed: int) -> Iterator[bytes]:
    """Pickles of dicts; of a third no part is wrong, of the others one in ten or one in a hundred."""
    dice = random.Random(seed)
    for _ in range(count):
        yield _Writer(dice, dice.choice((0.0, 0.01, 0.1))).whole()


class _Writer:
    """Writes one pickle; each of its parts is wrong with a probability of `wrong`."""

    def __init__(self, dice: random.Random, wrong: float) -> None:
        self.dice = dice
        self.wrong = wrong
        self.parts: list[bytes] = []
        self.memo: list[object] = []
        self.keys = 0

    def whole(self) -> bytes:
        self._dict(0)
        return b"".join([b"\x80\x04", *self.parts, b"."])

    def _slips(self) -> bool:
        return self.dice.random() < self.wrong

    def _write(self, *parts: bytes) -> None:
        """Some parts, now and then without one of them, with one twice, or with an opcode that doesn't belong there."""
        for part in parts:
            if not self._slips():
                self.parts.append(part)
                continue
            opcode = self.dice.choice(ALLOWED if self.dice.random() < 0.8 else EVERY)
            stranger = opcode.code.encode("latin-1") + _argument(opcode, self.dice)
            self.parts += self.dice.choice(([], [part, part], [stranger], [stranger, part], [part, stranger]))

    def _memorise(self, what: object) -> None:
        if self.dice.random() < 0.8:
            self._write(b"\x94")
            self.memo.append(what)

    def _recalls(self, what: object) -> bool:
        """Take something from the memo, if it is there; now and then something else."""
        places = [place for place, known in enumerate(self.memo) if known == what]
        if not places or self.dice.random() < 0.3:
            return False
        place = self.dice.randrange(len(self.memo) + 2) if self._slips() else self.dice.choice(places)
        short = place < 256 and self.dice.random() < 0.8
        self._write(b"h%c" % place if short else b"j" + struct.pack("<I", place))
        return True

    def _value(self, depth: int) -> None:
        nested: list[Callable[[int], None]] = [self._dict, self._list] if depth < 4 else []
        self.dice.choice([*nested, self._array, self._array, self._scalar, self._scalar])(depth)

    def _scalar(self, _: int) -> None:
        kinds = [
            lambda: self._text(self.dice.choice(WORDS[:-2])),
            lambda: self._number(self.dice.randrange(300)),
            lambda: self._write(b"G" + self.dice.randbytes(8)),
            lambda: self._write(self.dice.choice((b"N", b"\x88", b"\x89"))),
        ]
        self.dice.choice(kinds)()

    def _number(self, number: int) -> None:
        if self._slips():
            number = self.dice.choice((-1, 2**31 - 1, 2**47, 2**63, 2**100, 10**400))
        if 0 <= number < 256:
            self._write(b"K%c" % number)
        elif 0 <= number < 2**16:
            self._write(b"M" + struct.pack("<H", number))
        elif abs(number) < 2**31:
            self._write(b"J" + struct.pack("<i", number))
        else:
            content = number.to_bytes(number.bit_length() // 8 + 1, "little", signed=True)
            self._write(b"\x8a%c" % len(content) + content)

    def _text(self, text: bytes) -> None:
        if self._recalls(text):
            return
        length = len(text) if not self._slips() else self.dice.choice((len(text) + 1, 255, 2**16, 2**32 - 1))
        short = length < 256 and self.dice.random() < 0.8
        self._write((b"\x8c%c" % length if short else b"X" + struct.pack("<I", length)) + text)
        self._memorise(text)

    def _dict(self, depth: int) -> None:
        self._write(b"}")
        self._memorise("a dict")
        self._filled(depth, self._pair, b"u", b"s")

    def _pair(self, depth: int) -> None:
        if not self._slips():  # else the key of another one again
            self.keys += 1
        self._text(b"key%d" % self.keys)
        self._value(depth)

    def _list(self, depth: int) -> None:
        self._write(b"]")
        self._memorise("a list")
        self._filled(depth, self._value, b"e", b"a")

    def _filled(self, depth: int, item: Callable[[int], None], many: bytes, one: bytes) -> None:
        """Items all at once, behind a mark, or one by one."""
        count = self.dice.randrange(5) if depth else self.dice.randrange(3, 8)
        if self.dice.random() < 0.5:
            self._write(b"(")
            for _ in range(count):
                item(depth + 1)
            self._write(many)
        else:
            for _ in range(count):
                item(depth + 1)
                self._write(one)

    def _array(self, _: int) -> None:
        """numpy's call that makes an empty array, and the state that fills it."""
        code = self.dice.choice([*TYPES])
        shape = [self.dice.randrange(4) for _ in range(self.dice.randrange(4))]
        size = TYPES[code][0]
        for extent in shape:
            size *= extent
        self._name(self.dice.choice(MULTIARRAY), b"_reconstruct")
        self._name(b"numpy", b"ndarray")
        self._write(b"K\x00", b"\x85")
        self._bytes(b"b")
        self._write(b"\x87", b"R")
        self._memorise("an array")
        self._write(b"(", b"K\x01")
        self._shape([*shape, 2**40] if self._slips() else shape)
        self._dtype(code)
        self._write(b"\x89")
        self._bytes(self.dice.randbytes(size + (self.dice.choice((-1, 1, 1000)) if self._slips() and size else 0)))
        self._write(b"t", b"b")

    def _shape(self, shape: list[int]) -> None:
        marked = len(shape) > 3 or (bool(shape) and self.dice.random() < 0.3)
        if marked:
            self._write(b"(")
        for extent in shape:
            self._number(extent)
        self._write(b"t" if marked else (b")", b"\x85", b"\x86", b"\x87")[len(shape)])

    def _name(self, module: bytes, name: bytes) -> None:
        if self._recalls((module, name)):
            return
        module, name = self.dice.choice(UNKNOWN) if self._slips() else (module, name)
        self._text(module)
        self._text(name)
        self._write(b"\x93")
        self._memorise((module, name))

    def _dtype(self, code: bytes) -> None:
        """numpy's call that makes a type, and the state that tells its byte order."""
        if self._recalls(("dtype", code)):
            return
        self._name(b"numpy", b"dtype")
        self._text(self.dice.choice((b"O", b"U4", b"V8", b"f2")) if self._slips() else code)
        self._write(b"\x89", b"\x88", b"\x87", b"R")
        self._memorise(("dtype", code))
        self._write(b"(", b"K\x03")
        self._text(b">" if self._slips() else TYPES[code][1])
        self._write(b"N", b"N", b"N", b"J\xff\xff\xff\xff", b"J\xff\xff\xff\xff", b"K\x00", b"t", b"b")

    def _bytes(self, content: bytes) -> None:
        if len(content) < 2 and self._recalls((b"bytes", content)):
            return
        length = self.dice.choice((0, 255, 2**31)) if self._slips() else len(content)
        ways = [b"B" + struct.pack("<I", length), b"\x8e" + struct.pack("<Q", length)]
        self._write((self.dice.choice(ways) if length > 255 or self.dice.random() < 0.3 else b"C%c" % length) + content)
        self._memorise((b"bytes", content))


def _argument(opcode: Any, dice: random.Random) -> bytes:
    """An argument that fits an opcode."""
    kind = opcode.arg.name if opcode.arg else ""
    if kind in ARGUMENTS:
        size = ARGUMENTS[kind]
        return dice.randbytes(size) if dice.random() < 0.3 else dice.randrange(4).to_bytes(size, "little")
    word = dice.choice(WORDS)
    lengths = {"1": "<B", "4": "<I", "8": "<Q"}
    if kind[-1:] in lengths:
        return struct.pack(lengths[kind[-1]], len(word)) + word
    return word + b"\n" if opcode.arg else b""
