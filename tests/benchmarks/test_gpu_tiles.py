"""Tiles that are measured on a GPU: which convolutions, which candidates, and the table that is written."""

from __future__ import annotations

import ast
from dataclasses import astuple, replace
from typing import Any

import pytest
import torch

pytest.importorskip("triton", reason="Triton is missing: pip install -e '.[triton]'")

from benchmarks import gpu_tiles
from benchmarks.gpu_candidates import Tiles, candidates, forced, more_sums, points_of
from benchmarks.gpu_sides import MODELS
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
