"""Prints the address of the newest wheel of k2 that fits; called by utils/install_k2.sh.

Wheels are named k2-VERSION+cpu.torchTORCH-PYTHON-... or k2-VERSION+cudaCUDA.torchTORCH-PYTHON-...
"""

from __future__ import annotations

import html
import platform
import re
import sys
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path
from typing import NamedTuple, NoReturn

_NAME = re.compile(
    r"k2-(?P<version>[^+]+)\+(?P<build>cpu|cuda[\d.]+)\.torch(?P<torch>\d[\d.]*)"
    r"-(?P<python>cp\d+)-[^-]+-(?P<platform>[^-]+)\.whl"
)


class Wanted(NamedTuple):
    """What a wheel must be for."""

    torch: str  # such as 2.13.0
    build: str  # cpu, or such as cuda12.8
    python: str  # such as cp311
    system: str  # linux or macosx
    machine: str  # such as x86_64


def die(message: str) -> NoReturn:
    sys.exit(f"install_k2: error: {message}")


def numbers(text: str) -> list[int]:
    """The numbers in a version, which sort as it does."""
    return [int(one) for one in re.findall(r"\d+", text)]


def wheels(page: str) -> list[tuple[str, re.Match[str]]]:
    """The address and the parts of the name of each wheel that a page has links to."""
    try:
        with urllib.request.urlopen(page, timeout=60) as answer:
            text = answer.read().decode()
    except (urllib.error.URLError, TimeoutError) as error:
        die(f"{page}: cannot be read: {error}; install k2 from its source, or where there is a net")
    found = []
    for link in re.findall(r'href="([^"]+)"', text):
        address = urllib.parse.urljoin(page, html.unescape(link))
        name = urllib.parse.unquote(address.rpartition("/")[2].partition("#")[0])
        if match := _NAME.fullmatch(name):
            found.append((address, match))
    return found


def fits(wheel: re.Match[str], wanted: Wanted) -> bool:
    """Whether a wheel is for what is wanted."""
    places = wheel["platform"].split(".")
    machines = (wanted.machine, "universal2") if wanted.system == "macosx" else (wanted.machine,)
    same = (wheel["torch"], wheel["build"], wheel["python"]) == wanted[:3]
    return same and any(wanted.system in one and one.endswith(machines) for one in places)


def here(torch: str, cuda: str, machine: str, system: str) -> Wanted:
    """What is wanted: what is named, else what is installed here."""
    if not torch or not cuda:
        import torch as installed

        torch = torch or installed.__version__.partition("+")[0]
        cuda = cuda or installed.version.cuda or "none"
    return Wanted(
        torch,
        "cpu" if cuda == "none" else f"cuda{cuda}",
        f"cp{sys.version_info.major}{sys.version_info.minor}",
        system or {"Darwin": "macosx"}.get(platform.system(), platform.system().lower()),
        machine or platform.machine(),
    )


def main() -> None:
    requirements, page, *options = sys.argv[1:]
    wanted = here(*options)
    lines = Path(requirements).read_text().splitlines()
    kind = "cpu" if wanted.build == "cpu" else "cuda"
    page = page or next(line.split()[1] for line in lines if line.endswith(f"/{kind}.html"))
    least = next(line.partition(">=")[2] for line in lines if line.startswith("k2>="))
    every = [one for one in wheels(page) if numbers(one[1]["version"]) >= numbers(least)]
    fitting = [one for one in every if fits(one[1], wanted)]
    if not fitting:
        told = ", ".join(sorted({one["torch"] for _, one in every}, key=numbers)) or "none"
        build = "CPU" if kind == "cpu" else f"CUDA {wanted.build.removeprefix('cuda')}"
        die(
            f"{page}: has no wheel for torch {wanted.torch}, {build}, {wanted.python}, "
            f"{wanted.system} {wanted.machine}; there are wheels for torch {told}; "
            "install one of these, or k2 from its source"
        )
    print(max(fitting, key=lambda one: numbers(one[1]["version"]))[0])


if __name__ == "__main__":
    main()
