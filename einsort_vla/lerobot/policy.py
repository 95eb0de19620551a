"""A loaded policy with its saved processors: one observation in, one chunk of actions out."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from torch import nn

from einsort_vla.errors import (
    CheckpointError,
    EinSortError,
    NumericsError,
    UsageError,
    panics_as_errors,
    reason_of,
)
from einsort_vla.families import family_of
from einsort_vla.lerobot.observations import TASK_KEY, Observation, made_up_observations
from einsort_vla.runtime.observation import is_picture, needed_pictures


class LoadedPolicy:
    """A LeRobot policy module between the preprocessor and postprocessor of its folder.

    Attributes:
        module: LeRobot's policy, in evaluation mode.
        chunk_size: actions that are predicted at one look.
        n_action_steps: those of them that are executed.
    """

    def __init__(self, module: Any, preprocess: Any, postprocess: Any, folder: Path) -> None:
        self.module, self.preprocess, self.postprocess = module, preprocess, postprocess
        self._folder = folder
        self.chunk_size: int = module.config.chunk_size
        self.n_action_steps: int = module.config.n_action_steps

    @property
    def camera_keys(self) -> list[str]:
        """The cameras that it must be shown, by the keys of their pictures."""
        config = self.module.config
        return needed_pictures(config.image_features, getattr(config, "empty_cameras", 0))

    def made_up_observations(self, n: int) -> list[Observation]:
        """See the function of that name.

        Raises:
            CheckpointError: its config.json names no inputs.
        """
        features = dict(self.module.config.input_features or {})
        for masked in self.module.config.image_features.keys() - set(self.camera_keys):
            del features[masked]
        if not features:
            raise CheckpointError(
                f"{self._folder / 'config.json'} names no inputs (input_features is empty), so "
                "nobody can make up what the policy is to be shown. Write them into the dense "
                "policy's config.json."
            )
        return made_up_observations(features, self.statistics, n)

    @property
    def statistics(self) -> dict[str, dict[str, Any]]:
        """Mean and deviation of state and action that the saved preprocessor normalizes by."""
        from lerobot.processor import NormalizerProcessorStep

        steps = (s for s in self.preprocess.steps if isinstance(s, NormalizerProcessorStep))
        step = next(steps, None)
        return (step.stats or {}) if step else {}

    def layers(self, weights: Iterable[str]) -> dict[str, nn.Linear]:
        """The linear layers of a checkpoint's weights, by the names stored there."""
        family = family_of(self.module.config.type)
        stored = family.in_policy(self.module, {name: name for name in weights})
        return {
            name: self.module.get_submodule(own.removesuffix(".weight"))
            for own, name in stored.items()
        }

    def chunk(self, observation: Observation, seed: int) -> np.ndarray:
        """(chunk_size, action_dim) float32 in the units of the robot; `seed` fixes the noise.

        Raises:
            UsageError: the observation lacks a camera that the policy must be shown, or it cannot
                act on it.
            NumericsError: an action is NaN or infinite.
        """
        return self.chunks([observation], [seed])[0]

    def chunks(self, observations: Sequence[Observation], seeds: Sequence[int]) -> np.ndarray:
        """(n, chunk_size, action_dim): several observations in one pass, each with its own noise.

        A row can differ from `chunk` by rounding: a product of more rows may be summed in another
        order. Policies whose noise cannot be given row by row are asked one after the other.

        Raises:
            UsageError: see `chunk`.
            NumericsError: see `chunk`.
        """
        with self._acting_on(observations):
            chunks = self._answer(observations, seeds)
        if not np.isfinite(chunks).all():
            raise NumericsError(
                f"{self._folder} answers with actions that are NaN or infinite: its weights or the "
                "statistics of its processors are damaged, or numbers of the observation are huge."
            )
        return chunks

    def _answer(self, observations: Sequence[Observation], seeds: Sequence[int]) -> np.ndarray:
        batches = [self.preprocess(_to_tensors(seen)) for seen in observations]
        if not hasattr(getattr(self.module, "model", None), "sample_noise"):
            rows = zip(batches, seeds, strict=True)
            return np.concatenate([self._predict(batch, [seed]) for batch, seed in rows])
        return self._predict(_joined(batches), seeds)

    def _predict(self, batch: dict[str, Any], seeds: Sequence[int]) -> np.ndarray:
        noise = _noise_by_row(self.module.model, seeds) if len(seeds) > 1 else nullcontext()
        with torch.random.fork_rng(devices=[]), torch.inference_mode(), noise:
            torch.manual_seed(seeds[0])
            chunk = self.module.predict_action_chunk(batch)
        return self.postprocess(chunk).float().cpu().numpy()

    def executed(self, observation: Observation, seed: int) -> torch.Tensor:
        """(n_action_steps, action_dim): what is executed of `chunk`, as the model gives it.

        Raises:
            UsageError: see `chunk`.
        """
        with self._acting_on([observation]), torch.random.fork_rng(devices=[]):
            batch = self.preprocess(_to_tensors(observation))
            torch.manual_seed(seed)
            return self.module.predict_action_chunk(batch)[0, : self.n_action_steps].float()

    @contextmanager
    def _acting_on(self, observations: Sequence[Observation]) -> Iterator[None]:
        """Around what LeRobot and torch do with observations; their errors become ours."""
        for seen in observations:
            self._check_cameras(seen)
        try:
            with panics_as_errors():
                yield
        except EinSortError:
            raise
        except Exception as error:
            raise UsageError(
                f"{self._folder} cannot act on this observation: {reason_of(error)}"
            ) from error

    def _check_cameras(self, observation: Observation) -> None:
        if missing := [key for key in self.camera_keys if key not in observation]:
            have = ", ".join(filter(is_picture, observation)) or "none"
            raise UsageError(
                f"{self._folder} needs the cameras {', '.join(missing)}; the observation has "
                f"{have}."
            )


def _to_tensors(observation: Observation) -> dict[str, Any]:
    tensors: dict[str, Any] = {TASK_KEY: observation[TASK_KEY]}
    for key, value in observation.items():
        if is_picture(key):
            tensors[key] = torch.from_numpy(value).permute(2, 0, 1).float() / 255
        elif key != TASK_KEY:
            tensors[key] = torch.from_numpy(value)
    return tensors


def _joined(batches: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Preprocessed batches of one as one batch."""
    if len(batches) == 1:
        return batches[0]
    joined = dict(batches[0])
    for key, value in joined.items():
        if isinstance(value, torch.Tensor):
            joined[key] = torch.cat([batch[key] for batch in batches])
        elif isinstance(value, list):
            joined[key] = [item for batch in batches for item in batch[key]]
    return joined


def _noise_by_row(model: Any, seeds: Sequence[int]) -> AbstractContextManager[Any]:
    """Within, a flow's noise is drawn row by row, as each seed alone would give it."""
    draw = model.sample_noise

    def by_row(shape: Sequence[int], device: Any) -> torch.Tensor:
        rows = []
        for seed in seeds:
            torch.manual_seed(seed)
            rows.append(draw((1, *shape[1:]), device))
        return torch.cat(rows)

    return mock.patch.object(model, "sample_noise", by_row)
