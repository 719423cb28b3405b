"""A results folder as one file that can be sent, checked and published: a zip with a digest of every file.

The pack of equal folders is equal: names are sorted, and no time or owner is kept. What is read from a pack
is the work of a stranger: only the files that a results folder has, under the names that its manifest tells,
with the digests that it tells, are written anywhere.
"""

from __future__ import annotations

import hashlib
import json
import re
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from bench.errors import BenchError, UsageError
from bench.files.atomic import as_asked, write_atomically, writing
from bench.files.digests import file_digest

FORMAT = 1
"""Version of the manifest's form."""

MANIFEST = "manifest.json"

KINDS: Mapping[str, tuple[str, ...]] = {
    "records": (".json", ".png"),
    "tables": (".txt", ".md", ".csv"),
    "plots": (".png", ".svg", ".pdf"),
    "training": (".csv",),
}
"""Endings of the files that are packed, by the folder that they lie in; ``report.html`` lies in none."""

LARGEST = 2**32
"""Most bytes that a pack may hold, unpacked."""

LONGEST = 255
"""Most bytes of the name of a file or folder, as most file systems have it."""

_EARLIEST = (1980, 1, 1, 0, 0, 0)
"""The time of every file in a pack: the first that a zip can tell."""


@dataclass(frozen=True)
class Manifest:
    """What a pack holds.

    Attributes:
        name: name of the results folder.
        files: SHA-256 of every file, in hexadecimal digits, by its path in the folder.
    """

    name: str
    files: Mapping[str, str]

    @classmethod
    def of(cls, folder: Path) -> Manifest:
        """Return that of a results folder, whose files are read for it."""
        paths = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
        packed = [path for path in paths if is_packed(path)]
        return cls(folder.resolve().name, {path: file_digest(folder / path) for path in packed})

    @property
    def digest(self) -> str:
        """SHA-256 of the list of files with their digests: of two equal folders it is equal."""
        listed = "".join(f"{digest}  {path}\n" for path, digest in sorted(self.files.items()))
        return hashlib.sha256(listed.encode()).hexdigest()

    def to_json(self) -> dict[str, Any]:
        """Return plain values for ``json.dumps``."""
        return {"format": FORMAT, "name": self.name, "digest": self.digest, "files": dict(self.files)}

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> Manifest:
        """Return what `to_json` wrote.

        Raises:
            BenchError: if a newer version of the project wrote it, or if it contradicts itself.
            KeyError, TypeError, ValueError, AttributeError: if it is no manifest.
        """
        if fields["format"] > FORMAT:
            raise BenchError("it was packed by a newer sampler-bench; upgrade to read it")
        files = {str(path): str(digest) for path, digest in fields["files"].items()}
        made = cls(str(fields["name"]), files)
        if len(made.name.encode(errors="replace")) > LONGEST:
            raise BenchError(f"its name is longer than {LONGEST} letters, the most that a folder can have")
        if made.digest != fields["digest"]:
            raise BenchError("the manifest's digest is not that of its list of files")
        return made


def is_packed(path: str) -> bool:
    """Return whether a file of a results folder, by its path in it, belongs into its pack.

    Blocks under way and kept features do not: no table, plot or report is made of them.
    """
    parts = PurePosixPath(path).parts
    if path == "report.html":
        return True
    plain = len(parts) == 2 and "/".join(parts) == path and not re.search(r"[\\:\0]|^\.", parts[1])
    fits = len(PurePosixPath(path).name.encode(errors="replace")) <= LONGEST
    return plain and fits and PurePosixPath(path).suffix in KINDS.get(parts[0], ())


def pack(folder: Path, out: Path) -> Manifest:
    """Write the pack of a results folder and return what it holds.

    Raises:
        UsageError: if the folder has no records.
        BenchError: if the pack cannot be written.
    """
    manifest = Manifest.of(folder)
    if not any(path.startswith("records/") for path in manifest.files):
        raise UsageError(f"no records in {folder}; name a folder that --results was given")
    text = json.dumps(manifest.to_json(), indent=1, sort_keys=True) + "\n"
    with as_asked(out):
        out.parent.mkdir(parents=True, exist_ok=True)
        with writing(out) as file, zipfile.ZipFile(file, "w") as archive:
            archive.writestr(_entry(MANIFEST), text)
            for path in sorted(manifest.files):
                archive.writestr(_entry(path), (folder / path).read_bytes())
    return manifest


def _entry(path: str) -> zipfile.ZipInfo:
    """Return the head of a file in a pack: nothing of it depends on when or where the pack is made."""
    entry = zipfile.ZipInfo(path, _EARLIEST)
    entry.create_system = 3  # Unix, so that the permissions below are read as such
    entry.external_attr = 0o100644 << 16
    entry.compress_type = zipfile.ZIP_DEFLATED
    return entry


def is_pack(path: Path) -> bool:
    """Return whether a file is a zip."""
    return path.is_file() and zipfile.is_zipfile(path)


def unpack(path: Path, folder: Path) -> Manifest:
    """Write the files of a pack into a new folder, each once its digest is found right.

    Raises:
        BenchError: if it is not a pack, if a file is not the one that the manifest tells, or if there is one
            that no results folder has.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            manifest = _manifest_of(archive)
            for name, content in _checked(archive, manifest):
                written = folder / name
                written.parent.mkdir(parents=True, exist_ok=True)
                write_atomically(written, content)
    except BenchError as error:
        raise BenchError(f"{path}: {error}") from None
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError) as error:
        raise BenchError(f"{path} is damaged: {error}; ask for it again") from None
    return manifest


def _manifest_of(archive: zipfile.ZipFile) -> Manifest:
    entries = archive.infolist()
    names = [entry.filename for entry in entries]
    if MANIFEST not in names:
        raise BenchError(f"it has no {MANIFEST}; make a pack with `sampler-bench submit RESULTS`")
    if any(entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) for entry in entries):
        raise BenchError("it is compressed in a way that `submit` does not use; make it with that")
    if sum(entry.file_size for entry in entries) > LARGEST:
        raise BenchError(f"it holds more than {LARGEST / 2**30:.0f} GiB unpacked; it is not read")
    try:
        manifest = Manifest.from_json(json.loads(archive.read(MANIFEST)))
    except (KeyError, TypeError, ValueError, AttributeError):
        raise BenchError(f"its {MANIFEST} is not a manifest") from None
    if sorted(names) != sorted([MANIFEST, *manifest.files]):
        strange = sorted(set(names) ^ {MANIFEST, *manifest.files}) or ["a name that is there twice"]
        raise BenchError(f"its files are not those of its manifest: {', '.join(map(shortened, strange[:3]))}")
    if strange := [name for name in manifest.files if not is_packed(name)]:
        raise BenchError(f"no results folder has a file {shortened(strange[0])}")
    return manifest


def shortened(name: str) -> str:
    """Return a stranger's name as a sentence shows it."""
    return repr(name if len(name) <= 80 else f"{name[:80]}...")


def _checked(archive: zipfile.ZipFile, manifest: Manifest) -> Iterator[tuple[str, bytes]]:
    for name, digest in manifest.files.items():
        content = archive.read(name)
        if hashlib.sha256(content).hexdigest() != digest:
            raise BenchError(f"{name} is not the file whose digest the manifest tells")
        yield name, content
