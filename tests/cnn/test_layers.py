"""Every layer and graph, on both kernel sets: against torch's in both precisions, and against finite differences."""

from __future__ import annotations

import math
import os
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from cnn import Mode, Sequential, build_model, ops
from cnn.gradients.finite_differences import directional, gradcheck
from cnn.graphs import GRAPHS
from cnn.layers import LAYERS
from tests.cnn import ledger
from tests.cnn.case import Case, normal
from tests.cnn.cases import FAMILIES
from tests.cnn.oracle import MODULES, Entry, bound, compare, ours, randomised, sequence, theirs

pytestmark = pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")  # torch's
KERNEL_SETS: tuple[ops.KernelSet, ...] = ("compiled", "reference")
LONG = os.environ.get("HYPOTHESIS_PROFILE") == "long"
KINDS = [kind for family in FAMILIES.values() for kind in family]


def network_of(case: Case, dtype: torch.dtype = torch.float64, seed: int = 0) -> Sequential:
    return randomised(build_model({"layers": [case.entry]}, case.input_shape), dtype, seed)


def mode_of(case: Case) -> Mode:
    return Mode(case.train, generator=torch.Generator().manual_seed(11))


class SameNoise(nn.Module):
    """Dropout as torch computes it, with the values that our generator drops."""

    def __init__(self, case: Case) -> None:
        super().__init__()
        self.case = case

    def forward(self, x: Tensor) -> Tensor:
        p = self.case.arguments["p"]
        if not self.case.train:
            y: Tensor = MODULES[self.case.kind](x.shape[1:], p=p).eval()(x)
            return y
        positions = x.shape[2:] if self.case.kind == "dropout" else (1,) * (x.dim() - 2)  # with an m of their own
        shape = (x.shape[1], *positions, len(x))
        kept = torch.rand(shape, generator=mode_of(self.case).generator) >= p
        y = x * kept.movedim(-1, 0) / (1 - p)
        return y


def peer(case: Case) -> nn.Module:
    return SameNoise(case) if "dropout" in case.kind else sequence([case.entry], case.input_shape)


def test_every_layer_has_cases() -> None:
    assert sorted(KINDS) == sorted({**LAYERS, **GRAPHS})


@pytest.mark.parametrize("family", FAMILIES)
def test_family(family: str) -> None:
    """At least 200 cases on both sets of kernels, against torch in both precisions and along random directions."""

    @settings(max_examples=2000 if LONG else 200)
    @given(data=st.data(), seed=st.integers(0, 1000))
    def each(data: st.DataObject, seed: int) -> None:
        try_one(family, data, seed)

    each()
    assert ledger.drawn[family] >= 200


def try_one(family: str, data: st.DataObject, seed: int) -> None:
    kind = data.draw(st.sampled_from(sorted(FAMILIES[family])))
    case = data.draw(FAMILIES[family][kind])
    x = case.x(seed)
    ledger.drawn[family] += 1
    for kernels in KERNEL_SETS:
        with ops.kernels(kernels):
            for dtype, name in ((torch.float64, "float64 vs torch"), (torch.float32, "float32 vs torch")):
                ledger.check(
                    family,
                    name,
                    compare(
                        network_of(case, dtype, seed),
                        peer(case),
                        x.to(dtype),
                        mode_of(case),
                        as_one=family == "graph" or dtype == torch.float32,
                    ),
                )
            slopes = directional(network_of(case, seed=seed), x, mode_of(case), seed=seed)
            ledger.check(family, "finite differences", slopes)


@pytest.mark.parametrize("kernels", KERNEL_SETS)
@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=5)
@given(data=st.data())
def test_tensors_in_any_layout_of_memory(kind: str, kernels: Any, data: st.DataObject) -> None:
    case = data.draw(next(family[kind] for family in FAMILIES.values() if kind in family))
    network = network_of(case)
    x = case.x(3)
    scattered = x.movedim(-1, 0).contiguous().movedim(0, -1)
    with ops.kernels(kernels):
        y, cache = network.forward(x, mode_of(case))
        dy = normal(tuple(y.shape), 4)
        dx = network.backward(dy, cache)
        once = network.flat.grad.clone()
        network.flat.grad.zero_()
        again, cache = network.dry_run(scattered, mode_of(case))
        back = network.backward(dy.movedim(-1, 0).contiguous().movedim(0, -1), cache)
    assert dx is not None
    assert back is not None
    if not case.train:
        assert torch.allclose(y, again, rtol=1e-12)
    assert torch.allclose(dx, back, rtol=1e-9, atol=1e-12)
    assert torch.allclose(once, network.flat.grad, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("axes", [1, 2, 3])
@given(data=st.data(), seed=st.integers(0, 1000))
def test_max_pools_of_ties_nan_and_infinity_are_those_of_torch(axes: int, data: st.DataObject, seed: int) -> None:
    case = data.draw(FAMILIES["pooling"][f"max_pool{axes}d"])
    x = normal((*case.input_shape, case.batch), seed).mul(1.5).round()
    x[normal(tuple(x.shape), seed + 1) > 1.5] = math.nan
    x[normal(tuple(x.shape), seed + 2) > 1] = -math.inf
    leaf = theirs(x).requires_grad_()
    expected = peer(case)(leaf)
    dy = normal(tuple(ours(expected).shape), 4)
    expected.backward(theirs(dy))
    assert leaf.grad is not None
    for kernels in KERNEL_SETS:
        with ops.kernels(kernels):
            network = network_of(case)
            y, cache = network.forward(x, Mode(train=True))
            dx = network.backward(dy, cache)
        assert dx is not None
        assert torch.allclose(y, ours(expected.detach()), equal_nan=True)
        assert torch.allclose(dx, ours(leaf.grad), rtol=1e-12)


@pytest.mark.parametrize(
    "entry",
    [
        *("relu", {"leaky_relu": {"negative_slope": -0.5}}, "prelu", {"elu": {"alpha": 0.3}}, "softplus"),
        *("gelu", "silu", "hard_swish", "tanh", "sigmoid"),
    ],
)
def test_activations_at_exactly_their_kinks(entry: Entry, kernel_set: str) -> None:
    x = torch.tensor([[0.0, -0.0, 1.0, 3.0], [-1.0, 0.0, -0.0, -3.0]], dtype=torch.float64)
    network = randomised(build_model({"layers": [entry]}, (2,)))
    assert max(compare(network, sequence([entry], (2,)), x, Mode(train=True)).values()) <= 1e-12


@pytest.mark.parametrize("align", [False, True])
@pytest.mark.parametrize("scale", range(1, 8))
def test_the_weights_of_an_interpolation(scale: int, align: bool) -> None:
    """Of axes of any length: places with equal weights are taken together, where they follow each other."""
    for extent in range(1, 14):
        entry = {"upsample": {"scale_factor": scale, "mode": "linear", "align_corners": align}}
        network = build_model({"layers": [entry]}, (1, extent), dtype=torch.float64)
        errors = compare(network, sequence([entry], (1, extent)), normal((1, extent, 2), 0), Mode(train=True))
        assert max(errors.values()) <= 1e-12


@pytest.mark.parametrize(("scale", "align"), [(1, False), (2, False), (3, False), (3, True)])
def test_infinity_and_nan_reach_only_the_places_that_interpolate_them(scale: int, align: bool) -> None:
    """With as many infinite and undefined values as torch's, or fewer: it multiplies some by weights of zero."""
    entry = {"upsample": {"scale_factor": scale, "mode": "bilinear", "align_corners": align}}
    network = build_model({"layers": [entry]}, (1, 4, 4), dtype=torch.float64)
    x = normal((1, 4, 4, 30), 0)
    x[normal((1, 4, 4, 30), 1) > 1.5] = math.inf
    x[normal((1, 4, 4, 30), 2) > 2] = math.nan
    y, cache = network.forward(x, Mode(train=True))
    clean = network.forward(torch.where(x.abs() < math.inf, x, 0.0), Mode(train=True))[0]
    touched = network.forward((x.abs() < math.inf).double(), Mode(train=True))[0] < 1 - 1e-9
    assert torch.equal(~(y.abs() < math.inf), touched)
    assert torch.allclose(y[~touched], clean[~touched])
    expected = ours(sequence([entry], (1, 4, 4))(theirs(x)))
    assert not (y.isnan() & ~expected.isnan()).any()
    dy = torch.where(normal(tuple(y.shape), 3) > 2, math.inf, normal(tuple(y.shape), 4))
    dx = network.backward(dy, cache)
    assert dx is not None
    assert not dx.isnan().any()
    assert torch.equal(dx.isinf().any(), dy.isinf().any())


def test_a_pool_that_only_fits_when_rounded_up(kernel_set: str) -> None:
    for kind in ("max", "avg"):
        entry = {f"{kind}_pool2d": {"kernel_size": 4, "stride": 2, "ceil_mode": True}}
        network = randomised(build_model({"layers": [entry]}, (1, 3, 3)))
        assert (
            max(compare(network, sequence([entry], (1, 3, 3)), normal((1, 3, 3, 2), 0), Mode(True)).values()) <= 1e-12
        )


@pytest.mark.parametrize("kernels", KERNEL_SETS)
@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=100 if LONG else 6)
@given(data=st.data(), seed=st.integers(0, 1000))
def test_every_entry_of_the_gradients(kind: str, kernels: Any, data: st.DataObject, seed: int) -> None:
    case = data.draw(next(family[kind] for family in FAMILIES.values() if kind in family))
    with ops.kernels(kernels):
        errors = gradcheck(network_of(case, seed=seed), case.x(seed), mode_of(case), seed=seed)
    assert max(errors.values()) <= 1e-6, errors


@pytest.mark.parametrize("kernels", KERNEL_SETS)
@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=8)
@given(data=st.data())
def test_inputs_are_read_only_and_flags_are_obeyed(kind: str, kernels: Any, data: st.DataObject) -> None:
    case = data.draw(next(family[kind] for family in FAMILIES.values() if kind in family))
    network = network_of(case)
    x = case.x(3)
    (layer,) = network.layers.values()
    with ops.kernels(kernels):
        y, cache = layer.dry_run(x, mode_of(case))  # from the same buffers each time
        dy = normal(tuple(y.shape), 4)
        copies = x.clone(), y.clone(), dy.clone()
        whole = layer.backward(dy, cache)
        assert torch.equal(x, copies[0])
        assert torch.equal(y, copies[1])
        assert torch.equal(dy, copies[2])
        once = network.flat.grad.clone()
        _, cache = layer.dry_run(x, mode_of(case))
        alone = layer.backward(dy, cache, need_dparams=False)
        assert torch.equal(network.flat.grad, once)
        assert whole is not None
        assert alone is not None
        assert torch.equal(whole, alone)
        _, cache = layer.dry_run(x, mode_of(case))
        assert layer.backward(dy, cache, need_dx=False) is None
        assert torch.allclose(network.flat.grad, 2 * once, rtol=1e-12)  # added, not assigned


def test_batch_norm_refuses_one_value_a_channel() -> None:
    network = bound(LAYERS["batch_norm"](), (3,))
    with pytest.raises(ValueError, match="one value per channel"):
        network.forward(normal((3, 1), 0), Mode(train=True))


@pytest.mark.parametrize("kind", ["dropout", "dropout2d", "dropout3d"])
def test_dropout_drops_its_share_and_keeps_the_mean(kind: str) -> None:
    x = torch.ones(50, 4, 4, *(1,) * (kind == "dropout3d"), 100)
    layer = LAYERS[kind](0.3)  # type: ignore[call-arg]
    y, _ = layer.forward(x, Mode(train=True, generator=torch.Generator().manual_seed(0)))
    again, _ = layer.forward(x, Mode(train=True, generator=torch.Generator().manual_seed(0)))
    other, _ = layer.forward(x, Mode(train=True, generator=torch.Generator().manual_seed(1)))
    assert torch.equal(y, again)
    assert not torch.equal(y, other)
    assert math.isclose((y == 0).double().mean(), 0.3, abs_tol=0.02)
    assert torch.allclose(y[y != 0], torch.tensor(1 / 0.7))
    whole = ((y == 0).flatten(1, -2).double().mean(1) % 1 == 0).all()
    assert bool(whole) == (kind != "dropout")
    assert layer.forward(x, Mode(train=False))[0] is x
    nothing = LAYERS[kind](1.0).forward(x, Mode(train=True))[0]  # type: ignore[call-arg]
    assert not nothing.any()
