"""The figures of a run: curves.png, confusion.png, mistakes.png, filters.png."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any

import numpy as np
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont, get_font
from matplotlib.ticker import MaxNLocator, PercentFormatter
from torch import Tensor

from runners.data import Dataset
from runners.errors import printable
from runners.files.metrics_csv import Row
from runners.tasks.task import Metric

BLUE, ORANGE = "#2a6f97", "#e07a1f"
MISTAKES = 24
MAX_NAME_LENGTH = 24
MAX_COLUMNS = 10


def _figure(width: float, height: float) -> Figure:
    """A figure without a window; no display is needed."""
    figure = Figure(figsize=(width, height), layout="constrained", dpi=120)
    FigureCanvasAgg(figure)
    return figure


def curves(rows: Sequence[Row], metrics: Sequence[Metric]) -> Figure:
    """Each metric by epoch, in training and validation."""
    figure = _figure(4.5 * len(metrics), 3.4)
    for axes, metric in zip(figure.subplots(1, len(metrics), squeeze=False).flat, metrics, strict=True):
        for part, colour in (("train", BLUE), ("val", ORANGE)):
            column = f"{part}/{metric.name}"
            points = [(row["epoch"], row[column]) for row in rows if column in row]
            if points:
                axes.plot(*zip(*points, strict=True), color=colour, marker="o", ms=3, label=part)
        axes.set_xlabel("epoch")
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.set_title(metric.name)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(alpha=0.3)
        if axes.lines:  # a metric may not be measured yet
            axes.legend(frameon=False)
        if metric.format.endswith("%"):
            axes.yaxis.set_major_formatter(PercentFormatter(1))
    return figure


def confusion(matrix: Tensor, class_names: Sequence[str]) -> Figure:
    """The confusion matrix, true class [row] by predicted class [column]. Only mistakes are coloured."""
    count = len(class_names)
    figure = _figure(max(4.0, 0.5 * count + 1), max(3.6, 0.5 * count + 0.6))
    axes = figure.subplots()
    wrong = matrix.clone().fill_diagonal_(0)
    most = max(1, int(wrong.max()))
    axes.imshow(wrong.numpy(), cmap="Oranges", vmin=0, vmax=most)
    for row, column in product(range(count), repeat=2):
        if number := int(matrix[row, column]):
            colour = "white" if wrong[row, column] > 0.6 * most else "black"
            axes.text(column, row, f"{number}", ha="center", va="center", fontsize=8, color=colour)
    names = [_plain(name) for name in class_names]
    axes.set_xticks(range(count), names, rotation=45 if max(map(len, names)) > 3 else 0)
    axes.set_yticks(range(count), names)
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    return figure


def mistakes(dataset: Dataset, predicted: Tensor) -> Figure | None:
    """The first misclassified test images, with their true and predicted classes; None if there are none."""
    labels = dataset.test.targets
    wrong = torch.arange(len(labels))[predicted != labels][:MISTAKES].tolist()
    if not wrong or len(dataset.input_shape) != 3:
        return None
    columns = min(8, len(wrong))
    lines = -(-len(wrong) // columns)
    figure = _figure(1.15 * columns, 1.4 * lines)
    panels = figure.subplots(lines, columns, squeeze=False).flat
    for axes in panels:
        axes.axis("off")
    for axes, index in zip(figure.axes, wrong, strict=False):
        axes.imshow(_picture(dataset.test.images[index].numpy()), cmap="gray", vmin=0, vmax=255)
        true, guess = (_plain(dataset.class_names[int(values[index])]) for values in (labels, predicted))
        # its height is given, as matplotlib takes 0.2 s to find one above ticks that aren't even drawn
        axes.set_title(f"{true}, not {guess}", fontsize=8, y=1)
    return figure


def rows_of_pictures(rows: Mapping[str, Tensor]) -> Figure:
    """Pictures [C, H, W, N] with values in [0, 1], a row for each name."""
    count = min(MAX_COLUMNS, *(pictures.shape[-1] for pictures in rows.values()))
    figure = _figure(1.0 * count, 1.1 * len(rows))
    panels = figure.subplots(len(rows), count, squeeze=False)
    for line, (name, pictures) in zip(panels, rows.items(), strict=True):
        for index, axes in enumerate(line):
            axes.imshow(_picture(pictures[..., index].clamp(0, 1).cpu().numpy()), cmap="gray", vmin=0, vmax=1)
            axes.set_xticks([])
            axes.set_yticks([])
        line[0].set_ylabel(name, fontsize=8)
    return figure


def filters(weight: Tensor) -> Figure | None:
    """The filters of the first convolution, blue for negative and red for positive; None if they aren't 2-d."""
    if weight.dim() != 4 or max(weight.shape[2:]) < 2:
        return None
    planes = weight.detach().cpu().flatten(0, 1)[:64]
    columns = min(10, len(planes))
    lines = -(-len(planes) // columns)
    figure = _figure(0.9 * columns, 0.9 * lines)
    panels = figure.subplots(lines, columns, squeeze=False).flat
    limit = float(planes.abs().max())
    for axes in panels:
        axes.axis("off")
    for axes, plane in zip(figure.axes, planes, strict=False):
        axes.imshow(plane.numpy(), cmap="RdBu_r", vmin=-limit, vmax=limit)
    return figure


def _plain(name: str) -> str:
    """A class name, shortened to fit, in characters that the font has, as matplotlib warns about missing ones.

    Dollar signs are escaped: matplotlib would typeset what they enclose as mathematics.
    """
    font = get_font(findfont(FontProperties()))
    drawn = "".join(c if font.get_char_index(ord(c)) else ascii(c)[1:-1] for c in printable(name))
    shortened = drawn if len(drawn) <= MAX_NAME_LENGTH else f"{drawn[: MAX_NAME_LENGTH - 3]}..."
    return shortened.replace("$", r"\$")


def _picture(image: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """An image [C, H, W] as matplotlib expects it: [H, W] or [H, W, 3]."""
    return image[0] if image.shape[0] != 3 else np.moveaxis(image, 0, -1)
