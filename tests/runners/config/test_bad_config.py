"""Bad configs: each fault with its place as typed, the value and what is allowed, before any data is opened."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.runners.conftest import Run, faults

KNOWN_CLASSES = "data=mnist model=seed8"

FAULTS = {
    # unknown keys and names
    "epoch=3": "epoch: unknown, did you mean epochs? (known: accumulate, ",
    "+key=1": "key: unknown, known: accumulate, ",
    "optimizer.rl=0.1": "optimizer.rl: unknown, did you mean lr? (known: betas, ",
    "data.pth=x": "data.pth: unknown, did you mean path?",
    "model.widht=8": "model.widht: unknown, no layer uses ${model.widht}, known: init, layers, name",
    "model.layer=[relu]": "model.layer: unknown, no layer uses ${model.layer}, did you mean layers?",
    "task.foo=1": "task.foo: unknown, nothing can be given here",
    "optimizer=adamm": "optimizer: unknown 'adamm', did you mean adam?",
    "optimizer=3": "optimizer: unknown '3', known: adagrad, adam, adamw, rmsprop, sgd",
    "optimizer={name:sgd,lr:1}": "optimizer: unknown '{name:sgd,lr:1}', ",
    "optimizer=null": "optimizer: unknown 'null', ",
    "model=lennet": "model: unknown 'lennet', did you mean lenet?",
    "model=configs/model/lenet.yaml": "model: unknown 'configs/model/lenet.yaml', did you mean lenet?",
    "debug=fasst": "debug: unknown 'fasst', did you mean fast?",
    "optimizer.name=adamm": "optimizer.name: unknown 'adamm', did you mean adam?",
    "optimizer.name=sgd": "optimizer.name: choose it with optimizer=sgd, which also sets its arguments",
    "task.name=gann": "task.name: unknown 'gann', did you mean gan?",
    # whole numbers
    "epochs=0": "epochs: 0 is not allowed, give a whole number >= 1",
    "+epochs=-1": "epochs: -1 is not allowed",
    "epochs=true": "epochs: true is not allowed, give a whole number >= 1",
    "epochs=1.0": "epochs: 1.0 is not allowed",
    "epochs=1e400": "epochs: inf is not allowed",
    f"epochs={10**300}": "epochs: 1000000",
    "epochs=ten": "epochs: 'ten' is not allowed",
    "epochs='\"3\"'": "epochs: '\"3\"' is not allowed",
    "epochs=[1,2]": "epochs: [1, 2] is not allowed",
    "epochs={a:1}": "epochs: {'a': 1} is not allowed",
    "epochs.x=3": "epochs: {'x': 3} is not allowed",
    "epochs=": "epochs: '' is not allowed",
    "epochs=???": "epochs: must be given: epochs=...",
    "batch_size=null": "batch_size: null is not allowed",
    "accumulate=0": "accumulate: 0 is not allowed, give a whole number >= 1",
    "patience=0": "patience: 0 is not allowed, give a whole number >= 1 or null",
    "seed=-1": "seed: -1 is not allowed, give a whole number >= 0 and <= 9223372036854775807",
    f"seed={2**64}": "seed: 18446744073709551616 is not allowed, give a whole number >= 0 and <= 9223372036854775807",
    "threads=0": "threads: 0 is not allowed, give a whole number >= 1 or null",
    "threads=100000": "threads: 100000 is more than the",
    "data.val_examples=0": "data.val_examples: 0 is not allowed, give a whole number >= 1",
    # numbers
    "optimizer.lr=fast": "optimizer.lr: 'fast' is not allowed, give a number > 0",
    "optimizer.lr=nan": "optimizer.lr: nan is not allowed",
    "optimizer.lr=-inf": "optimizer.lr: -inf is not allowed",
    "optimizer.lr=1e999": "optimizer.lr: inf is not allowed",
    "optimizer.lr=0": "optimizer.lr: 0 is not allowed",
    "optimizer.lr=1e60": "optimizer.lr: 1e+60 is more than a float32 can represent",
    "optimizer=sgd optimizer.momentum=1": "optimizer.momentum: 1 is not allowed, give a number >= 0 and < 1",
    "optimizer=sgd optimizer.nesterov=true": "optimizer.nesterov: true requires a momentum above 0",
    "optimizer.betas=[0.9]": "optimizer.betas: [0.9] is not allowed, give a list of 2 values",
    "optimizer.betas=[0.9,1.0]": "optimizer.betas: [0.9, 1.0] is not allowed, give a list of 2 values, each a number",
    "optimizer.decay_all=1": "optimizer.decay_all: 1 is not allowed, give true or false",
    "clip_grad_norm=0": "clip_grad_norm: 0 is not allowed, give a number > 0 or null",
    "loss=l3": "loss: unknown 'l3'",
    "loss.weight=[0,0,0]": "loss.weight: every weight is 0, give at least one greater than 0",
    "loss.label_smoothing=2": "loss.label_smoothing: 2 is not allowed, give a number >= 0 and <= 1",
    "schedule.rate=nan": "schedule.rate: nan is not allowed",
    "schedule.unit=batches": "schedule.unit: 'batches' is not allowed, give one of steps, epochs",
    "schedule=step schedule.step_size=0": "schedule.step_size: 0 is not allowed",
    "schedule=cosine schedule.min_lr=1": "schedule.min_lr: 1 is more than optimizer.lr, give at most 0.01",
    "augment.flip=1.5": "augment.flip: 1.5 is not allowed, give a number >= 0 and <= 1",
    # names from a list
    "dtype=float16": "dtype: 'float16' is not allowed, give one of float32, float64",
    "device=tpu": "device: 'tpu' is not allowed, give one of auto, cpu, cuda, mps",
    "kernels=fast": "kernels: 'fast' is not allowed, give one of compiled, reference",
    "data.val_split=valid": "data.val_split: 'valid' is not allowed, give one of train, test",
    # texts and paths
    "data.path=": "data.path: '' is not allowed",
    "data.path=???": "data.path: must be given: data.path=...",
    "data.path='a\0b'": r"data.path: 'a\x00b' is not allowed, give a text",
    "init_from=/no/such/run": "init_from: /no/such/run: there is no such run directory or checkpoint",
    "data.class_names=[a]": "data.class_names: ['a'] is not allowed, give a list of 2 or more values",
    "data.class_names=[a,b,a]": "data.class_names: ['a', 'b', 'a'] is not allowed, names must be unique",
    # references
    "epochs=${nowhere}": "epochs: refers to nowhere, which is unknown, known: accumulate, ",
    "epochs=${epochs}": "epochs: Recursive interpolation detected",
    "seed=${oc.env:NO_SUCH_VARIABLE}": "seed: Environment variable 'NO_SUCH_VARIABLE' not found",
    "model=seed8 model.width=${model.clases}": "model.width: refers to model.clases, which is unknown, did you mean ",
    # layers
    "model.layers=[]": "model.layers: [] is not allowed, give a list of at least one layer",
    "model.layers=relu": "model.layers: 'relu' is not allowed, give a list of at least one layer",
    "model.layers={relu:3}": "model.layers: can't be set: ",
    "model.layers.99=relu": "model.layers.99: can't be set: ",
    "model.layers=[conv2dd]": "model.layers.0: unknown layer 'conv2dd', did you mean conv2d?",
    "model.layers=[[relu]]": "model.layers.0: ['relu'] is not a layer, give a name, or one name with its arguments",
    "model.layers=[{relu:{},tanh:{}}]": "model.layers.0: {'relu': {}, 'tanh': {}} is not a layer",
    "model.layers=[{linear:[3]}]": "model.layers.0.linear: [3] is not allowed, give arguments by name",
    "model.layers=[linear]": "model.layers.0.linear.out_features: missing, give a whole number >= 1",
    "model.layers=[{linear:{out_featurs:3}}]": "model.layers.0.linear.out_featurs: unknown, did you mean out_features?",
    "model.layers=[{dropout:{p:1.5}}]": "model.layers.0.dropout.p: 1.5 is not allowed, give a number >= 0 and <= 1",
    "model.layers.0.conv2d.kernel_size=0": "model.layers.0.conv2d.kernel_size: 0 is not allowed, give a whole number >",
    "model.layers.0.conv2d.stride=0": "model.layers.0.conv2d.stride: 0 is not allowed",
    "model.layers.0.conv2d.groups=3": "model.layers.0.conv2d.groups: 3 doesn't divide out_channels 4",
    f"model.layers.0.conv2d.out_channels={10**10}": "model.layers.0.conv2d.out_channels: 10000000000 is not allowed",
    # what goes together, where the config tells it
    "data.num_examples=10": "batch_size: 16 is more than the 10 training examples, give at most 10",
    "data.num_examples=64 accumulate=5": "accumulate: 5 is more than the 4 batches in 64 training examples",
    "data.num_examples=64 schedule.warmup_steps=8": "schedule.warmup_steps: 8 is not allowed, the run has only 8 steps",
    "data.num_examples=64 schedule.rate=900": "schedule: the learning rate overflows within 2 epochs",
    "data.class_names=[a,b,c] loss.weight=[1,2]": "loss.weight: 2 numbers for 3 classes, give 3, one per class",
    f"{KNOWN_CLASSES} loss=bce_with_logits loss.pos_weight=[1]": "loss.pos_weight: 1 numbers for 10 classes, give 10",
    f"{KNOWN_CLASSES} model.classes=9": "model.layers: the last, linear_1, gives [9], but the data have 10 classes",
    f"{KNOWN_CLASSES} model.classes=11": "model.layers: the last, linear_1, gives [11], but the data have 10 classes",
    f"{KNOWN_CLASSES} model.layers.0.conv2d.kernel_size=29": "model.layers.0.conv2d: conv2d_1 kernel 29x29 is larger "
    "than the input [1, 28, 28]",
    "data=moving_mnist model=seed8 model.classes=8": "model.layers.0.conv2d: conv2d_1 takes [channels, height, width]",
    "data=moving_mnist model=conv3d model.classes=8 data.speed=10": "data.speed: 10 is not allowed for a size of 20",
}


@pytest.mark.usefixtures("closed")
@pytest.mark.parametrize("typed", FAULTS)
def test_a_fault(typed: str, run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(*typed.split()) == 2
    (told,) = faults(capsys)
    assert told.startswith(FAULTS[typed])


WITH_DATA = {
    "data.path=/no/such/folder": "data.path: there is no directory /no/such/folder",
    "data.num_examples=121": "data.num_examples: 121 is more than the 120 examples left after validation",
    "data.val_examples=151": "data.val_examples: 151 is more than the 150 examples in the training file",
    "data.val_examples=150": "data.val_examples: 150 leaves no examples for training",
    "data.class_names=[a,b]": "data.class_names: 2 names for labels up to 2, give 3",
    "batch_size=121": "batch_size: 121 is more than the 120 training examples, give at most 120",
    "accumulate=9": "accumulate: 9 is more than the 8 batches in 120 training examples, give at most 8",
    "debug=fast batch_size=121": "batch_size: 121 is more than the 120 training examples",
    "debug=overfit batch_size=121": "batch_size: 121 is more than the 120 training examples",
    "schedule.warmup_steps=16": "schedule.warmup_steps: 16 is not allowed, the run has only 16 steps: give fewer",
    "schedule.rate=1000": "schedule: the learning rate overflows within 2 epochs",
    "loss.weight=[1,2]": "loss.weight: 2 numbers for 3 classes, give 3, one per class",
    "model.layers=[{linear:{out_features:3}}]": "model.layers.0.linear: linear_1 takes [features]",
    "model.layers=[flatten,{linear:{out_features:4}}]": "model.layers: the last, linear_1, gives [4], but the data",
    "model.layers.0.conv2d.kernel_size=11": "model.layers.0.conv2d: conv2d_1 kernel 11x11 is larger than the input",
    "run_dir=/proc/nothing/here": "run_dir: /proc/nothing/here can't be created",
}


@pytest.mark.parametrize("typed", WITH_DATA)
def test_a_fault_that_shows_once_data_are_there(typed: str, run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(*typed.split()) == 2
    (told,) = faults(capsys)
    assert told.startswith(WITH_DATA[typed])


@pytest.mark.usefixtures("closed")
def test_all_faults_are_told_together(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    typed = [
        *("epochs=0", "seed=[1", "batchsize=3", "threads=${nowhere}", "loose", "~patience", "--fast"),
        *("model=lennet", "model.widht=3", "optimizer.lr=fast", "data.pth=x", "data.path=???", "schedule=cosin"),
        *("loss.label_smoothing=2", "augment.shift=-1", "task.foo=1", "run_dir=/dev/null"),
    ]
    assert run(*typed) == 2
    told = faults(capsys)
    places = {*("epochs", "seed", "batchsize", "threads", "loose", "~patience", "--fast", "run_dir"), "model"}
    places |= {"model.widht", "optimizer.lr", "data.pth", "data.path", "schedule", "loss.label_smoothing"}
    places |= {"augment.shift", "task.foo"}
    assert sorted(fault.split(": ")[0] for fault in told) == sorted(places)


@pytest.mark.usefixtures("closed")
def test_parts_that_are_sound_are_checked_beside_those_that_are_not(
    run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*KNOWN_CLASSES.split(), "model.classes=9", "epochs=0", "loss.weight=[1]") == 2
    assert [fault.split(": ")[0] for fault in faults(capsys)] == ["epochs", "loss.weight", "model.layers"]


@pytest.mark.usefixtures("closed")
def test_what_is_typed_below_an_unknown_choice_is_not_judged(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("data=photographs", "data.path=x", "data.colours=3", "epochs=0") == 2
    assert [fault.split(": ")[0] for fault in faults(capsys)] == ["data", "epochs"]


def test_batches_as_large_as_the_data_are_allowed(run: Run) -> None:
    assert run("batch_size=120", "epochs=1") == 0
    assert run("batch_size=50", "accumulate=3", "epochs=1") == 0  # 50, 50 and 20 examples for each step


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
