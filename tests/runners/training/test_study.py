"""The journal of a study: nothing in it is left half-written."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import pytest

from runners.errors import DataError
from runners.training.study import Journal


def test_operations_are_read_in_order(tmp_path: Path) -> None:
    one, other = Journal(tmp_path / "study.log"), Journal(tmp_path / "study.log")
    assert one.read_logs(0) == []
    one.append_logs([{"a": 1}, {"a": 2}])
    other.append_logs([{"a": 3}])
    assert one.read_logs(1) == [{"a": 2}, {"a": 3}]
    assert other.read_logs(0) == [{"a": 1}, {"a": 2}, {"a": 3}]


def test_all_or_nothing(tmp_path: Path) -> None:
    one, other = Journal(tmp_path / "study.log"), Journal(tmp_path / "study.log")
    with one.at_once():
        one.append_logs([{"a": 1}])
        one.append_logs([{"a": 2}])
        assert one.read_logs(0) == [{"a": 1}, {"a": 2}]
        assert other.read_logs(0) == []
    assert other.read_logs(0) == [{"a": 1}, {"a": 2}]
    with suppress(KeyboardInterrupt), one.at_once():
        one.append_logs([{"a": 3}])
        raise KeyboardInterrupt
    assert one.read_logs(0) == other.read_logs(0) == [{"a": 1}, {"a": 2}]


def test_a_torn_line_is_replaced(tmp_path: Path) -> None:
    file = tmp_path / "study.log"
    Journal(file).append_logs([{"a": 1}])
    with file.open("ab") as stream:
        stream.write(b'{"a": ')
    journal = Journal(file)
    assert journal.read_logs(0) == [{"a": 1}]
    journal.append_logs([{"a": 2}])
    assert file.read_text() == '{"a":1}\n{"a":2}\n'
    file.write_text('{"a":1}\nx\n{"a":2}\n')
    with pytest.raises(DataError, match="line 2 can't be read, remove it"):
        Journal(file).read_logs(0)
