"""Published image sets as their authors pack them, and what is said when they are not there or damaged."""

from __future__ import annotations

import io
import pickle
import struct
import tarfile

import numpy as np
import pytest
from PIL import Image

from bench import UsageError
from bench.data.sets import load_images
from bench.training import TrainConfig, train


@pytest.fixture(scope="module")
def cifar():
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (12, 3, 32, 32), dtype=np.uint8), rng.integers(0, 10, 12)


def python2_pickle(images, labels):
    """The batch as Python 2 and numpy 1 wrote it: the very opcodes of the published files."""

    def text(string):
        return b"U" + bytes([len(string)]) + string

    numbers = b"".join(b"K" + bytes([label]) for label in labels)
    pixels = images.tobytes()
    count = len(images)
    return b"".join(
        [
            b"\x80\x02}q\x01(",
            text(b"batch_label") + b"q\x02" + text(b"training batch 1 of 5") + b"q\x03",
            text(b"labels") + b"q\x04]q\x05(" + numbers + b"e",
            text(b"data")
            + b"q\x06cnumpy.core.multiarray\n_reconstruct\nq\x07cnumpy\nndarray\nq\x08K\x00\x85q\x09",
            text(b"b")
            + b"q\x0a\x87q\x0bRq\x0c(K\x01K"
            + bytes([count])
            + b"M\x00\x0c\x86q\x0dcnumpy\ndtype\nq\x0e",
            text(b"u1") + b"q\x0fK\x00K\x01\x87q\x10Rq\x11(K\x03" + text(b"|") + b"q\x12NNNJ\xff\xff\xff\xff",
            b"J\xff\xff\xff\xffK\x00tq\x13b\x89T" + struct.pack("<i", len(pixels)) + pixels + b"q\x14tq\x15b",
            text(b"filenames") + b"q\x16]q\x17(" + text(b"leptodactylus_pentadactylus_s_000004.png") + b"eu.",
        ]
    )


def batches(images, labels):
    for i in range(5):
        part = slice(2 * i, 2 * i + 2)
        yield f"data_batch_{i + 1}", images[part], labels[part]
    yield "test_batch", images[10:], labels[10:]


def write(folder, images, labels, form):
    folder.mkdir(parents=True)
    for name, pixels, ids in batches(images, labels):
        if form == "binary":
            records = np.concatenate([ids[:, None].astype(np.uint8), pixels.reshape(len(ids), -1)], 1)
            (folder / f"{name}.bin").write_bytes(records.tobytes())
        elif form == "python2":
            (folder / name).write_bytes(python2_pickle(pixels, ids.tolist()))
        else:
            batch = {"data": pixels.reshape(len(ids), -1), "labels": ids.tolist(), "filenames": ["a.png"]}
            (folder / name).write_bytes(pickle.dumps(batch, protocol=form))


def test_the_python2_pickle_of_this_test_is_one(cifar):
    images, labels = cifar
    batch = pickle.loads(python2_pickle(images, labels.tolist()), encoding="bytes")
    assert batch[b"labels"] == labels.tolist()
    assert np.array_equal(batch[b"data"], images.reshape(12, -1))


@pytest.mark.parametrize("form", ["python2", 2, 4, "binary"])
def test_cifar10_in_every_form_is_the_same_images(cifar, tmp_path, form, monkeypatch):
    images, labels = cifar
    folder = tmp_path / ("cifar-10-batches-bin" if form == "binary" else "cifar-10-batches-py")
    write(folder, images, labels, form)
    monkeypatch.setenv("SAMPLER_BENCH_DATA", str(tmp_path))
    for source in ("cifar10", f"cifar10:{tmp_path}", str(tmp_path), str(folder)):
        data = load_images(source)
        assert np.array_equal(data.images.numpy(), images[:10])
        assert data.labels.tolist() == labels[:10].tolist()
    test = load_images("cifar10-test")
    assert np.array_equal(test.images.numpy(), images[10:]) and test.labels.tolist() == labels[10:].tolist()


def test_cifar10_is_read_out_of_its_archive(cifar, tmp_path):
    images, labels = cifar
    write(tmp_path / "in", images, labels, "python2")
    archive = tmp_path / "cifar-10-python.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(tmp_path / "in", "cifar-10-batches-py")
    assert np.array_equal(load_images(archive).images.numpy(), images[:10])
    assert np.array_equal(load_images(f"cifar10-test:{tmp_path}").images.numpy(), images[10:])
    archive.write_bytes(archive.read_bytes()[:5000])
    with pytest.raises(UsageError, match="is truncated or no archive"):
        load_images(archive)


def test_code_in_a_batch_is_not_run_and_damage_is_said(cifar, tmp_path):
    write(tmp_path / "cifar", *cifar, "python2")
    batch, ran = tmp_path / "cifar" / "data_batch_3", tmp_path / "ran"

    class Evil:
        def __reduce__(self):
            return (open, (str(ran), "w"))

    whole = batch.read_bytes()
    for damaged, message in (
        (
            pickle.dumps({"data": Evil(), "labels": [1]}),
            "data_batch_3 in .* does not hold one label and 3072",
        ),
        (whole[:4000], "data_batch_3 in .* is truncated or damaged"),
        (b"", "data_batch_3 in .* is truncated or damaged"),
        (
            whole.replace(b"U\x06labels", b"U\x06lapels"),
            "one label",
        ),
    ):
        batch.write_bytes(damaged)
        with pytest.raises(UsageError, match=message):
            load_images(tmp_path / "cifar")
    assert not ran.exists()
    batch.unlink()
    with pytest.raises(UsageError, match="lacks the CIFAR-10 batch data_batch_3"):
        load_images(tmp_path / "cifar")


def celeba(folder, names):
    """Aligned images that are 255 inside the published crop and 0 outside."""
    folder.mkdir(parents=True)
    pixels = np.zeros((218, 178, 3), np.uint8)
    pixels[57:185, 25:153] = 255
    for name in names:
        Image.fromarray(pixels).save(folder / name, quality=100)


def test_celeba_is_cropped_where_the_paper_did_and_only_its_training_images_are_taken(tmp_path):
    folder = tmp_path / "celeba" / "img_align_celeba"
    celeba(folder, ["000001.jpg", "000002.jpg", "000003.jpg"])
    assert len(load_images(f"celeba64:{tmp_path}")) == 3
    (folder.parent / "list_eval_partition.txt").write_text("000001.jpg 0\n000002.jpg 1\n000003.jpg 0\n")
    data = load_images(f"celeba64:{tmp_path}")
    assert data.images.shape == (2, 3, 64, 64)
    assert int(data.images.min()) > 240  # one row or column further out would be black
    Image.new("RGB", (64, 64)).save(folder / "000001.jpg")
    with pytest.raises(UsageError, match=r"000001.jpg is 64 x 64, not 178 x 218"):
        load_images(f"celeba64:{tmp_path}")


def test_the_crop_is_not_moved_by_a_pixel():
    from pathlib import Path

    from bench.data.celeba import crop

    y, x = np.mgrid[:218, :178]
    image = Image.fromarray(np.stack([x, y, 0 * x], 2).astype(np.uint8))
    small = np.asarray(crop(image, Path("a.jpg"))).astype(int)
    # Pixel k averages 25 + 2 k and its neighbours symmetrically: 25.5 + 2 k, rounded; the edges lean inwards.
    for channel, first in ((0, 25), (1, 57)):
        line = small[5, :, 0] if channel == 0 else small[:, 5, 1]
        assert np.abs(line[1:-1] - (first + 0.5 + 2 * np.arange(1, 63))).max() <= 0.5


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("cifar10", ["170,498,071 bytes", "cifar-10-batches-py"]),
        ("celeba64", ["1,443,490,838 bytes", "202,599"]),
    ],
)
def test_absent_data_are_said_with_size_and_place(tmp_path, monkeypatch, name, words):
    monkeypatch.setenv("SAMPLER_BENCH_DATA", str(tmp_path / "nowhere"))
    with pytest.raises(UsageError) as caught:
        load_images(name)
    assert all(word in str(caught.value) for word in [*words, str(tmp_path / "nowhere"), f"{name}:FOLDER"])


def test_images_that_cannot_be_decoded_are_named_and_counted(tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    buffer = io.BytesIO()
    for i in range(6):
        noise = np.random.default_rng(i).integers(0, 256, (8, 8, 3), dtype=np.uint8)
        Image.fromarray(noise).save(folder / f"{i}.png")
    Image.fromarray(noise).save(buffer, "jpeg")
    (folder / "cut.jpg").write_bytes(buffer.getvalue()[:-200])
    (folder / "empty.png").write_bytes(b"")
    config = TrainConfig(
        name="some",
        network="models.unet_training:make_unet",
        network_options={"channels": 8, "widths": (8,), "attention": (False,), "blocks": 1, "norm_groups": 4},
        data=str(folder),
        steps=1,
        batch=2,
        log_every=1,
        checkpoint_every=1,
    )
    said = []
    train(config, tmp_path / "run", warn=said.append)
    (sentence,) = said
    assert sentence.startswith("2 of 8 images")
    assert "cut.jpg" in sentence and "empty.png" in sentence
    with pytest.raises(UsageError, match=r"cut.jpg cannot be decoded"):
        train(config, tmp_path / "strict", strict=True)
