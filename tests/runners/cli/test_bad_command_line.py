"""Bad command lines and bad YAML: told with what was typed or with file and line, before anything is opened or made."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import yaml

from runners.cli import train
from runners.config import folders
from tests.runners.conftest import Run, faults

SEVERAL = "is more than one value, add -m to sweep"
UNREADABLE = "can't be read: check brackets and quotes"
FLAGS = "(known: --cfg, --config-dir, --help, --multirun, --resolve, -m); settings are given as key=value"

TYPED = {
    # no override at all
    ("epochs",): ["epochs: a key needs a value, give key=value"],
    ("=3",): ["'=3' is not key=value, such as model.width=8 or model.layers.0.conv2d.kernel_size=5"],
    ("",): ["'' is not key=value"],
    ("épochs=3",): ["'épochs=3' is not key=value"],
    ("optimizer@x=sgd",): ["'optimizer@x=sgd' is not key=value"],
    ("model.layers[0].conv2d.stride=2",): ["'model.layers[0].conv2d.stride=2' is not key=value"],
    ("model.layers.-1=relu",): ["'model.layers.-1=relu' is not key=value"],
    ("optimizer={name:", "sgd}"): [f"optimizer: '{{name:' {UNREADABLE}", "'sgd}' is not key=value"],
    ("~epochs",): ["~epochs: keys can't be removed from a config, give key=value"],
    ("~optimizer=adam",): ["~optimizer=adam: keys can't be removed from a config"],
    # values that Hydra's grammar doesn't know
    ("epochs==1",): [f"epochs: '=1' {UNREADABLE}"],
    ("epochs=[1",): [f"epochs: '[1' {UNREADABLE}"],
    ("epochs={a",): [f"epochs: '{{a' {UNREADABLE}"],
    ("epochs='3",): [f'epochs: "\'3" {UNREADABLE}'],
    ("epochs=٣",): [f"epochs: '٣' {UNREADABLE}"],
    ("epochs=\x1b[31m3",): [f"epochs: '\\x1b[31m3' {UNREADABLE}"],
    ("epochs=${",): [f"epochs: '${{' {UNREADABLE}"],
    ("model.layers=" + "[" * 3000,): ["model.layers: '[[["],
    ("epochs=" + "1" * 5000,): ["epochs: '111"],
    # sweeps without -m, and those that Hydra's sweeper can't do
    ("epochs=1,2",): [f"epochs: 1,2 {SEVERAL}, or give [1,2] for a list"],
    ("optimizer=sgd,adam",): [f"optimizer: sgd,adam {SEVERAL}"],
    ("seed=range(1,3)",): [f"seed: range(1,3) {SEVERAL}"],
    ("data=idx", "data.path=/a,/b"): [f"data.path: /a,/b {SEVERAL}"],
    ("-m", "optimizer=glob(x*)"): ["optimizer: glob(x*) gives no value"],
    ("-m", "seed=range(1,0)"): ["seed: range(1,0) gives no value"],
    ("-m", "seed=choice()"): ["seed: 'choice()' can't be read: empty choice is not legal"],
    ("-m", "seed=range(0,1000000000)"): ["--multirun: this is more than 10,000 jobs"],
    ("-m", "seed=range(0,101)", "epochs=range(1,101)"): ["--multirun: this is more than 10,000 jobs"],
    ("-m", "optimizer.lr=interval(0,1)"): ["optimizer.lr: interval(0,1) is an interval"],
    ("-m", "optimizer=sgd,adamm", "epochs=1"): ["optimizer: unknown 'adamm', did you mean adam?"],
    ("-m", "debug=null,fast"): ["debug: unknown 'null', known: fast, "],
    # flags
    ("--epochs", "3"): ["--epochs: unknown, known: ", "'3' is not key=value"],
    ("--multi",): [f"--multi: unknown, did you mean --multirun? {FLAGS}"],
    ("-x",): ["-x: unknown, did you mean -m? "],
    ("--experimental-rerun=job.pickle",): ["--experimental-rerun=job.pickle: unknown, "],
    ("--config-name=other",): ["--config-name: not supported, give experiment=NAME; --config-dir FOLDER adds "],
    ("-cn", "other"): ["--config-name: not supported, give experiment=NAME"],
    ("-cp", "other"): ["--config-path: not supported, give experiment=NAME"],
    ("--resume=a",): ["--resume=a: unknown, give resume=RUN"],
    ("--config-dir", "/nowhere"): ["--config-dir: there is no directory /nowhere"],
    ("--config-dir",): ["argument -cd/--config-dir: expected one argument"],
    ("--cfg", "hydra"): ["argument -c/--cfg: invalid choice: 'hydra' (choose from"],
    ("--resolve",): ["--resolve: is only allowed with --cfg job"],
    # Hydra's own settings, with which it would write files or sweep
    ("hydra.mode=MULTIRUN",): ["hydra.mode: only hydra/launcher, hydra/sweeper and their keys can be"],
    ("hydra.run.dir=x",): ["hydra.run.dir: only hydra/launcher"],
    ("-m", "hydra.sweep.dir=x"): ["hydra.sweep.dir: only hydra/launcher"],
    ("-m", "hydra/launcher=cluster"): [
        "hydra/launcher: unknown 'cluster', did you mean slurm? (known: basic, local, ray, slurm)"
    ],
    # directories
    ("run_dir=/dev/null",): ["run_dir: /dev/null already exists, choose another or remove it"],
    ("model.name=lenet",): ["model.name: choose it with model=lenet, which also sets its arguments"],
    ("run_dir=/dev/null/x",): ["run_dir: /dev/null/x can't be created: /dev/null is not a directory"],
    ("sweep_dir=x",): ["sweep_dir: is only used by a sweep (-m), give run_dir"],
    ("-m", "run_dir=x"): ["run_dir: a sweep creates a directory for each job, give sweep_dir"],
    ("-m", "sweep_dir=/dev"): ["sweep_dir: /dev already exists, choose another or remove it"],
    ("-m", "sweep_dir="): ["sweep_dir: '' is not allowed, give a text"],
}


@pytest.mark.usefixtures("closed")
@pytest.mark.parametrize("typed", TYPED, ids=lambda typed: " ".join(typed)[:40].encode("unicode_escape").decode())
def test_what_is_typed(typed: tuple[str, ...], run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(*typed) == 2
    told = faults(capsys)
    assert [fault[: len(expected)] for fault, expected in zip(told, TYPED[typed], strict=True)] == TYPED[typed]


def test_the_last_of_a_repeated_key_counts(run: Run, caplog: pytest.LogCaptureFixture) -> None:
    given = ["epochs=x", "epochs=1", "+epochs=1", "optimizer=nothing", "optimizer=sgd", "optimizer.lr=0.5"]
    assert run(*given, "run_dir=first") == 0
    assert [text for text in caplog.messages if "again" in text] == [
        "note: epochs is given as x and again as 1: the last one counts",
        "note: optimizer is given as nothing and again as sgd: the last one counts",
    ]
    config = yaml.safe_load(Path("first/config.yaml").read_text())
    assert (config["epochs"], config["optimizer"]["name"], config["optimizer"]["lr"]) == (1, "sgd", 0.5)
    assert "epochs=x" not in Path("first/overrides.yaml").read_text()


@pytest.mark.usefixtures("closed")
@pytest.mark.parametrize("group", ["experiment", "debug"])
def test_a_file_without_a_package_names_the_remedy(
    group: str, run: Run, own: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (own / group).mkdir()
    (own / group / "mine.yaml").write_text("epochs: 1\n")
    assert run(f"{group}=mine", "--config-dir", str(own), "seed=-1") == 2
    told = faults(capsys)
    assert len(told) == 2
    remedy = "its keys belong to the top of the config, begin its file with the line '# @package _global_'"
    assert f"{group}: {remedy}" in told


@pytest.mark.parametrize("name", ["a=b", "größe", "with space", "it's", 'quo"te', "(x)", "[y]", "back\\slash", "x,y"])
def test_paths_are_taken_as_they_stand(name: str, run: Run) -> None:
    assert run(f"run_dir=out/{name}", "epochs=1", "debug=fast") == 0
    assert [path.name for path in Path("out").iterdir()] == [name]


@pytest.mark.usefixtures("closed")
def test_help_names_the_choices(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        run("epochs=3", "--help")  # flags may stand anywhere
    assert end.value.code == 0
    out = capsys.readouterr().out
    assert "model: autoencoder, blocks, conv3d, denoiser, densenet, inception_block, judge," in out
    assert "epochs: 3" in out


@pytest.mark.usefixtures("closed")
def test_a_config_is_shown_and_nothing_is_run(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("epochs=3", "--cfg", "job", "--resolve") == 0
    assert "epochs: 3" in capsys.readouterr().out
    assert list(Path().iterdir()) == []


def test_an_empty_folder_above_a_directory_that_cannot_be_made_stays(run: Run) -> None:
    Path("mine").mkdir()
    assert run("-m", "sweep_dir=mine/swept", "optimizer=sgd,adam", "model.layers.99=relu") == 2
    assert [str(path) for path in Path().rglob("*")] == ["mine"]


BOMB = "a: &a [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join([f'*{before}'] * 10)}]\n" for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)

MODELS = {
    "unclosed bracket": (b"layers: [relu\n", "{file}:2:1: expected ',' or ']'"),
    "a tab": (b"layers:\n\t- relu\n", "{file}:2:1: found character '\\t' that cannot start any token"),
    "duplicate key": (b"width: 1\nwidth: 2\nlayers: [relu]\n", "{file}:2:1: found duplicate key width"),
    "duplicate argument": (
        b"layers:\n  - conv2d: {out_channels: 3, kernel_size: 3, out_channels: 4}\n",
        "{file}:2:47: found duplicate key out_channels",
    ),
    "no text": (b"layers: [\xff\xfe]\n", "{file}: is not UTF-8 text: byte 10 is 0xff"),
    "a zero byte": (b"layers: [relu\0]\n", "{file}: character 14 is not allowed in YAML"),
    "code": (b"layers: !!python/object/apply:os.mkdir [x]\n", "{file}:1:9: could not determine a constructor"),
    "two documents": (b"layers: [relu]\n---\nlayers: [relu]\n", "{file}:2:1: but found another document"),
    "a key that is null": (b"layers: [{null: 3}]\n", "{file}: layers0: Incompatible key type 'NoneType'"),
    "half a reference": (b"layers: ['${model.width']\n", "{file}: layers[0]: no viable alternative"),
    "aliases without end": ((BOMB + "layers: *i\n").encode(), "{file}: its aliases expand to more than 100,000 values"),
    "an alias of itself": (b"layers: &l [*l]\n", "{file}: an alias refers to a node that contains it"),
    "lists in lists": (b"layers: " + b"[" * 700, "{file}: lists are nested too deeply"),
    "a number": (b"3\n", "{file}: Invalid loaded object type: int"),
    "a list": (b"- relu\n", "model: ['relu'] is not allowed, give keys with values"),
    "empty": (b"", "model.layers: missing, give a list of layers, or choose a network with model=NAME"),
    "unknown key": (b"wdith: 3\nlayers: ['${model.width}']\nwidth: relu\n", "model.wdith: unknown, no layer uses"),
    "lost indentation": (
        b"layers:\n  - conv2d:\n    out_channels: 3\n",
        "model.layers.0: {'conv2d': None, 'out_channels': 3} is not a layer, give a name, or one name with its",
    ),
    "no colon": (b"layers:\n  - conv2d {out_channels: 3}\n", "model.layers.0: unknown layer 'conv2d {out_channels'"),
    "no such reference": (
        b"width: 3\nlayers: [{linear: {out_features: '${model.width}'}}, {linear: {out_features: '${model.wdth}'}}]\n",
        "model.layers.1.linear.out_features: refers to model.wdth, which is unknown, did you mean width?",
    ),
    "a circle": (b"defaults: [mine]\nlayers: [relu]\n", "configs refer to each other in a circle"),
    "no such config": (b"defaults: [others]\nlayers: [relu]\n", "In 'model/mine': Could not load 'model/others'."),
}


@pytest.fixture
def own(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A user's folder of configs, in which models can be put."""
    folder = tmp_path_factory.mktemp("own")
    (folder / "model").mkdir()
    return folder


@pytest.mark.usefixtures("closed")
@pytest.mark.parametrize("fault", MODELS)
def test_model_files(fault: str, run: Run, own: Path, capsys: pytest.CaptureFixture[str]) -> None:
    content, expected = MODELS[fault]
    file = own / "model" / "mine.yaml"
    file.write_bytes(content)
    assert run("model=mine", f"--config-dir={own}") == 2
    told = faults(capsys)
    assert len(told) == 1
    assert told[0].startswith(expected.replace("{file}", str(file)))


@pytest.mark.usefixtures("closed")
def test_all_files_that_cannot_be_read_are_told(run: Run, own: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("mine", "other"):
        (own / "model" / f"{name}.yaml").write_text("layers: [\n")
    assert run("model=mine", "--config-dir", str(own), "batchsize=3", "seed=[1") == 2
    places = [fault.split(": ")[0] for fault in faults(capsys)]
    assert places == ["seed", *(f"{own}/model/{name}.yaml:2:1" for name in ("mine", "other"))]


def test_models_in_a_folder_of_ones_own(run: Run, own: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (own / "model" / "mine.yaml").write_text("layers: [flatten, {linear: {out_features: 3}}]\n")
    (own / "model" / "other.yaml").write_text("layers: [\n")  # no fault of a run that doesn't use it
    assert run("model=mine", "--config-dir", str(own), "epochs=1", "run_dir=first") == 0
    assert run("model=mne", "--config-dir", str(own)) == 2
    assert "model: unknown 'mne', did you mean mine? (known: autoencoder, blocks, " in capsys.readouterr().err


@pytest.mark.usefixtures("closed")
@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("epochs: 10", "epochs: 10\nepochs: 3", "/configs/config.yaml:"),
        ("epochs: 10", "epochz: 10", "epochz: unknown, did you mean epochs?"),
        ("model: seed8", "model: seed88", "model: unknown 'seed88', did you mean seed8?"),
        ("- loss: cross_entropy", "", "loss: null is not allowed, choose one with loss=NAME"),
    ],
)
def test_the_projects_own_configs(
    old: str,
    new: str,
    expected: str,
    run: Run,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    configs = tmp_path_factory.mktemp("project") / "configs"
    shutil.copytree(folders.CONFIGS, configs)
    monkeypatch.setattr(folders, "CONFIGS", configs)
    file = configs / "config.yaml"
    file.write_text(file.read_text(encoding="utf-8").replace(old, new), encoding="utf-8")
    monkeypatch.setattr("sys.argv", ["run.py"])
    assert train.main(["seed=3"]) == 2
    (told,) = faults(capsys)
    assert expected in told
