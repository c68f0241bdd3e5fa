"""What the README shows works as it stands there."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from omegaconf import OmegaConf

from cnn import build_model
from cnn.builder import known
from runners.cli import train
from runners.config import overrides

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def test_the_two_commands_are_single_lines() -> None:
    lines = [block.strip() for block in blocks("sh")[:2]]
    assert all(line.startswith("python3 -m venv .venv && ") and "\n" not in line for line in lines)
    assert all("-c constraints.txt" in line for line in lines)
    assert lines[0].endswith("run.py")
    assert lines[1].endswith("-m pytest")


def test_the_model_of_ones_own() -> None:
    for text in blocks("yaml"):
        composed = OmegaConf.create({"model": yaml.safe_load(text)})
        model = OmegaConf.to_container(composed, resolve=True)["model"]  # type: ignore[call-overload, index]
        assert build_model(model, (1, 28, 28)).output_shape((1, 28, 28)) == (10,)  # type: ignore[arg-type]


def test_every_layer_is_listed() -> None:
    table = README.split("| convolution |")[1].split("\n\n")[0]
    assert not [kind for kind in known() if f"`{kind}`" not in table]


def test_the_python_code(tmp_path: Path) -> None:
    """All blocks one after the other, the layer registered as the text between them says."""
    use, layer, check = blocks("python")
    source = f"{use}\n{layer}\nfrom cnn.layers import LAYERS\nLAYERS['scale'] = Scale\n{check}"
    source += (
        "\nassert max(gradcheck(net, torch.randn(3, 5, 5, 2, dtype=torch.float64), Mode(train=True)).values()) < 1e-6"
    )
    done = subprocess.run([sys.executable, "-c", source], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_message_is_the_one_that_is_printed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (shown,) = re.findall(r"```\n(error: .*?)\n```", README)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["run.py"])
    assert train.main(["model.layers=[{conv2d:{out_channels:4,kernel_size:0}}]"]) == 2
    assert shown in capsys.readouterr().err


def test_links_and_choices_exist() -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        assert (ROOT / target).exists(), target
    for group, names in re.findall(r"python run\.py (?:.* )?(model|optimizer|data|loss)=(\w+)", README):
        assert names == "mine" or names in overrides.choices(group)
