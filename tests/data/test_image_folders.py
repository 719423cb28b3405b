"""A folder of images is read whole: every format, and what is left out or changed is told."""

import numpy as np
import pytest
import torch
from PIL import Image
from support.commands import bench as run_bench

from bench import UsageError, load_images
from bench.data.decode import image_suffixes

FORMATS = {
    "png": "PNG",
    "gif": "GIF",
    "jfif": "JPEG",
    "jpg": "JPEG",
    "jpe": "JPEG",
    "bmp": "BMP",
    "dib": "BMP",
    "webp": "WEBP",
    "tif": "TIFF",
    "tga": "TGA",
    "ppm": "PPM",
    "pcx": "PCX",
    "ico": "ICO",
}


def pixels(seed, mode="RGB"):
    rng = np.random.default_rng(seed)
    shape = (16, 16) if mode == "L" else (16, 16, len(mode))
    return Image.fromarray(rng.integers(0, 256, shape, dtype=np.uint8), mode)


def test_every_format_of_the_decoder_is_read(tmp_path):
    for place, (suffix, kind) in enumerate(FORMATS.items()):
        pixels(place).save(tmp_path / f"{place:02d}.{suffix}", kind)
    found = load_images(tmp_path)
    assert len(found) == len(FORMATS)
    assert not found.unreadable
    assert found.lossy == 3
    assert (
        f"3 of {len(FORMATS)} images are compressed with losses (JPEG), which moves scores" in found.remarks
    )
    assert {".png", ".avif"} & image_suffixes() >= {".png"}
    assert not {".pdf", ".h5", ".eps", ".txt"} & image_suffixes()


def test_files_that_are_no_images_are_counted_and_named(tmp_path):
    for place in range(3):
        pixels(place).save(tmp_path / f"{place}.png")
    for name in ("readme.txt", "labels.csv", ".hidden.png", "a.npy"):
        (tmp_path / name).write_text("x")
    found = load_images(tmp_path)
    assert len(found) == 3
    assert found.remarks == (
        "3 files beside the images are none and left out: a.npy, labels.csv, readme.txt",
    )


@pytest.mark.parametrize("order", ["ab", "ba"])
def test_gray_images_among_coloured_ones_get_three_channels(tmp_path, order):
    pixels(0, "L").save(tmp_path / f"{order[0]}0.png")
    pixels(1).save(tmp_path / f"{order[1]}0.png")
    found = load_images(tmp_path)
    assert found.images.shape == (2, 3, 16, 16)
    gray = found.images[order.index("a")]
    assert torch.equal(gray[0], gray[1]) and torch.equal(
        gray[0], torch.from_numpy(np.asarray(pixels(0, "L")))
    )
    assert found.remarks == (
        "1 of 2 images are gray and get three equal channels, as the others are coloured",
    )


def test_a_gray_set_stays_gray(tmp_path):
    for place in range(2):
        pixels(place, "L").save(tmp_path / f"{place}.png")
    found = load_images(tmp_path)
    assert found.images.shape == (2, 1, 16, 16) and not found.remarks


def test_transparency_and_moving_pictures_are_told(tmp_path):
    pixels(0, "RGBA").save(tmp_path / "a.png")
    pixels(1).save(tmp_path / "b.gif", save_all=True, append_images=[pixels(2)])
    told = load_images(tmp_path).remarks
    assert "1 of 2 images have transparency, which is dropped" in told
    assert "1 of 2 images have several frames, of which the first is taken" in told


def test_sizes_must_agree(tmp_path):
    pixels(0).save(tmp_path / "a.png")
    pixels(0).resize((8, 8)).save(tmp_path / "b.png")
    with pytest.raises(UsageError, match="all must have one size"):
        load_images(tmp_path)


MODEL = """
import bench


def make():
    return bench.from_prediction(lambda x, t: 0.5 * x, bench.NoiseSchedule.linear(), (3, 16, 16), "eps")
"""


def test_a_run_says_it_beside_the_score(tmp_path):
    (tmp_path / "mine.py").write_text(MODEL)
    (tmp_path / "images").mkdir()
    for place in range(20):
        pixels(place).save(tmp_path / "images" / f"{place}.{'jpg' if place % 2 else 'png'}")
    (tmp_path / "images" / "notes.txt").write_text("x")
    done = run_bench(
        *("run", "--model", tmp_path / "mine.py:make", "--reference", tmp_path / "images", "--n", "8"),
        *("--samplers", "ddim", "--steps", "2", "--results", tmp_path / "results"),
    )
    assert done.returncode == 0, done.stderr
    said = " ".join(done.stderr.split())
    assert "reference: 10 of 20 images are compressed with losses (JPEG)" in said
    assert "reference: 1 files beside the images are none and left out: notes.txt" in said
    assert "lossy-reference, 1 of 1 cells: reference images from JPEG files" in " ".join(done.stdout.split())
