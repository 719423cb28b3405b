"""Random networks of an installed diffusers, saved by it, loaded here: the same outputs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import models
from bench import NoiseSchedule

diffusers = pytest.importorskip("diffusers")

DOWN, ATTEND, RESNET = "DownBlock2D", "AttnDownBlock2D", "ResnetDownsampleBlock2D"
UP, ATTEND_UP, RESNET_UP = "UpBlock2D", "AttnUpBlock2D", "ResnetUpsampleBlock2D"
SMALL = {"sample_size": 16, "block_out_channels": (32, 64, 64), "norm_num_groups": 16}
CONFIGS: dict[str, dict[str, Any]] = {
    "ddpm": {
        "down_block_types": (DOWN, ATTEND, DOWN),
        "up_block_types": (UP, ATTEND_UP, UP),
        "attention_head_dim": None,
        "norm_eps": 1e-6,
        "downsample_padding": 0,
        "flip_sin_to_cos": False,
        "freq_shift": 1,
    },
    "class defaults": {"down_block_types": (DOWN, DOWN, ATTEND), "up_block_types": (ATTEND_UP, UP, UP)},
    "one channel, three blocks": {
        "in_channels": 1,
        "out_channels": 2,
        "layers_per_block": 3,
        "down_block_types": (ATTEND, ATTEND, DOWN),
        "up_block_types": (UP, ATTEND_UP, ATTEND_UP),
        "attention_head_dim": 16,
    },
    "blocks that resample": {
        "down_block_types": (RESNET, ATTEND, RESNET),
        "up_block_types": (RESNET_UP, ATTEND_UP, RESNET_UP),
        "downsample_type": "resnet",
        "upsample_type": "resnet",
        "resnet_time_scale_shift": "scale_shift",
        "attn_norm_num_groups": 16,
    },
}


def random_unet(config: dict[str, Any]) -> Any:
    torch.manual_seed(0)
    unet = diffusers.UNet2DModel(**SMALL, **config).eval()
    with torch.no_grad():
        for parameter in unet.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    return unet


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("safe", [True, False])
def test_saved_folder_gives_the_same_output(tmp_path: Path, name: str, safe: bool) -> None:
    unet = random_unet(CONFIGS[name])
    unet.save_pretrained(tmp_path, safe_serialization=safe)
    network = models.load_network(tmp_path)
    x, t = torch.randn(3, unet.config.in_channels, 16, 16), torch.tensor([0, 400, 999])
    with torch.no_grad():
        difference = (network(x, t) - unet(x, t).sample).abs().max()
    assert float(difference) < 1e-5


def test_saved_pipeline_gives_its_schedule_too(tmp_path: Path) -> None:
    unet = random_unet(CONFIGS["ddpm"])
    scheduler = diffusers.DDPMScheduler(num_train_timesteps=500, beta_schedule="squaredcos_cap_v2")
    diffusers.DDPMPipeline(unet, scheduler).save_pretrained(tmp_path)
    model = models.load_checkpoint(tmp_path)
    assert model.schedule == NoiseSchedule.cosine(500)
    torch.testing.assert_close(model.schedule.betas.float(), scheduler.betas, atol=1e-6, rtol=1e-5)
    assert model.shape == (3, 16, 16)


def test_published_configuration_has_the_published_number_of_parameters() -> None:
    card = models.get_checkpoint_card("google/ddpm-cifar10-32")
    with torch.device("meta"):
        unet = diffusers.UNet2DModel(**card.config)
    assert sum(p.numel() for p in unet.parameters()) == card.parameters == 35_746_307
