"""What a diffusers ``scheduler_config.json`` says of the diffusion that a network was trained for.

Every word that changes what the network's numbers mean is used or refused in a sentence. Words that choose
steps or change what a sampler does (``timestep_spacing``, ``clip_sample``, ``solver_order``...) are the
sampler's here. Classes whose levels are those of betas or of rectified flow are known by name; every other
one is refused, as its levels may be anything.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from typing import Any

import torch

from bench import ContinuousSchedule, NoiseSchedule, Schedule, zero_terminal_snr
from bench.diffusion.prediction import Predicts
from models.config import is_number, is_whole
from models.errors import CheckpointError

FLOWS = frozenset(
    {"FlowMatchEulerDiscreteScheduler", "FlowMatchHeunDiscreteScheduler", "FlowMatchLCMScheduler"}
)
"""Classes whose networks predict the velocity of rectified flow."""

OF_BETAS = frozenset(
    {"DDPMScheduler", "DDPMParallelScheduler", "DDIMScheduler", "DDIMParallelScheduler"}
    | {"DDIMInverseScheduler", "RePaintScheduler", "PNDMScheduler", "DEISMultistepScheduler"}
    | {"DPMSolverMultistepScheduler", "DPMSolverMultistepInverseScheduler", "DPMSolverSDEScheduler"}
    | {"DPMSolverSinglestepScheduler", "UniPCMultistepScheduler", "SASolverScheduler"}
    | {"EulerDiscreteScheduler", "EulerAncestralDiscreteScheduler", "HeunDiscreteScheduler"}
    | {"LMSDiscreteScheduler", "KDPM2DiscreteScheduler", "KDPM2AncestralDiscreteScheduler"}
)
"""Classes whose noise levels are those of a table of betas, unless they are told to walk a flow's."""

LATER_BETAS = frozenset(
    {"HeunDiscreteScheduler", "KDPM2DiscreteScheduler", "KDPM2AncestralDiscreteScheduler"}
    | {"DPMSolverSDEScheduler"}
)
"""Classes whose betas go from 0.00085 to 0.012 where a file leaves them out; the others' are DDPM's."""

PREDICTIONS: Mapping[str, Predicts] = {"epsilon": "eps", "sample": "x0", "v_prediction": "v"}

MOST_STEPS = 1_000_000
"""No network is trained with more time steps; a longer table is a slip of the hand and fills the memory."""

BETAS = frozenset(
    {"timesteps", "beta_start", "beta_end", "beta_schedule", "trained_betas", "variance_type"}
    | {"rescale_betas_zero_snr", "timestep_type"}
)
"""Words of a table of betas."""

SHIFTS = frozenset({"use_dynamic_shifting", "shift_terminal", "invert_sigmas", "scale_factors"})
"""Words that let a flow's times depend on something else or run backwards: refused where they are set."""

FLOW_WORDS = frozenset(
    {"shift", "flow_shift", "use_flow_sigmas", "time_shift_type", "upscale_mode", "base_shift", "max_shift"}
    | {"base_image_seq_len", "max_image_seq_len"}
    | SHIFTS
)
"""Words of rectified flow; five of them say how times are shifted by the size of the image."""

USED = BETAS | FLOW_WORDS | {"num_train_timesteps", "prediction_type"}

SAMPLERS = frozenset(
    {"clip_sample", "clip_sample_range", "thresholding", "dynamic_thresholding_ratio", "sample_max_value"}
    | {
        "timestep_spacing",
        "steps_offset",
        "set_alpha_to_one",
        "skip_prk_steps",
        "solver_order",
        "solver_type",
    }
    | {"algorithm_type", "lower_order_final", "euler_at_final", "use_karras_sigmas", "final_sigmas_type"}
    | {"use_exponential_sigmas", "use_beta_sigmas", "use_lu_lambdas", "lambda_min_clipped", "tensor_format"}
    | {"interpolation_type", "sigma_min", "sigma_max", "predict_x0", "disable_corrector", "solver_p"}
    | {"stochastic_sampling", "rho", "clip_sample_value", "eta", "noise_sampler_seed"}
    | {"predictor_order", "corrector_order", "tau_func"}
)
"""Words that are a sampler's: they change steps and clips, not what the network's numbers mean."""

FROM_A_FILE = "sample it from a file, --model FILE.py:FUNCTION"

UNNAMED = "its scheduler_config.json names no class, and is read as DDPMScheduler's"


def read_scheduler(config: Mapping[str, Any]) -> tuple[Schedule, Predicts]:
    """Return (schedule, what the network predicts) of a scheduler's configuration.

    A word that nobody here knows, or that says nothing where it stands, is named in a warning.

    Raises:
        CheckpointError: if the diffusion is of a kind that is not known, contradicts itself, or has a value
            that is none.
    """
    name = str(config.get("_class_name", "DDPMScheduler")).removeprefix("Flax")
    if name not in FLOWS | OF_BETAS:
        raise CheckpointError(
            f"its scheduler is diffusers' {name}, whose noise levels are not known here: {FROM_A_FILE}, with"
            " bench.from_prediction, from_flow or from_denoiser"
        )
    if config.get("timestep_type", "discrete") != "discrete":
        raise CheckpointError(
            f"diffusers' {name} tells the network log sigma in the place of a time step (timestep_type):"
            f" {FROM_A_FILE}, with bench.from_denoiser"
        )
    if name in LATER_BETAS:
        config = {"beta_start": 0.00085, "beta_end": 0.012, **config}
    prediction = config.get("prediction_type", "flow_prediction" if name in FLOWS else "epsilon")
    if prediction not in ("flow_prediction", *PREDICTIONS):
        raise CheckpointError(
            f"this diffusers model predicts {prediction}, which is none of {', '.join(PREDICTIONS)}:"
            f" {FROM_A_FILE}"
        )
    walks = name in FLOWS or _flag(config, "use_flow_sigmas")
    if prediction == "flow_prediction":
        _say_unused(name, config, _idle_in_a_flow(name, config))
        return _flow(name, config), "flow"
    if walks:
        how = "by its class" if name in FLOWS else "by use_flow_sigmas"
        raise CheckpointError(
            f"diffusers' {name} has the noise levels of rectified flow ({how}) for a network that predicts"
            f" {prediction}, which is not known here: correct its words, or {FROM_A_FILE}"
        )
    _say_unused(name, config, {word for word in FLOW_WORDS if _is_set(config, word)})
    return _of_betas(config, PREDICTIONS[prediction])


def _of_betas(config: Mapping[str, Any], predicts: Predicts) -> tuple[Schedule, Predicts]:
    schedule = _levels(config)
    if not _flag(config, "rescale_betas_zero_snr"):
        return schedule, predicts
    if predicts == "eps":
        raise CheckpointError(
            "this diffusers model predicts epsilon and rescales its betas to zero terminal SNR, where epsilon"
            " does not tell the image: correct rescale_betas_zero_snr or prediction_type"
        )
    return zero_terminal_snr(schedule), predicts


def _is_set(config: Mapping[str, Any], word: str) -> bool:
    """Return whether a word of a flow asks for something; defaults are written out in every file."""
    defaults = {"shift": 1, "flow_shift": 1}
    if word in SHIFTS or word in ("shift", "flow_shift", "use_flow_sigmas"):
        return config.get(word) not in (None, False, defaults.get(word))
    return False


def _idle_in_a_flow(name: str, config: Mapping[str, Any]) -> set[str]:
    """Return the words of betas that a configuration of a flow has and that say nothing there.

    A solver of both kinds writes its betas out all the same; only what asks for other ones is told.
    """
    if name in FLOWS:
        return {word for word in BETAS if config.get(word) is not None}
    return {word for word in ("rescale_betas_zero_snr", "trained_betas") if config.get(word)}


def _say_unused(name: str, config: Mapping[str, Any], idle: set[str]) -> None:
    """Warn of words that nobody knows, and of those that say nothing beside the others."""
    strange = sorted(word for word in config if not word.startswith("_") and word not in USED | SAMPLERS)
    if strange:
        warnings.warn(f"{name} says {', '.join(strange)}, which is not known here and not used", stacklevel=3)
    if idle:
        warnings.warn(
            f"{name} says {', '.join(sorted(idle))}, which does not go with its prediction_type and is not"
            " used",
            stacklevel=3,
        )


def _flow(name: str, config: Mapping[str, Any]) -> ContinuousSchedule:
    shifting = sorted(word for word in SHIFTS if config.get(word))
    if shifting:
        raise CheckpointError(
            f"diffusers' {name} shifts its times by the size of the image or to a terminal value, or turns"
            f" them round ({', '.join(shifting)}): {FROM_A_FILE}, with bench.from_flow(network, shape, shift)"
        )
    if (T := _steps(config)) != 1000:
        raise CheckpointError(
            f"diffusers' {name} tells its network {T} s for the time s of the flow (num_train_timesteps), and"
            f" only 1000 s is known here: {FROM_A_FILE}, with bench.from_flow"
        )
    word = "shift" if "shift" in config else "flow_shift"
    return ContinuousSchedule.flow(_number(config, word, 1.0, 0, math.inf))


def _flag(config: Mapping[str, Any], word: str) -> bool:
    """Return a word that is true or false; absent and null are false."""
    value = config.get(word)
    if value is None or isinstance(value, bool):
        return bool(value)
    raise CheckpointError(f"{word} of this diffusers scheduler must be true or false, got {value!r}")


def _number(config: Mapping[str, Any], word: str, default: float, low: float, high: float) -> float:
    """Return a word that is a number between two others."""
    value = config.get(word, default)
    if not is_number(value) or not low < value < high:
        what = f"a number between {low:g} and {high:g}" if math.isfinite(high) else "a positive number"
        raise CheckpointError(f"{word} of this diffusers scheduler must be {what}, got {value!r}")
    return float(value)


def _steps(config: Mapping[str, Any]) -> int:
    """Return the number of time steps; files of first versions call it ``timesteps``."""
    word = "num_train_timesteps" if "num_train_timesteps" in config else "timesteps"
    value = config.get(word, 1000)
    if not is_whole(value) or not 1 <= value <= MOST_STEPS:
        raise CheckpointError(
            f"{word} of this diffusers scheduler must be a whole number from 1 to {MOST_STEPS:,}, got"
            f" {value!r}"
        )
    return int(value)


def _levels(config: Mapping[str, Any]) -> NoiseSchedule:
    if (betas := config.get("trained_betas")) is not None:
        return _trained(betas)
    T, kind = _steps(config), config.get("beta_schedule", "linear")
    if kind == "squaredcos_cap_v2":
        return NoiseSchedule.cosine(T)
    start, end = _number(config, "beta_start", 1e-4, 0, 1), _number(config, "beta_end", 0.02, 0, 1)
    if kind == "linear":
        return NoiseSchedule.linear(T, start, end)
    if kind == "scaled_linear":
        return NoiseSchedule.from_betas(torch.linspace(start**0.5, end**0.5, T, dtype=torch.float64) ** 2)
    if kind == "sigmoid":
        rise = torch.linspace(-6, 6, T, dtype=torch.float64).sigmoid()
        return NoiseSchedule.from_betas(rise * (end - start) + start)
    raise CheckpointError(
        f"the beta schedule {kind!r} of this diffusers model is not known here: {FROM_A_FILE}, with"
        " bench.NoiseSchedule.from_betas"
    )


def _trained(betas: Any) -> NoiseSchedule:
    """Return the schedule of betas that a configuration lists."""
    if not isinstance(betas, list | tuple) or not all(map(is_number, betas)):
        raise CheckpointError(
            f"trained_betas of this diffusers scheduler must be a list of numbers, got {str(betas)[:40]}"
        )
    try:
        return NoiseSchedule.from_betas(betas)
    except ValueError as error:
        raise CheckpointError(f"trained_betas of this diffusers scheduler: {error}") from None
