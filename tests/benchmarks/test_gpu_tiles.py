"""Tiles that are measured on a GPU: which convolutions, which candidates, and the table that is written."""

from __future__ import annotations

import ast
import json
from dataclasses import astuple, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

pytest.importorskip("triton", reason="Triton is missing: pip install -e '.[triton]'")

from benchmarks import gpu_tiles
from benchmarks.gpu_candidates import Point, Tiles, candidates, forced, more_sums, points_of
from benchmarks.gpu_sides import MODELS
from cnn.ops import precision
from cnn.ops.cuda import conv, tiles_table
from cnn.ops.cuda import tiles as rules
from cnn.ops.cuda.launching import launched_by
from cnn.ops.cuda.tiles import MEASURED, GatherTiles, WeightTiles

ROWS: dict[Any, Any] = {**tiles_table.GATHERS, **tiles_table.WEIGHTS}


def test_the_table_is_written_as_it_is() -> None:
    cards = gpu_tiles.cards_of(tiles_table.__doc__ or "", "NVIDIA H200")
    assert cards == "an NVIDIA H200"
    text = gpu_tiles.written(tiles_table.GATHERS, tiles_table.WEIGHTS, cards)
    assert text == gpu_tiles.TABLE.read_text(encoding="utf-8")
    ast.parse(text)


def test_another_card_is_added() -> None:
    cards = gpu_tiles.cards_of(tiles_table.__doc__ or "", "NVIDIA H100 80GB HBM3")
    text = gpu_tiles.written({}, {}, cards)
    assert "on an NVIDIA H200 and an NVIDIA H100 80GB HBM3.\n" in text
    assert gpu_tiles.cards_of(ast.get_docstring(ast.parse(text)) or "", "NVIDIA H200") == cards


def test_the_table_has_the_convolutions_of_the_models_and_no_others() -> None:
    points = points_of(MODELS)
    keys = {
        point.key(examples, products) for point in points for examples in MEASURED for products in ("tf32x3", "tf32")
    }
    assert ROWS.keys() <= keys
    assert {key[:-1] for key in ROWS if key[0] == "tf32x3"} == {key[:-1] for key in keys if key[0] == "tf32x3"}
    assert len({point.key(1, "") for point in points}) == len(points)


@pytest.mark.parametrize("products", ["tf32x3", "tf32"])
def test_candidates_are_tiles_of_their_kind(products: str) -> None:
    for point in points_of(["blocks", "lenet"]):
        found = candidates(point, products)
        assert len(found) >= 8
        assert {type(tiles) for tiles in found} == {WeightTiles if point.kind == "weight" else GatherTiles}
        assert max(tiles.examples for tiles in found) <= min(MEASURED)


def test_tiles_are_forced_on_what_is_launched() -> None:
    launched: list[tuple[Any, ...]] = []
    for point in points_of(["blocks"]):
        tiles = candidates(point, "tf32x3")[-1]
        launched.clear()
        with forced(tiles), launched_by(lambda kernel, grid, *given, **options: launched.append((*given, options))):
            point.call(16, "cpu")()
        wanted = {"num_warps": tiles.warps, "num_stages": tiles.stages}
        assert any(each[-1] == wanted and each[-2] == tiles.examples for each in launched)
    assert vars(conv)["gather_tiles"] is rules.gather_tiles


CURRENT = WeightTiles(16, 32, 32, 528, 256, 16, 2, 3)


def test_tiles_in_use_stay_unless_others_are_clearly_faster() -> None:
    other = replace(CURRENT, warps=4)

    def timed(seconds: float) -> tuple[Tiles, dict[Tiles, float]]:
        return gpu_tiles.fastest([other], CURRENT, lambda tiles: seconds if tiles == other else 1.0, more=False)

    assert timed(0.99)[0] == CURRENT
    assert timed(0.9)[0] == other


def test_tiles_that_fail_are_passed_over_and_sums_are_tried_on_the_best() -> None:
    broken, best = replace(CURRENT, examples=128), replace(CURRENT, warps=1)
    last = more_sums(best)[-1]

    def timed(tiles: Tiles) -> float:
        if tiles == broken:
            raise RuntimeError("out of resource: shared memory")
        known: dict[Tiles, float] = {best: 0.5, last: 0.4}
        return known.get(tiles, 1.0)

    found, seconds = gpu_tiles.fastest([broken, best], CURRENT, timed)
    assert found == last
    assert seconds[broken] == float("inf")
    assert len(seconds) == 3 + len(more_sums(best))


def test_another_result_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    values = iter([torch.ones(3), torch.ones(3), torch.tensor([1.0, 1.0, 1.1]), torch.full((3,), float("nan"))])
    monkeypatch.setattr(gpu_tiles.gpu_timing, "kernel_seconds", lambda call: 0.5)
    timed = gpu_tiles.timer(lambda: next(values), CURRENT, 1e-3)
    assert timed(CURRENT) == 0.5
    for _ in range(2):
        with pytest.raises(ValueError, match="off by"):
            timed(CURRENT)


def test_rows_have_the_fields_of_tiles() -> None:
    for row in tiles_table.WEIGHTS.values():
        assert astuple(WeightTiles(*row)) == row  # type: ignore[arg-type]
    for row in tiles_table.GATHERS.values():
        assert astuple(GatherTiles(*row)) == row  # type: ignore[arg-type]


class Alone:
    """In place of a pool of processes: a job compiles nothing."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        self.jobs: list[Any] = []

    def __enter__(self) -> Alone:
        return self

    def __exit__(self, *exception: Any) -> None:
        pass

    def submit(self, *job: Any) -> Alone:
        return self

    def result(self) -> int:
        return 7


def test_the_command_writes_what_it_measured_into_the_table(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Where each product's last candidate is faster than all others."""

    def timer(call: Point, current: Tiles, tolerance: float) -> gpu_tiles.Timed:
        last = candidates(call, "tf32")[-1]
        return lambda tiles: 0.5 if tiles == last else 1.0

    monkeypatch.setattr(gpu_tiles, "timer", timer)
    monkeypatch.setattr(Point, "call", lambda point, examples, device: point)
    monkeypatch.setattr(gpu_tiles, "ProcessPoolExecutor", Alone)
    monkeypatch.setattr(gpu_tiles.gpu_timing, "machine", lambda: {"card": "X1"})
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda number: SimpleNamespace(name="X1"))
    monkeypatch.setattr(precision, "_chosen", "float32")
    file = tmp_path / "table.py"
    given = ["--models", "blocks", "--batches", "128", "--precisions", "tf32", "--output", str(file), "--json"]
    monkeypatch.setattr("sys.argv", ["gpu_tiles", *given])
    assert gpu_tiles.main() == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert (rows[0], rows[1]["compiled"]) == ({"card": "X1"}, 84)
    points = points_of(["blocks"])
    assert rows[-1] == {"rows": len(points), "file": str(file)}
    found: dict[str, Any] = {}
    exec(file.read_text(encoding="utf-8"), found)
    assert "on an NVIDIA H200 and a X1." in found["__doc__"]
    written = found["GATHERS"] | found["WEIGHTS"]
    for point in points:
        assert written[point.key(128, "tf32")] == astuple(candidates(point, "tf32")[-1])
    others = ROWS.keys() - {point.key(128, "tf32") for point in points}
    assert all(written[key] == ROWS[key] for key in others)


def test_numbers_of_examples_that_nobody_looks_up(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["gpu_tiles", "--batches", "100"])
    with pytest.raises(SystemExit):
        gpu_tiles.main()
    assert "the table is looked up for (128, 512, 2048) examples" in capsys.readouterr().err
