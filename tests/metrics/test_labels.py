"""Label accuracy: asked against recognised, for conditional models only."""

import torch
from support.commands import bench as run_bench

import bench
from bench.data.sets import load_images
from bench.metrics.groups import GroupedStatistics
from bench.metrics.labels import LabelAccuracy, RecognisedDigits, recognised_space
from bench.metrics.space import features_of, takes_labels
from bench.sweep.references import no_reference


def test_real_digits_are_recognised_and_wrong_labels_are_not():
    found = load_images("digits-held-out")
    images, labels = found.images[:400], found.labels[:400]
    space = recognised_space("digits_recognised", (1, 12, 12))
    assert isinstance(space, RecognisedDigits) and takes_labels(space)
    assert features_of(space, images) is None
    scores = []
    for asked in (labels, (labels + 1) % 10):
        sums = GroupedStatistics(len(images), 1)
        sums.add(features_of(space, images, labels=asked), range(len(images)))
        scores.append(LabelAccuracy().score(sums, no_reference(space)))
    right, wrong = scores
    assert right.value > 0.95 and wrong.value < 0.05
    expected = (right.value * (1 - right.value) / 400) ** 0.5
    assert 0.5 * expected < right.se < 2 * expected  # a share's binomial error
    assert right.higher_is_better


def test_guidance_raises_it(tmp_path):
    done = run_bench(
        *("run", "--model", "digits-conditional", "--guidance", "1", "3", "--samplers", "ddim"),
        *("--steps", "10", "--n", "200", "--metrics", "fd_digits,label_accuracy_digits"),
        *("--results", tmp_path / "r"),
    )
    assert done.returncode == 0, done.stderr
    rows = bench.load_results(tmp_path / "r")
    rows = rows[rows.kind == "samples"].sort_values("model")
    plain, guided = rows.label_accuracy_digits
    assert 0.6 < plain < guided
    assert torch.isfinite(torch.tensor(rows.label_accuracy_digits_se.to_numpy())).all()


def test_an_unconditional_model_is_refused_before_drawing(tmp_path):
    done = run_bench(
        *("run", "--model", "digits", "--metrics", "label_accuracy_digits", "--n", "20", "--steps", "5"),
        *("--results", tmp_path / "r"),
    )
    assert done.returncode == 2
    assert "takes none: leave it out of --metrics" in " ".join(done.stderr.split())
    assert not list((tmp_path / "r").rglob("*.json"))


PER_SAMPLE = """
import torch
import bench
from models.exact import ExactGaussian


class Prompted(ExactGaussian):
    def at(self, indices, seed):  # bound to prompts, say: there are no labels
        return ExactGaussian(self.law_mean.view(1, 12, 12), self.law_covariance)


def make():
    return Prompted(torch.zeros(1, 12, 12), 0.04 * torch.eye(144))
"""


def test_what_is_no_label_is_refused_before_drawing(tmp_path):
    """A model that is bound to something else than labels, and labels that ask for nothing."""
    (tmp_path / "mine.py").write_text(PER_SAMPLE)
    wanted = {
        f"{tmp_path / 'mine.py'}:make": "takes none: leave it out of --metrics",
        "digits-conditional:label=10": "label 10 asks for no digit",
    }
    for model, sentence in wanted.items():
        done = run_bench(
            *("run", "--model", model, "--metrics", "label_accuracy_digits", "--n", "20", "--steps", "5"),
            *("--results", tmp_path / "r", "--dry-run"),
        )
        assert done.returncode == 2
        assert sentence in " ".join(done.stderr.split())
