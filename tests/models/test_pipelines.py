"""Tiny random pipelines of an installed diffusers: what they draw is what we draw, images included."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from support.commands import bench as run_bench

import bench
from bench.data.images import from_uint8
from bench.diffusion.conditions import bound
from bench.diffusion.stages import image_shape, images_of
from models.errors import CheckpointError
from models.pipelines import load_pipeline

diffusers = pytest.importorskip("diffusers")
transformers = pytest.importorskip("transformers")

STEPS = 5
BLOCKS = {
    "block_out_channels": (32, 64),
    "layers_per_block": 1,
    "down_block_types": ("DownBlock2D", "AttnDownBlock2D"),
    "up_block_types": ("AttnUpBlock2D", "UpBlock2D"),
    "norm_num_groups": 16,
}


def shaken(network: Any, size: float = 0.05) -> Any:
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(size * torch.randn_like(parameter))
    return network.eval()


def scheduler(**options: Any) -> Any:
    """DDIM on S equal parts of the time, ending at x_0, without a clip: what ours does."""
    return diffusers.DDIMScheduler(clip_sample=False, set_alpha_to_one=True, **options)


def unet(**options: Any) -> Any:
    return shaken(diffusers.UNet2DModel(sample_size=8, **BLOCKS, **options))


def autoencoder() -> Any:
    made = diffusers.AutoencoderKL(
        block_out_channels=(32, 32),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        latent_channels=4,
        norm_num_groups=16,
        sample_size=16,
        scaling_factor=0.5,
    )
    return shaken(made)


def tokenizer(folder: Path) -> Any:
    letters = "abcdefghijklmnopqrstuvwxyz"
    vocab = {token: i for i, token in enumerate([*letters, *(f"{c}</w>" for c in letters)])}
    vocab |= {"<|startoftext|>": len(vocab), "<|endoftext|>": len(vocab) + 1}
    made = transformers.CLIPTokenizer(vocab=vocab, merges=[], model_max_length=7)
    made.save_pretrained(folder)
    return made, len(vocab)


def text_pipeline(folder: Path, **scheduled: Any) -> Any:
    tokens, size = tokenizer(folder / "made")
    torch.manual_seed(0)
    encoder = transformers.CLIPTextModel(
        transformers.CLIPTextConfig(
            vocab_size=size,
            hidden_size=32,
            intermediate_size=37,
            num_hidden_layers=2,
            num_attention_heads=4,
            max_position_embeddings=7,
            bos_token_id=size - 2,
            eos_token_id=size - 1,
        )
    )
    network = diffusers.UNet2DConditionModel(
        sample_size=8,
        in_channels=4,
        out_channels=4,
        cross_attention_dim=32,
        attention_head_dim=8,
        block_out_channels=(32, 64),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        norm_num_groups=16,
    )
    return diffusers.StableDiffusionPipeline(
        vae=autoencoder(),
        text_encoder=encoder.eval(),
        tokenizer=tokens,
        unet=shaken(network),
        scheduler=scheduler(**scheduled),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def drawn(model: Any, x: torch.Tensor, offset: int = 0) -> torch.Tensor:
    """Our DDIM on the grid that diffusers' takes: 0, 200, 400, 600, 800, moved by ``steps_offset``."""
    model = bound(model, range(len(x)), 0)
    grid = bench.make_grid(model.schedule, spacing=[200 * k + offset for k in range(STEPS)])
    with torch.no_grad():
        x0 = bench.sample(model, bench.get_sampler("ddim"), grid, x, lambda index, draw=0: x)
        return images_of(model, x0)


def gap(ours: torch.Tensor, theirs: np.ndarray[Any, Any]) -> float:
    """Greatest difference of images in [0, 1]."""
    shown = (ours / 2 + 0.5).clamp(0, 1).permute(0, 2, 3, 1).numpy()
    return float(np.abs(shown - theirs).max())


def start(*shape: int) -> torch.Tensor:
    return torch.randn(2, *shape, generator=torch.Generator().manual_seed(5))


def their_images(pipeline: Any, x: torch.Tensor, **arguments: Any) -> Any:
    pipeline.set_progress_bar_config(disable=True)
    return pipeline(num_inference_steps=STEPS, output_type="np", **arguments)


def begin_with(monkeypatch: pytest.MonkeyPatch, kind: Any, x: torch.Tensor) -> None:
    """Let a pipeline start from x: it draws x_T itself, so that the draw is what is replaced."""
    monkeypatch.setattr(f"{kind.__module__}.randn_tensor", lambda *args, **kwargs: x.clone())


@pytest.mark.parametrize("said", ["epsilon", "v_prediction", "sample"])
def test_an_unconditional_pipeline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: str) -> None:
    pipeline = diffusers.DDIMPipeline(unet(), scheduler(prediction_type=said))
    pipeline.save_pretrained(tmp_path)
    x = start(3, 8, 8)
    begin_with(monkeypatch, diffusers.DDIMPipeline, x)
    theirs = their_images(pipeline, x, batch_size=2, use_clipped_model_output=False).images
    assert gap(drawn(load_pipeline(f"diffusers:{tmp_path}"), x), theirs) < 1e-5


def test_an_unconditional_latent_pipeline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    decoder = shaken(
        diffusers.VQModel(
            block_out_channels=(32, 32),
            down_block_types=("DownEncoderBlock2D",) * 2,
            up_block_types=("UpDecoderBlock2D",) * 2,
            latent_channels=3,
            norm_num_groups=16,
            num_vq_embeddings=64,
            scaling_factor=0.7,
        )
    )
    pipeline = diffusers.LDMPipeline(decoder, unet(), scheduler())
    pipeline.save_pretrained(tmp_path)
    x = start(3, 8, 8)
    begin_with(monkeypatch, diffusers.LDMPipeline, x)
    theirs = their_images(pipeline, x, batch_size=2).images
    model = load_pipeline(f"diffusers:{tmp_path}")
    assert (model.shape, image_shape(model)) == ((3, 8, 8), (3, 16, 16))
    assert gap(drawn(model, x), theirs) < 1e-5


@pytest.mark.parametrize("guidance", [1.0, 4.0])
def test_a_class_conditional_transformer(tmp_path: Path, guidance: float) -> None:
    network = shaken(
        diffusers.DiTTransformer2DModel(
            num_attention_heads=4,
            attention_head_dim=8,
            in_channels=4,
            out_channels=4,
            num_layers=2,
            sample_size=8,
            num_embeds_ada_norm=10,
        )
    )
    pipeline = diffusers.DiTPipeline(
        network, autoencoder(), scheduler(), id2label={i: f"class {i}" for i in range(10)}
    )
    pipeline.save_pretrained(tmp_path)
    model = load_pipeline(f"diffusers:{tmp_path}:guidance={guidance:g},label=balanced")
    assert model.at(range(2), 0).model.labels.tolist() == [0, 1]
    x = start(4, 8, 8)
    ours = drawn(model, x)
    # Its own call is fixed to 1000 classes; the same arithmetic on its parts.
    schedule = pipeline.scheduler
    schedule.set_timesteps(STEPS)
    z = x
    with torch.no_grad():
        for t in schedule.timesteps:
            with_label = network(z, t.expand(2), torch.tensor([0, 1])).sample
            without = network(z, t.expand(2), torch.tensor([10, 10])).sample
            z = schedule.step(without + guidance * (with_label - without), t, z).prev_sample
        theirs = pipeline.vae.decode(z / pipeline.vae.config.scaling_factor).sample
    assert gap(ours, (theirs / 2 + 0.5).clamp(0, 1).permute(0, 2, 3, 1).numpy()) < 1e-5


@pytest.mark.parametrize("guidance", [1.0, 7.5])
@pytest.mark.parametrize("said", ["epsilon", "v_prediction"])
def test_text_to_image(tmp_path: Path, guidance: float, said: str) -> None:
    pipeline = text_pipeline(tmp_path, prediction_type=said)
    pipeline.save_pretrained(tmp_path / "pipe")
    prompts = ["a cat", "a dog"]
    (tmp_path / "prompts.txt").write_text("\n".join(prompts) + "\n")
    x = start(4, 8, 8)
    theirs = their_images(pipeline, x, prompt=prompts, latents=x, guidance_scale=guidance).images
    spec = f"diffusers:{tmp_path}/pipe:prompts={tmp_path}/prompts.txt,guidance={guidance:g}"
    model = load_pipeline(spec)
    assert gap(drawn(model, x, offset=1), theirs) < 2e-5  # this class of pipeline moves its steps by one
    other = load_pipeline(f"{spec},negative=blurry")
    assert other.fingerprint != model.fingerprint
    negative = their_images(
        pipeline, x, prompt=prompts, latents=x, guidance_scale=guidance, negative_prompt=["blurry"] * 2
    ).images
    assert gap(drawn(other, x, offset=1), negative) < 2e-5


def test_labels_of_a_unet(tmp_path: Path) -> None:
    network = unet(num_class_embeds=5)
    pipeline = diffusers.DDIMPipeline(network, scheduler())
    pipeline.save_pretrained(tmp_path)
    model = load_pipeline(f"diffusers:{tmp_path}:label=balanced")
    schedule, z = pipeline.scheduler, (x := start(3, 8, 8))
    schedule.set_timesteps(STEPS)
    with torch.no_grad():
        for t in schedule.timesteps:
            answer = network(z, t.expand(2), class_labels=torch.tensor([0, 1])).sample
            z = schedule.step(answer, t, z).prev_sample
    assert gap(drawn(model, x), (z / 2 + 0.5).clamp(0, 1).permute(0, 2, 3, 1).numpy()) < 1e-5
    with pytest.raises(bench.UsageError, match="knows no label for none"):
        load_pipeline(f"diffusers:{tmp_path}:guidance=2")


def edited(path: Path, **words: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **words}))


def thinned(path: Path) -> None:
    """Take half of the tensors out of a weight file."""
    state = load_file(path)
    save_file(dict(list(state.items())[::2]), path, {"format": "pt"})


@pytest.mark.parametrize("part", ["unet", "vae", "text_encoder"])
def test_weights_that_are_missing_are_not_filled_at_random(tmp_path: Path, part: str) -> None:
    text_pipeline(tmp_path).save_pretrained(tmp_path / "pipe")
    (tmp_path / "prompts.txt").write_text("a cat\n")
    thinned(next((tmp_path / "pipe" / part).glob("*.safetensors")))
    with pytest.raises(CheckpointError, match=f"{part} lacks"):
        load_pipeline(f"diffusers:{tmp_path}/pipe:prompts={tmp_path}/prompts.txt")


def test_the_decoder_s_configuration_is_in_the_fingerprint(tmp_path: Path) -> None:
    text_pipeline(tmp_path).save_pretrained(tmp_path / "pipe")
    (tmp_path / "prompts.txt").write_text("a cat\n")
    spec = f"diffusers:{tmp_path}/pipe:prompts={tmp_path}/prompts.txt"
    before = load_pipeline(spec).fingerprint
    edited(tmp_path / "pipe" / "vae" / "config.json", act_fn="relu")
    assert load_pipeline(spec).fingerprint != before


@pytest.mark.parametrize(
    ("file", "words", "said"),
    [
        ("text_encoder/config.json", {"use_attention_mask": True}, "use_attention_mask"),
        ("vae/config.json", {"latents_mean": [0.0] * 4}, "latents_mean"),
        ("unet/config.json", {"time_cond_proj_dim": 8}, "time_cond_proj_dim|lacks"),
    ],
)
def test_what_changes_the_numbers_is_refused(
    tmp_path: Path, file: str, words: dict[str, Any], said: str
) -> None:
    text_pipeline(tmp_path).save_pretrained(tmp_path / "pipe")
    (tmp_path / "prompts.txt").write_text("a cat\n")
    edited(tmp_path / "pipe" / file, **words)
    with pytest.raises(CheckpointError, match=said):
        load_pipeline(f"diffusers:{tmp_path}/pipe:prompts={tmp_path}/prompts.txt")


@pytest.mark.parametrize("part", ["unet", "vae", "text_encoder", "tokenizer"])
def test_a_part_that_is_not_there_is_named(tmp_path: Path, part: str) -> None:
    text_pipeline(tmp_path).save_pretrained(tmp_path / "pipe")
    (tmp_path / "prompts.txt").write_text("a cat\n")
    shutil.rmtree(tmp_path / "pipe" / part)
    with pytest.raises(CheckpointError, match=f"{part} is missing"):
        load_pipeline(f"diffusers:{tmp_path}/pipe:prompts={tmp_path}/prompts.txt")


def test_long_prompts_are_cut_off_aloud(tmp_path: Path) -> None:
    text_pipeline(tmp_path).save_pretrained(tmp_path / "pipe")
    (tmp_path / "prompts.txt").write_text("a very long prompt\n")
    with pytest.warns(UserWarning, match="the first 7 are read"):
        load_pipeline(f"diffusers:{tmp_path}/pipe:prompts={tmp_path}/prompts.txt")


def test_a_pipeline_is_swept_to_a_report(tmp_path: Path) -> None:
    text_pipeline(tmp_path).save_pretrained(tmp_path / "pipe")
    (tmp_path / "prompts.txt").write_text("a cat\na dog\na mouse\n")
    images = np.random.default_rng(0).integers(0, 256, (30, 16, 16, 3), dtype=np.uint8)
    np.savez(tmp_path / "images.npz", images=images)
    model = f"diffusers:{tmp_path}/pipe:prompts={tmp_path}/prompts.txt"
    done = run_bench(
        *("run", "--model", model, "--guidance", "1", "3", "--samplers", "ddim", "--steps", "2"),
        *("--n", "6", "--reference", tmp_path / "images.npz", "--results", tmp_path / "results"),
    )
    assert done.returncode == 0, done.stderr
    rows = bench.load_results(tmp_path / "results")
    assert sorted(rows[rows.kind == "samples"].evaluations) == [2, 4]
    assert set(rows[rows.kind == "samples"].decoder_evaluations) == {1}
    made = run_bench("report", "--results", tmp_path / "results")
    assert made.returncode == 0, made.stderr


def test_latents_of_an_image_come_back(tmp_path: Path) -> None:
    diffusers.LDMPipeline(
        shaken(
            diffusers.VQModel(
                block_out_channels=(32,), latent_channels=3, norm_num_groups=16, scaling_factor=0.5
            )
        ),
        unet(),
        scheduler(),
    ).save_pretrained(tmp_path)
    model = load_pipeline(f"diffusers:{tmp_path}")
    image = from_uint8(torch.randint(0, 256, (1, 3, 8, 8), dtype=torch.uint8))
    with torch.no_grad():
        assert model.encoder(image).shape == (1, *model.shape)


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("diffusers:{tmp}/nowhere", "there is no pipeline at"),
        ("diffusers:owner/name-that-is-not-here", "hf download owner/name-that-is-not-here"),
        ("diffusers:{tmp}/empty", "no model_index.json"),
        ("diffusers:{tmp}/plain:guidance=2", "takes no option guidance; known: none"),
        ("diffusers:{tmp}/text", "give prompts=FILE"),
        ("diffusers:{tmp}/text:prompts={tmp}/none.txt", "cannot be read"),
        ("diffusers:{tmp}/text:prompts={tmp}/blank.txt", "holds none"),
        ("diffusers:{tmp}/text:prompts={tmp}/one.txt,style=oil", "takes no option style"),
    ],
)
def test_what_cannot_be_is_a_sentence(tmp_path_factory: Any, spec: str, words: str) -> None:
    folder = tmp_path_factory.getbasetemp() / "pipes"
    if not folder.exists():
        (folder / "empty").mkdir(parents=True)
        (folder / "blank.txt").write_text("\n\n")
        (folder / "one.txt").write_text("a cat\n")
        diffusers.DDIMPipeline(unet(), scheduler()).save_pretrained(folder / "plain")
        text_pipeline(folder).save_pretrained(folder / "text")
    with pytest.raises(CheckpointError) as caught:
        load_pipeline(spec.format(tmp=folder))
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
