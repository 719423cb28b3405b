"""The public checkpoints behind the tables of the DDPM, DDIM and Improved DDPM papers.

Facts only: a hash that no source states is absent. Sources: the README and download code of each ``origin``;
arXiv:2006.11239, 2010.02502, 2102.09672, 2105.05233.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

from bench import UnknownNameError
from models.cards import CheckpointCard, RemoteFile

NO_EMA = "the weights are not averaged: FID about 12, not the paper's 3.17"


class Architecture(NamedTuple):
    """A network in its family's terms.

    Attributes:
        config: the constructor's arguments.
        parameters: their number.
    """

    config: Mapping[str, Any]
    parameters: int


_DDPM: Mapping[str, Any] = {
    "ch": 128,
    "out_ch": 3,
    "ch_mult": (1, 2, 2, 2),
    "num_res_blocks": 2,
    "attn_resolutions": (16,),
    "dropout": 0.1,
    "in_channels": 3,
    "resolution": 32,
}
DDPM_32 = Architecture(_DDPM, 35_746_307)
DDPM_64 = Architecture({**_DDPM, "ch_mult": (1, 2, 2, 2, 4), "resolution": 64}, 78_700_803)
DDPM_256 = Architecture(
    {**_DDPM, "ch_mult": (1, 1, 2, 2, 4, 4), "dropout": 0.0, "resolution": 256}, 113_673_219
)

_HUB: Mapping[str, Any] = {
    "in_channels": 3,
    "out_channels": 3,
    "layers_per_block": 2,
    "downsample_padding": 0,
    "flip_sin_to_cos": False,
    "freq_shift": 1,
    "norm_eps": 1e-6,
    "norm_num_groups": 32,
    "attention_head_dim": None,
    "resnet_time_scale_shift": "default",
}
HUB_32 = Architecture(
    {
        **_HUB,
        "sample_size": 32,
        "block_out_channels": (128, 256, 256, 256),
        "down_block_types": ("DownBlock2D", "AttnDownBlock2D", "DownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "UpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
    },
    35_746_307,
)
HUB_256 = Architecture(
    {
        **_HUB,
        "sample_size": 256,
        "block_out_channels": (128, 128, 256, 256, 512, 512),
        "down_block_types": (*["DownBlock2D"] * 4, "AttnDownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "AttnUpBlock2D", *["UpBlock2D"] * 4),
    },
    113_673_219,
)

_IMPROVED: Mapping[str, Any] = {
    "in_channels": 3,
    "model_channels": 128,
    "out_channels": 6,
    "num_res_blocks": 3,
    "num_heads": 4,
    "use_scale_shift_norm": True,
}
IMPROVED_32 = Architecture(
    {
        **_IMPROVED,
        "image_size": 32,
        "channel_mult": (1, 2, 2, 2),
        "attention_resolutions": (2, 4),
        "dropout": 0.3,
    },
    52_546_438,
)
IMPROVED_64 = Architecture(
    {**_IMPROVED, "image_size": 64, "channel_mult": (1, 2, 3, 4), "attention_resolutions": (4, 8)},
    121_063_942,
)
IMPROVED_256 = Architecture(
    {
        **_IMPROVED,
        "image_size": 256,
        "channel_mult": (1, 1, 2, 2, 4, 4),
        "attention_resolutions": (16,),
        "num_res_blocks": 2,
        "num_heads": 1,
        "use_scale_shift_norm": False,
    },
    113_676_678,
)
GUIDED_256 = Architecture(
    {
        **_IMPROVED,
        "image_size": 256,
        "model_channels": 256,
        "channel_mult": (1, 1, 2, 2, 4, 4),
        "attention_resolutions": (8, 16, 32),
        "num_res_blocks": 2,
        "num_head_channels": 64,
        "resblock_updown": True,
        "dropout": 0.1,
    },
    552_814_086,
)
GUIDED_64 = Architecture(
    {
        **_IMPROVED,
        "image_size": 64,
        "model_channels": 192,
        "channel_mult": (1, 2, 3, 4),
        "attention_resolutions": (2, 4, 8),
        "num_head_channels": 64,
        "resblock_updown": True,
        "use_new_attention_order": True,
        "dropout": 0.1,
        "num_classes": 1000,
    },
    295_904_454,
)
GUIDED_256_NO_DROPOUT = GUIDED_256._replace(config={**GUIDED_256.config, "dropout": 0.0})


def _averaging(averaged: bool, dataset: str) -> tuple[str, ...]:
    """Return the warnings about weights that are not averaged; what that costs is known for CIFAR-10."""
    if averaged:
        return ()
    return (NO_EMA,) if dataset == "CIFAR-10" else ("the weights are not averaged",)


def _hub(name: str, dataset: str, network: Architecture, averaged: bool) -> CheckpointCard:
    folder, url = name.replace("/", "--"), f"https://huggingface.co/{name}/resolve/main"
    names = ("config.json", "scheduler_config.json", "diffusion_pytorch_model.safetensors")
    return CheckpointCard(
        name=name,
        family="diffusers",
        origin=f"https://huggingface.co/{name}",
        dataset=dataset,
        files=tuple(RemoteFile(f"{folder}/{file}", f"{url}/{file}") for file in names),
        config=network.config,
        parameters=network.parameters,
        averaged=averaged,
        warnings=_averaging(averaged, dataset),
        hub=True,
    )


def _pesser(name: str, path: str, page: str, md5: str, dataset: str, network: Architecture) -> CheckpointCard:
    averaged = name.startswith("ema_")
    return CheckpointCard(
        name=name,
        family="pesser",
        origin="https://github.com/pesser/pytorch_diffusion",
        dataset=dataset,
        files=(RemoteFile(path, f"https://heibox.uni-heidelberg.de/f/{page}/?dl=1", f"md5:{md5}"),),
        config=network.config,
        parameters=network.parameters,
        averaged=averaged,
        warnings=_averaging(averaged, dataset),
    )


def _openai(
    file: str,
    release: str,
    dataset: str,
    network: Architecture,
    T: int = 1000,
    rescale: bool = False,
    schedule: Literal["linear", "cosine"] = "linear",
) -> CheckpointCard:
    repository = "improved-diffusion" if release == "march-2021" else "guided-diffusion"
    name = file.removesuffix(".pt")
    return CheckpointCard(
        name=name if release == "march-2021" else f"guided_{name}",
        family="openai",
        origin=f"https://github.com/openai/{repository}",
        dataset=dataset,
        files=(RemoteFile(file, f"https://openaipublic.blob.core.windows.net/diffusion/{release}/{file}"),),
        config=network.config,
        parameters=network.parameters,
        T=T,
        schedule=schedule,
        variance="learned_range",
        rescale_timesteps=rescale,
    )


CARDS: tuple[CheckpointCard, ...] = (
    _hub("google/ddpm-cifar10-32", "CIFAR-10", HUB_32, averaged=False),
    *(
        _hub(f"google/ddpm-{ema}{short}-256", dataset, HUB_256, averaged=bool(ema))
        for short, dataset in (
            ("celebahq", "CelebA-HQ"),
            ("bedroom", "LSUN bedroom"),
            ("cat", "LSUN cat"),
            ("church", "LSUN church"),
        )
        for ema in ("", "ema-")
    ),
    _pesser(
        "pesser-cifar10",
        "diffusion_cifar10_model/model-790000.ckpt",
        "869980b53bf5416c8a28",
        "82ed3067fd1002f5cf4c339fb80c4669",
        "CIFAR-10",
        DDPM_32,
    ),
    _pesser(
        "ema_cifar10",
        "ema_diffusion_cifar10_model/model-790000.ckpt",
        "2e4f01e2d9ee49bab1d5",
        "1fa350b952534ae442b1d5235cce5cd3",
        "CIFAR-10",
        DDPM_32,
    ),
    _pesser(
        "lsun_bedroom",
        "diffusion_lsun_bedroom_model/model-2388000.ckpt",
        "f179d4f21ebc4d43bbfe",
        "f70280ac0e08b8e696f42cb8e948ff1c",
        "LSUN bedroom",
        DDPM_256,
    ),
    _pesser(
        "ema_lsun_bedroom",
        "ema_diffusion_lsun_bedroom_model/model-2388000.ckpt",
        "b95206528f384185889b",
        "1921fa46b66a3665e450e42f36c2720f",
        "LSUN bedroom",
        DDPM_256,
    ),
    _pesser(
        "lsun_cat",
        "diffusion_lsun_cat_model/model-1761000.ckpt",
        "fac870bd988348eab88e",
        "bbee0e7c3d7abfb6e2539eaf2fb9987b",
        "LSUN cat",
        DDPM_256,
    ),
    _pesser(
        "ema_lsun_cat",
        "ema_diffusion_lsun_cat_model/model-1761000.ckpt",
        "0701aac3aa69457bbe34",
        "646f23f4821f2459b8bafc57fd824558",
        "LSUN cat",
        DDPM_256,
    ),
    _pesser(
        "lsun_church",
        "diffusion_lsun_church_model/model-4432000.ckpt",
        "2711a6f712e34b06b9d8",
        "eb619b8a5ab95ef80f94ce8a5488dae3",
        "LSUN church",
        DDPM_256,
    ),
    _pesser(
        "ema_lsun_church",
        "ema_diffusion_lsun_church_model/model-4432000.ckpt",
        "44ccb50ef3c6436db52e",
        "fdc68a23938c2397caba4a260bc2445f",
        "LSUN church",
        DDPM_256,
    ),
    CheckpointCard(
        name="ddim-celeba64",
        family="pesser",
        origin="https://github.com/ermongroup/ddim",
        dataset="CelebA",
        files=(RemoteFile("celeba/ckpt.pth"),),
        config=DDPM_64.config,
        parameters=DDPM_64.parameters,
        averaged=True,
    ),
    CheckpointCard(
        name="pytorch-ddpm-cifar10",
        family="pytorch_ddpm",
        origin="https://github.com/w86763777/pytorch-ddpm",
        dataset="CIFAR-10",
        files=(RemoteFile("DDPM_CIFAR10_EPS/ckpt.pt"),),
        config={
            "T": 1000,
            "ch": 128,
            "ch_mult": (1, 2, 2, 2),
            "attn": (1,),
            "num_res_blocks": 2,
            "dropout": 0.1,
            "image_size": 32,
        },
        parameters=35_746_307,
        averaged=True,
    ),
    _openai("cifar10_uncond_50M_500K.pt", "march-2021", "CIFAR-10", IMPROVED_32, 4000, True, "cosine"),
    _openai("cifar10_uncond_vlb_50M_500K.pt", "march-2021", "CIFAR-10", IMPROVED_32, 4000, True, "cosine"),
    _openai("imagenet64_uncond_100M_1500K.pt", "march-2021", "ImageNet", IMPROVED_64, 4000, True, "cosine"),
    _openai(
        "imagenet64_uncond_vlb_100M_1500K.pt", "march-2021", "ImageNet", IMPROVED_64, 4000, True, "cosine"
    ),
    _openai("lsun_uncond_100M_1200K_bs128.pt", "march-2021", "LSUN bedroom", IMPROVED_256),
    _openai("lsun_uncond_100M_2400K_bs64.pt", "march-2021", "LSUN bedroom", IMPROVED_256),
    _openai("64x64_diffusion.pt", "jul-2021", "ImageNet", GUIDED_64, schedule="cosine"),
    _openai("256x256_diffusion_uncond.pt", "jul-2021", "ImageNet", GUIDED_256),
    _openai("lsun_bedroom.pt", "jul-2021", "LSUN bedroom", GUIDED_256),
    _openai("lsun_cat.pt", "jul-2021", "LSUN cat", GUIDED_256),
    _openai("lsun_horse.pt", "jul-2021", "LSUN horse", GUIDED_256),
    _openai("lsun_horse_nodropout.pt", "jul-2021", "LSUN horse", GUIDED_256_NO_DROPOUT),
)


def all_cards() -> tuple[CheckpointCard, ...]:
    """Return every card, by name."""
    return tuple(sorted(CARDS, key=lambda card: card.name))


def get_checkpoint_card(name: str) -> CheckpointCard:
    """Return the card called ``name``, with or without ``hub:``.

    Raises:
        UnknownNameError: if there is none; the message offers the nearest names.
    """
    wanted = name.removeprefix("hub:")
    for card in CARDS:
        if card.name == wanted:
            return card
    raise UnknownNameError("checkpoint", wanted, (card.name for card in CARDS))
