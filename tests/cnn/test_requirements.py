"""What kernels for GPUs need, and what is said and used where it is missing."""

from __future__ import annotations

import re
import sys
from types import SimpleNamespace

import pytest
import torch

from cnn import ops
from cnn.ops import Unfit, backend, requirements
from cnn.ops.reference import activation


@pytest.fixture
def everything(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """A machine with a new Triton, a C compiler and a new GPU."""
    monkeypatch.setitem(sys.modules, "triton", SimpleNamespace(__version__="3.6.0"))
    monkeypatch.setenv("CC", "cc")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (9, 0))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "a card")
    return monkeypatch


def test_nothing_is_missing(everything: pytest.MonkeyPatch) -> None:
    requirements.require_triton()


def test_triton_is_missing(everything: pytest.MonkeyPatch) -> None:
    everything.setitem(sys.modules, "triton", None)
    with pytest.raises(Unfit, match=r"Triton is missing, .* pip install triton"):
        requirements.require_triton()


@pytest.mark.parametrize("version", ["3.5.1", "2.1.0"])
def test_triton_is_too_old(everything: pytest.MonkeyPatch, version: str) -> None:
    everything.setitem(sys.modules, "triton", SimpleNamespace(__version__=version))
    with pytest.raises(Unfit, match=re.escape(f"Triton {version} is too old")):
        requirements.require_triton()


def test_there_is_no_compiler(everything: pytest.MonkeyPatch) -> None:
    everything.delenv("CC")
    everything.setattr(requirements, "which", lambda name: None)
    with pytest.raises(Unfit, match="needs a C compiler: install gcc"):
        requirements.require_triton()


def test_the_card_is_too_old(everything: pytest.MonkeyPatch) -> None:
    everything.setattr(torch.cuda, "get_device_capability", lambda: (7, 5))
    with pytest.raises(Unfit, match=r"a card is too old .* 8\.0"):
        requirements.require_triton()


def test_the_reference_computes_what_an_unfit_backend_would(monkeypatch: pytest.MonkeyPatch) -> None:
    """A backend is loaded when a function is chosen for its kind of device, and only then."""
    loaded = []

    def load() -> ops.Backend:
        loaded.append("meta")
        raise Unfit("something is missing")

    monkeypatch.setattr(backend, "_waiting", {})
    monkeypatch.setattr(backend, "_unfit", {})
    monkeypatch.setattr(backend, "_found", {})
    backend.register_when_needed("meta", load)
    backend.choose(activation.relu, torch.zeros(1))
    assert loaded == []
    assert backend.choose(activation.relu, torch.zeros(1, device="meta")) is activation.relu
    assert ops.load_backends("meta") == ["something is missing"]
    assert loaded == ["meta"]
