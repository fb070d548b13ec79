"""Imports point downward only (CONTRIBUTING.md) and form no circle, also those inside functions."""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "tagspeech"

# From the lowest to the highest. A part may import parts of its own layer and of those below.
LAYERS = (
    {"segments", "text", "config", "config_file", "dependencies"}
    | {"default_model", "errors", "files", "options", "ranges"},
    {"serialize", "pairing", "formats", "grammar"},
    {"scoring", "audio"},
    {"weights", "packages", "corpus", "simulation"},
    {"data", "parallel"},
    {"encoders", "llm"},
    {"model"},
    {"checkpoints"},
    {"inference"},
    {"training"},
    {"report"},
    {"serve"},
    {"cli", "api", "__main__", "__init__"},
)
HEIGHT = {part: height for height, layer in enumerate(LAYERS) for part in layer}

# What a part must not import. Each of the first imports torch itself.
WITH_TORCH = {"torch", "torchaudio", "lhotse", "transformers", "peft"}
FORBIDDEN = {
    **dict.fromkeys(LAYERS[0] | LAYERS[1] | {"scoring"}, WITH_TORCH),
    **{
        part: {"lhotse"}
        for part in ("weights", "packages", "encoders", "llm", "model", "checkpoints")
    },
}

MODULES = sorted(PACKAGE.rglob("*.py"))
SCRIPTS = "local", "egs", "benchmarks", "utils", "tests"


def name_of(path: Path) -> str:
    """`llm/load.py` is `tagspeech.llm.load`, `llm/__init__.py` is `tagspeech.llm`."""
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


NAMES = {name_of(path) for path in MODULES}


def part_of(path: Path) -> str:
    """`tagspeech/llm/load.py` belongs to `llm`, `tagspeech/text.py` to `text`."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported_names(path: Path, nodes: Iterator[ast.AST] | list[ast.stmt]) -> Iterator[str]:
    """Absolute dotted names of what `path` imports: `from a import b` gives `a.b`."""
    package = path.relative_to(PACKAGE.parent).parent.parts
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = node.module or ""
            if node.level:
                module = ".".join((*package[: len(package) - node.level + 1], module)).rstrip(".")
            yield from (f"{module}.{alias.name}" for alias in node.names)


def own_module(name: str) -> str | None:
    """The module of this package that a dotted name is, or is defined in; None for another's."""
    while name not in NAMES:
        name, _, last = name.rpartition(".")
        if not last or not name:
            return None
    return name


def own_part(name: str) -> str | None:
    """The part of this package that a dotted name means; None for another package."""
    module = own_module(name)
    if module is None:
        return None
    return "__init__" if module == "tagspeech" else module.split(".")[1]


def all_imports(path: Path) -> set[str]:
    return set(imported_names(path, ast.walk(ast.parse(path.read_text(encoding="utf-8")))))


def fail_at_circle(graph: dict[str, set[str]], what: str) -> None:
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(f"{what} import each other in a circle: {' <- '.join(error.args[1])}")


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_downward(path: Path) -> None:
    part = part_of(path)
    assert part in HEIGHT, f"{part} is in no layer: give it one in {Path(__file__).name}"
    for name in all_imports(path):
        target = own_part(name)
        if target is None:
            top = name.partition(".")[0]
            assert top not in FORBIDDEN.get(part, ()), f"{part} must not import {top}"
        else:
            assert HEIGHT[target] <= HEIGHT[part], f"{part} must not import {target}: it lies above"


def test_imported_modules_exist() -> None:
    """In scripts of recipes and in tests too, and inside functions, before somebody calls these."""
    root = PACKAGE.parent
    scripts = [path for folder in SCRIPTS for path in (root / folder).rglob("*.py")]
    for path in [*MODULES, *scripts]:
        for name in all_imports(path):
            module = own_module(name)
            rest = name[len(module) :].lstrip(".") if module else ""
            assert "." not in rest, f"{path}: imports {name}, which does not exist"


def test_parts_form_no_circle() -> None:
    graph: dict[str, set[str]] = defaultdict(set)
    for path in MODULES:
        targets = {own_part(name) for name in all_imports(path)} - {None, part_of(path)}
        graph[part_of(path)].update(filter(None, targets))
    fail_at_circle(graph, "parts")


def test_files_form_no_circle() -> None:
    """Not even by an import inside a function: each file can be read after those that it uses."""
    graph: dict[str, set[str]] = {}
    for path in MODULES:
        targets = {own_module(name) for name in all_imports(path)} - {None, name_of(path)}
        graph[name_of(path)] = set(filter(None, targets))
    fail_at_circle(graph, "files")


def test_a_class_name_is_used_once() -> None:
    places = defaultdict(list)
    for path in MODULES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef):
                places[node.name].append(name_of(path))
    twice = {name: modules for name, modules in places.items() if len(modules) > 1}
    assert not twice, f"the same class name in several places: {twice}"


def test_command_line_starts_without_torch() -> None:
    """`tagspeech VERB --help` is fast: what cli imports at its head lies in the lowest layer."""
    heads = [
        name
        for path in (PACKAGE / "cli").glob("*.py")
        for name in imported_names(path, ast.parse(path.read_text(encoding="utf-8")).body)
    ]
    for name in heads:
        part = own_part(name)
        low = part in (None, "cli") or HEIGHT[str(part)] == 0
        assert low, f"cli imports {part} before it knows the verb"
        assert name.partition(".")[0] not in WITH_TORCH, f"cli imports {name} at its head"
