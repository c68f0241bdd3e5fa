"""TensorBoard: event files in the run directory, `RUN/tensorboard`, found by `tensorboard --logdir outputs`.

TensorBoard keeps values as float32: it shows nothing of scalars that are stored as doubles.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from runners.trackers.tracker import About, Tracker, as_text

FOLDER = "tensorboard"


class TensorBoard(Tracker):
    """Writes events by itself, in this process's only thread, so that a full disk is noticed where it happens."""

    kind = "tensorboard"
    package = "tensorboard"

    def start(self, run: About, rows: Sequence[Mapping[str, float]]) -> None:
        """Write a new file with everything so far, then remove the older ones: readers see no row twice."""
        from tensorboard.summary.writer.record_writer import RecordWriter

        folder = Path(run.directory, FOLDER)
        folder.mkdir(exist_ok=True)
        earlier = sorted(folder.glob("events.out.tfevents.*"))
        times = _wall_times(earlier)
        name = f"events.out.tfevents.{time.time():.6f}.{socket.gethostname()}.{os.getpid()}"
        self.records = RecordWriter((folder / name).open("xb"))
        self.last = 0
        self._write(file_version="brain.Event:2")
        self._write(summary=_session_start(run))
        about = {"name": run.name, "tags": ", ".join(run.tags), **run.facts}
        self._write(summary=_text("about", "\n".join(f"- **{key}**: `{text}`" for key, text in about.items() if text)))
        for row in rows:
            self._epoch(row, times.get(int(row["epoch"])))
        self.records.flush()
        for file in earlier:
            file.unlink()

    def epoch(self, row: Mapping[str, float]) -> None:
        self._epoch(row, None)
        self.records.flush()

    def finish(self, summary: Mapping[str, float], figures: Sequence[Path]) -> None:
        """The summary's numbers, and the pictures, at the last epoch."""
        self._write(summary=_scalars({f"summary/{name}": value for name, value in summary.items()}), step=self.last)
        for file in figures:
            if file.suffix == ".png":
                self._write(summary=_picture(file), step=self.last)
        self.records.flush()

    def close(self, state: str) -> None:
        self._write(summary=_session_end(state))
        self.records.close()

    def _epoch(self, row: Mapping[str, float], wall_time: float | None) -> None:
        self.last = int(row["epoch"])
        self._write(summary=_scalars(row), step=self.last, wall_time=wall_time or time.time())

    def _write(self, **content: Any) -> None:
        from tensorboard.compat.proto.event_pb2 import Event

        event = Event(**{"wall_time": time.time(), **content})
        self.records.write(event.SerializeToString())


def _wall_times(files: Iterable[Path]) -> dict[int, float]:
    """When each epoch was recorded, of those that can be read."""
    from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

    times: dict[int, float] = {}
    for file in files:
        for event in EventFileLoader(str(file)).Load():
            if any(value.tag == "epoch" for value in event.summary.value):
                times.setdefault(event.step, event.wall_time)
    return times


def _scalars(values: Mapping[str, float]) -> Any:
    from tensorboard.compat.proto.summary_pb2 import Summary

    return Summary(value=[Summary.Value(tag=name, simple_value=value) for name, value in values.items()])


def _text(tag: str, text: str) -> Any:
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.compat.proto.tensor_pb2 import TensorProto
    from tensorboard.compat.proto.tensor_shape_pb2 import TensorShapeProto
    from tensorboard.compat.proto.types_pb2 import DT_STRING
    from tensorboard.plugins.text.metadata import create_summary_metadata

    tensor = TensorProto(dtype=DT_STRING, string_val=[text.encode()], tensor_shape=TensorShapeProto())
    metadata = create_summary_metadata(display_name="", description="")
    return Summary(value=[Summary.Value(tag=tag, metadata=metadata, tensor=tensor)])


def _picture(file: Path) -> Any:
    from PIL import Image
    from tensorboard.compat.proto.summary_pb2 import Summary

    with Image.open(file) as picture:
        width, height = picture.size
    image = Summary.Image(height=height, width=width, colorspace=4, encoded_image_string=file.read_bytes())
    return Summary(value=[Summary.Value(tag=f"figures/{file.stem}", image=image)])


def _session_start(run: About) -> Any:
    """The hyperparameters. Those that are lists or null are texts."""
    from tensorboard.plugins.hparams import plugin_data_pb2

    start = plugin_data_pb2.SessionStartInfo(group_name=run.identity, start_time_secs=time.time())
    for key, value in run.config.items():
        if isinstance(value, bool):
            start.hparams[key].bool_value = value
        elif isinstance(value, int | float):
            start.hparams[key].number_value = value
        else:
            start.hparams[key].string_value = as_text(value)
    return _session(session_start_info=start)


def _session_end(state: str) -> Any:
    """The state of the run, for the table of hyperparameters."""
    from tensorboard.plugins.hparams import api_pb2, plugin_data_pb2

    status = api_pb2.STATUS_SUCCESS if state == "done" else api_pb2.STATUS_FAILURE
    return _session(session_end_info=plugin_data_pb2.SessionEndInfo(status=status, end_time_secs=time.time()))


def _session(**info: Any) -> Any:
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.plugins.hparams import metadata, plugin_data_pb2

    [kind] = info
    data = metadata.create_summary_metadata(plugin_data_pb2.HParamsPluginData(**info))
    return Summary(value=[Summary.Value(tag=f"_hparams_/{kind}", metadata=data, tensor=metadata.NULL_TENSOR)])
