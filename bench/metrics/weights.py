"""Weight files of feature networks: found, checked by size and SHA-256, read without running code in them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from bench.errors import UsageError
from bench.files.digests import file_digest
from bench.files.download import Arrived, download


@dataclass(frozen=True)
class WeightFile:
    """A file that a feature space needs and that does not ship with the project.

    Attributes:
        name: file name.
        size: bytes.
        sha256: the SHA-256 of the content.
        url: where its authors publish it.
        variable: environment variable that may hold its path.
        fetch: command that downloads and checks it.
        also: other places where programs keep it, below the home folder or the torch.hub folder.
    """

    name: str
    size: int
    sha256: str
    url: str
    variable: str
    fetch: str
    also: tuple[str, ...] = ()

    @property
    def accept_variable(self) -> str:
        """Environment variable that names the SHA-256 of another file to be accepted in its place."""
        return f"{self.variable}_SHA256"

    def places(self) -> list[Path]:
        """Where the file is looked for, in order: the torch.hub cache, then the project's own."""
        from bench.metrics.reference import cache_folder

        hub = Path(torch.hub.get_dir()) / "checkpoints"
        usual = [hub / self.name, cache_folder() / "weights" / self.name]
        return usual + [hub / other for other in self.also] + [Path.home() / other for other in self.also]

    def find(self, path: os.PathLike[str] | str | None = None, *, accept: str | None = None) -> Path:
        """Return ``path``, the path in the environment, or the file in its usual places.

        Of several files in these places the first with the right content is returned, so that what ``fetch``
        puts into one of them cures a damaged file in another. Where none is right it is the first of the
        published size, or just the first. A path that was given is final.

        Args:
            path: the path of the file.
            accept: SHA-256 of another file that is allowed in its place, default ``$..._SHA256``.

        Raises:
            UsageError: if it is nowhere; the sentence says which file, how large, which hash, where to put
                it and the command that fetches it.
        """
        chosen = path or os.environ.get(self.variable)
        if chosen:
            if not Path(chosen).is_file():
                source = "given" if path else f"in {self.variable}"
                raise UsageError(
                    f"the weight file {source}, {chosen}, does not exist;"
                    f" {self._wanted()}{self._named(Path(chosen))}"
                )
            return Path(chosen)
        there = [place for place in self.places() if place.is_file()]
        if not there:
            raise UsageError(f"weights are missing: {self._wanted()}")
        allowed = self.accepted(accept)
        whole = there
        if allowed == self.sha256:
            whole = [place for place in there if place.stat().st_size == self.size] or there
        if len(whole) == 1:
            return whole[0]
        return next((place for place in whole if _has_content(place, allowed)), whole[0])

    def accepted(self, accept: str | None = None) -> str:
        """Return the SHA-256 that is allowed: ``accept``, the environment's, or the published one."""
        return (accept or os.environ.get(self.accept_variable) or self.sha256).strip().lower()

    def check(
        self, path: os.PathLike[str] | str | None = None, *, accept: str | None = None
    ) -> tuple[Path, str]:
        """Return (path, SHA-256) of the file, found and checked.

        Args:
            path: the path of the file; found by :meth:`find` where it is None.
            accept: SHA-256 of another file that is allowed in its place, default ``$..._SHA256``.

        Raises:
            UsageError: if the file is missing, truncated, or another one that was not allowed.
        """
        found = self.find(path, accept=accept)
        allowed = self.accepted(accept)
        size = found.stat().st_size
        if allowed == self.sha256 and size != self.size:
            what = "truncated" if size < self.size else "another file"
            raise UsageError(f"{found} is {what}, it has {size:,} bytes: {self._cure(found)}")
        try:
            digest = file_digest(found)
        except OSError as error:
            raise UsageError(
                f"{found} cannot be read: {error.strerror}; {self._wanted()}{self._named(found)}"
            ) from None
        if digest != allowed:
            raise UsageError(f"{found} has SHA-256 {digest}, not {allowed}: {self._cure(found)}")
        return found, digest

    def space_name(self, space: str, digest: str) -> str:
        """Return ``space``, or ``space_of_HASH`` where ``digest`` is not the published SHA-256."""
        return space if digest == self.sha256 else f"{space}_of_{digest[:8]}"

    def load(
        self, path: os.PathLike[str] | str | None = None, *, accept: str | None = None
    ) -> tuple[Mapping[str, torch.Tensor], str]:
        """Return (state dict, SHA-256) of the file, checked, read without running code in it."""
        found, digest = self.check(path, accept=accept)
        try:
            state = torch.load(found, map_location="cpu", weights_only=True)
        except Exception as error:  # the unpickler raises many kinds for a file that is no state dict
            raise UsageError(f"{found} cannot be read as a state dict: {type(error).__name__}") from error
        if not isinstance(state, Mapping) or not all(isinstance(v, torch.Tensor) for v in state.values()):
            raise UsageError(f"{found} holds no state dict of tensors")
        return state, digest

    def download(self, folder: Path, progress: Arrived | None = None) -> Path:
        """Download the file into ``folder`` and return its path; see `bench.download`."""
        place = folder / self.name
        return download(self.url, place, f"sha256:{self.sha256}", size=self.size, progress=progress)

    def _wanted(self) -> str:
        return (
            f"get {self.name} ({self.size:,} bytes, SHA-256 {self.sha256}) with `{self.fetch}`, or put it at"
            f" {self.places()[0]}, or set {self.variable} to its path"
        )

    def _cure(self, found: Path) -> str:
        other = f"to use other weights knowingly, set {self.accept_variable} to their SHA-256"
        return f"{self._wanted()}{self._named(found)}; {other}"

    def _named(self, found: Path) -> str:
        """Say that a file in another place is not looked at while the variable names this one."""
        named = os.environ.get(self.variable)
        if not named or Path(named).resolve() != found.resolve():
            return ""
        return f"; {self.variable} names this file and no other is looked for: correct or unset it"


def _has_content(path: Path, sha256: str) -> bool:
    try:
        return file_digest(path) == sha256
    except OSError:
        return False


INCEPTION = WeightFile(
    name="weights-inception-2015-12-05-6726825d.pth",
    size=95_628_359,
    sha256="6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2",
    url=(
        "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/"
        "weights-inception-2015-12-05-6726825d.pth"
    ),
    variable="SAMPLER_BENCH_INCEPTION",
    fetch="sampler-bench fetch inception",
)
"""The FID network: TensorFlow's inception-2015-12-05, converted by torch-fidelity (Apache License 2.0)."""

DINOV2 = WeightFile(
    name="dinov2_vitl14_pretrain.pth",
    size=1_217_586_395,
    sha256="d5383ea8f4877b2472eb973e0fd72d557c7da5d3611bd527ceeb1d7162cbf428",
    url="https://dl.fbaipublicfiles.com/dinov2/dinov2_vitl14/dinov2_vitl14_pretrain.pth",
    variable="SAMPLER_BENCH_DINOV2",
    fetch="sampler-bench fetch dinov2",
)
"""DINOv2 ViT-L/14 (Oquab et al. 2023, arXiv:2304.07193; Apache License 2.0)."""

CLIP = WeightFile(
    name="clip-vit-l-14-336px-3035c92b350959924f9f00213499208652fc7ea050643e8b385c2dac08641f02.pt",
    size=934_088_680,
    sha256="3035c92b350959924f9f00213499208652fc7ea050643e8b385c2dac08641f02",
    url=(
        "https://openaipublic.azureedge.net/clip/models/"
        "3035c92b350959924f9f00213499208652fc7ea050643e8b385c2dac08641f02/ViT-L-14-336px.pt"
    ),
    variable="SAMPLER_BENCH_CLIP",
    fetch="sampler-bench fetch clip",
    also=(".cache/clip/ViT-L-14-336px.pt",),
)
"""CLIP ViT-L/14 at 336 pixels (Radford et al. 2021, arXiv:2103.00020; MIT licence)."""

FILES = {"inception": INCEPTION, "dinov2": DINOV2, "clip": CLIP}
"""What ``sampler-bench fetch NAME`` can fetch for scoring."""
