"""The space of a search, which is parsed without Optuna."""

from __future__ import annotations

import math

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from cnn.faults import ConfigError
from runners.sweeps.space import Dimension, Space, parse

DIMENSIONS = {
    "a,b": Dimension("categorical", ("a", "b")),
    "choice(1,2,1)": Dimension("categorical", ("1", "2")),
    "choice([1,2],'x, y')": Dimension("categorical", ("[1,2]", "x\\,\\ y")),
    "shuffle(range(2))": Dimension("categorical", ("0", "1")),
    "range(1,5)": Dimension("int", low=1, high=4, step=1),
    "range(1,9,3)": Dimension("int", low=1, high=7, step=3),
    "range(5,1,-2)": Dimension("int", low=3, high=5, step=2),
    "range(0,1,0.1)": Dimension("float", low=0.0, high=0.9, step=0.1),
    "float(range(1,4))": Dimension("float", low=1.0, high=3.0, step=1.0),
    "interval(0,1)": Dimension("float", low=0.0, high=1.0),
    "int(interval(1,4))": Dimension("int", low=1, high=4, step=1),
    "tag(int,interval(1,4))": Dimension("int", low=1, high=4, step=1),
    "tag(log,interval(1e-4,1e-1))": Dimension("float", low=1e-4, high=1e-1, log=True),
    "tag(log,int(interval(1,64)))": Dimension("int", low=1, high=64, step=1, log=True),
    "tag(log,range(1,65))": Dimension("int", low=1, high=64, step=1, log=True),
}


@pytest.mark.parametrize("text", DIMENSIONS)
def test_dimensions(text: str) -> None:
    (found,) = parse([f"++x={text}"]).searched.values()
    wanted = DIMENSIONS[text]
    assert (found.kind, set(found.choices), found.log) == (wanted.kind, set(wanted.choices), wanted.log)
    assert (found.low, found.high, found.step) == pytest.approx((wanted.low, wanted.high, wanted.step))


def test_a_space_makes_overrides() -> None:
    """With numbers that are read back to the same bits, except those of a step, which are rounded."""
    space = parse(
        ["optimizer=sgd,adam", "++optimizer.lr=tag(log,interval(1e-5,1))", "++x=range(0,1,0.1)", "++name='a b'"]
    )
    assert space.fixed == ("++name='a b'",)
    made = space.overrides({"optimizer": "sgd", "optimizer.lr": math.pi / 1e4, "x": 0.1 * 3})
    assert made == ["++name='a b'", "optimizer=sgd", f"++optimizer.lr={math.pi / 1e4!r}", "++x=0.3"]
    assert space.size() is None


def test_a_space_of_a_config_file() -> None:
    """What is given on the command line wins, also if it is one value."""
    params = {"optimizer.lr": "interval(0,1)", "model.width": "choice(4,8)", "seed": 3}
    space = parse(["++optimizer.lr=0.1", "++epochs=1"], params)
    assert set(space.fixed) == {"++seed=3", "++optimizer.lr=0.1", "++epochs=1"}
    assert space.searched == {"model.width": Dimension("categorical", ("4", "8"))}
    assert space.size() == 2
    assert parse([], {"optimizer": "choice(sgd,adam)"}).overrides({"optimizer": "sgd"}) == ["optimizer=sgd"]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("interval(1,0)", "gives no value: it ends before it begins"),
        ("range(1,1)", "gives no value: it ends before it begins"),
        ("tag(log,interval(0,1))", "with log it must begin above 0, not at 0"),
        ("tag(log,range(1,9,2))", "with log it can't have a step, give tag(log, interval(...))"),
        ("tag(log,choice(1,2))", "log is for numbers between two: tag(log, interval(1e-4,1e-1))"),
        ("tag(lgo,interval(1,2))", "unknown tag lgo, known: log, int, float"),
        ("interval(0,inf)", "its ends must be finite"),
        ("range(0,1,1e-9)", "has more than 100,000 values, give an interval"),
    ],
)
def test_faults_of_a_space(text: str, problem: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse([f"++x={text}", "++y=tag(log,interval(-1,1))"])
    assert str(caught.value).splitlines() == [f"x: {problem}", "y: with log it must begin above 0, not at -1"]


def test_faults_of_a_space_in_a_file() -> None:
    with pytest.raises(ConfigError, match=r"hydra\.sweeper\.params\.x: can't be read: "):
        parse([], {"x": "choice(1,"})
    with pytest.raises(ConfigError, match="hydra/sweeper: there is nothing to search"):
        parse(["++x=1"])


def test_a_range_has_the_values_of_a_grid() -> None:
    for text in ("range(1,9,3)", "range(5,1,-2)", "range(0,1,0.1)", "range(0,0.95,0.1)", "range(3)"):
        (dimension,) = parse([f"++x={text}"]).searched.values()
        grid = sorted(map(float, OverridesParser.create().parse_override(f"x={text}").sweep_string_iterator()))
        assert dimension.values() == pytest.approx(grid)


def test_an_empty_space() -> None:
    assert Space().size() == 1
