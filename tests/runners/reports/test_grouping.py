from __future__ import annotations

from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from runners.files.dotted import flat
from runners.reports.cells import notes
from runners.reports.collecting import Collection
from runners.reports.grouping import Table, columns, repeated_seeds, tables
from runners.reports.runs import Monitor, Run
from tools.written_runs import config, rows

ACCURACY, LOSS = Monitor("val/accuracy", "higher"), Monitor("val/loss", "lower")


def run(value: float | None = 0.5, monitor: Monitor = ACCURACY, state: str = "done", **changes: Any) -> Run:
    table = [] if value is None else rows([value], monitor.column)
    best = {} if value is None else table[0]
    return Run(Path("x"), state, config=flat(config(**changes)), rows=table, monitor=monitor, best=best)


def one_table(*runs: Run) -> Table:
    (found,), others = tables(runs)
    assert others == []
    return found


def test_runs_that_differ_in_seed_name_and_threads_are_one_group() -> None:
    table = one_table(
        run(0.5, seed=0),
        run(0.7, seed=1, name="other", tags=["x"], threads=2, threads_fixed=True, capture=False),
        run(0.6, seed=2, run_dir="elsewhere", sweep_dir="s", checkpoint={"every_steps": 5}),
        run(0.6, seed=3, tracker={"mlflow": {"experiment": "x"}}),
    )
    (group,) = table.groups
    assert table.columns == []
    assert group.result is not None
    assert (round(group.result.mean, 12), group.result.count) == (0.6, 4)


def test_only_settings_that_differ_are_columns_and_one_is_1_0() -> None:
    table = one_table(run(optimizer={"lr": 1}), run(optimizer={"lr": 1.0}, seed=1), run(optimizer={"lr": 0.1}))
    assert table.columns == ["optimizer.lr"]
    assert sorted(len(group.runs) for group in table.groups) == [1, 2]


def test_the_best_group_is_first_in_both_directions() -> None:
    values = [0.3, 0.9, 0.1]
    higher = one_table(*(run(value, epochs=epochs) for epochs, value in enumerate(values, start=1)))
    lower = one_table(*(run(value, LOSS, epochs=epochs) for epochs, value in enumerate(values, start=1)))
    means = [[group.result.mean for group in table.groups if group.result] for table in (higher, lower)]
    assert means == [[0.9, 0.3, 0.1], [0.1, 0.3, 0.9]]


@given(st.lists(st.floats(-100, 100), min_size=1, max_size=8))
def test_any_order_of_runs_is_sorted(values: list[float]) -> None:
    table = one_table(*(run(value, LOSS, epochs=epochs) for epochs, value in enumerate(values, start=1)))
    assert [group.result.mean for group in table.groups if group.result] == sorted(values)


def test_metrics_and_tasks_have_tables_of_their_own() -> None:
    runs = [run(), run(monitor=LOSS), run(monitor=LOSS, task={"name": "vae"})]
    found, _ = tables(runs)
    assert [(table.monitor, table.task) for table in found] == [
        (ACCURACY, "classification"),
        (LOSS, "classification"),
        (LOSS, "vae"),
    ]


def test_unfinished_runs_are_not_in_the_mean_and_pruned_ones_are() -> None:
    runs = [
        run(0.5, seed=0),
        run(0.9, seed=1, state="failed"),
        run(0.7, seed=2, state="pruned"),
        run(None, state="running"),
    ]
    (group,) = one_table(*runs).groups
    assert group.result is not None
    assert (group.result.mean, group.result.count) == (0.6, 2)
    assert [each.state for each in group.not_counted] == ["failed", "running"]


def test_a_group_without_a_result_is_last_by_its_best_value_so_far() -> None:
    table = one_table(
        run(0.99, state="running", epochs=1),
        run(None, state="failed", epochs=2),
        run(0.1, epochs=3),
        run(1.0, state="died", epochs=4),
    )
    assert [group.config["epochs"] for group in table.groups] == [3, 4, 1, 2]


def test_a_run_repeated_to_the_bit_counts_once_and_other_results_of_a_seed_count() -> None:
    table = one_table(run(0.5, seed=3), run(0.5, seed=3), run(0.5, seed=4), run(0.8, seed=4))
    (group,) = table.groups
    assert group.result is not None
    assert (group.result.count, group.repeated) == (3, 1)
    assert repeated_seeds(group) == ["4"]
    lines = notes(Collection([], group.runs, []), [table])
    assert lines == [
        "1 run repeats another run to the bit, and is counted once",
        "several runs of seed 4 differ, and each counts: x, x",
    ]


def test_layers_that_a_variable_explains_are_no_column() -> None:
    narrow = {"width": 4, "layers": [{"linear": {"out_features": 4}}]}
    wide = {"width": 8, "layers": [{"linear": {"out_features": 8}}]}
    configs = [flat(config(model=model)) for model in (narrow, wide)]
    assert columns(configs) == ["model.width"]
    other = flat(config(model=narrow | {"layers": ["relu", "flatten"]}))
    assert columns([*configs, other]) == ["model.width", "model.layers"]


def test_layers_are_not_explained_by_another_section() -> None:
    def pair(layers: list[Any], lr: float) -> dict[str, Any]:
        return flat(config(optimizer={"lr": lr}, model={"layers": layers}))

    assert columns([pair(["relu"], 0.1), pair(["gelu", "relu"], 0.2)]) == ["model.layers", "optimizer.lr"]


def test_layers_of_one_form_are_shown_where_they_differ() -> None:
    def sized(size: int, last: str = "relu") -> Run:
        return run(model={"layers": [{"conv2d": {"kernel_size": size, "padding": [1, 2]}}, last]})

    table = one_table(sized(3), sized(5), sized(5, "gelu"))
    assert table.columns == ["model.layers.0.conv2d.kernel_size", "model.layers.1"]
    assert sorted(table.texts(group) for group in table.groups) == [["3", "relu"], ["5", "gelu"], ["5", "relu"]]


def test_different_values_have_different_texts() -> None:
    def deep(depth: int) -> Run:
        return run(model={"layers": [{"conv2d": {"out_channels": depth}}] * 20 + ["relu"] * depth})

    table = one_table(deep(30), deep(31), deep(32))
    texts = {text for group in table.groups for text in table.texts(group)}
    assert table.columns == ["model.layers"]
    assert len(texts) == 3
    first = one_table(
        run(model={"layers": ["relu"] * 5}), run(model={"layers": [{"relu": {}}] * 4 + [{"relu": {"a": 1}}]})
    )
    assert sorted(text for group in first.groups for text in first.texts(group)) == [
        "[relu, relu, relu, relu, relu]",
        "[relu, relu, relu, relu, relu] #2",
    ]


def test_arguments_that_only_one_optimizer_has_are_no_columns_unless_they_differ() -> None:
    def sgd(momentum: float) -> dict[str, Any]:
        changed = config()
        changed["optimizer"] = {"name": "sgd", "lr": 0.01, "momentum": momentum}
        return flat(changed)

    assert columns([flat(config()), sgd(0.9)]) == ["optimizer.name"]
    assert columns([flat(config()), sgd(0.9), sgd(0.5)]) == ["optimizer.name", "optimizer.momentum"]


def test_a_run_without_a_metric_or_a_config_is_in_no_table() -> None:
    lost = [Run(Path("a"), "unreadable", "why"), Run(Path("b"), "not started", overrides=["seed=1"])]
    assert tables(lost) == ([], lost)
