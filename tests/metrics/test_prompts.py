"""CLIP score and prompt retrieval against transformers' own logits, with a tiny random network."""

import pytest
import torch

from bench.errors import UsageError
from bench.metrics.groups import GroupedStatistics
from bench.metrics.prompts import FOLDER, PROMPTS, PromptScore, bench_metrics
from bench.metrics.space import get_space
from bench.sweep.references import no_reference

TEXTS = ["ab", "ba b", "aab", "b"]


@pytest.fixture
def told(monkeypatch, tmp_path):
    """A folder with a CLIP model of random weights and a file of prompts, both named as a user names them."""
    transformers = pytest.importorskip("transformers")
    letters = "ab"
    vocabulary = {token: i for i, token in enumerate([*letters, *(f"{c}</w>" for c in letters)])}
    vocabulary |= {"<|startoftext|>": len(vocabulary), "<|endoftext|>": len(vocabulary) + 1}
    tokenizer = transformers.CLIPTokenizer(vocab=vocabulary, merges=[], model_max_length=8)
    small = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    text = {**small, "vocab_size": len(vocabulary), "max_position_embeddings": 8, "eos_token_id": 5}
    vision = {**small, "image_size": 12, "patch_size": 4}
    torch.manual_seed(0)
    network = transformers.CLIPModel(
        transformers.CLIPConfig(text_config=text, vision_config=vision, projection_dim=8)
    ).eval()
    network.requires_grad_(False)
    network.save_pretrained(tmp_path / "clip", safe_serialization=True)
    tokenizer.save_pretrained(tmp_path / "clip")
    (tmp_path / "prompts.txt").write_text("\n".join(TEXTS) + "\n")
    monkeypatch.setenv(FOLDER, str(tmp_path / "clip"))
    monkeypatch.setenv(PROMPTS, str(tmp_path / "prompts.txt"))
    return network, tokenizer


def test_scores_are_those_of_the_network_s_own_logits(told):
    network, tokenizer = told
    space = get_space("clip_prompts", (3, 12, 12))
    images = torch.randint(0, 256, (40, 3, 12, 12), dtype=torch.uint8, generator=torch.manual_seed(1))
    labels = torch.arange(40) % 4
    mean = torch.tensor([0.48145466, 0.4578275, 0.40821073])[:, None, None]
    sd = torch.tensor([0.26862954, 0.26130258, 0.27577711])[:, None, None]
    tokens = tokenizer(TEXTS, padding=True, return_tensors="pt")
    with torch.no_grad():
        logits = network(pixel_values=(images / 255 - mean) / sd, **tokens).logits_per_image
    cosines = logits / network.logit_scale.exp()
    own = cosines[torch.arange(40), labels]
    features = space(images, labels)
    assert features[:, 0] == pytest.approx(own.clamp_min(0).numpy(), abs=1e-6)
    assert features[:, 1].tolist() == (cosines.argmax(1) == labels).float().tolist()

    sample = GroupedStatistics(n=40, dim=2)
    sample.add(features, range(40))
    scores = {metric.name: metric.score(sample, no_reference(space)) for metric in bench_metrics()}
    assert scores["clip_score"].value == pytest.approx(100 * float(own.clamp_min(0).mean()), rel=1e-5)
    assert scores["clip_retrieval"].value == float((cosines.argmax(1) == labels).float().mean())
    assert scores["clip_score"].se == pytest.approx(
        100 * float(own.clamp_min(0).std()) / 40**0.5, rel=0.5
    )  # of twenty groups


def test_other_images_are_resized_and_another_file_is_another_space(told, monkeypatch, tmp_path):
    space = get_space("clip_prompts", (1, 30, 20))
    gray = torch.full((2, 1, 30, 20), 128, dtype=torch.uint8)
    colours = gray.expand(-1, 3, -1, -1)[:, :, :12, :12]
    labels = torch.tensor([0, 3])
    assert space(gray, labels) == pytest.approx(space(colours, labels).numpy(), abs=1e-6)
    (tmp_path / "others.txt").write_text("b\na\n")
    monkeypatch.setenv(PROMPTS, str(tmp_path / "others.txt"))
    other = get_space("clip_prompts", (1, 30, 20))
    assert other.fingerprint != space.fingerprint
    with pytest.raises(UsageError, match=r"label 3 has no prompt in SAMPLER_BENCH_PROMPTS, which holds 2"):
        other(gray, labels)
    with pytest.raises(UsageError, match="takes the labels"):
        other(gray)


def test_what_is_missing_is_one_sentence(monkeypatch, tmp_path):
    monkeypatch.delenv(FOLDER, raising=False)
    with pytest.raises(UsageError, match="the scores of prompts need SAMPLER_BENCH_CLIP_SCORE: set"):
        get_space("clip_prompts", (3, 12, 12))
    monkeypatch.setenv(FOLDER, str(tmp_path))
    monkeypatch.setenv(PROMPTS, str(tmp_path / "nowhere.txt"))
    with pytest.raises(UsageError, match=r"nowhere.txt cannot be read"):
        get_space("clip_prompts", (3, 12, 12))
    (tmp_path / "nowhere.txt").write_text("\n")
    with pytest.raises(UsageError, match="holds no prompt"):
        get_space("clip_prompts", (3, 12, 12))
    pytest.importorskip("transformers")
    (tmp_path / "nowhere.txt").write_text("a\n")
    with pytest.raises(UsageError, match="holds no CLIP model that can be read"):
        get_space("clip_prompts", (3, 12, 12))
    assert [metric.name for metric in bench_metrics()] == ["clip_score", "clip_retrieval"]
    assert isinstance(next(iter(bench_metrics())), PromptScore)
