"""A weight file in the format of the FID Inception network, randomly filled: for everything but figures."""

import hashlib
from pathlib import Path
from unittest import mock

import torch


class Images(torch.utils.data.Dataset):
    """Images as torch-fidelity takes them."""

    def __init__(self, data):
        self.data = data

    def __len__(self):
        return len(self.data)

    def __getitem__(self, index):
        return self.data[index]


def write_random_weights(path: Path) -> Path:
    """Write weights whose batch norms do something and whose features keep a sane size."""
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    with (
        mock.patch.object(FeatureExtractorInceptionV3, "load_state_dict", return_value=None),
        mock.patch.object(torch, "load", return_value={}),
    ):
        shapes = FeatureExtractorInceptionV3(
            "x", ["2048"], feature_extractor_weights_path="none"
        ).state_dict()
    generator = torch.Generator().manual_seed(0)
    state = {}
    for name, value in shapes.items():
        draw = torch.randn(value.shape, generator=generator)
        if name.endswith("running_var"):
            state[name] = draw.abs() + 0.5
        elif name.endswith("bn.weight"):
            state[name] = 1 + 0.1 * draw
        elif name.endswith(("running_mean", "bias")):
            state[name] = 0.1 * draw
        elif name.endswith("num_batches_tracked"):
            state[name] = value
        else:
            state[name] = draw * (2 / value[0].numel()) ** 0.5
    torch.save(state, path)
    return path


def sha256(path: Path) -> str:
    """Hash of a file, for ``accept=``."""
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()
