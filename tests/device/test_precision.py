"""TF32: on only where it was asked for, never within a score, whatever was set before and by which switch."""

import pytest
import torch

from bench.device.precision import _switches, allow_tf32, full_float32, own_float32
from bench.metrics import get_space

SEPARATE = hasattr(torch.backends.cuda.matmul, "fp32_precision")


def state():
    """What the old switches say; reading them fails where old and new disagree."""
    return torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32


@pytest.fixture(autouse=True)
def _as_before():
    before, switches = state(), _switches()
    values = [one.fp32_precision for one in switches]
    yield
    allow_tf32(*before)
    for one, value in zip(switches, values, strict=True):
        one.fp32_precision = value


@pytest.mark.parametrize("allowed", [(True, True), (False, False), (False, True), (True, False)])
def test_nothing_is_tf32_within_and_all_is_as_before_afterwards(allowed):
    for _ in range(2):
        allow_tf32(*allowed)
        torch.backends.cudnn.benchmark = True
        with full_float32():
            assert state() == (False, False)
            assert not torch.backends.cudnn.benchmark
            assert torch.get_float32_matmul_precision() == "highest"
            if SEPARATE:
                assert torch.backends.cudnn.conv.fp32_precision == "ieee"
                assert torch.backends.cuda.matmul.fp32_precision == "ieee"
        assert state() == allowed
        assert torch.backends.cudnn.benchmark
        torch.backends.cudnn.benchmark = False


def test_trials_of_either_precision_can_follow_one_another():
    """Torch refuses to tell its precision where its switches were set in unlike ways."""
    for allowed in (True, False, True, False):
        allow_tf32(allowed)
        with full_float32():
            pass
        assert torch.get_float32_matmul_precision() == ("high" if allowed else "highest")


@pytest.mark.skipif(not SEPARATE, reason="torch before 2.9 has no switch for all backends")
def test_a_switch_for_all_backends_does_not_reach_a_score():
    before = torch.backends.fp32_precision
    try:
        torch.backends.fp32_precision = "tf32"
        with full_float32():
            assert torch.backends.cudnn.conv.fp32_precision == "ieee"
            assert torch.backends.cuda.matmul.fp32_precision == "ieee"
    finally:
        torch.backends.fp32_precision = before


@pytest.mark.parametrize("trial", [True, False])
@pytest.mark.parametrize("caller", ["highest", "high", "medium"])
def test_what_the_caller_set_counts_for_nothing_within_and_is_as_before_afterwards(caller, trial):
    """A CPU rounds the factors of products to bfloat16 where they may be of medium precision."""
    try:
        torch.set_float32_matmul_precision(caller)
        before = [state(), [one.fp32_precision for one in _switches()]]
        with own_float32():
            allow_tf32(trial)
            assert torch.get_float32_matmul_precision() == ("high" if trial else "highest")
            if SEPARATE:
                assert torch.backends.mkldnn.matmul.fp32_precision == "ieee"
        assert [state(), [one.fp32_precision for one in _switches()]] == before
        assert torch.get_float32_matmul_precision() == caller
    finally:
        torch.set_float32_matmul_precision("highest")


def test_an_exception_restores_what_was_allowed():
    allow_tf32(True)
    with pytest.raises(ZeroDivisionError), full_float32():
        1 / 0
    assert state() == (True, True)


def test_digit_features_are_float32_while_the_network_may_use_tf32(monkeypatch):
    space = get_space("digits", (1, 12, 12))
    seen = []
    features = space.classifier.features
    monkeypatch.setattr(space.classifier, "features", lambda x: seen.append(state()) or features(x))
    allow_tf32(True)
    space(torch.zeros(2, 1, 12, 12, dtype=torch.uint8))
    assert seen == [(False, False)]
