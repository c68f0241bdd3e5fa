"""Which layers `freeze` names: patterns for their dotted names, as `debug=summary` shows them."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase

from cnn import Graph
from cnn.faults import Fault
from cnn.text import closest, show


def frozen_layers(graphs: Mapping[str, Graph], patterns: Sequence[str]) -> dict[str, set[str]]:
    """The names of the layers that match one of the patterns, for each network."""
    return {
        network: {name for shown, name in names if any(fnmatchcase(shown, pattern) for pattern in patterns)}
        for network, names in _names(graphs).items()
    }


def find_faults(graphs: Mapping[str, Graph], patterns: Sequence[str]) -> Iterator[Fault]:
    """Faults for patterns that match no layer, and for patterns that leave no parameter to train."""
    known = [shown for names in _names(graphs).values() for shown, _ in names]
    for pattern in patterns:
        if not any(fnmatchcase(shown, pattern) for shown in known):
            likely = closest(pattern, known)
            hint = f"did you mean {likely}? (" if likely else "known: " + ", ".join(_outermost(known)) + " ("
            yield Fault("freeze", f"no layer's name matches {show(pattern)}, {hint}debug=summary shows all names)")
    frozen = frozen_layers(graphs, patterns)
    for network, graph in graphs.items():
        all_of_them = {name for name, _ in graph.named_parameters()}
        if all_of_them and all(is_frozen(name, frozen[network]) for name in all_of_them):
            yield Fault("freeze", f"{', '.join(map(show, patterns))} leaves nothing of the {network} to train")


def _names(graphs: Mapping[str, Graph]) -> dict[str, list[tuple[str, str]]]:
    """The layers of each network: the name for people, which says the network if there are several, and their own."""
    return {
        network: [(name if len(graphs) == 1 else f"{network}.{name}", name) for name, _ in graph.named_layers() if name]
        for network, graph in graphs.items()
    }


def _outermost(names: Sequence[str]) -> list[str]:
    depth = min((name.count(".") for name in names), default=0)
    return [name for name in names if name.count(".") == depth]


def is_frozen(name: str, layers: Collection[str]) -> bool:
    """Whether a layer or parameter of this dotted name is one of the layers, or in one."""
    return any(name == layer or name.startswith(f"{layer}.") for layer in layers)
