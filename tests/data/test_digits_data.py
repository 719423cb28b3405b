"""Image data: the shipped digits, archives, folders, and what is wrong with them said in a sentence."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from bench import UsageError
from bench.data.sets import content_hash, load_images

TRAIN_HASH = "424dee51f84a5cf438bbf7f163558eac7a2283308093d1853ee0b99dfececc58"
HELD_OUT_HASH = "bed2f6fb86e0576ccff859b855c2c0ca7d3491b8f25ff7d9b1dfa1bff6b628e4"


def test_the_shipped_digits_are_what_they_were():
    train, held_out = load_images("digits"), load_images("digits-held-out")
    assert train.images.shape == (40_000, 1, 12, 12) and held_out.images.shape == (6_000, 1, 12, 12)
    assert (train.hash, held_out.hash) == (TRAIN_HASH, HELD_OUT_HASH)
    assert train.labels is not None and held_out.labels is not None
    for labels in (train.labels, held_out.labels):  # MNIST has 9.0% fives to 11.2% ones
        shares = torch.bincount(labels, minlength=10) / len(labels)
        assert shares.min() > 0.08 and shares.max() < 0.125


def test_no_held_out_digit_was_trained_on():
    seen = {image.numpy().tobytes() for image in load_images("digits").images}
    again = sum(image.numpy().tobytes() in seen for image in load_images("digits-held-out").images)
    assert again == 0


@pytest.mark.parametrize(
    ("split", "file"), [("digits", "mnist_train.npz"), ("digits-held-out", "mnist_test.npz")]
)
def test_every_shipped_digit_is_an_averaged_mnist_digit_with_its_label(split, file):
    folder = os.environ.get("SAMPLER_BENCH_TEST_DATA")
    if not folder or not (Path(folder) / file).exists():
        pytest.skip(f"needs {file} in the folder SAMPLER_BENCH_TEST_DATA")
    with np.load(Path(folder) / file) as arrays:
        crop, labels = arrays["images"][:, 2:26, 2:26].astype(int), arrays["labels"]
    small = (crop[:, ::2, ::2] + crop[:, 1::2, ::2] + crop[:, ::2, 1::2] + crop[:, 1::2, 1::2] + 2) // 4
    known = {(image.astype(np.uint8).tobytes(), int(y)) for image, y in zip(small, labels, strict=True)}
    data = load_images(split)
    assert all(
        (image.numpy().tobytes(), int(y)) in known for image, y in zip(data.images, data.labels, strict=True)
    )


def test_the_hash_is_of_shape_and_pixels():
    images = torch.arange(24, dtype=torch.uint8).view(2, 3, 2, 2)
    assert content_hash(images) == hashlib.sha256(b"2,3,2,2" + bytes(range(24))).hexdigest()
    assert content_hash(images.permute(0, 1, 3, 2)) != content_hash(images)
    assert content_hash(images.view(2, 3, 4, 1)) != content_hash(images)


@pytest.mark.parametrize("key", ["images", "arr_0", "samples"])
def test_archives_in_every_layout_are_the_same_images(tmp_path, key):
    pixels = np.random.default_rng(0).integers(0, 256, (4, 3, 5, 6), dtype=np.uint8)
    hashes = set()
    for name, array in (("first", pixels), ("last", pixels.transpose(0, 2, 3, 1))):
        np.savez(tmp_path / f"{name}.npz", **{key: array})
        data = load_images(tmp_path / f"{name}.npz")
        assert np.array_equal(data.images.numpy(), pixels)
        hashes.add(data.hash)
    assert len(hashes) == 1


def test_a_folder_is_read_in_the_order_of_its_names(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (3, 4, 5, 3), dtype=np.uint8)
    (tmp_path / "deeper").mkdir()
    for name, image in zip(("b.png", "c.webp", "a.png"), pixels, strict=True):
        Image.fromarray(image).save(tmp_path / "deeper" / name, lossless=True)
    (tmp_path / "broken.png").write_bytes(b"no picture")
    data = load_images(tmp_path)
    assert np.array_equal(data.images.numpy(), pixels[[2, 0, 1]].transpose(0, 3, 1, 2))
    assert data.unreadable == (tmp_path / "broken.png",)
    with pytest.raises(UsageError, match=r"broken\.png cannot be decoded"):
        load_images(tmp_path, strict=True)


def test_a_grey_folder_has_one_channel(tmp_path):
    Image.fromarray(np.full((3, 3), 7, np.uint8)).save(tmp_path / "a.png")
    assert torch.equal(load_images(tmp_path).images, torch.full((1, 1, 3, 3), 7, dtype=torch.uint8))


def test_what_is_wrong_is_said_with_its_place(tmp_path):
    def raises(source, match):
        with pytest.raises(UsageError, match=match):
            load_images(source)

    raises("digitz", "did you mean digits")
    raises(tmp_path / "none.npz", "no image data at .*none.npz")
    raises(tmp_path, "holds no images")
    (tmp_path / "half.npz").write_bytes(b"PK\x03\x04 and then nothing")
    raises(tmp_path / "half.npz", "half.npz cannot be read as .npz")
    np.savez(tmp_path / "key.npz", pictures=np.zeros((1, 2, 2), np.uint8))
    raises(tmp_path / "key.npz", "holds pictures; images must be under one of images, arr_0, samples")
    np.savez(tmp_path / "float.npz", images=np.zeros((1, 2, 2)))
    raises(tmp_path / "float.npz", "is float64; images must be uint8")
    np.savez(tmp_path / "flat.npz", images=np.zeros((5, 4), np.uint8))
    raises(tmp_path / "flat.npz", r"has shape \(5, 4\); expected")
    np.savez(tmp_path / "code.npz", images=np.array([object()], dtype=object))
    raises(tmp_path / "code.npz", "cannot be read as .npz")
    folder = tmp_path / "sizes"
    folder.mkdir()
    for size in (2, 3):
        Image.fromarray(np.zeros((size, size), np.uint8)).save(folder / f"{size}.png")
    raises(folder, r"3.png is 3 x 3 x 1 where the images before it in .* are 2 x 2 x 1")


def test_an_array_file_is_a_set_of_images(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (5, 6, 4, 4), dtype=np.uint8)
    np.save(tmp_path / "stack.npy", pixels)
    assert np.array_equal(load_images(tmp_path / "stack.npy").images.numpy(), pixels)
    np.save(tmp_path / "colours.npy", pixels[:, :4, :4, :3])
    assert load_images(tmp_path / "colours.npy").images.shape == (5, 3, 4, 4)


def test_hidden_files_are_no_images_and_deep_ones_are_refused(tmp_path):
    for name in ("a.png", ".hidden.png", ".thumbs/b.png", "__MACOSX/c.png"):
        place = tmp_path / "images" / name
        place.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.zeros((4, 4), np.uint8)).save(place)
    assert len(load_images(tmp_path / "images")) == 1
    (tmp_path / "links").mkdir()
    (tmp_path / "links" / "a.png").symlink_to(tmp_path / "images" / "a.png")
    assert len(load_images(tmp_path / "links")) == 1
    Image.fromarray(np.zeros((4, 4), np.uint16)).save(tmp_path / "images" / "deep.png")
    with pytest.raises(UsageError, match=r"deep\.png has more than 8 bits a channel"):
        load_images(tmp_path / "images")
