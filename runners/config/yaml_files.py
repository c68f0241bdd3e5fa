"""Check the YAML files of configs: before they are composed, or when composing them fails."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from cnn.faults import Fault

MAX_VALUES = 100_000


def faults(folders: Iterable[Path]) -> list[Fault]:
    """A fault for each file in these folders that can't be read as a config."""
    return [fault for file in _files(folders) if (fault := _fault(file))]


def alias_bombs(folders: Iterable[Path]) -> list[Fault]:
    """A fault for each file whose aliases expand to huge data, or to themselves: reading it would never end."""
    found = []
    for file in _files(folders):
        try:
            text = file.read_text(encoding="utf-8")
            root = yaml.compose(text, yaml.SafeLoader) if "&" in text and "*" in text else None
            if root is not None and _size(root, {}) > MAX_VALUES:
                found.append(Fault(str(file), f"its aliases expand to more than {MAX_VALUES:,} values"))
        except RecursionError:
            found.append(Fault(str(file), "an alias refers to a node that contains it"))
        except (yaml.YAMLError, UnicodeError, OSError):
            continue  # reported where the file is used
    return found


def _files(folders: Iterable[Path]) -> list[Path]:
    """The files that Hydra finds, in the folders and in their groups."""
    return [file for folder in folders for pattern in ("*.yaml", "*/*.yaml") for file in sorted(folder.glob(pattern))]


def _size(node: yaml.Node, known: dict[int, int]) -> int:
    """The number of values in a node, with aliases expanded."""
    if id(node) not in known:
        items = node.value if isinstance(node, yaml.CollectionNode) else []
        pairs = [part for item in items for part in (item if isinstance(item, tuple) else (item,))]
        known[id(node)] = 1 + sum(_size(part, known) for part in pairs)
    return known[id(node)]


def _fault(file: Path) -> Fault | None:
    try:
        OmegaConf.load(file)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f":{mark.line + 1}:{mark.column + 1}" if mark else ""
        return Fault(f"{file}{where}", error.problem or "broken YAML")
    except yaml.reader.ReaderError as error:
        return Fault(str(file), f"character {error.position + 1} is not allowed in YAML: {error.reason}")
    except UnicodeDecodeError as error:
        return Fault(str(file), f"is not UTF-8 text: byte {error.start + 1} is {error.object[error.start]:#04x}")
    except RecursionError:
        return Fault(str(file), "lists are nested too deeply")
    except (OmegaConfBaseException, OSError) as error:
        key = f"{error.full_key}: " if isinstance(error, OmegaConfBaseException) and error.full_key else ""
        return Fault(str(file), f"{key}{(str(error).splitlines() or ['unreadable'])[0]}")
    return None


def digest(folders: Iterable[Path]) -> str:
    """A hash of the names and contents of all config files in these folders."""
    found = hashlib.sha256()
    for folder in folders:
        for file in sorted(folder.rglob("*.yaml")):
            found.update(f"{file.relative_to(folder)}\0".encode())
            found.update(hashlib.sha256(file.read_bytes()).digest())
    return found.hexdigest()
