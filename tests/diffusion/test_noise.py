"""The counter-based noise: known answers, independence of batches, and the law it should have."""

import multiprocessing
import os

import numpy as np
import pytest
import torch
from scipy import stats

from bench import normal_noise
from bench.diffusion.noise import _normals_numpy, _normals_torch, philox_numpy, philox_torch

ONES = 2**64 - 1
# Philox4x64-10 of Random123's file kat_vectors: key, counter, answer.
KNOWN = [
    (
        (0, 0),
        (0, 0, 0, 0),
        (0x16554D9ECA36314C, 0xDB20FE9D672D0FDC, 0xD7E772CEE186176B, 0x7E68B68AEC7BA23B),
    ),
    (
        (ONES, ONES),
        (ONES, ONES, ONES, ONES),
        (0x87B092C3013FE90B, 0x438C3C67BE8D0224, 0x9CC7D7C69CD777B6, 0xA09CAEBF594F0BA0),
    ),
    (
        (0x452821E638D01377, 0xBE5466CF34E90C6C),
        (0x243F6A8885A308D3, 0x13198A2E03707344, 0xA4093822299F31D0, 0x082EFA98EC4E6C89),
        (0xA528F45403E61D95, 0x38C72DBD566E9788, 0xA5A1610E72FD18B5, 0x57BD43B5E52B7FE6),
    ),
]


@pytest.mark.parametrize(("key", "counter", "answer"), KNOWN)
def test_philox_gives_the_known_answers(key, counter, answer):
    assert tuple(int(word) for word in philox_numpy(key, counter, 1)) == answer
    words = philox_torch(key, counter, 1, torch.device("cpu"))
    assert tuple(int(word) % 2**64 for word in words[0]) == answer


def test_both_generators_count_alike():
    words = philox_numpy((7, 3), (5, 6, 7, 8), 1000)
    same = philox_torch((7, 3), (5, 6, 7, 8), 1000, torch.device("cpu")).numpy().reshape(-1).view(np.uint64)
    assert np.array_equal(words, same)


def test_a_gpu_s_arithmetic_gives_the_same_numbers_up_to_rounding():
    cpu, gpu = torch.empty(2, 100, 400)
    _normals_numpy(3, range(7, 107), 50, 5, 0, cpu)
    _normals_torch(3, range(7, 107), 50, 5, 0, gpu)
    assert torch.allclose(cpu, gpu, rtol=0, atol=2e-6)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_noise_on_a_gpu_is_that_of_the_cpu():
    cpu = normal_noise(1, range(64), 3, (3, 32, 32))
    gpu = normal_noise(1, range(64), 3, (3, 32, 32), device="cuda").cpu()
    assert torch.allclose(cpu, gpu, rtol=0, atol=4e-6)


def _forked():
    """Return what a process that is forked off gets for noise that is made in several threads."""
    made, told = multiprocessing.get_context("fork").Pipe()
    process = multiprocessing.get_context("fork").Process(
        target=lambda: told.send(normal_noise(1, range(64), 3, (3, 32, 32)).numpy().sum())
    )
    process.start()
    answered = made.poll(30)
    process.kill()
    return made.recv() if answered else None


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("indices", [range(64), range(5, 200, 3), [9, 8, 7, 40, 41, 42, 43]])
def test_noise_does_not_depend_on_the_number_of_threads(threads, indices):
    shape = (3, 32, 33)
    alone = torch.cat([normal_noise(4, [index], 2, shape) for index in indices])
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        assert torch.equal(normal_noise(4, indices, 2, shape), alone)
    finally:
        torch.set_num_threads(before)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_noise_is_made_in_a_process_that_was_forked_off():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        here = normal_noise(1, range(64), 3, (3, 32, 32)).numpy().sum()
        assert _forked() == here
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("shape", [(1, 12, 12), (3, 5, 7), (1, 1, 1), (2,)])
def test_noise_does_not_depend_on_the_batch(shape):
    together = normal_noise(3, range(100), 5, shape)
    assert together.shape == (100, *shape)
    for size in (1, 3, 7, 64):
        parts = [normal_noise(3, range(i, min(100, i + size)), 5, shape) for i in range(0, 100, size)]
        assert torch.equal(torch.cat(parts), together)
    shuffled = [17, 3, 4, 5, 99, 0]
    assert torch.equal(normal_noise(3, shuffled, 5, shape), together[shuffled])


def test_the_numbers_are_what_the_docstring_says():
    counters = 2  # 11 numbers a sample
    words = [int(w) for w in philox_numpy((9, 0), (5 * counters, 4, 3, 0), counters)]
    integers = [half for word in words for half in (word & 0xFFFFFFFF, word >> 32)]
    us, ws = integers[:8], integers[8:]
    radii = [np.sqrt(-2 * np.log((u + 1) / 2**32)) for u in us]
    angles = [2 * np.pi * w / 2**32 for w in ws]
    cosines = [r * np.cos(a) for r, a in zip(radii, angles, strict=True)]
    sines = [r * np.sin(a) for r, a in zip(radii, angles, strict=True)]
    got = normal_noise(9, [5], 4, (11,), draw=3)[0]
    assert np.allclose(got.numpy(), (cosines + sines)[:11], rtol=0, atol=2e-6)


def test_every_argument_gives_other_noise():
    def draw(seed=0, first=0, step=0, which=0):
        return normal_noise(seed, range(first, first + 4), step, (1, 8, 8), draw=which).flatten()

    draws = [draw(), draw(seed=1), draw(first=4), draw(step=1), draw(which=1), draw(step=2**40)]
    correlation = torch.corrcoef(torch.stack(draws)) - torch.eye(len(draws))
    assert correlation.abs().max() < 0.3
    assert all(not torch.equal(draws[0], other) for other in draws[1:])


def test_noise_is_standard_normal():
    flat = normal_noise(11, range(500), 2, (3, 16, 16)).double().flatten().numpy()
    assert stats.kstest(flat, "norm").pvalue > 1e-3
    assert abs(flat.mean()) < 4 / np.sqrt(flat.size)
    assert abs((flat**2).mean() - 1) < 4 * np.sqrt(2 / flat.size)
    assert abs((flat**4).mean() - 3) < 4 * np.sqrt(96 / flat.size)
    pairs = flat.reshape(500, 2, -1).swapaxes(1, 2).reshape(-1, 2)  # cosine and sine of one angle
    assert abs((pairs[:, 0] * pairs[:, 1]).mean()) < 4 / np.sqrt(len(pairs))
    assert np.isfinite(flat).all()


@pytest.mark.parametrize("bad", [{"seed": -1}, {"step": -1}, {"draw": -1}, {"indices": [-1]}])
def test_negative_arguments_are_refused(bad):
    arguments = {"seed": 0, "indices": [0], "step": 0, "shape": (1,), **bad}
    with pytest.raises(ValueError, match="negative"):
        normal_noise(**arguments)


def test_no_samples_is_no_noise():
    assert normal_noise(0, [], 0, (3, 4)).shape == (0, 3, 4)
