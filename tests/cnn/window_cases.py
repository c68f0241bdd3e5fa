"""Cases of layers with a moving window: convolutions and pools."""

from __future__ import annotations

from typing import Any

from hypothesis import assume
from hypothesis import strategies as st

from tests.cnn.case import Case, batches, distinct, per_axis, spread, wide_batches


@st.composite
def convolutions(draw: st.DrawFn, axes: int) -> Case:
    groups = draw(st.sampled_from([1, 1, 2, 3]))
    kernel, dilation = draw(per_axis(axes, 1, 3)), draw(per_axis(axes, 1, 2))
    named = draw(st.sampled_from(["same", "valid", None, None, None, None]))
    padding = named or draw(per_axis(axes, 0, 2))
    mode = draw(st.sampled_from(["zeros", "zeros", "reflect", "replicate", "circular"]))
    spans = [d * (k - 1) + 1 for k, d in zip(spread(kernel, axes), spread(dilation, axes), strict=True)]
    reach = [span // 2 for span in spans] if named == "same" else spread(0 if named else padding, axes)
    border = {"reflect": 1}.get(mode, 0)
    smallest = [
        max(1, s - 2 * r, *([] if mode == "zeros" else [r + border])) for s, r in zip(spans, reach, strict=True)
    ]
    size = tuple(draw(st.integers(low, max(low, 7 - axes))) for low in smallest)
    arguments = {
        "out_channels": groups * draw(st.integers(1, 2)),
        "kernel_size": kernel,
        "stride": 1 if named == "same" else draw(per_axis(axes, 1, 3)),
        "padding": padding,
        "dilation": dilation,
        "groups": groups,
        "bias": draw(st.booleans()),
        "padding_mode": mode,
    }
    return Case(f"conv{axes}d", arguments, (groups * draw(st.integers(1, 2)), *size), draw(wide_batches))


@st.composite
def transposed(draw: st.DrawFn, axes: int) -> Case:
    groups = draw(st.sampled_from([1, 1, 2]))
    kernel, stride, padding, dilation = (
        draw(per_axis(axes, low, high)) for low, high in ((1, 3), (1, 3), (0, 2), (1, 2))
    )
    limits = [max(pair) for pair in zip(spread(stride, axes), spread(dilation, axes), strict=True)]
    size = tuple(draw(st.integers(1, 5 - axes)) for _ in range(axes))
    extra = [draw(st.integers(0, limit - 1)) for limit in limits]
    parts = zip(size, *(spread(value, axes) for value in (kernel, stride, padding, dilation, extra)), strict=True)
    assume(min((s - 1) * step - 2 * p + d * (k - 1) + e + 1 for s, k, step, p, d, e in parts) >= 1)
    arguments = {
        "out_channels": groups * draw(st.integers(1, 2)),
        "kernel_size": kernel,
        "stride": stride,
        "padding": padding,
        "output_padding": extra,
        "dilation": dilation,
        "groups": groups,
        "bias": draw(st.booleans()),
    }
    return Case(f"conv_transpose{axes}d", arguments, (groups * draw(st.integers(1, 2)), *size), draw(wide_batches))


@st.composite
def pools(draw: st.DrawFn, axes: int, kind: str) -> Case:
    kernel = draw(per_axis(axes, 1, 3))
    arguments: dict[str, Any] = {"kernel_size": kernel, "ceil_mode": draw(st.booleans())}
    if draw(st.booleans()):
        arguments["stride"] = draw(per_axis(axes, 1, 3))
    spans = spread(kernel, axes)
    if kind == "max":
        dilation = draw(per_axis(axes, 1, 2))
        arguments["dilation"] = dilation
        spans = [d * (k - 1) + 1 for k, d in zip(spans, spread(dilation, axes), strict=True)]
    else:
        arguments["count_include_pad"] = draw(st.booleans())
    arguments["padding"] = [draw(st.integers(0, k // 2)) for k in spread(kernel, axes)]
    size = tuple(draw(st.integers(span, 8 - axes)) for span in spans)
    return Case(f"{kind}_pool{axes}d", arguments, (draw(st.integers(1, 3)), *size), draw(batches), distinct)
