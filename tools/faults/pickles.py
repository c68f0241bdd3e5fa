"""Pickles that are malicious or malformed, made by hand and at random, and what becomes of them."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import numpy as np

from runners.errors import CheckpointError
from runners.files import plain_pickle
from tools.faults.grammar import grammatical
from tools.faults.memory import Peak

MAX_SECONDS = 2
"""Of a processor, for one file."""
MAX_BYTES = 200 * 2**20

GOOD: dict[str, Any] = {
    "weights": {"a": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.ones(3), "n": np.array(7)},
    "config": {"layers": ["relu", {"linear": {"out_features": 2}}], "seed": 2**40, "rate": 0.1, "none": None},
    "names": ["a", "b", True],
}


class Call:
    """Calls something when it is unpickled, as `pickle.load` would."""

    def __init__(self, function: Any, *arguments: Any, state: Any = None) -> None:
        self.parts = (function, arguments) if state is None else (function, arguments, state)

    def __reduce__(self) -> tuple[Any, ...]:
        return self.parts


def by_hand(mark: Path) -> dict[str, bytes]:
    """Malicious and malformed pickles; those that execute something would make a file at `mark`."""
    touch = f"touch {mark}"
    calls = {
        "os.system": Call(os.system, touch),
        "os.popen": Call(os.popen, touch),
        "os.execl": Call(os.execl, "/usr/bin/touch", "touch", str(mark)),
        "subprocess.call": Call(subprocess.call, ["touch", str(mark)]),
        "subprocess.Popen": Call(subprocess.Popen, ["touch", str(mark)]),
        "eval": Call(eval, f"open({str(mark)!r}, 'w')"),
        "exec": Call(exec, f"open({str(mark)!r}, 'w')"),
        "open": Call(open, str(mark), "w"),
        "compile": Call(compile, "1", "x", "eval"),
        "__import__": Call(__import__, "antigravity"),
        "getattr": Call(getattr, "x", "upper"),
        "print": Call(print, "executed"),
        "exit": Call(sys.exit, 0),
        "Path.touch": Call(Path.touch, Path(mark)),
        "np.load": Call(np.load, "x.npy"),
        "np.save": Call(np.save, str(mark), 1),
        "np.fromfile": Call(np.fromfile, "/dev/zero"),
        "np.frombuffer": Call(np.frombuffer, b"12345678"),
        "np.zeros": Call(np.zeros, 10**12),
        "np.dtype": Call(np.dtype, "O"),
        "np.dtype with callback": Call(np.dtype, "f4", True, True),
        "bytearray": Call(bytearray, 10**12),
        "list of a range": Call(list, range(10**9)),
        "int of a text": Call(int, "9" * 4000),
        "object with state": Call(object, state={"a": 1}),
        "pickle in a pickle": Call(pickle.loads, pickle.dumps(Call(os.system, touch))),
    }
    values = {
        "path": Path("x"),
        "set": {1},
        "frozen set": frozenset([1]),
        "complex": 1j,
        "bytes": b"raw",
        "byte array": bytearray(b"raw"),
        "class": Counter,
        "function": len,
        "object array": np.array([Call(os.system, touch), 1], dtype=object),
        "structured array": np.zeros(2, dtype=[("a", "f4")]),
        "dates": np.zeros(2, "M8[s]"),
        "texts": np.array(["a"]),
        "big endian": np.zeros(2, ">f4"),
        "fortran": np.asfortranarray(np.ones((2, 3))),
        "masked": np.ma.masked_array([1.0], [True]),
        "numpy number": np.float64(1),
        "a key that is a number": {1: 2},
        "a key that is a tuple": {(1, 2): 3},
        "a huge integer": 10**400,
        "nested 200 deep": nested(200),
    }
    files = {name: pickle.dumps({"x": value}, 4) for name, value in (calls | values).items()}
    for protocol in (0, 1, 2, 3, 5):
        files[f"protocol {protocol}"] = pickle.dumps({"x": Call(os.system, touch)}, protocol)
        files[f"protocol {protocol}, harmless"] = pickle.dumps({"x": 1}, protocol)
    return files | raw_pickles(touch.encode())


def nested(depth: int) -> list[Any]:
    inner: list[Any] = []
    for _ in range(depth):
        inner = [inner]
    return inner


def raw_pickles(command: bytes) -> dict[str, bytes]:
    """What no pickler writes."""
    reconstruct = b"\x8c\x16numpy._core.multiarray\x8c\x0c_reconstruct\x93"
    array = b"\x8c\x05numpy\x8c\x07ndarray\x93"
    dtype = b"\x8c\x05numpy\x8c\x05dtype\x93"
    number = dtype + b"\x8c\x02f4\x89\x88\x87R(K\x03\x8c\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
    empty = reconstruct + array + b"K\x00\x85C\x01b\x87R"
    bodies = {
        "nothing": b"",
        "global": b"cos\nsystem\n(S'" + command + b"'\ntR",
        "instance": b"(S'" + command + b"'\nios\nsystem\n",
        "object": b"(cos\nsystem\nS'" + command + b"'\no",
        "new object": b"cos\nsystem\nS'" + command + b"'\n\x85\x81",
        "extension": b"\x82\x01",
        "persistent": b"Pid\n",
        "persistent on the stack": b"Nq\x00Q",
        "a dotted name": b"\x8c\x05numpy\x8c\x13f2py.os.system.call\x93",
        "a name that isn't text": b"K\x01K\x02\x93",
        "names deep in a tuple": b")" + b"\x85" * 10000 + b"\x8c\x01x\x93",
        "a key deep in a tuple": b"}" + b")" + b"\x85" * 100000 + b"Ns",
        "a tuple deep in itself": b")" + b"\x85" * 300000,
        "lists deep in themselves": b"]" * 100000 + b"a" * 99999,
        "a list in itself": b"]\x94h\x00a",
        "a dict in itself": b"}\x94\x8c\x01xh\x00s",
        "nested references": b"]\x94(" + b"".join(b"]\x94(" + b"h%c" % i * 10 + b"e" for i in range(9)) + b"e",
        "a memo index of 2^27": b"Nr\x00\x00\x00\x08",
        "a memo that is empty": b"h\x00",
        "memorising nothing": b"\x94",
        "append to nothing": b"Na",
        "items without a mark": b"}Ne",
        "a key without a value": b"}(\x8c\x01xu",
        "two values for a key": b"}(\x8c\x01xN\x8c\x01xNu",
        "two things": b"}}",
        "pop, dup and mark": b"}20(1",
        "a text of 2 GB": b"X\xff\xff\xff\x7fabc",
        "bytes of 2^63": b"\x8e\xff\xff\xff\xff\xff\xff\xff\x7fabc",
        "text that isn't UTF-8": b"\x8c\x02\xff\xfe",
        "an integer of 2 GB": b"\x8b\xff\xff\xff\x7f1",
        "an integer of negative length": b"\x8b\xff\xff\xff\xff1",
        "a frame of 2^63": b"\x95\xff\xff\xff\xff\xff\xff\xff\x7fN",
        "a million opcodes": b"N" * 10**6,
        "build a name": array + b"}b",
        "state for a function": reconstruct + b"N}\x8c\x07__doc__\x8c\x01Zs\x86b",
        "a dtype of a list": dtype + b"](\x8c\x02f4e\x85R",
        "an object dtype": dtype + b"\x8c\x01O\x89\x88\x87R",
        "an array without content": b"}\x8c\x01x" + empty + b"s",
        "an array of 2^60": b"}\x8c\x01x"
        + empty
        + b"(K\x01\x8a\x08"
        + b"\0" * 7
        + b"\x10\x85"
        + number
        + b"\x89C\0tbs",
        "an empty array of 2^80": b"}\x8c\x01x"
        + empty
        + b"(K\x01K\0"
        + (b"\x8a\x06" + bytes(5) + b"\x01") * 2
        + b"\x87"
        + number
        + b"\x89C\0tbs",
        "an array of negative size": b"}\x8c\x01x" + empty + b"(K\x01J\xff\xff\xff\xff\x85" + number + b"\x89C\0tbs",
        "an array whose shape is a text": b"}\x8c\x01x" + empty + b"(K\x01\x8c\x01a" + number + b"\x89C\0tbs",
        "an array that is filled twice": empty + b"(K\x01K\x00\x85" + number + b"\x89C\0tb" * 2,
        "an array of a subclass": reconstruct + b"\x8c\x05numpy\x8c\x06matrix\x93K\x00\x85C\x01b\x87R",
    }
    files = {name: b"\x80\x04" + body + b"." for name, body in bodies.items()}
    good = pickle.dumps(GOOD, 4)
    return files | {
        "no end": good[:-1],
        "something behind the end": good + b"N.",
        "another protocol number": b"\x80\x09" + good[2:],
        "no protocol and no frame": good[11:-1],
        "text": b"hello",
        "zeros": bytes(1000),
        "a gzip": b"\x1f\x8b\x08" + bytes(50),
        "a zip as torch writes": b"PK\x03\x04" + bytes(100),
    }


def mutations(good: bytes, count: int, seed: int) -> Iterator[bytes]:
    """The file with bytes changed, left out, doubled or moved at random; never as it was."""
    dice = random.Random(seed)
    made = 0
    while made < count:
        data = bytearray(good)
        for _ in range(dice.choice((1, 1, 1, 2, 5))):
            at = dice.randrange(len(data))
            end = min(len(data), at + dice.choice((1, 1, 2, 8, 100)))
            match dice.randrange(5):
                case 0:
                    data[at] ^= 1 << dice.randrange(8)
                case 1:
                    data[at:end] = dice.randbytes(end - at)
                case 2:
                    del data[at:end]
                case 3:
                    data[at:at] = data[at:end]
                case _:
                    data[at:at] = dice.randbytes(end - at)
            data = data or bytearray(b".")
        if data != good:
            made += 1
            yield bytes(data)


class Hang(BaseException):
    """Reading took too long."""


def examine(files: Iterable[tuple[str, bytes]]) -> dict[str, Any]:
    """Parse each file and tell what happened: how many were refused, what was executed, the slowest, memory in bytes.

    In a process of its own: it can't take back its watch over what Python does.
    """
    events: list[str] = []
    watching = False

    def watch(event: str, arguments: tuple[Any, ...]) -> None:
        if watching:
            events.append(event)

    def stop(*_: object) -> None:
        raise Hang

    sys.addaudithook(watch)
    signal.signal(signal.SIGPROF, stop)
    peak = Peak()
    outcome: dict[str, Any] = {"files": 0, "refused": 0, "read": [], "other": [], "slowest": 0.0}
    for name, data in files:
        begun = time.process_time()
        signal.setitimer(signal.ITIMER_PROF, 2 * MAX_SECONDS)
        watching = True
        try:
            plain_pickle.parse(data)
        except CheckpointError:
            outcome["refused"] += 1
        except BaseException as error:
            watching = False
            outcome["other"].append(f"{name}: {error!r}"[:200])
        else:
            outcome["read"].append(name)
        watching = False
        signal.setitimer(signal.ITIMER_PROF, 0)
        outcome["files"] += 1
        outcome["slowest"] = max(outcome["slowest"], time.process_time() - begun)
    memory = peak.grown()
    return {**outcome, "executed": sorted(set(events)), "memory": memory}


GROUPS = {
    "by hand": "refused",
    "by hand, with a trailer": "refused",
    "mutations": "refused",
    "mutations, with a trailer": "harmless",
    "from a grammar, with a trailer": "harmless",
}
"""What is made, and what has to become of all of it: refused, or read as plain data without executing anything."""


def made(group: str, count: int, seed: int, mark: Path) -> Iterator[tuple[str, bytes]]:
    """The files of a group, by name; `count` is how many are made at random."""
    pickled = pickle.dumps(GOOD, 4)
    match group:
        case "by hand":
            yield from by_hand(mark).items()
        case "by hand, with a trailer":
            yield from ((name, plain_pickle.seal(data)) for name, data in by_hand(mark).items())
        case "mutations":
            yield from (("mutation", data) for data in mutations(plain_pickle.seal(pickled), count, seed))
        case "mutations, with a trailer":
            yield from (("mutation", plain_pickle.seal(data)) for data in mutations(pickled, count, seed))
        case _:
            yield from (("grammar", plain_pickle.seal(data)) for data in grammatical(count, seed))


def outcome(group: str, count: int, seed: int, mark: Path) -> dict[str, Any]:
    """What became of a group, and under "wrong" what should not have."""
    found = examine(made(group, count, seed, mark))
    wrong = [*found["other"], *(f"executed {event}" for event in found["executed"])]
    wrong += [f"read {name}" for name in found["read"] if GROUPS[group] == "refused"]
    wrong += ["a file was made"] if mark.exists() else []
    wrong += [f"{found['slowest']:.1f} s for one file"] if found["slowest"] > MAX_SECONDS else []
    wrong += [f"{found['memory'] >> 20} MB"] if found["memory"] > MAX_BYTES else []
    return {**found, "read": len(found["read"]), "wrong": wrong}


def alone(examination: Callable[..., dict[str, Any]], *arguments: Any) -> dict[str, Any]:
    """What an examination finds in a process of its own; one that crashes the interpreter is wrong, too."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("forkserver")) as pool:
        try:
            return pool.submit(examination, *arguments).result()
        except BrokenProcessPool:
            return {"files": 0, "refused": 0, "read": 0, "slowest": 0.0, "memory": 0, "wrong": ["it crashed"]}
