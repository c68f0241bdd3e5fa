"""The command behind `python -m runners.evaluate RUN [data=NAME] [data.KEY=VALUE ...]`.

Without overrides it uses the run's own dataset. It evaluates all test examples.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence

from cnn import ConfigError
from runners.config import extensions
from runners.config.grammar import latest
from runners.errors import InputError, program
from runners.exit_codes import DONE, report_error
from runners.training.evaluation import evaluate


def main(arguments: Sequence[str]) -> int:
    """Print an evaluation and return the exit code."""
    parser = argparse.ArgumentParser(prog=program("evaluate"), description="Evaluate a saved run on a dataset.")
    parser.add_argument("run", help="a run directory, or a checkpoint in it")
    parser.add_argument("data", nargs="*", default=[], metavar="data.KEY=VALUE", help="another: data=idx data.path=D")
    parser.add_argument("--checkpoint", choices=["best", "last"], default="best", help="which weights (default best)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_intermixed_args(arguments)
    try:
        _, overrides = extensions.load_from_arguments(latest(options.data))
        evaluation = evaluate(options.run, overrides, options.checkpoint)
    except (ConfigError, InputError) as error:
        return report_error(error)
    print(json.dumps(evaluation.as_json()) if options.json else evaluation.as_text())
    return DONE
