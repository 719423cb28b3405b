"""Label accuracy: how many samples show what they were asked to show."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from bench.errors import UsageError
from bench.hooks import hookimpl
from bench.metrics.digits import IMAGE_SHAPE, DigitsFeatures
from bench.metrics.groups import GroupedStatistics, Needs
from bench.metrics.metric import Metric, score_without_reference
from bench.metrics.reference import Reference
from bench.metrics.space import Shape, fingerprint
from bench.stats.score import Score


class RecognisedDigits:
    """(uint8 images (B, 1, 12, 12), labels (B,)) -> (B, 1): 1 where the classifier sees the digit, else 0.

    Attributes:
        labelled: True: the space takes the labels that its samples were drawn for.
    """

    name = "digits_recognised"
    dim = 1
    labelled = True

    def __init__(self, digits: DigitsFeatures) -> None:
        self.digits = digits
        self.fingerprint = fingerprint(self.name, classifier=digits.fingerprint, answer="argmax")

    def __call__(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        """Say of every image whether its label is what the shipped classifier recognises.

        Raises:
            UsageError: without labels, or with one that is no digit: nobody asked for anything then.
        """
        if labels is None:
            raise UsageError("feature space digits_recognised takes the labels of its samples beside them")
        if bool(((labels < 0) | (labels > 9)).any()):
            raise UsageError(
                f"label {int(labels.max())} asks for no digit, and label accuracy is of samples that were"
                " asked for one: choose another label rule, or leave it out of --metrics"
            )
        seen = self.digits.logits(images).argmax(1)
        return (seen == labels.to(seen.device)).float().unsqueeze(1)

    def to(self, device: torch.device | str) -> RecognisedDigits:
        """Move the classifier to ``device`` and return the space itself."""
        self.digits.to(device)
        return self


def recognised_space(name: str, shape: Shape) -> RecognisedDigits:
    """Make the space for images of ``shape``, which must be (1, 12, 12)."""
    if tuple(shape) != IMAGE_SHAPE:
        raise UsageError(
            f"feature space {name} is for images of shape {IMAGE_SHAPE}, not {tuple(shape)}: leave"
            " label_accuracy_digits out of --metrics"
        )
    return RecognisedDigits(DigitsFeatures())


@dataclass(frozen=True)
class LabelAccuracy:
    """Share of the samples whose asked label a classifier recognises; the mean of the space's one feature.

    For conditional models: guidance raises it while recall falls. No reference enters.

    Source: the classification accuracy score's idea, Ravuri & Vinyals 2019, arXiv:1905.10887, with the
    classifier trained on real images and asked about samples.

    Attributes:
        name: column name.
        space: name of the feature space, which takes labels.
    """

    name: str = "label_accuracy_digits"
    space: str = "digits_recognised"
    needs: Needs = "moments"
    higher_is_better: bool = True
    uses_reference: bool = False

    def score(self, sample: GroupedStatistics, reference: Reference) -> Score:
        """Return the share with its jackknife error; UsageError for no samples."""
        return score_without_reference(self, sample, reference, lambda moments: float(moments.mean[0]))


@hookimpl
def bench_metrics() -> Iterable[Metric]:
    """Offer ``label_accuracy_digits``."""
    return [LabelAccuracy()]
