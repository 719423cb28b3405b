"""Labels of samples: a function of seed and index, in the shares asked for, and never sorted."""

import numpy as np
import pytest
import torch

from bench import ConditionalModel, NoiseSchedule, Prediction, UsageError
from bench.diffusion.conditions import bound, labels_of

ALL = range(20_000)


def test_a_label_is_a_function_of_the_seed_and_the_index():
    for rule in ("uniform", "data", "balanced", "3"):
        whole = labels_of(rule, range(100), 7, 10, tuple(range(1, 11)))
        parts = [labels_of(rule, part, 7, 10, tuple(range(1, 11))) for part in (range(30), range(30, 100))]
        assert torch.equal(torch.cat(parts), whole)
        assert torch.equal(labels_of(rule, [5, 2], 7, 10, tuple(range(1, 11))), whole[[5, 2]])
    assert not torch.equal(labels_of("uniform", range(100), 8, 10), labels_of("uniform", range(100), 7, 10))


def test_labels_come_in_the_shares_asked_for():
    shares = np.array([0.5, 0.3, 0.2])
    for rule, known in (("data", shares), ("uniform", np.full(3, 1 / 3))):
        found = np.bincount(labels_of(rule, ALL, 0, 3, shares).numpy(), minlength=3) / len(ALL)
        assert np.abs(found - known).max() < 4 * np.sqrt(0.25 / len(ALL))
    assert labels_of("balanced", range(7), 0, 3).tolist() == [0, 1, 2, 0, 1, 2, 0]
    assert labels_of("2", range(3), 0, 3).tolist() == [2, 2, 2]


def test_labels_are_not_sorted_over_the_jackknife_groups():
    """A group is a run of a twentieth of the indices; each must hold every class."""
    labels = labels_of("uniform", range(2000), 0, 10).view(20, 100)
    assert all(len(set(group.tolist())) == 10 for group in labels)


def test_labels_can_be_listed_in_a_file(tmp_path):
    path = tmp_path / "labels.txt"
    path.write_text("1\n0\n2\n")
    assert labels_of(str(path), range(5), 0, 3).tolist() == [1, 0, 2, 1, 0]
    path.write_text("1 4")
    with pytest.raises(UsageError, match=r"labels lie in 0 \.\. 2, or are 3 for none"):
        labels_of(str(path), range(5), 0, 3)
    with pytest.raises(UsageError, match="did you mean uniform"):
        labels_of("unifrom", range(5), 0, 3)


class Net:
    """Says its label."""

    schedule, shape, variance, prediction, classes = NoiseSchedule.linear(), (1, 1, 1), "fixed", "eps", 4

    def __call__(self, x, t, label):
        return Prediction(label.view(-1, 1, 1, 1) + 0 * x)


def test_a_conditional_model_is_bound_to_its_samples():
    model = ConditionalModel(Net(), label="balanced")
    x, t = torch.zeros(3, 1, 1, 1), torch.zeros(3, dtype=torch.int64)
    assert bound(model, range(2, 5), 0)(x, t).eps.view(-1).tolist() == [2, 3, 0]
    guided = model.with_options({"guidance": "2", "label": "1"})
    assert bound(guided, range(3), 0)(x, t).eps.view(-1).tolist() == [4 + 2 * (1 - 4)] * 3
    with pytest.raises(UsageError, match=r"bound to its samples first: model\.at\(indices, seed\)"):
        model(x, t)
    with pytest.raises(UsageError, match="bound to 3 labels was given 2 samples"):
        bound(model, range(3), 0)(x[:2], t[:2])
    plain = object()
    assert bound(plain, range(3), 0) is plain


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"guidence": "2"}, "did you mean guidance"),
        ({"guidance": "strong"}, "option guidance of a conditional model cannot be 'strong'"),
        ({"guidance": "-1"}, "a guidance scale must be at least 0"),
        ({"rescale": "2"}, r"a guidance rescale must lie in 0 \.\. 1"),
        ({"interval": "600-200"}, "a guidance interval must ascend"),
        ({"label": "9"}, r"labels lie in 0 \.\. 3"),
    ],
)
def test_wrong_options_are_told_before_anything_is_drawn(options, says):
    with pytest.raises(UsageError, match=says):
        ConditionalModel(Net()).with_options(options)
