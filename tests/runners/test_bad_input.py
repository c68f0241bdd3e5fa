"""Bad input: exit code 2, a few lines that name the place and what is allowed, no traceback, nothing left behind."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from runners import commands, overrides
from tests.runners.conftest import Run

CONV = "conv2d:{out_channels:4,kernel_size:"

CONFIGS = {
    "epoch=3": ["epoch: unknown, did you mean epochs?"],
    "batchsize=3": ["batchsize: unknown, did you mean batch_size?"],
    "epochs=0": ["epochs: 0 is not allowed, give a whole number >= 1"],
    "epochs=true": ["epochs: true is not allowed, give a whole number >= 1"],
    "epochs=1.5": ["epochs: 1.5 is not allowed"],
    "epochs=ten": ["epochs: 'ten' is not allowed"],
    "+epochs=-1": ["epochs: -1 is not allowed"],
    "batch_size=null": ["batch_size: null is not allowed"],
    "seed=-1": ["seed: -1 is not allowed"],
    "dtype=float16": ["dtype: 'float16' is not allowed, give one of float32, float64"],
    "device=gpu": ["device: 'gpu' is not allowed, give one of auto, cpu, cuda, mps"],
    "kernels=fast": ["kernels: 'fast' is not allowed, give one of compiled, reference"],
    "threads=100000": ["threads: 100000 is more than the"],
    "run_dir=5": ["run_dir: 5 is not allowed, give a text or null"],
    "optimizer=adamm": ["optimizer: unknown 'adamm', did you mean adam?"],
    "optimizer.lr=fast": ["optimizer.lr: 'fast' is not allowed, give a number > 0"],
    "optimizer.lr=nan": ["optimizer.lr: nan is not allowed"],
    "optimizer.lr=inf": ["optimizer.lr: inf is not allowed"],
    "optimizer.lr=0": ["optimizer.lr: 0 is not allowed"],
    "optimizer.rl=0.1": ["optimizer.rl: unknown, did you mean lr?"],
    "optimizer.betas=[0.9]": ["optimizer.betas: [0.9] is not allowed, give a list of 2 values"],
    "optimizer.name=adamm": ["optimizer.name: unknown 'adamm', did you mean adam?"],
    "optimizer=3": ["optimizer: unknown '3'"],
    "~optimizer": ["optimizer: null is not allowed, choose one with optimizer=NAME"],
    "schedule.rate=1000": ["schedule: the learning rate grows beyond all bounds within 2 epochs"],
    "schedule.rate=nan": ["schedule.rate: nan is not allowed"],
    "schedule.warmup_steps=16": ["schedule.warmup_steps: 16 is not allowed, the run has 16 steps: give fewer"],
    "schedule.unit=batches": ["schedule.unit: 'batches' is not allowed, give one of steps, epochs"],
    "loss=l3": ["loss: unknown 'l3'"],
    "loss.weight=[1,2]": ["loss.weight: 2 numbers for 3 classes, give 3, one for each"],
    "loss.weight=[0,0,0]": ["loss.weight: every weight is 0, give at least one above"],
    "loss.label_smoothing=2": ["loss.label_smoothing: 2 is not allowed, give a number >= 0 and <= 1"],
    "accumulate=0": ["accumulate: 0 is not allowed, give a whole number >= 1"],
    "clip_grad_norm=0": ["clip_grad_norm: 0 is not allowed, give a number > 0 or null"],
    "patience=0": ["patience: 0 is not allowed, give a whole number >= 1 or null"],
    "task.name=gan": ["task.name: unknown 'gan'"],
    "model=lennet": ["model: unknown 'lennet', did you mean lenet?"],
    "model.widht=8": ["model.widht: unknown, no layer uses ${model.widht}"],
    "model.layers=[]": ["model.layers: [] is not allowed, give a list of at least one layer"],
    f"model.layers=[{{{CONV}11}}}},flatten,{{linear:{{out_features:3}}}}]": [
        "model.layers.0.conv2d: conv2d_1 kernel 11x11 is larger than the input [1, 10, 10]"
    ],
    f"model.layers=[{{{CONV}0}}}}]": ["model.layers.0.conv2d.kernel_size: 0 is not allowed, give a whole number >= 1"],
    "model.layers=[conv2dd]": ["model.layers.0: unknown layer 'conv2dd', did you mean conv2d?"],
    "model.layers=[{linear:{out_features:3}}]": ["model.layers.0.linear: linear_1 takes [features]", "put a flatten"],
    "model.layers=[flatten,{linear:{out_features:4}}]": ["model.layers: the last, linear_1, gives [4]", "3 classes"],
    "data.path=/no/such/folder": ["data.path: there is no directory /no/such/folder"],
    "data.path=???": ["data.path: must be given: data.path=..."],
    "data.pth=x": ["data.pth: unknown, did you mean path?"],
    "data.num_examples=121": ["data.num_examples: 121 is more than the 120 examples that validation leaves"],
    "data.val_examples=151": ["data.val_examples: 151 is more than the 150 examples in the training file"],
    "data.val_examples=150": ["data.val_examples: 150 leaves no example for training"],
    "data.class_names=[a,b]": ["data.class_names: 2 names for labels up to 2, give 3"],
    "data.val_split=valid": ["data.val_split: 'valid' is not allowed, give one of train, test"],
    "init_from=/no/such/run": ["/no/such/run: there is no such run directory or checkpoint"],
    "epochs=${nowhere}": ["Interpolation key 'nowhere' not found"],
    "epochs=[1": ["epochs=[1"],
    "just-a-word": ["just-a-word: a key needs a value, give key=value"],
    "task.foo=1": ["task.foo: unknown, known: name"],
    "model.layers=[{conv2d:{out_channels:10000000000,kernel_size:1}}]": ["out_channels: 10000000000 is not allowed"],
    "data.path=": ["data.path: '' is not allowed"],
    "run_dir=/proc/nothing/here": ["run_dir: /proc/nothing/here can't be made"],
}


@pytest.mark.parametrize("override", CONFIGS)
def test_bad_configs(override: str, run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(override) == 2
    out, err = capsys.readouterr()
    lines = err.splitlines()
    for expected in CONFIGS[override]:
        assert expected in err
    assert 1 <= len(lines) <= 3
    assert all(line.startswith("error: ") for line in lines)
    assert out == ""
    assert list(Path().iterdir()) == []


def test_arguments_that_contradict_one_another(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("optimizer=sgd", "optimizer.nesterov=true") == 2
    assert "optimizer.nesterov: true wants a momentum above 0" in capsys.readouterr().err


def test_class_weights_are_checked_before_data_is_opened(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    layers = "model.layers=[flatten,{linear:{out_features:10}}]"
    too_many = "data.num_examples=1000000"  # a fault that shows once data is there
    assert run("data=mnist", layers, too_many, "loss=bce_with_logits", "loss.pos_weight=[1]") == 2
    assert capsys.readouterr().err == "error: loss.pos_weight: 1 numbers for 10 classes, give 10, one for each\n"


def test_all_mistakes_are_told_together(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("epochs=0", "model=lennet", "optimizer.lr=fast", "batchsize=3", "data.pth=x", "schedule=cosin") == 2
    places = [line.split(": ")[1] for line in capsys.readouterr().err.splitlines()]
    assert set(places) == {"epochs", "model", "optimizer.lr", "batchsize", "data.pth", "schedule"}


def test_config_faults_come_before_data_is_opened(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("data.path=/no/such/folder", "epochs=0") == 2
    assert "/no/such" not in capsys.readouterr().err
    assert run("data=mnist", "model.layers=[{conv2d:{out_channels:4,kernel_size:29}}]", "epochs=1") == 2
    assert "larger than the input [1, 28, 28]" in capsys.readouterr().err


def test_a_last_batch_of_one_before_a_flat_batch_norm(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    flat = "model.layers=[flatten,{linear:{out_features:3}},batch_norm]"
    assert run("batch_size=17", flat) == 2
    assert "batch_size: 17 leaves a last batch of one example: batch_norm has one value" in capsys.readouterr().err
    whole = "model.layers=[{conv2d:{out_channels:4,kernel_size:10}},batch_norm,flatten,{linear:{out_features:3}}]"
    assert run("batch_size=17", whole) == 2
    assert run("batch_size=1", whole) == 2
    assert list(Path().iterdir()) == []
    assert run("batch_size=17") == 0  # a batch_norm over an area has enough
    assert run("batch_size=16", flat) == 0


BROKEN_MODELS = {
    "unclosed bracket": (b"layers: [relu\n", "mine.yaml:2:1: "),
    "duplicate key": (b"width: 1\nwidth: 2\nlayers: [relu]\n", "found duplicate key width"),
    "a tab": (b"layers:\n\t- relu\n", "mine.yaml:2:1: "),
    "no text": (b"layers: [\xff\xfe]\n", "utf-8"),
    "no layers": (b"width: 3\n", "model.layers: null is not allowed, give a list of at least one layer"),
    "a list": (b"- relu\n", ""),
    "empty": (b"", "model.layers: null is not allowed"),
}


@pytest.mark.parametrize("fault", BROKEN_MODELS)
def test_broken_model_files(
    fault: str, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    configs = tmp_path / "configs"
    shutil.copytree(overrides.CONFIGS, configs)
    monkeypatch.setattr(overrides, "CONFIGS", configs)
    content, expected = BROKEN_MODELS[fault]
    (configs / "model" / "mine.yaml").write_bytes(content)
    assert run("model=mine") == 2
    err = capsys.readouterr().err
    assert expected in err
    assert "Traceback" not in err
    assert len(err.splitlines()) <= 3


@pytest.mark.parametrize(
    "override",
    ["=3", "model.layers.foo=relu", "model.layers={}", "model.layers.99=relu", "epochs==3", "optimizer@x=sgd"],
)
def test_overrides_that_hydra_refuses(override: str, run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(override) == 2
    err = capsys.readouterr().err
    assert err.startswith("error: ")
    assert len(err.splitlines()) <= 3
    assert list(Path().iterdir()) == []


@pytest.mark.parametrize("name", ["a=b", "größe", "with space", "it's", 'quo"te', "(x)", "[y]", "back\\slash"])
def test_paths_are_taken_as_they_stand(name: str, run: Run) -> None:
    assert run(f"run_dir=out/{name}", "epochs=1") == 0
    assert [path.name for path in Path("out").iterdir()] == [name]


def test_run_dir_in_a_sweep_is_refused(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("-m", "run_dir=x", "epochs=1,2") == 2
    assert "run_dir: a sweep makes a directory for each job, give sweep_dir" in capsys.readouterr().err
    assert not Path("x").exists()


def test_sweep_dir_without_a_sweep_is_refused(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("sweep_dir=x") == 2
    assert "sweep_dir: only a sweep (-m) uses it, give run_dir" in capsys.readouterr().err


def test_a_bad_choice_in_a_sweep_starts_no_job(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("-m", "optimizer=sgd,adamm", "epochs=1") == 2
    assert "optimizer: unknown 'adamm'" in capsys.readouterr().err
    assert list(Path().iterdir()) == []


def test_help_names_the_choices(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("sys.argv", ["run.py"])
    with pytest.raises(SystemExit) as end:
        commands.train(["--help"])
    assert end.value.code == 0
    assert "model: blocks, conv3d, densenet, inception_block, lenet, resnet13," in capsys.readouterr().out
