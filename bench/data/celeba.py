"""CelebA at 64 x 64, cropped as the DDIM paper's model saw it.

The square from 64 pixels left of x = 89 to 64 right of it, and as much above and below y = 121, of the
aligned images, resized to 64 x 64 with a bilinear filter that averages over what it shrinks.

Source: Liu et al. 2015, "Deep learning face attributes in the wild"; Song et al. 2021, arXiv:2010.02502,
published code.
"""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from bench.errors import UsageError

CENTRE, HALF, SIDE = (89, 121), 64, 64


WHERE = (
    "get img_align_celeba.zip (1,443,490,838 bytes, 202,599 images) and list_eval_partition.txt from"
    " https://mmlab.ie.cuhk.edu.hk/projects/CelebA.html and unpack them there"
)


_ALIGNED = (178, 218)


_PARTITION, _TRAINING = "list_eval_partition.txt", "0"


def find_celeba(root: Path) -> list[Path]:
    """Return the aligned images below ``root``, only the training ones where the partition is there too.

    Looked for in ``root``, its ``img_align_celeba`` and its ``celeba/img_align_celeba``; empty where there
    are none.
    """
    for folder in (root / "celeba" / "img_align_celeba", root / "img_align_celeba", root):
        files = sorted(folder.glob("*.jpg"))
        if files:
            break
    for partition in (folder / _PARTITION, folder.parent / _PARTITION):
        if files and partition.is_file():
            lines = (line.split() for line in partition.read_text(encoding="utf-8").splitlines())
            training = {words[0] for words in lines if words[1:] == [_TRAINING]}
            chosen = [file for file in files if file.name in training]
            if not chosen:
                raise UsageError(f"{partition} names none of the images in {folder}; get it again")
            return chosen
    return files


def crop(image: Image.Image, file: Path) -> Image.Image:
    """Return the 64 x 64 image.

    Raises:
        UsageError: if it is not an aligned image of 178 x 218.
    """
    if image.size != _ALIGNED:
        raise UsageError(
            f"{file} is {image.width} x {image.height}, not 178 x 218: the crop is meant for CelebA's aligned"
            " images (img_align_celeba)"
        )
    x, y = CENTRE
    square = image.crop((x - HALF, y - HALF, x + HALF, y + HALF))
    return square.resize((SIDE, SIDE), Image.Resampling.BILINEAR)
