"""Finding a checkpoint by name on this machine, and fetching one when asked to; never unasked."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from bench import BenchError, UnknownNameError, download
from models.cards import CheckpointCard, RemoteFile
from models.errors import CheckpointError
from models.files import FOLDER_WEIGHTS, check_digest
from models.public import all_cards, get_checkpoint_card

FOLDER_VARIABLE = "SAMPLER_BENCH_MODELS"
"""Environment variable that names the folder of models."""


def models_folder() -> Path:
    """Return where fetched checkpoints lie: ``$SAMPLER_BENCH_MODELS``, or a folder in the user's cache."""
    if given := os.environ.get(FOLDER_VARIABLE):
        return Path(given)
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "sampler-bench" / "models"


def resolve(name: str | Path, folders: Sequence[str | Path] = ()) -> tuple[Path, CheckpointCard | None]:
    """Return where a checkpoint lies, and its card if it has one. Looks, and downloads nothing.

    Args:
        name: a path; ``hub:OWNER/NAME``; or the name of a card. A path may also be that of a card's file.
        folders: where to look for named checkpoints before the folder of models and the Hub's cache.

    Raises:
        CheckpointError: if it is not there (the sentence says which file, how large, where to put it and how
            to fetch it), or a file is not the one its card describes.
        UnknownNameError: if it is neither a path nor a name; the message offers the nearest names.
    """
    text = str(name)
    card = next((card for card in all_cards() if card.name == text.removeprefix("hub:")), None)
    places = [Path(folder) for folder in (*folders, models_folder())]
    if text.startswith("hub:"):
        return _hub(text.removeprefix("hub:"), card, places), card
    path = Path(name)
    if card is None or (card.hub and path.exists()):
        if path.exists():
            card = next(
                (card for card in all_cards() if not card.hub and _is_file_of(path, card.files[-1])), None
            )
            _check(path, card)
            return path, card
        if path.suffix or text.count("/") != 1 or text.startswith((".", "~", "/")) or path.parent.is_dir():
            raise _unknown(text)
        return _hub(text, None, places), None
    if card.hub:
        return _hub(card.name, card, places), card
    for folder in places:
        path = folder / card.files[-1].path
        if path.is_file():
            _check(path, card)
            return path, card
    raise _absent(card.name, card, places)


def fetch(
    name: str,
    folder: str | Path | None = None,
    progress: Callable[[Path, int, int | None], None] = lambda path, done, total: None,
) -> Path:
    """Download a checkpoint's files into the folder of models, check them, and return where it lies.

    Files already there are left alone where their hash, if one is published, is right.

    Args:
        name: the name of a card.
        folder: where to put them; the folder of models by default.
        progress: called with the file, the bytes that have arrived and the bytes there are.

    Raises:
        CheckpointError: if its origin offers no direct link, a download fails, or a hash is wrong.
        UnknownNameError: if there is no card of that name.
    """
    card = get_checkpoint_card(name)
    root = models_folder() if folder is None else Path(folder)
    for file in card.files:
        target = root / file.path
        if file.url is not None:
            try:
                download(file.url, target, file.digest, progress=partial(progress, target))
            except BenchError as error:
                raise CheckpointError(str(error)) from error
        elif not target.is_file():
            raise CheckpointError(
                f"{card.name} cannot be fetched by a direct link: get {target.name} from {card.origin} "
                f"and put it at {target}"
            )
    last = root / card.files[-1].path
    return last.parent if card.hub else last


def _hub(repository: str, card: CheckpointCard | None, places: Sequence[Path]) -> Path:
    """Return the newest copy of a Hub repository: below one of the places, or in the Hub's own cache."""
    if repository.count("/") != 1:
        raise CheckpointError(f"hub:{repository} is not of the form hub:OWNER/NAME")
    folder = repository.replace("/", "--")
    candidates = [place / folder for place in places] + [place / repository for place in places]
    cached = _hub_cache() / f"models--{folder}"
    main = cached / "refs" / "main"
    if main.is_file():
        candidates.append(cached / "snapshots" / main.read_text().strip())
    if (cached / "snapshots").is_dir():
        candidates += sorted((cached / "snapshots").iterdir(), key=lambda p: p.stat().st_mtime, reverse=True)
    for candidate in candidates:
        if any(
            (candidate / sub / name).is_file() for sub in ("", "unet", "unet_ema") for name in FOLDER_WEIGHTS
        ):
            return candidate
    raise _absent(f"hub:{repository}", card, places)


def _hub_cache() -> Path:
    if given := os.environ.get("HF_HUB_CACHE"):
        return Path(given)
    home = os.environ.get("HF_HOME")
    default = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "huggingface"
    return (Path(home) if home else default) / "hub"


def _absent(name: str, card: CheckpointCard | None, places: Sequence[Path]) -> CheckpointError:
    if card is None:
        folder = places[0] / name.removeprefix("hub:").replace("/", "--")
        return CheckpointError(
            f"{name} is not on this machine: put its config.json and {FOLDER_WEIGHTS[0]} into {folder}, "
            f"or fetch it with huggingface-cli download {name.removeprefix('hub:')}"
        )
    file = card.files[-1]
    where = places[0] / file.path
    digest = f", {file.digest}" if file.digest else ""
    also = " with config.json beside it" if card.hub else ""
    how = f"sampler-bench fetch {card.name}" if file.url else f"a browser from {card.origin}"
    return CheckpointError(
        f"{name} is not on this machine: put {where.name} (about {card.megabytes} MB{digest}) "
        f"at {where}{also}, or fetch it with {how}"
    )


def _unknown(name: str) -> CheckpointError | UnknownNameError:
    if "/" in name or Path(name).suffix:
        return CheckpointError(f"there is no checkpoint at {name}")
    return UnknownNameError("checkpoint", name, (card.name for card in all_cards()))


def _check(path: Path, card: CheckpointCard | None) -> None:
    if card is not None and (digest := card.files[-1].digest) is not None:
        check_digest(path, digest)


def _is_file_of(path: Path, file: RemoteFile) -> bool:
    parts = Path(file.path).parts
    return path.absolute().parts[-len(parts) :] == parts
