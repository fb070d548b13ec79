"""Configurations from and to files, strictly: an unknown key or another type is an error."""

from __future__ import annotations

import dataclasses
import math
import reprlib
import typing
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml

from tagspeech.config import Config
from tagspeech.errors import InputError
from tagspeech.files import read_text
from tagspeech.ranges import fault, plain_type

T = TypeVar("T")
MOST_NODES = 100_000  # values in a YAML file, aliases resolved
LARGEST = 2**63 - 1  # of integers
_UNUSABLE = {"\0", *map(chr, range(0xD800, 0xE000))}  # characters of no file name and no UTF-8
_SHORT = reprlib.Repr()
_SHORT.maxlevel, _SHORT.maxstring, _SHORT.maxother = 3, 120, 120


def load_config(
    path: str | Path, overrides: Sequence[str] = (), variant: str | Path | None = None
) -> Config:
    """Reads a YAML file and applies overrides such as `train.lr=1e-4`.

    A file may name another one, relative to itself, with `base:`; it then holds what differs.

    variant  a file that is laid over the first, before the overrides

    Raises `InputError` naming file and key for an unknown key or a value of the wrong type.
    """
    tree = _read(Path(path))
    if variant is not None:
        tree = _overlay(tree, _read(Path(variant)))
    for override in overrides:
        key, equals, value = override.partition("=")
        if not equals:
            raise InputError(f"--set {override}: must be KEY=VALUE, such as train.lr=1e-4")
        where = f"--set {override}"
        tree = _assign(tree, key.split("."), parse_yaml(value, where), where)
    return from_tree(Config, tree, str(path) if variant is None else f"{path} with {variant}")


def _read(path: Path, readers: tuple[Path, ...] = ()) -> dict[str, Any]:
    """The tree of a file, laid over that of its `base`."""
    tree = parse_yaml(read_text(path), str(path)) or {}
    if not isinstance(tree, dict):
        raise InputError(f"{path}: must be keys and values, got {short(tree)}")
    if "base" not in tree:
        return tree
    base = tree.pop("base")
    if not isinstance(base, str) or not _UNUSABLE.isdisjoint(base):
        raise InputError(f"{path}: base: must be the name of a file, got {short(base)}")
    if path.resolve() in readers:
        raise InputError(f"{path}: base: comes back to this file")
    return _overlay(_read(path.parent / base, (*readers, path.resolve())), tree)


def parse_yaml(text: str, where: str) -> Any:
    """The value of a YAML text; `where` opens every error message.

    Raises:
        InputError: The text is not YAML, or its aliases stand for more than `MOST_NODES` values or
            for themselves.
    """
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        if root is None:
            return None
        if _count(root, {}) > MOST_NODES:
            raise InputError(
                f"{where}: its aliases stand for more than {MOST_NODES} values, or for themselves"
            )
        return yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError) as error:
        raise InputError(f"{where}: is not YAML: {_one_line(error)}") from error
    # Constructors of numbers and dates raise these for values such as `!!int x`.
    except (ValueError, LookupError, TypeError, AttributeError, OverflowError) as error:
        raise InputError(
            f"{where}: has a value that YAML cannot read: {_one_line(error)}"
        ) from error


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]


def _count(node: yaml.Node, counts: dict[int, float]) -> float:
    """The number of values that a node stands for, aliases counted as often as they are used."""
    if id(node) not in counts:
        counts[id(node)] = math.inf  # an alias for the node, within it
        children: list[yaml.Node] = []
        if isinstance(node, yaml.MappingNode):
            children = [child for pair in node.value for child in pair]
        elif isinstance(node, yaml.SequenceNode):
            children = node.value
        counts[id(node)] = 1 + sum(_count(child, counts) for child in children)
    return counts[id(node)]


def short(value: Any) -> str:
    """`value` for a message, however large it is."""
    return _SHORT.repr(value)


def _overlay(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """`below` with the values of `above`; sections are laid over each other, lists replaced."""
    merged = dict(below)
    for key, value in above.items():
        under = below.get(key)
        both = isinstance(under, dict) and isinstance(value, dict)
        merged[key] = _overlay(typing.cast(dict, under), value) if both else value
    return merged


def _assign(tree: dict[str, Any], keys: list[str], value: Any, where: str) -> dict[str, Any]:
    """`tree` with one value changed, as a copy: what YAML aliases share must not change with it."""
    key, *rest = keys
    if rest:
        section = tree.get(key, {})
        if not isinstance(section, dict):
            raise InputError(f"{where}: {key} is a value, not a section")
        value = _assign(section, rest, value, where)
    return {**tree, key: value}


def _digits(number: int) -> int:
    return round(number.bit_length() * math.log10(2)) or 1


def from_tree(cls: type[T], tree: Any, where: str) -> T:
    """Builds the dataclass `cls` from plain dictionaries; `where` opens every error message."""
    if not isinstance(tree, dict):
        raise InputError(f"{where}: must be keys and values, got {short(tree)}")
    hints = typing.get_type_hints(cls, include_extras=True)
    unknown = [key for key in tree if key not in hints]
    if unknown:
        raise InputError(
            f"{where}: unknown key {short(unknown[0])}; known here: {', '.join(hints)}"
        )
    values = {key: _convert(hints[key], value, f"{where}: {key}") for key, value in tree.items()}
    return cls(**values)


def _convert(hint: Any, value: Any, where: str) -> Any:
    if value is None and type(None) in typing.get_args(hint):
        return None
    converted = _convert_type(plain_type(hint), value, where)
    if problem := fault(hint, converted):
        raise InputError(f"{where}: {problem}")
    return converted


def _convert_type(hint: Any, value: Any, where: str) -> Any:
    if dataclasses.is_dataclass(hint):
        return from_tree(typing.cast(type, hint), value, where)
    if typing.get_origin(hint) is tuple:
        item, *others = typing.get_args(hint)
        values = value if isinstance(value, (list, tuple)) else [value]
        if (Ellipsis not in others and len(values) != 1 + len(others)) or not values:
            count = "one or more" if Ellipsis in others else 1 + len(others)
            raise InputError(f"{where}: must be {count} values, got {short(value)}")
        return tuple(_convert(item, one, where) for one in values)
    if type(value) is int and abs(value) > LARGEST:
        raise InputError(
            f"{where}: must be a number of 64 bits, got one of {_digits(value)} digits"
        )
    if hint is str and isinstance(value, str) and not _UNUSABLE.isdisjoint(value):
        raise InputError(f"{where}: must be text without NUL and halves of characters")
    if hint is float and isinstance(value, str):  # YAML 1.1 reads 1e-4 as a string
        try:
            return float(value)
        except ValueError:
            pass
    if hint is float and type(value) is int:
        return float(value)
    if type(value) is not hint:
        raise InputError(f"{where}: must be {hint.__name__}, got {short(value)}")
    return value


def to_tree(config: Any) -> dict[str, Any]:
    """Plain dictionaries and lists, as YAML and JSON write them."""

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: plain(item) for key, item in value.items()}
        return [plain(item) for item in value] if isinstance(value, (list, tuple)) else value

    return plain(dataclasses.asdict(config))


def to_yaml(config: Any) -> str:
    """The resolved configuration, keys in the order of the dataclasses."""
    return yaml.safe_dump(to_tree(config), sort_keys=False)
