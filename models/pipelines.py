"""Pipelines of diffusers as models: their networks, decoders and text encoders; the sampling is ours.

``--model diffusers:PATH_OR_HUB_ID``, with options after a colon. Only the parts are used: the network with
what its scheduler's configuration says of the diffusion, the decoder of a latent pipeline, and for text the
tokenizer and encoder, which are run once on the prompts of a file and dropped. Nothing is downloaded.
"""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bench import ConditionalModel, ContinuousSchedule, EpsilonModel, decoded
from bench.diffusion.conditions import OPTIONS
from bench.files.tensors import tensor_bytes
from bench.spec import parse_options, split_spec
from models.epsilon import EpsilonNetwork, LabelledNetwork
from models.errors import CheckpointError
from models.families.diffusers import VARIANCES
from models.families.scheduler import read_scheduler

PIPELINE = "diffusers:"
"""What such a ``--model`` begins with."""

NETWORKS = ("UNet2DModel", "UNet2DConditionModel", "DiTTransformer2DModel")
DECODERS = ("AutoencoderKL", "VQModel")
ENCODERS = ("CLIPTextModel",)
MORE_THAN_TEXT = (
    "addition_embed_type",
    "class_embed_type",
    "num_class_embeds",
    "encoder_hid_dim_type",
    "time_cond_proj_dim",
)
"""Words of a text-conditional network that is told something besides x_t, t and text."""

EXTRA = "pip install 'sampler-bench[hub]'"


def _told(network: Any) -> str:
    """Return a network's configuration as text."""
    return json.dumps({k: v for k, v in dict(network.config).items() if not k.startswith("_")}, default=str)


class _Plain(nn.Module):
    """A network of diffusers as (x, t) -> tensor."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def extra_repr(self) -> str:
        """Return the network's configuration: it belongs to the model's fingerprint."""
        return _told(self.inner)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        """Return its output."""
        out: Tensor = self.inner(x, t, return_dict=False)[0]
        return out


class _Labelled(_Plain):
    """A network of diffusers as (x, t, label) -> tensor."""

    def forward(self, x: Tensor, t: Tensor, label: Tensor) -> Tensor:  # type: ignore[override]
        """Return its output."""
        out: Tensor = self.inner(x, t, class_labels=label, return_dict=False)[0]
        return out


class _Prompted(_Plain):
    """A text-conditional network of diffusers; label k is the k-th prompt, the last is "none".

    Args:
        inner: the network.
        prompts: what the text encoder makes of each, (K + 1, tokens, width).
    """

    prompts: Tensor

    def __init__(self, inner: nn.Module, prompts: Tensor) -> None:
        super().__init__(inner)
        self.register_buffer("prompts", prompts)

    def forward(self, x: Tensor, t: Tensor, label: Tensor) -> Tensor:  # type: ignore[override]
        """Return its output."""
        told = self.prompts[label].to(x.dtype)
        out: Tensor = self.inner(x, t, encoder_hidden_states=told, return_dict=False)[0]
        return out


def load_pipeline(spec: str) -> EpsilonModel:
    """Return the model of ``diffusers:PATH_OR_HUB_ID``, or with ``:prompts=FILE,guidance=7.5`` behind it.

    Options: ``prompts``, a file with a prompt a line, and ``negative``, the prompt of "none", for text; and
    those of a `bench.ConditionalModel`. Sample i is drawn for prompt i mod K unless ``label`` says otherwise.

    Raises:
        CheckpointError: if it is not here, is of a kind that is not known, or lacks an option.
    """
    name, text = split_spec(spec)
    options = parse_options(text, f"model {spec!r}")
    folder = _folder(name.removeprefix(PIPELINE))
    parts = _parts(folder)
    network = _part(folder, parts, NETWORKS)
    scheduler = _json(folder / "scheduler" / "scheduler_config.json")
    schedule, predicts = read_scheduler(scheduler)
    channels, side = int(network.config.in_channels), network.config.sample_size
    if not isinstance(side, int):
        raise CheckpointError(
            f"{folder} does not say the size of its samples (sample_size), or not of squares"
        )
    outputs = int(network.config.out_channels or channels)
    variance = (
        "fixed" if outputs == channels else VARIANCES.get(scheduler.get("variance_type", ""), "learned_range")
    )
    if outputs not in (channels, 2 * channels):
        raise CheckpointError(
            f"the network of {folder} has {channels} channels in and {outputs} out: it takes more than x_t"
        )
    given = (schedule, (channels, side, side), variance, isinstance(schedule, ContinuousSchedule), predicts)
    conditions = {key: options.pop(key) for key in list(options) if key in OPTIONS}
    model: EpsilonModel
    if type(network).__name__ == "UNet2DConditionModel":
        _refuse_more(network, folder)
        texts = _texts(options, folder)
        asked = _Prompted(network, _encoded(folder, parts, texts))
        labelled = LabelledNetwork(asked, *given, classes=len(texts) - 1, null_label=len(texts) - 1)
        model = _conditional(labelled, {"label": "balanced", **conditions})
    elif rows := _labels(network):
        none = type(network).__name__ == "DiTTransformer2DModel"
        classes = rows - 1 if none else rows
        labelled = LabelledNetwork(
            _Labelled(network), *given, classes=classes, null_label=classes if none else None
        )
        model = _conditional(labelled, conditions)
    else:
        model = EpsilonNetwork(_Plain(network), *given).eval()
        options |= conditions
    if options:
        known = (
            ", ".join((*OPTIONS, "prompts", "negative")) if isinstance(model, ConditionalModel) else "none"
        )
        raise CheckpointError(f"{folder} takes no option {next(iter(options))}; known: {known}")
    return _latent(model, folder, parts)


def _conditional(network: LabelledNetwork, options: Mapping[str, str]) -> ConditionalModel:
    model = ConditionalModel(network.eval(), fingerprint=network.fingerprint)
    return model.with_options(dict(options))


def _latent(model: EpsilonModel, folder: Path, parts: Mapping[str, str]) -> EpsilonModel:
    """Return a model with the decoder of its pipeline, where that has one."""
    if not any(kind in DECODERS for kind in parts.values()):
        return model
    autoencoder = _part(folder, parts, DECODERS).eval().requires_grad_(False)
    scale, shift = _scale(autoencoder)

    def decode(z: Tensor) -> Tensor:
        images: Tensor = autoencoder.decode(z / scale + shift, return_dict=False)[0]
        return images

    def encode(x: Tensor) -> Tensor:
        found = autoencoder.encode(x, return_dict=False)[0]
        z: Tensor = found if isinstance(found, Tensor) else found.mean
        return (z - shift) * scale

    digest = hashlib.sha256(str(getattr(model, "fingerprint", "")).encode())
    for part in tensor_bytes(sorted(autoencoder.state_dict().items())):
        digest.update(part)
    digest.update(_told(autoencoder).encode())
    return decoded(model, decode, encode, digest.hexdigest())


def _scale(autoencoder: Any) -> tuple[float, float]:
    """Return (f, s) of latents z = (E(x) - s) f.

    Raises:
        CheckpointError: if each channel has a mean and spread of its own.
    """
    config = autoencoder.config
    if config.get("latents_mean") is not None or config.get("latents_std") is not None:
        raise CheckpointError(
            "its autoencoder names a mean and spread for each channel of its latents (latents_mean), which is"
            " not known here: sample it from a file, --model FILE.py:FUNCTION"
        )
    return float(config.get("scaling_factor") or 1.0), float(config.get("shift_factor") or 0.0)


def _labels(network: Any) -> int:
    """Return the rows of a network's table of labels, 0 where it takes none."""
    if type(network).__name__ == "DiTTransformer2DModel":
        table = network.transformer_blocks[0].norm1.emb.class_embedder.embedding_table
        return int(table.num_embeddings)
    if network.config.get("class_embed_type") is not None:
        raise CheckpointError(
            f"a network with class_embed_type={network.config.class_embed_type!r} is told more than a label"
            " of a table: sample it from a file, --model FILE.py:FUNCTION"
        )
    return int(network.config.get("num_class_embeds") or 0)


def _refuse_more(network: Any, folder: Path) -> None:
    """Refuse a text-conditional network that is told more than text."""
    for word in MORE_THAN_TEXT:
        if network.config.get(word) is not None:
            raise CheckpointError(
                f"the network of {folder} is told more than text ({word}={network.config.get(word)!r}):"
                " sample it from a file, --model FILE.py:FUNCTION"
            )


def _texts(options: dict[str, str], folder: Path) -> list[str]:
    """Return the prompts of a file and, last, what "none" is."""
    if "prompts" not in options:
        raise CheckpointError(f"{folder} draws what it is told: give prompts=FILE, with a prompt a line")
    path = Path(options.pop("prompts"))
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise CheckpointError(f"prompts {path} cannot be read ({error}); give a text file") from None
    if not lines:
        raise CheckpointError(f"prompts {path} holds none; give a prompt a line")
    return [*lines, options.pop("negative", "")]


@torch.no_grad()
def _encoded(folder: Path, parts: Mapping[str, str], texts: list[str]) -> Tensor:
    """Return what the pipeline's text encoder makes of texts, (K, tokens, width); it is not kept."""
    transformers = _library("transformers")
    kind = next((kind for name, kind in parts.items() if name == "text_encoder"), "")
    if kind not in ENCODERS:
        raise CheckpointError(
            f"{folder} encodes text by {kind or 'nothing'}, and {', '.join(ENCODERS)} is known: sample it"
            " from a file, --model FILE.py:FUNCTION"
        )
    encoder = _loaded(transformers.CLIPTextModel, folder / "text_encoder").eval()
    if getattr(encoder.config, "use_attention_mask", False):
        raise CheckpointError(
            f"the text encoder of {folder} is told which tokens are padding (use_attention_mask), which is"
            " not known here: sample it from a file, --model FILE.py:FUNCTION"
        )
    if not (folder / "tokenizer").is_dir():
        raise CheckpointError(f"{folder / 'tokenizer'} is missing: get the pipeline again")
    tokenizer = transformers.CLIPTokenizer.from_pretrained(folder / "tokenizer", local_files_only=True)
    most = min(tokenizer.model_max_length, encoder.config.max_position_embeddings)
    found = []
    for text in texts:
        if (count := len(tokenizer(text).input_ids)) > most:
            warnings.warn(f"of {count} tokens of the prompt {text!r} the first {most} are read", stacklevel=2)
        tokens = tokenizer(text, padding="max_length", max_length=most, truncation=True, return_tensors="pt")
        found.append(encoder(tokens.input_ids)[0][0].float())
    return torch.stack(found)


def _folder(name: str) -> Path:
    """Return where a pipeline lies: a folder, or a snapshot in the Hub's cache; nothing is fetched."""
    path = Path(name).expanduser()
    if path.is_dir():
        return path
    if name.count("/") != 1 or path.is_absolute() or name.startswith("."):
        raise CheckpointError(f"there is no pipeline at {name}: give its folder, or OWNER/NAME of the Hub")
    hub = _library("huggingface_hub")
    try:
        return Path(hub.snapshot_download(name, local_files_only=True))
    except Exception as error:  # the library raises many kinds for what is not there
        raise CheckpointError(
            f"the pipeline {name} is not on this machine: get it with `hf download {name}`"
            f" ({type(error).__name__})"
        ) from None


def _parts(folder: Path) -> dict[str, str]:
    """Return the parts of a pipeline: folder -> class."""
    index = folder / "model_index.json"
    if not index.is_file():
        raise CheckpointError(f"{folder} is no diffusers pipeline: it has no model_index.json")
    listed = _json(index)
    return {name: str(part[1]) for name, part in listed.items() if isinstance(part, list) and len(part) == 2}


def _part(folder: Path, parts: Mapping[str, str], kinds: tuple[str, ...]) -> Any:
    """Return the one part of a pipeline whose class is among some."""
    found = [(name, kind) for name, kind in parts.items() if kind in kinds]
    if len(found) != 1:
        has = ", ".join(f"{name} ({kind})" for name, kind in parts.items())
        raise CheckpointError(
            f"{folder} has {has or 'no parts'}, and one of {', '.join(kinds)} is needed: sample it from a"
            " file, --model FILE.py:FUNCTION"
        )
    name, kind = found[0]
    return _loaded(getattr(_library("diffusers"), kind), folder / name)


def _loaded(kind: Any, folder: Path) -> Any:
    """Return a network of a library from its folder, whole: the library would fill what is missing at random.

    Raises:
        CheckpointError: if there is no such folder, it cannot be read, or its weights do not fit.
    """
    if not folder.is_dir():
        raise CheckpointError(f"{folder} is missing: get the pipeline again")
    quiet = {} if kind.__module__.startswith("transformers") else {"low_cpu_mem_usage": False}
    try:
        network, told = kind.from_pretrained(folder, local_files_only=True, output_loading_info=True, **quiet)
    except Exception as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise CheckpointError(f"{folder} cannot be loaded as {kind.__name__}: {reason}") from error
    for what in ("missing_keys", "mismatched_keys", "unexpected_keys"):
        keys = sorted(map(str, told.get(what, ())))
        if keys and not (what == "unexpected_keys" and all("position_ids" in key for key in keys)):
            verb = {"missing_keys": "lacks", "mismatched_keys": "has a misshapen"}.get(what, "has a strange")
            raise CheckpointError(f"{folder} {verb} {keys[0]} ({len(keys)} such): get it again")
    return network


def _json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"{path} is missing or damaged ({type(error).__name__}): get it again"
        ) from None
    if not isinstance(value, dict):
        raise CheckpointError(f"{path} is damaged: it is no JSON object")
    return value


def _library(name: str) -> Any:
    """Return a library of the extra, imported when it is needed."""
    try:
        return __import__(name)
    except ImportError:
        raise CheckpointError(f"pipelines need {name}: {EXTRA}") from None
