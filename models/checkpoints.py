"""Loading public checkpoints, and this project's own, into the one U-Net.

The family is told by the key names; the options by the files where they say them, by the weights where they
show them, by the card of a known checkpoint, and by the caller, who has the last word.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bench import ConditionalModel, NoiseSchedule, Variance
from bench.diffusion.prediction import Predicts
from bench.files.tensors import write_tensors
from models.cards import CheckpointCard
from models.config import UNetConfig
from models.epsilon import EpsilonNetwork, LabelledNetwork
from models.errors import CheckpointError
from models.families import Family, detect_family, find_family
from models.families.base import Process, convert
from models.families.native import metadata
from models.files import Checkpoint, check_digest, first_line, read_checkpoint
from models.hub import resolve
from models.options import check_options, check_source
from models.others import is_other, load_other
from models.process import check_process, decide, steps_of
from models.spec import split_spec
from models.unet import UNet

Source = str | Path | Mapping[str, Any] | Sequence[Any]


def load_network(
    source: Source,
    config: Mapping[str, Any] | None = None,
    *,
    ema: bool | None = None,
    family: str | None = None,
    digest: str | None = None,
    folders: Sequence[str | Path] = (),
) -> UNet:
    """Return our U-Net with a public checkpoint's weights; its forward(x, t) is the family's raw output.

    Args:
        source: a diffusers folder, a .safetensors, .pt, .pth, .ckpt or .bin file, ``hub:OWNER/NAME``, the
            name of a card (`models.cards`), a state dict in the family's own key names, or what a training
            loop saved around it, read already.
        config: the family's own constructor arguments; inferred, where the weights show them, if not given.
        ema: True for averaged weights, False for raw ones, None for averaged ones where the file has both.
        family: the code base, where it is not to be told from the key names.
        digest: ``md5:...`` or ``sha256:...`` of the file.
        folders: where to look for named checkpoints first.

    Returns:
        The network on the CPU in float32 and evaluation mode.

    Raises:
        CheckpointError: if there is no such checkpoint, it is damaged, holds code, lacks weights, has others
            or misshapen ones, or needs an argument that was not given. Nothing is executed or half-loaded.
        UnknownNameError: if a name is unknown.
    """
    checkpoint, card = _open(source, config, ema, digest, folders)
    return _network(checkpoint, card, config, family)[0]


def load_checkpoint(
    source: Source,
    *,
    config: Mapping[str, Any] | None = None,
    T: int | None = None,
    schedule: NoiseSchedule | str | None = None,
    variance: Variance | None = None,
    rescale_timesteps: bool | None = None,
    image_size: int | None = None,
    ema: bool | None = None,
    family: str | None = None,
    digest: str | None = None,
    folders: Sequence[str | Path] = (),
    device: torch.device | str = "cpu",
    predicts: Predicts | None = None,
    null_label: int | None = None,
) -> EpsilonNetwork | ConditionalModel:
    """Return a public checkpoint as a noise predictor, a :class:`bench.EpsilonModel`.

    A class-conditional one becomes a :class:`bench.ConditionalModel`, which is given labels and guidance.

    What is not given is taken from the files, the card or the family's convention, in this order.

    Args:
        source: see `load_network`, as for config, ema, family, digest and folders.
        config: the family's own constructor arguments.
        T: number of time steps it was trained with.
        schedule: ``"linear"`` or ``"cosine"`` as the family has it for T, or the schedule itself.
        variance: what the second half of the output channels holds.
        rescale_timesteps: whether the network receives t 1000/T for the time step t.
        image_size: height and width of an image.
        ema: which weights.
        family: which code base.
        digest: the digest of the file.
        folders: where to look.
        device: where the network goes.
        predicts: what the network predicts: eps, x0, v or flow.
        null_label: the label that a class-conditional network was trained to take for none; without one it
            cannot be guided.

    Raises:
        CheckpointError: see `load_network`; also if the image size or the diffusion is not known, naming what
            to give.
        UnknownNameError: if a name is unknown.
    """
    check_options(T, schedule, variance, rescale_timesteps, image_size, ema)
    checkpoint, card = _open(source, config, ema, digest, folders)
    if family is None and is_other(checkpoint.state):
        unused = {"variance": variance, "rescale_timesteps": rescale_timesteps, "image_size": image_size}
        _refuse_unused(checkpoint.name, {**unused, "predicts": predicts, "null_label": null_label})
        return load_other(checkpoint, config or {}, T, schedule).to(device)
    network, stored, kind, name = _network(checkpoint, card, config, family)
    unet = network.config
    size = image_size or unet.image_size
    if predicts not in (None, "eps", "x0", "v", "flow"):
        raise CheckpointError(f"predicts must be eps, x0, v or flow, got {predicts!r}")
    process = decide(stored, kind, T, schedule, variance, rescale_timesteps, predicts)
    missing = []
    if size is None:
        missing.append("the size of an image (give image_size=32, say)")
    if process.schedule is None:
        missing.append(
            "the diffusion (give T=1000 and schedule=linear, or T=4000, schedule=cosine and"
            " rescale_timesteps=true, say)"
        )
    elif process.rescale_timesteps is None and steps_of(process.schedule) != 1000:
        missing.append(
            "whether time steps are rescaled (give rescale_timesteps=true for improved-diffusion's default)"
        )
    if process.variance is None:
        missing.append("the meaning of the doubled output channels (give variance=learned_range, say)")
    if missing:
        raise CheckpointError(f"{name} does not say {', nor '.join(missing)}")
    assert size is not None and process.schedule is not None and process.variance is not None
    if process.variance != "fixed" and unet.out_channels != 2 * unet.in_channels:
        raise CheckpointError(
            f"{name} has {unet.out_channels} output channels for {unet.in_channels} input channels, "
            f"so its variance is not {process.variance}: leave variance out"
        )
    if size % unet.divisor:
        raise CheckpointError(
            f"{name} takes images whose side is a multiple of {unet.divisor}, got image_size={size}"
        )
    check_process(name, process, predicts)
    shape = (unet.in_channels, size, size)
    given = (network, process.schedule, shape, process.variance, bool(process.rescale_timesteps))
    if not unet.classes:
        if null_label is not None:
            raise CheckpointError(f"{name} takes no labels: leave null_label out")
        model = EpsilonNetwork(*given, process.predicts).to(device).eval()
        model.averaged = checkpoint.averaged
        return model
    if null_label is not None and not 0 <= null_label < unet.classes:
        raise CheckpointError(
            f"{name} knows the labels 0 .. {unet.classes - 1}: null_label={null_label} is none"
        )
    classes = null_label if null_label == unet.classes - 1 else unet.classes
    labelled = LabelledNetwork(*given, process.predicts, classes=classes, null_label=null_label)
    labelled.averaged = checkpoint.averaged
    return ConditionalModel(labelled.to(device).eval(), fingerprint=labelled.fingerprint)


def _refuse_unused(name: str, given: Mapping[str, Any]) -> None:
    """Refuse options that an EDM network or a diffusion transformer has no use for.

    Raises:
        CheckpointError: naming them.
    """
    unused = [option for option, value in given.items() if value is not None]
    if unused:
        raise CheckpointError(
            f"{name} is an EDM network or a diffusion transformer, whose weights tell {', '.join(unused)}:"
            " leave it out"
        )


def load_spec(spec: str, **options: Any) -> EpsilonNetwork | ConditionalModel:
    """Load what the command line's ``--model`` names: ``SOURCE`` or ``SOURCE:name=value,...``.

    Args:
        spec: for example ``model.pt:T=4000,schedule=cosine,rescale_timesteps=true``; see `split_spec`.
        options: the options of `load_checkpoint`; those in ``spec`` come first.

    Raises:
        CheckpointError: see `load_checkpoint`.
        UnknownNameError: if a name is unknown.
    """
    source, given, config, conditions = split_spec(spec)
    model = load_checkpoint(source, **{**options, **({"config": config} if config else {}), **given})
    if not conditions:
        return model
    if not isinstance(model, ConditionalModel):
        raise CheckpointError(f"{source} takes no {', '.join(conditions)}: it has no labels to guide")
    return model.with_options(conditions)


def save_network(
    path: str | Path, network: UNet | Mapping[str, Tensor], process: Process, config: UNetConfig
) -> None:
    """Write weights, configuration and diffusion as one .safetensors file that `load_checkpoint` reads back.

    The file appears whole or not at all.

    Args:
        path: ending in .safetensors.
        network: the network, or its averaged state dict.
        process: schedule, variance and rescaling of time steps.
        config: the network's.
    """
    target = Path(path)
    state = network.state_dict() if isinstance(network, UNet) else network
    write_tensors(target, state, metadata(config, process))


def _open(
    source: Source,
    config: Mapping[str, Any] | None,
    ema: bool | None,
    digest: str | None,
    folders: Sequence[str | Path],
) -> tuple[Checkpoint, CheckpointCard | None]:
    card: CheckpointCard | None = None
    check_source(source, config, ema, digest)
    if isinstance(source, str | Path):
        source, card = resolve(source, folders)
        if card is not None and card.warnings:
            warnings.warn(f"{card.name}: {'; '.join(card.warnings)}", stacklevel=3)
        if digest is not None:
            check_digest(source, digest)
    return read_checkpoint(source, ema), card


def _network(
    checkpoint: Checkpoint,
    card: CheckpointCard | None,
    config: Mapping[str, Any] | None,
    family: str | None,
) -> tuple[UNet, Process, Family, str]:
    kind = find_family(family) if family else detect_family(checkpoint.state)
    unet, state, stored = _interpret(checkpoint, kind, card, config)
    return convert(kind, state, unet).eval(), stored, kind, checkpoint.name


def _interpret(
    checkpoint: Checkpoint, kind: Family, card: CheckpointCard | None, config: Mapping[str, Any] | None
) -> tuple[UNetConfig, Mapping[str, Tensor], Process]:
    carded = card.config if card and card.family == kind.name and not card.hub else {}
    given = kind.listed({**carded, **checkpoint.config, **(config or {})})
    kind.check(given)
    if open_question := kind.undecided({k: v for k, v in given.items() if not k.startswith("_")}):
        raise CheckpointError(f"{checkpoint.name} does not say {open_question}")
    try:
        inferred = kind.infer(checkpoint.state)
        merged = given if kind.complete(given) else {**inferred, **given}
        unet = kind.read(merged)
        stored = kind.process(checkpoint.state, merged, unet)
    except CheckpointError:
        raise
    except (LookupError, TypeError, ValueError, ArithmeticError) as error:
        raise CheckpointError(
            f"the configuration of {checkpoint.name} makes no {kind.name} network: {first_line(error)}"
        ) from error
    if card is not None and card.family == kind.name and not card.hub:
        stored = Process(kind.schedule(card.T, card.schedule), card.variance, card.rescale_timesteps)
    return unet, kind.modernise(checkpoint.state), stored


__all__ = [
    "EpsilonNetwork",
    "Process",
    "Source",
    "load_checkpoint",
    "load_network",
    "load_spec",
    "save_network",
]
