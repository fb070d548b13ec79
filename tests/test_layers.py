"""Imports point downward only (DEVELOPING.md), also those inside functions."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "tagspeech"

# From the lowest to the highest. A part may import parts of its own layer and of those below.
LAYERS = (
    {"segments", "text", "config", "config_file", "dependencies", "errors", "files"},
    {"serialize", "formats", "grammar"},
    {"scoring"},
    {"data"},
    {"models"},
    {"training", "decoding"},
    {"report", "meetings"},
    {"cli", "api", "transcripts", "__main__", "__init__"},
)
HEIGHT = {part: height for height, layer in enumerate(LAYERS) for part in layer}

# What a part must not import. Each of the first imports torch itself.
WITH_TORCH = {"torch", "torchaudio", "lhotse", "transformers", "peft"}
FORBIDDEN = {
    **dict.fromkeys(LAYERS[0] | LAYERS[1] | {"scoring"}, WITH_TORCH),
    "models": {"lhotse"},
}

MODULES = sorted(PACKAGE.rglob("*.py"))


def part_of(path: Path) -> str:
    """`tagspeech/models/zipformer.py` belongs to `models`, `tagspeech/text.py` to `text`."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported_names(path: Path, nodes: Iterator[ast.AST] | list[ast.stmt]) -> Iterator[str]:
    """Absolute dotted names of what `path` imports: `from a import b` gives `a.b`."""
    package = ("tagspeech", *path.relative_to(PACKAGE).parent.parts)
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = node.module or ""
            if node.level:
                module = ".".join((*package[: len(package) - node.level + 1], module)).rstrip(".")
            yield from (f"{module}.{alias.name}" for alias in node.names)


def own_part(name: str) -> str | None:
    """The part of this package that a dotted name means; None for another package."""
    top, _, rest = name.partition(".")
    if top != "tagspeech":
        return None
    part = rest.partition(".")[0]
    is_part = (PACKAGE / part).is_dir() or (PACKAGE / f"{part}.py").exists()
    return part if part and is_part else "__init__"


def all_imports(path: Path) -> set[str]:
    return set(imported_names(path, ast.walk(ast.parse(path.read_text(encoding="utf-8")))))


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


def test_parts_form_no_circle() -> None:
    graph: dict[str, set[str]] = {}
    for path in MODULES:
        targets = {own_part(name) for name in all_imports(path)} - {None, part_of(path)}
        graph.setdefault(part_of(path), set()).update(filter(None, targets))
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(f"parts import each other in a circle: {' <- '.join(error.args[1])}")


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
