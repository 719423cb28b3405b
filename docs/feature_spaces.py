"""Measures what the distances in different feature spaces see, on real images with known distortions.

    python docs/feature_spaces.py [TRAIN TEST] [--spaces NAME,...] [--keep FOLDER] [--write]

Prints the tables of scores.md; --write puts them there. TRAIN and TEST are CIFAR-10 with labels (default
``cifar10`` and ``cifar10-test``). The reference is training images 0 to 1,999; what is scored is training
images 2,000 to 2,999 as they are and distorted, 1,000 others of eight of the ten classes, and 1,000 test
images. --keep saves features in a folder, so that a second run computes only what has changed. Inception
takes a quarter of an hour on one thread, the others some minutes. "Of drawing" is the time to measure an
image beside the time to draw one with the shipped model in ten steps.
"""

import argparse
import io
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from scipy.ndimage import gaussian_filter
from scipy.stats import spearmanr
from torch import Tensor

from bench import TrajectoryNoise, get_sampler, load_model, make_grid, sample
from bench.data.sets import ImageData, content_hash, load_images
from bench.metrics import FeatureSpace, FrechetMetric, GroupedStatistics, Score, get_space
from bench.metrics.samples import law_reference

JUDGE = "inception_768"
SPACES = (
    JUDGE,
    "cifar_resnet_96",
    "cifar_resnet_128",
    "efficientnet_lite0_112",
    "efficientnet_lite0_192",
    "random",
    "pooled",
)
GRAY_SPACES = ("random", "digits", "pooled")
REFERENCE, N = 2000, 1000
KEPT_CLASSES = 8
REAL, TEST = "real", "test images"
DRAWING = "drawing"


def noisy(sd: float) -> Callable[[np.ndarray], np.ndarray]:
    def distort(images: np.ndarray) -> np.ndarray:
        return rounded(images + np.random.default_rng(0).normal(size=images.shape) * sd)

    return distort


def blurred(sd: float) -> Callable[[np.ndarray], np.ndarray]:
    return lambda images: rounded(gaussian_filter(images.astype(float), (0, 0, sd, sd), mode="nearest"))


def jpeg(quality: int) -> Callable[[np.ndarray], np.ndarray]:
    def one(image: np.ndarray) -> np.ndarray:
        packed = io.BytesIO()
        Image.fromarray(image.transpose(1, 2, 0)).save(packed, "JPEG", quality=quality)
        return np.asarray(Image.open(packed)).transpose(2, 0, 1)

    return lambda images: np.stack([one(image) for image in images])


def swapped(images: np.ndarray) -> np.ndarray:
    return np.roll(images, images.shape[3] // 2, 3)


def rounded(images: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(images), 0, 255).astype(np.uint8)


DISTORTIONS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "noise, sd 4 of 255": noisy(4),
    "noise, sd 10": noisy(10),
    "noise, sd 25": noisy(25),
    "blur, sd 0.5 pixels": blurred(0.5),
    "blur, sd 1": blurred(1),
    "JPEG, quality 90": jpeg(90),
    "JPEG, quality 50": jpeg(50),
    "halves swapped": swapped,
}


def image_sets(train: ImageData, test: ImageData) -> dict[str, Tensor]:
    """What is scored, by name."""
    real = train.images[REFERENCE : REFERENCE + N]
    rest = train.images[REFERENCE:]
    assert train.labels is not None
    chosen = rest[train.labels[REFERENCE:] < KEPT_CLASSES][:N]
    made = {name: torch.from_numpy(distort(real.numpy())) for name, distort in DISTORTIONS.items()}
    return {REAL: real, TEST: test.images[:N], **made, "two classes lost": chosen}


def features(space: FeatureSpace, images: Tensor, folder: Path | None) -> Tensor:
    """Features of images, from the folder where they are in it."""
    place = folder and folder / f"{space.fingerprint}-{content_hash(images)[:16]}.npy"
    if place and place.is_file():
        return torch.from_numpy(np.load(place))
    found = torch.cat([space(part) for part in images.split(250)])
    if place:
        np.save(place, found.numpy())
    return found


def scores(
    space: FeatureSpace, reference: Tensor, sets: dict[str, Tensor], folder: Path | None
) -> dict[str, Score]:
    """The distance of every set in one space."""
    known = features(space, reference, folder).double()
    law = law_reference(
        known.mean(0).numpy(), torch.cov(known.T).numpy(), (1, 1, space.dim), name="real images"
    )
    metric = FrechetMetric(f"fd_{space.name}", space.name)
    found = {}
    for name, images in sets.items():
        statistics = GroupedStatistics(len(images), space.dim)
        statistics.add(features(space, images, folder), range(len(images)))
        found[name] = metric.score(statistics, law)
    return found


def contrast(score: Score, real: Score) -> float:
    """How far a score lies from that of real images, in standard errors of the difference."""
    return (score.value - real.value) / float(np.hypot(score.se, real.se))


def pace(work: Callable[[], object], count: int) -> float:
    """Milliseconds of processor time for each of so many images, the least of three goes."""
    taken = []
    for _ in range(3):
        started = time.process_time()
        work()
        taken.append((time.process_time() - started) / count * 1e3)
    return min(taken)


def drawing(count: int = 50, steps: int = 10) -> float:
    """Milliseconds that the shipped CIFAR-10 model and DDIM take to draw an image."""
    model = load_model("cifar10-small").model
    noise = TrajectoryNoise(0, range(count), model.shape)
    grid = make_grid(model.schedule, steps)
    with torch.inference_mode():
        return pace(lambda: sample(model, get_sampler("ddim"), grid, noise.initial(), noise), count)


def table(heads: list[str], rows: list[list[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def contrasts(found: dict[str, dict[str, Score]]) -> str:
    """A table of contrasts: a row for each set, a column for each space."""
    sets = [one for one in next(iter(found.values())) if one != REAL]
    rows = [
        [one, *(f"{contrast(scored[one], scored[REAL]):.1f}" for scored in found.values())] for one in sets
    ]
    return table([f"{N:,} images", *(f"`{name}`" for name in found)], rows)


def gray(images: Tensor) -> Tensor:
    """The mean of the channels."""
    return images.float().mean(1, keepdim=True).round().to(torch.uint8)


def tables(
    found: dict[str, dict[str, Score]], spaces: dict[str, FeatureSpace], paces: dict[str, float]
) -> dict[str, str]:
    heads = [f"`{name}`" for name in found]
    sets = list(next(iter(found.values())))
    distances = [[one, *(f"{scored[one].value:.4g}" for scored in found.values())] for one in sets]
    told = [one for one in sets if one not in (REAL, TEST)]
    judged = [found[JUDGE][one].value for one in told] if JUDGE in found else []
    facts = []
    for name, scored in found.items():
        rank = spearmanr(judged, [scored[one].value for one in told])[0] if judged else float("nan")
        median = float(np.median([contrast(scored[one], scored[REAL]) for one in told]))
        flags = sorted({flag for score in scored.values() for flag in score.flags} - {"no-error"})
        facts.append(
            [
                f"`{name}`",
                str(spaces[name].dim),
                f"{rank:.2f}",
                f"{median:.1f}",
                f"{paces[name]:.2g}",
                f"{paces[name] / paces[DRAWING]:.1%}",
                ", ".join(flags),
            ]
        )
    columns = [
        "space",
        "features",
        f"rank correlation with `{JUDGE}`",
        "median contrast",
        "ms an image",
        "of drawing",
        "flags",
    ]
    return {
        "facts": table(columns, facts),
        "distances": table([f"{N:,} images", *heads], distances),
        "contrasts": contrasts(found),
    }


def main() -> None:
    torch.set_num_threads(1)
    parser = argparse.ArgumentParser()
    parser.add_argument("images", nargs="*", default=["cifar10", "cifar10-test"])
    parser.add_argument("--spaces", default=",".join(SPACES))
    parser.add_argument("--keep", type=Path)
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    if options.keep:
        options.keep.mkdir(parents=True, exist_ok=True)
    train, test = map(load_images, options.images)
    sets, reference = image_sets(train, test), train.images[:REFERENCE]
    spaces = {name: get_space(name, (3, 32, 32)) for name in options.spaces.split(",")}
    found = {name: scores(space, reference, sets, options.keep) for name, space in spaces.items()}
    paces = {name: pace(partial(space, reference[:50]), 50) for name, space in spaces.items()}
    paces[DRAWING] = drawing()
    made = tables(found, spaces, paces)
    pale = {name: gray(images) for name, images in sets.items()}
    made["gray"] = contrasts(
        {
            name: scores(get_space(name, (1, 32, 32)), gray(reference), pale, options.keep)
            for name in GRAY_SPACES
        }
    )
    print("\n\n".join(made.values()))
    if options.write:
        page = Path(__file__).with_name("scores.md")
        text = page.read_text()
        for name, content in made.items():
            start, end = f"<!-- {name} -->\n", f"<!-- end {name} -->"
            before, rest = text.split(start)
            text = before + start + content + "\n" + end + rest.split(end)[1]
        page.write_text(text)


if __name__ == "__main__":
    main()
