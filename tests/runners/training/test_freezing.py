"""`freeze` and `init_missing`: fine-tuning a saved run for other classes, with some layers left as they are."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from runners.cli import train
from runners.files import checkpoint
from tests.runners.config.test_extensions import PAIR, forget
from tests.runners.conftest import Run, faults
from tests.runners.outcomes import stop_at
from tools.small_runs import SMALL_MODEL, outcome, without_times

Capture = pytest.CaptureFixture[str]
FREEZE = "freeze=[conv2d_1,batch_norm_*]"
TRAINED = ("linear_1.weight", "linear_1.bias")
ADAMW = ["optimizer=adamw", "optimizer.weight_decay=0.5", "optimizer.decay_all=true"]


def weights(run: str, which: str = "last") -> dict[str, np.ndarray]:
    return checkpoint.load(Path(run, "checkpoints", f"{which}.pkl")).networks["model"].weights


def test_frozen_weights_and_statistics_stay_and_a_resume_ends_with_the_same_bits(
    run: Run, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    assert run("run_dir=first", "epochs=1") == 0
    common = ["init_from=first", "epochs=3", FREEZE, *ADAMW]
    assert run("run_dir=whole", *common) == 0
    before, after = weights("first", "best"), weights("whole")
    assert {name for name in before if not np.array_equal(before[name], after[name])} == set(TRAINED)
    for step in (3, 8, 11):
        with monkeypatch.context() as patch:
            stop_at(step, patch)
            assert run(f"run_dir=stopped{step}", *common) == 143
        assert train.main([f"resume=stopped{step}"]) == 0
        assert outcome(f"stopped{step}") == outcome("whole")
    saved = checkpoint.load(Path("whole/checkpoints/last.pkl"))
    assert saved.config["freeze"] == ["conv2d_1", "batch_norm_*"]
    assert len(saved.networks["model"].optimizer["mean"]) == sum(after[name].size for name in TRAINED)


def test_nothing_frozen_changes_no_bit(run: Run) -> None:
    assert run("run_dir=a", "epochs=1") == 0
    assert run("run_dir=b", "epochs=1", "freeze=[flatten_1,relu*]") == 0
    for name, values in weights("a").items():
        assert np.array_equal(values, weights("b")[name])


def test_thawing_in_a_resume(run: Run, capsys: Capture, caplog: pytest.LogCaptureFixture) -> None:
    assert run("run_dir=a", "epochs=1", FREEZE, "schedule=constant") == 0
    frozen = weights("a")["conv2d_1.weight"]
    assert train.main(["resume=a", "epochs=2", "freeze=[]"]) == 2
    assert "freeze: changing it from ['conv2d_1', 'batch_norm_*'] to [] affects" in capsys.readouterr().err
    assert train.main(["resume=a", "epochs=2", "freeze=[]", "resume_changed=true"]) == 0
    assert "other layers are frozen than before: the optimizer starts from its initial state" in caplog.text
    assert not np.array_equal(weights("a")["conv2d_1.weight"], frozen)


def test_the_summary_marks_what_is_frozen_and_counts_the_rest(run: Run, capsys: Capture) -> None:
    assert run("debug=summary", "freeze=conv2d_1", "data=mnist", "model=seed8") == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("  ")[0] for line in lines if "(frozen)" in line] == ["conv2d_1 (frozen)"]
    total, trained = (line.split() for line in lines[-2:])
    count = next(line.split()[-4] for line in lines if line.startswith("conv2d_1"))
    assert trained[0] == "trained"
    assert int(trained[1].replace(",", "")) == int(total[3].replace(",", "")) - int(count)
    assert run("debug=summary") == 0
    assert "trained" not in capsys.readouterr().out
    assert run("debug=gradcheck", FREEZE) == 0


PATTERNS = {
    "freeze=[conv2d_2]": "freeze: no layer's name matches 'conv2d_2', did you mean conv2d_1? (debug=summary shows all",
    "freeze=x": "freeze: no layer's name matches 'x', known: conv2d_1, batch_norm_1, relu_1, flatten_1, linear_1 (",
    "freeze=[*]": "freeze: '*' leaves nothing of the model to train",
    "freeze=[conv*,batch*,lin*]": "freeze: 'conv*', 'batch*', 'lin*' leaves nothing of the model to train",
    "freeze=3": "freeze: 3 is not allowed, give a text or a list of values, each a text",
    "init_missing=old": "init_missing: 'old' is not allowed, give one of refuse, new",
}


@pytest.mark.parametrize("typed", PATTERNS)
def test_what_is_refused(typed: str, run: Run, capsys: Capture) -> None:
    assert run(typed) == 2
    (told,) = faults(capsys)
    assert told.startswith(PATTERNS[typed])


def test_what_is_not_taken_over_is_not_frozen(run: Run, capsys: Capture) -> None:
    assert run("run_dir=first", "epochs=1") == 0
    other = SMALL_MODEL.replace("kernel_size:3", "kernel_size:5")
    capsys.readouterr()
    assert run("init_from=first", "init_missing=new", other, "freeze=[conv2d_1]", "run_dir=second") == 2
    shape = "conv2d_1.weight has shape [4, 1, 3, 3], wanted [4, 1, 5, 5]"
    assert f"error: freeze: conv2d_1 would stay at its initial values, as {shape}" in capsys.readouterr().err
    assert not Path("second").exists()


def test_a_network_with_other_classes_takes_over_what_fits(
    run: Run, capsys: Capture, caplog: pytest.LogCaptureFixture
) -> None:
    assert run("run_dir=first", "epochs=2") == 0
    other = SMALL_MODEL.replace("{linear:{out_features:3}}", "{linear:{out_features:8}},relu,{linear:{out_features:3}}")
    capsys.readouterr()
    assert run("run_dir=second", "init_from=first", other) == 2
    error = capsys.readouterr().err
    assert "linear_1.weight has shape [3, 256], wanted [8, 256]" in error
    assert error.endswith("; init_missing=new takes over those that fit\n")
    assert not Path("second").exists()
    fine = [other, "init_from=first", "init_missing=new", "freeze=[conv2d_1,batch_norm_1]", "epochs=1"]
    assert run("run_dir=second", *fine) == 0
    left_out = ("linear_1.weight has shape [3, 256], wanted [8, 256]", "linear_2.weight is missing")
    log = Path("second/run.log").read_text()
    assert all(text in log and text in caplog.text for text in left_out)
    before, after = weights("first", "best"), weights("second")
    taken = [name for name in before if name.startswith(("conv2d_1", "batch_norm_1"))]
    assert len(taken) == 6
    assert all(np.array_equal(before[name], after[name]) for name in taken)
    assert run("run_dir=again", *fine) == 0
    assert without_times(after) == without_times(weights("again"))


def test_a_network_of_which_nothing_fits(run: Run, capsys: Capture) -> None:
    assert run("run_dir=first", "epochs=1") == 0
    other = "model.layers=[{conv2d:{out_channels:5,kernel_size:5,name:own}},flatten,{linear:{out_features:3,name:end}}]"
    capsys.readouterr()
    assert run("run_dir=second", "init_from=first", "init_missing=new", other) == 2
    error = capsys.readouterr().err
    assert "the saved weights don't fit this network" in error
    assert "init_missing" not in error


@pytest.fixture
def two(striped: Path, run: Run) -> Iterator[Run]:
    """run.py's command for a task with two networks."""
    small = ["data=idx", f"data.path={striped}", "data.val_examples=30", "batch_size=16", "threads=1"]
    yield lambda *overrides: train.main([*small, *overrides])
    forget()


def test_layers_of_one_of_two_networks_are_frozen(two: Run, capsys: Capture) -> None:
    small = [*PAIR, "epochs=1"]
    assert two("run_dir=first", *small) == 0
    assert two("run_dir=second", *small, "init_from=first", "freeze=[first.conv*,first.batch_norm_1]") == 0
    before, after = (checkpoint.load(Path(run, "checkpoints/last.pkl")).networks for run in ("first", "second"))
    started = checkpoint.load(Path("first/checkpoints/best.pkl")).networks["first"].weights
    changed = {
        f"{name}.{weight}"
        for name in before
        for weight, values in after[name].weights.items()
        if not np.array_equal(values, started[weight] if name == "first" else before[name].weights[weight])
    }
    assert changed == {f"{name}.linear_1.{weight}" for name in before for weight in ("weight", "bias")}
    capsys.readouterr()
    assert two(*small, "freeze=[conv2d_1,second2.*]") == 2
    assert [line.split(",")[0] for line in capsys.readouterr().err.splitlines()] == [
        "error: freeze: no layer's name matches 'conv2d_1'",
        "error: freeze: 'conv2d_1'",
    ]
