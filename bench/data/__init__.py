"""Image sets: read whole, checked and identified by their content."""

from bench.data.images import from_uint8, to_device, to_uint8
from bench.data.sets import ImageData, content_hash, is_here, load_images, set_hash

__all__ = [
    "ImageData",
    "content_hash",
    "from_uint8",
    "is_here",
    "load_images",
    "set_hash",
    "to_device",
    "to_uint8",
]
