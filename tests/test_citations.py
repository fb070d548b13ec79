"""What comments, docstrings and documents cite is in the repository, or is published."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from pathlib import Path

import pytest
from test_wheel import tracked

TEXTS = {
    "",
    ".html",
    ".py",
    ".sh",
    ".md",
    ".yaml",
    ".yml",
    ".conf",
    ".toml",
    ".txt",
    ".cff",
    ".css",
    ".js",
}
# Documents that were beside the repository when it was built.
ABSENT = ("PAPER", "REFERENCE", "STYLE", "DESIGN", "FEASIBILITY", "FULLSIZE", "HOUSE", "REALPARTS")
CITED = re.compile(rf"(?<!`)\b(?:{'|'.join(ABSENT)})\b")  # in backticks it is a name of ours
DOCUMENT = re.compile(r"[\w./-]*\b[A-Z][A-Z_-]{3,}\.md\b")
PAGE = re.compile(r"\bdocs/[\w-]+\.md\b")


def prose_of(path: Path) -> str:
    """Comments and docstrings of Python, all of any other file."""
    text = path.read_text(encoding="utf-8")
    if path.suffix != ".py":
        return text
    tokens = tokenize.generate_tokens(io.StringIO(text).readline)
    prose = [token.string for token in tokens if token.type == tokenize.COMMENT]
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, kinds):
            prose.append(ast.get_docstring(node) or "")
    return "\n".join(prose)


@pytest.fixture(scope="module")
def prose(root: Path) -> dict[str, str]:
    names = [name for name in tracked(root) if Path(name).suffix in TEXTS]
    return {name: prose_of(root / name) for name in names}


def test_no_document_that_is_elsewhere_is_cited(prose: dict[str, str]) -> None:
    found = [
        f"{name}: {match.group()}" for name, text in prose.items() for match in CITED.finditer(text)
    ]
    assert found == []


def test_cited_documents_exist(root: Path, prose: dict[str, str]) -> None:
    names = {Path(name).name for name in tracked(root)}
    for name, text in prose.items():
        for match in DOCUMENT.findall(text):
            assert Path(match).name in names, f"{name} cites {match}"
        for match in PAGE.findall(text):
            assert (root / match).is_file(), f"{name} cites {match}"
