"""A folder of images is read whole: every format, and what is left out or changed is told."""

import io
import struct
import tarfile
import zipfile
import zlib

import numpy as np
import pytest
import torch
from PIL import Image, features
from support.commands import bench as run_bench

from bench import UsageError, load_images
from bench.data.decode import image_suffixes, is_deep

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


def test_linked_folders_are_read_and_each_folder_once(tmp_path):
    (tmp_path / "set").mkdir()
    (tmp_path / "elsewhere" / "below").mkdir(parents=True)
    pixels(0).save(tmp_path / "set" / "b.png")
    pixels(1).save(tmp_path / "elsewhere" / "below" / "0.png")
    (tmp_path / "set" / "a").symlink_to(tmp_path / "elsewhere")
    assert len(load_images(tmp_path / "set")) == 2
    assert not load_images(tmp_path / "set").remarks
    (tmp_path / "set" / "again").symlink_to(tmp_path / "elsewhere" / "below")
    (tmp_path / "elsewhere" / "up").symlink_to(tmp_path / "set")
    found = load_images(tmp_path / "set")
    assert len(found) == 2
    assert found.remarks == ("2 folders are linked to more than once and read once: a/below, a/up",)


@pytest.mark.parametrize("name", ["a.png", "folder"])
def test_a_link_that_leads_nowhere_is_no_image_less(tmp_path, name):
    pixels(0).save(tmp_path / "b.png")
    (tmp_path / name).symlink_to(tmp_path / "gone")
    with pytest.raises(UsageError, match=f"{name} is a link that leads nowhere"):
        load_images(tmp_path, strict=True)
    assert load_images(tmp_path).unreadable == (tmp_path / name,)


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(bits, kind):
    """A PNG of 2 x 2 with any number of bits a channel, which the decoder itself cannot write."""
    channels = {0: 1, 2: 3, 4: 2, 6: 4}[kind]
    rows = (b"\0" + bytes(2 * channels * bits // 8)) * 2
    head = struct.pack(">IIBBBBB", 2, 2, bits, kind, 0, 0, 0)
    parts = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + parts


def tiff(bits, order):
    """A coloured TIFF of 2 x 2, uncompressed."""
    data = bytes(2 * 2 * 3 * bits // 8)
    values = {256: 2, 257: 2, 258: 134, 259: 1, 262: 2, 273: 140, 277: 3, 278: 2, 279: len(data), 284: 1}
    entries = b"".join(
        struct.pack(f"{order}HHI", tag, 4 if tag in (273, 279) else 3, 3 if tag == 258 else 1)
        + struct.pack(
            f"{order}I" if tag in (258, 273, 279) else f"{order}HH",
            *((value,) if tag in (258, 273, 279) else (value, 0)),
        )
        for tag, value in values.items()
    )
    start = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}IH", 8, len(values))
    return (start + entries).ljust(134, b"\0") + struct.pack(f"{order}HHH", bits, bits, bits) + data


def jpeg_2000(bits):
    made = io.BytesIO()
    pixels(0).save(made, "JPEG2000")
    place = made.getvalue().index(b"\xff\x4f\xff\x51") + 42
    return made.getvalue()[:place] + bytes([bits - 1]) + made.getvalue()[place + 1 :]


DEEP = {
    "rgb.png": (png, (8, 2), (16, 2)),
    "rgba.png": (png, (8, 6), (16, 6)),
    "gray.png": (png, (8, 0), (16, 0)),
    "gray and alpha.png": (png, (8, 4), (16, 4)),
    "little.tif": (tiff, (8, "<"), (16, "<")),
    "big.tif": (tiff, (8, ">"), (16, ">")),
    "colour.ppm": (lambda most: b"P6 2 2 %d\n" % most + bytes(24), (255,), (1023,)),
    "colour.jp2": (jpeg_2000, (8,), (12,)),
}


@pytest.mark.parametrize("name", DEEP)
def test_more_than_8_bits_a_channel_are_refused_in_every_format(tmp_path, name):
    make, shallow, deep = DEEP[name]
    (tmp_path / name).write_bytes(make(*shallow))
    assert len(load_images(tmp_path)) == 1
    (tmp_path / name).write_bytes(make(*deep))
    with pytest.raises(UsageError, match="more than 8 bits a channel"):
        load_images(tmp_path)


@pytest.mark.skipif(not features.check("avif"), reason="Pillow without AVIF")
def test_the_bits_of_an_avif_image_are_read(tmp_path):
    pixels(0).save(tmp_path / "a.avif")
    content = bytearray((tmp_path / "a.avif").read_bytes())
    content[content.index(b"av1C") + 6] |= 0x40
    (tmp_path / "deep.avif").write_bytes(content)
    with Image.open(tmp_path / "a.avif") as opened:  # the decoder knows that the pixels of the other have 8
        assert not is_deep(opened, tmp_path / "a.avif")
        assert is_deep(opened, tmp_path / "deep.avif")


@pytest.mark.parametrize(("kind", "count"), [("PNG", 3), ("JPEG", 3), ("WEBP", 3), ("TIFF", 3), ("GIF", 3)])
def test_images_are_known_by_their_first_bytes_too(tmp_path, kind, count):
    for name in ("a.png", "b", "img.0001"):
        pixels(0).save(tmp_path / name, "PNG" if name == "a.png" else kind)
    found = load_images(tmp_path, strict=True)
    assert len(found) == count
    assert not any("beside the images" in remark for remark in found.remarks)


@pytest.mark.parametrize(
    ("name", "content"),
    [("a.heic", b"?"), ("a.jxl", b"?"), ("a", b"\0\0\0\x18ftypheic\0"), ("a.data", b"v/1\x01" + bytes(20))],
)
def test_pictures_of_formats_that_are_not_known_are_not_said_to_be_none(tmp_path, name, content):
    pixels(0).save(tmp_path / "b.png")
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UsageError, match=f"{name} cannot be decoded.* not known here; save it as PNG"):
        load_images(tmp_path, strict=True)


def test_archives_of_images_are_refused_with_what_to_do(tmp_path):
    pixels(0).save(tmp_path / "0.png")
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for place in range(300):
            archive.write(tmp_path / "0.png", f"{place}.png")
    with pytest.raises(UsageError, match=r"zip archive of 300 files and no \.npz; unpack it") as refused:
        load_images(tmp_path / "a.zip")
    assert len(str(refused.value)) < 200
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        archive.add(tmp_path / "0.png", "0.png")
    with pytest.raises(UsageError, match="unpack it if it holds other images and give their folder"):
        load_images(tmp_path / "a.tar")


def test_a_file_that_is_one_image_is_called_so(tmp_path):
    pixels(0).save(tmp_path / "0.png")
    with pytest.raises(UsageError, match=r"0\.png is one image; give the folder"):
        load_images(tmp_path / "0.png")


def test_an_npz_with_two_sets_of_images_is_refused(tmp_path):
    some = np.zeros((20, 4, 4, 3), np.uint8)
    np.savez(tmp_path / "a.npz", images=some, arr_0=some[:10])
    with pytest.raises(UsageError, match="holds images and arr_0, each a name of images"):
        load_images(tmp_path / "a.npz")
    np.savez(tmp_path / "b.npz", arr_0=some, arr_1=np.zeros(20, np.int64))
    assert len(load_images(tmp_path / "b.npz")) == 20


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


def test_a_reference_of_statistics_and_images_says_which_is_used(tmp_path):
    """The reference batches of guided-diffusion hold both."""
    (tmp_path / "mine.py").write_text(MODEL)
    some = np.random.default_rng(0).integers(0, 256, (40, 16, 16, 3), dtype=np.uint8)
    flat = some.reshape(40, -1) / 255
    np.savez(tmp_path / "both.npz", arr_0=some, mu=flat.mean(0), sigma=np.cov(flat, rowvar=False))
    np.savez(tmp_path / "samples.npz", some[:20])
    told = f"reference: {tmp_path / 'both.npz'} holds images (arr_0) too; what is used is its mu and sigma"
    given = ("--reference", tmp_path / "both.npz", "--metrics", "fd_pixels")
    done = run_bench("score", tmp_path / "samples.npz", *given)
    assert done.returncode == 0, done.stderr
    assert told in " ".join(done.stderr.split())
    done = run_bench(
        *("run", "--model", tmp_path / "mine.py:make", *given, "--n", "8", "--samplers", "ddim"),
        *("--steps", "2", "--results", tmp_path / "results"),
    )
    assert done.returncode == 0, done.stderr
    said = " ".join(done.stderr.split())
    assert told in said
    assert "holds no images" not in said


def test_what_is_done_to_images_is_told_wherever_they_are_read(tmp_path):
    for place in range(8):
        picture = np.random.default_rng(place).integers(0, 256, (12, 12), dtype=np.uint8)
        Image.fromarray(picture).save(tmp_path / f"{place}.jpg", quality=95)
    told = "8 of 8 images are compressed with losses (JPEG)"
    commands = [
        ("stats", tmp_path, "--metric", "fd_pixels"),
        ("check-model", "digits", "--reference", tmp_path, "--n", "4"),
        (
            "moments",
            "--model",
            "digits",
            "--reference",
            tmp_path,
            "--steps",
            "2",
            "--out",
            tmp_path / "m.json",
        ),
        (
            "nll",
            "--model",
            "digits",
            "--data",
            tmp_path,
            "--n",
            "4",
            "--steps",
            "2",
            "--results",
            tmp_path / "r",
        ),
        ("score", tmp_path, "--reference", "digits-held-out"),
        ("score", "digits-held-out", "--n", "8", "--reference", tmp_path),
    ]
    for command in commands:
        done = run_bench(*command)
        assert told in " ".join(done.stderr.split()), (command[0], done.stderr)
