"""`einsort-vla plan SRC --rate R`: the code of each matrix, as a file that can be edited."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from rich.console import Console
from tyro.conf import Positional

from einsort_vla.atomic import check_new, write_text
from einsort_vla.cli.options import CalibrateOption, CodecOption
from einsort_vla.errors import CheckpointError

if TYPE_CHECKING:  # loads torch
    from einsort_vla.plan import Plan


@dataclass(frozen=True)
class MakePlan:
    """Plan the compression of a dense policy folder, without coding it."""

    source: Positional[str]
    """Folder or hub id of a dense LeRobot policy or Transformers model."""
    rate: float
    """Share of the linear weights' bytes to remove, 0 to 0.95. Everything stored is counted."""
    codec: CodecOption = "leader"
    calibrate: CalibrateOption = None
    output: Path | None = None
    """YAML file to write, for `compress --plan`; without it the plan is printed."""

    def run(self, console: Console) -> int:
        from einsort_vla.checkpoint import DenseFolder, plan_folder
        from einsort_vla.cli.calibration import calibration_of, say_unless_loads
        from einsort_vla.codec import Codec
        from einsort_vla.lerobot import resolve_folder

        codec, dense = Codec.parse(self.codec), DenseFolder(resolve_folder(self.source))
        say_unless_loads(dense, console)
        statistics = calibration_of(self.calibrate, dense, console)
        plan = plan_folder(dense, self.rate, codec, statistics)
        if self.output is None:
            print(to_yaml(plan), end="")
            return 0
        check_new(self.output)
        write_text(self.output, to_yaml(plan))
        console.print(
            f"{self.output}: {len(plan.tensors)} matrices, rate {plan.rate:.4f}, "
            f"{plan.bits_per_weight:.3f} bits a weight. Edit specs as you like, then: "
            f"einsort-vla compress {self.source} DST --plan {self.output}",
            soft_wrap=True,
        )
        return 0


def to_yaml(plan: "Plan") -> str:
    """A plan as text: one line a matrix, so that two plans can be compared line by line."""
    content = plan.as_dict()
    head = yaml.safe_dump({key: content[key] for key in ("codec", "rate_requested")})
    lines = [f"  {name}: {_one_line(entry)}\n" for name, entry in content["tensors"].items()]
    return head + "tensors:\n" + "".join(lines)


def from_yaml(file: Path) -> "Plan":
    """The plan in a file.

    Raises:
        CheckpointError: it is missing, no YAML, or no plan.
    """
    from einsort_vla.plan import Plan

    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise CheckpointError(f"the plan {file} does not exist.") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{file} is not valid YAML: {error}") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{file} holds no plan; `einsort-vla plan` writes one.")
    return Plan.from_dict(content)


def _one_line(entry: dict[str, Any]) -> str:
    return yaml.safe_dump(entry, default_flow_style=True, width=10_000, sort_keys=False).strip()
