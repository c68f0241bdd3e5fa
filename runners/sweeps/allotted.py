"""What a job is given on a cluster: its time and its memory, as people write them."""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import AfterValidator, WithJsonSchema

TIME = re.compile(r"(?:(?P<days>\d+)-)?(?P<hours>\d+):(?P<minutes>[0-5]\d):(?P<seconds>[0-5]\d)", re.ASCII)
MEMORY = re.compile(r"(?P<number>\d+(?:\.\d+)?) ?(?P<unit>[MGT])i?B?", re.ASCII)
MEGABYTES = {"M": 1, "G": 1024, "T": 1024 * 1024}


def minutes(time: int | str) -> int:
    """Minutes in a number of them, or in `2:00:00` or `1-12:00:00`. Raises ValueError if it is neither."""
    if isinstance(time, int):
        found = time
    elif match := TIME.fullmatch(time):
        days, hours, whole, seconds = (int(match[name] or 0) for name in ("days", "hours", "minutes", "seconds"))
        found = (days * 24 + hours) * 60 + whole + (seconds > 0)
    else:
        raise ValueError(time)
    if found < 2:  # slurm looks at its limits once a minute, and a job needs time to save
        raise ValueError(time)
    return found


def megabytes(memory: float | str) -> int:
    """Megabytes in a number of gigabytes, or in `8GB` or `500MB`. Raises ValueError if it is neither."""
    if isinstance(memory, str):
        match = MEMORY.fullmatch(memory)
        if not match:
            raise ValueError(memory)
        found = float(match["number"]) * MEGABYTES[match["unit"]]
    else:
        found = memory * MEGABYTES["G"]
    if not 1 <= found < 2**40:
        raise ValueError(memory)
    return int(found)


def _checked(read: Any) -> AfterValidator:
    def check(value: Any) -> Any:
        read(value)
        return value

    return AfterValidator(check)


Time = Annotated[
    int | str, _checked(minutes), WithJsonSchema({"description": 'minutes, 2 or more, or a text such as "2:00:00"'})
]
Memory = Annotated[
    int | float | str, _checked(megabytes), WithJsonSchema({"description": "gigabytes, or a text such as 8GB or 500MB"})
]
