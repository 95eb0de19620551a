"""The policy class `Einsort<X>Policy` of each config; made when LeRobot asks for it.

A dense class that is given a compressed folder would load nothing and run with random weights, some
without a word. These load strictly, and build no dense weights on the way.
"""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

from lerobot.configs import PreTrainedConfig
from lerobot.policies.factory import get_policy_class
from lerobot.policies.pretrained import PreTrainedPolicy
from torch import Tensor

from einsort_vla.checkpoint import Checkpoint, read_config, read_folder
from einsort_vla.checkpoint.source import fetch_from_hub
from einsort_vla.codec import CompressedTensor
from einsort_vla.errors import CheckpointError
from einsort_vla.families import Family, family_of
from einsort_vla.kernels import BackendChoice
from einsort_vla.layers import Budget, load_
from einsort_vla.lerobot.processors import check_processors
from einsort_vla.lerobot.settings import building, check_config, fitting, settings_in, settings_of
from lerobot_policy_einsort import configuration_einsort
from lerobot_policy_einsort.saving_einsort import Origin, origin_of, save


class EinsortPolicy:
    """Loading of a compressed folder, put before a dense policy class."""

    @classmethod
    def from_pretrained(
        cls: Any,
        pretrained_name_or_path: str | Path,
        *,
        config: Any = None,
        backend: str = "decoded",
        device: str | None = None,
        revision: str | None = None,
        **kwargs: Any,
    ) -> PreTrainedPolicy:
        """A compressed policy, in evaluation mode, on the device of its config.

        Args:
            pretrained_name_or_path: folder or hub id.
            config: instead of the folder's own.
            backend: how coded weights are multiplied; see `BackendChoice.parse`.
            device: where to, if there is no `config`; by default the one that the folder names.
            revision: of a hub id.
            **kwargs: for the policy class; LeRobot's loading options have no effect here.

        Raises:
            CheckpointError: the folder is missing, damaged or does not fit the policy.
        """
        folder = Path(pretrained_name_or_path)
        if not folder.is_dir():
            folder = fetch_from_hub(str(pretrained_name_or_path), revision)
        described, content = read_config(folder), read_folder(folder)
        check_processors(folder, described)
        if config is None:
            config = settings_of(folder, described, device)
        check_config(folder, described)
        for name, value in settings_in(folder, config.type).items():
            setattr(config, name, value)
        family = family_of(config.type)
        with building(folder, family, _budget(content)):
            policy = cls(config, **{k: v for k, v in kwargs.items() if k not in _LOADING})
        named = _with_names_of(policy, family, content)
        with fitting(folder):
            load_(policy, named, BackendChoice.parse(backend))
        policy.origin = origin_of(folder, described, content, named)
        policy.to(config.device)
        return policy.eval()

    def _save_pretrained(
        self: Any, save_directory: Path, state_dict: dict[str, Tensor] | None = None
    ) -> None:
        """Write a compressed folder; see `save`. LeRobot's own would write no plan."""
        if not isinstance(getattr(self, "origin", None), Origin):
            raise CheckpointError(
                f"a policy of type {self.name!r} that was not loaded from a folder has no coded "
                "weights to save. Compress a dense one: einsort-vla compress SRC DST --rate R"
            )
        save(self, self.origin, save_directory, state_dict or self.state_dict())


_LOADING = ("strict", "force_download", "resume_download", "proxies", "token", "cache_dir",
            "local_files_only")  # fmt: skip


def _budget(content: Checkpoint) -> Budget:
    sizes = [
        math.prod(tensor.shape) for tensor in (*content.coded.values(), *content.dense.values())
    ]
    return Budget.for_file(sum(sizes), len(sizes) + len(content.dropped))


def _with_names_of(policy: Any, family: Family, content: Checkpoint) -> Checkpoint:
    """The checkpoint by the names of the policy."""
    stored = family.in_policy(policy, {**content.coded, **content.dense, **content.dropped})
    coded = {n: value for n, value in stored.items() if isinstance(value, CompressedTensor)}
    dense = {n: value for n, value in stored.items() if isinstance(value, Tensor)}
    dropped = {n: value for n, value in stored.items() if isinstance(value, str)}
    return replace(content, coded=coded, dense=dense, dropped=dropped)


def __getattr__(name: str) -> type[PreTrainedPolicy]:
    config_class = getattr(configuration_einsort, name.removesuffix("Policy") + "Config", None)
    if config_class is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    policy_type = PreTrainedConfig.get_choice_name(config_class)
    dense = get_policy_class(family_of(policy_type).name)
    names = {"__module__": __name__, "config_class": config_class, "name": policy_type}
    made = type(name, (EinsortPolicy, dense), names)
    globals()[name] = made
    return made
