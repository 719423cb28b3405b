"""The U-Net's layers against their formulas, and the network under what torch can do to it."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from support.unets import CONFIGS, image_and_time, random_network

from models import UNet, UNetConfig
from models.families import find_family
from models.layers import Attention, Downsample, ResBlock, Upsample, sinusoidal_embedding
from models.unet import best_scalar

SMALL = UNetConfig(image_size=8, channels=32, widths=(32, 64), blocks=1, attention=(False, True))
VARIANTS = {
    "ddpm": SMALL,
    "improved": find_family("openai").read(CONFIGS["openai"]),
    "guided": replace(
        SMALL,
        resample="resblock",
        scale_shift=True,
        head_channels=16,
        asymmetric_padding=False,
        out_channels=6,
    ),
    "interleaved": replace(SMALL, embedding_order="interleaved", embedding_shift=0, widths=(64, 32)),
}


def closed_form_embedding(t: float, channels: int, shift: int) -> tuple[np.ndarray, np.ndarray]:
    half = channels // 2
    angles = np.array([t * 10000.0 ** (-i / (half - shift)) for i in range(half)])
    return np.sin(angles), np.cos(angles)


@pytest.mark.parametrize("shift", [0, 1])
@pytest.mark.parametrize("t", [0, 1, 250.25, 999])
def test_embedding_is_its_closed_form_in_three_orders(t: float, shift: int) -> None:
    sin, cos = closed_form_embedding(t, 32, shift)
    time = torch.tensor([float(t)])
    expected = {
        "sin-cos": np.concatenate([sin, cos]),
        "cos-sin": np.concatenate([cos, sin]),
        "interleaved": np.stack([sin, cos], -1).ravel(),
    }
    for order, values in expected.items():
        got = sinusoidal_embedding(time, 32, order, shift)[0].numpy()  # type: ignore[arg-type]
        assert np.abs(got - values).max() < 1e-4  # float32 angles up to 999


@pytest.mark.parametrize("heads_first", [False, True])
@pytest.mark.parametrize("heads", [1, 4])
def test_attention_is_softmax_of_scaled_products(heads: int, heads_first: bool) -> None:
    config = replace(SMALL, heads=heads, heads_first=heads_first)
    torch.manual_seed(0)
    layer = Attention(config, 64).double()
    torch.nn.init.normal_(layer.out.weight)
    torch.nn.init.normal_(layer.out.bias)
    x = torch.randn(2, 64, 4, 4, dtype=torch.float64)

    tokens = layer.norm(x).flatten(2).mT  # (B, N, C)
    rows = layer.qkv.weight.view(heads, 3, -1, 64) if heads_first else layer.qkv.weight.view(3, heads, -1, 64)
    bias = layer.qkv.bias.view(rows.shape[:3])
    out = torch.zeros(2, 16, 64, dtype=torch.float64)
    d = 64 // heads
    for h in range(heads):
        q, k, v = (
            tokens @ (rows[h, i] if heads_first else rows[i, h]).mT
            + (bias[h, i] if heads_first else bias[i, h])
            for i in range(3)
        )
        out[:, :, h * d : (h + 1) * d] = torch.softmax(q @ k.mT / math.sqrt(d), dim=-1) @ v
    expected = x + (out @ layer.out.weight.mT + layer.out.bias).mT.reshape(x.shape)
    torch.testing.assert_close(layer(x), expected, atol=1e-12, rtol=0)


def test_downsampling_pads_as_configured() -> None:
    # A kernel that is 1 at its centre picks odd pixels if only right and bottom are padded, else even ones.
    x = torch.arange(16.0).view(1, 1, 4, 4).expand(1, 32, 4, 4)
    for asymmetric, offset in ((True, 1), (False, 0)):
        layer = Downsample(replace(SMALL, asymmetric_padding=asymmetric), 32)
        torch.nn.init.zeros_(layer.conv.weight)
        torch.nn.init.zeros_(layer.conv.bias)
        with torch.no_grad():
            layer.conv.weight[:, :, 1, 1] = torch.eye(32)
        assert torch.equal(layer(x, torch.empty(0)), x[:, :, offset::2, offset::2])


def test_upsampling_repeats_pixels() -> None:
    x = torch.arange(4.0).view(1, 1, 2, 2).expand(1, 32, 2, 2)
    layer = Upsample(32)
    torch.nn.init.zeros_(layer.conv.weight)
    torch.nn.init.zeros_(layer.conv.bias)
    with torch.no_grad():
        layer.conv.weight[:, :, 1, 1] = torch.eye(32)
    assert torch.equal(layer(x, torch.empty(0)), x.repeat_interleave(2, -1).repeat_interleave(2, -2))


def test_residual_block_of_zero_convolutions_resamples_its_input_alone() -> None:
    x, emb = torch.randn(1, 32, 4, 4), torch.randn(1, 128)
    for resample, expected in (
        (None, x),
        ("down", x.unfold(2, 2, 2).unfold(3, 2, 2).mean((-1, -2))),
        ("up", x.repeat_interleave(2, -1).repeat_interleave(2, -2)),
    ):
        block = ResBlock(SMALL, 32, 32, resample)  # type: ignore[arg-type]
        torch.nn.init.zeros_(block.conv2.weight)
        torch.nn.init.zeros_(block.conv2.bias)
        torch.testing.assert_close(block(x, emb), expected)


def test_scale_shift_norm_is_scaled_and_shifted_by_time() -> None:
    block = ResBlock(replace(SMALL, scale_shift=True), 32, 32).double()
    x, emb = torch.randn(1, 32, 4, 4, dtype=torch.float64), torch.randn(1, 128, dtype=torch.float64)
    torch.nn.init.normal_(block.conv2.weight)
    s, b = (block.time.weight @ emb[0] + block.time.bias).view(2, 32, 1, 1)
    h = block.norm2(block.conv1(torch.nn.functional.silu(block.norm1(x)))) * (1 + s) + b
    expected = x + block.conv2(h * torch.sigmoid(h))
    torch.testing.assert_close(block(x, emb), expected, atol=1e-12, rtol=0)


def test_untrained_network_predicts_zero_and_its_weights_are_glorots() -> None:
    torch.manual_seed(0)
    network = UNet(SMALL)
    x, t = image_and_time(SMALL)
    assert torch.equal(network(x, t), torch.zeros_like(x))
    weight = network.conv_in.weight.detach()  # uniform on +-sqrt(6 / (fan_in + fan_out))
    limit = math.sqrt(6 / (9 * 3 + 9 * 32))
    assert float(weight.abs().max()) <= limit
    assert float(weight.std()) == pytest.approx(limit / math.sqrt(3), rel=0.1)


@pytest.mark.parametrize("name", VARIANTS)
def test_every_parameter_matters(name: str) -> None:
    network = random_network(VARIANTS[name])
    x, t = image_and_time(network.config)
    network(x, t).square().sum().backward()
    dead = [
        key for key, p in network.named_parameters() if p.grad is None or not bool(p.grad.abs().max() > 0)
    ]
    assert dead == []


@pytest.mark.parametrize("name", VARIANTS)
def test_memory_format_and_real_time_change_nothing(name: str) -> None:
    network = random_network(VARIANTS[name])
    x, t = image_and_time(network.config)
    expected = network(x, t)
    torch.testing.assert_close(network(x, t.float()), expected, atol=0, rtol=0)
    assert not torch.allclose(network(x, t + 0.5), expected, atol=1e-3)
    converted = network.to(memory_format=torch.channels_last)(x.to(memory_format=torch.channels_last), t)
    assert converted.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(converted, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", VARIANTS)
def test_bfloat16_autocast_is_close(name: str) -> None:
    network = random_network(VARIANTS[name])
    x, t = image_and_time(network.config)
    with torch.no_grad():
        expected = network(x, t)
        with torch.autocast("cpu", torch.bfloat16):
            got = network(x, t)
    relative = (got.float() - expected).norm() / expected.norm()
    assert 1e-5 < relative < 0.03  # 8 bits of mantissa


@pytest.mark.parametrize("name", ["ddpm", "guided"])
def test_compiles_without_a_graph_break(name: str) -> None:
    network = random_network(VARIANTS[name])
    x, t = image_and_time(network.config)
    compiled = torch.compile(network, fullgraph=True, backend="aot_eager")
    with torch.no_grad():
        torch.testing.assert_close(compiled(x, t), network(x, t), atol=1e-5, rtol=1e-5)


def test_dropout_acts_in_training_only() -> None:
    network = random_network(replace(SMALL, dropout=0.5))
    x, t = image_and_time(SMALL)
    assert torch.equal(network(x, t), random_network(SMALL)(x, t))
    network.train()
    assert not torch.equal(network(x, t), network(x, t))


def test_samples_of_a_batch_do_not_see_each_other() -> None:
    network = random_network(VARIANTS["improved"])
    x, t = image_and_time(network.config, batch=4)
    torch.testing.assert_close(network(x, t)[1:2], network(x[1:2], t[1:2]), atol=1e-5, rtol=1e-5)


def test_patches_of_pixels_are_channels_inside() -> None:
    patched = UNet(replace(SMALL, patch=2, in_channels=3, out_channels=6)).eval()
    plain = UNet(replace(SMALL, patch=1, in_channels=12, out_channels=24)).eval()
    torch.nn.init.normal_(patched.conv_out.weight)
    plain.load_state_dict(patched.state_dict())
    x, t = torch.randn(2, 3, 16, 16), torch.tensor([3, 500])
    # Channel c of the pixel (i, j) of a patch is channel 4 c + 2 i + j.
    inside = torch.stack([x[:, c, i::2, j::2] for c in range(3) for i in range(2) for j in range(2)], dim=1)
    with torch.inference_mode():
        out, expected = patched(x, t), plain(inside, t)
    assert out.shape == (2, 6, 16, 16)
    for c, i, j in itertools.product(range(6), range(2), range(2)):
        torch.testing.assert_close(out[:, c, i::2, j::2], expected[:, 4 * c + 2 * i + j])


def test_best_scalar_predictor_is_that_of_the_exact_moments() -> None:
    abar, s = torch.tensor([0.9999, 0.5, 4e-5], dtype=torch.float64), 0.5
    a, b = best_scalar(abar, s)
    for share, factor, spread in zip(abar.tolist(), a.tolist(), b.tolist(), strict=True):
        # (x_t, eps) as a linear map of (x_0 / s, eps), which are independent and of unit variance
        linear = np.array([[s * math.sqrt(share), math.sqrt(1 - share)], [0.0, 1.0]])
        covariance = linear @ linear.T
        assert math.isclose(factor, covariance[0, 1] / covariance[0, 0], rel_tol=1e-12)
        left = covariance[1, 1] - covariance[0, 1] ** 2 / covariance[0, 0]
        assert math.isclose(spread**2, left, rel_tol=1e-9)


def test_sizes_that_cannot_be_halved_are_refused() -> None:
    with pytest.raises(ValueError, match="multiples of 2"):
        random_network(SMALL)(torch.zeros(1, 3, 8, 9), torch.zeros(1))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"attention": (True,)}, "one entry a level"),
        ({"widths": (32, 48)}, "32 groups"),
        ({"heads": 5}, "5 attention heads"),
        ({"head_channels": 48}, "heads of 48"),
        ({"patch": 0}, "patch must be a whole number"),
        ({"residual": -1}, "residual must be"),
        ({"blocks": 0}, "blocks must be"),
        ({"norm_groups": 0}, "norm_groups must be"),
        ({"dropout": math.nan}, "dropout must lie"),
        ({"norm_eps": "small"}, "norm_eps must be"),
        ({"embedding_shift": 16}, "embedding_shift"),
        ({"heads_first": None}, "heads_first must be true or false"),
        ({"image_size": "32"}, "image_size must be"),
    ],
)
def test_impossible_configurations_are_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(SMALL, **change)  # type: ignore[arg-type]
