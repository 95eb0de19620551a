"""`einsort-vla plan SRC --rate R`: the code of each matrix, as a file that can be edited."""

import math
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from rich.console import Console
from tyro.conf import Positional

from einsort_vla.atomic import check_new, check_parent, new_file
from einsort_vla.cli.options import CalibrateOption, CodecOption, RateOption, SizeOption, check_goal
from einsort_vla.errors import CheckpointError
from einsort_vla.names import DEFAULT_FORM
from einsort_vla.reading import read_text

if TYPE_CHECKING:  # loads torch
    from einsort_vla.checkpoint import DenseFolder
    from einsort_vla.plan import Plan

# Compiled where PyYAML has them: ten times as fast, and plans have a line a matrix.
_Plain: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_Dumper = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
_NUMBERS = ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float")
MAX_NUMBER = 100  # characters


class _Loader(_Plain):
    """Refuses what PyYAML reads to nobody's use.

    A number to the base of 60, such as 1:30, may take hours if it is long. Of a name that is
    there twice, the last would win without a word.
    """

    def construct_scalar(self, node: Any) -> Any:
        text = super().construct_scalar(node)
        if len(text) > MAX_NUMBER and node.tag in _NUMBERS:
            raise yaml.MarkedYAMLError(
                problem=f"a number of {len(text)} characters", problem_mark=node.start_mark
            )
        return text

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        seen = set[str]()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value in seen:
                raise yaml.MarkedYAMLError(
                    problem=f"{key.value} is there twice", problem_mark=key.start_mark
                )
            seen.add(str(key.value))
        return super().construct_mapping(node, deep)


@dataclass(frozen=True)
class MakePlan:
    """Plan the compression of a dense policy folder, without coding it."""

    source: Positional[str]
    """Folder or hub id of a dense LeRobot policy or Transformers model."""
    rate: RateOption = None
    """Share of the linear weights' bytes to remove, 0 to 0.95. Everything stored is counted."""
    size: SizeOption = None
    """Bytes of the whole weight file instead of a rate: 300MB, 1.2GiB."""
    codec: CodecOption = DEFAULT_FORM
    calibrate: CalibrateOption = None
    output: Path | None = None
    """YAML file to write, for `compress --plan`; without it the plan is printed."""

    def run(self, console: Console) -> int:
        from einsort_vla.checkpoint import DenseFolder, plan_to_fit
        from einsort_vla.cli.calibration import calibration_of, say_unless_loads
        from einsort_vla.codec import Codec
        from einsort_vla.lerobot import resolve_folder
        from einsort_vla.plan import candidates_of

        check_goal("plan", rate=self.rate, size=self.size)
        if self.output is not None:
            check_new(self.output)  # before minutes of planning
            check_parent(self.output)
        codec, dense = Codec.parse(self.codec), DenseFolder(resolve_folder(self.source))
        say_unless_loads(dense, console)
        statistics = calibration_of(self.calibrate, dense, console)
        found = candidates_of(dense, codec)
        plan = plan_to_fit(dense, found, self.rate, self.size, statistics)
        share = 100 * plan.n_coded / dense.n_weights
        about = f"{share:.1f} % of the weights are coded. {describe_left(plan, dense)}".strip()
        text = f"# {about}\n{to_yaml(plan)}"
        if self.output is None:
            print(text, end="")
            return 0
        with new_file(self.output) as partial:
            partial.write_text(text, encoding="utf-8")
        console.print(
            f"{self.output}: {about} {len(plan.tensors)} matrices, rate {plan.rate:.4f}, "
            f"{plan.bits_per_weight:.3f} bits a weight. Edit specs as you like, then: "
            f"einsort-vla compress {self.source} DST --plan {self.output}",
            soft_wrap=True,
        )
        return 0


def describe_left(plan: "Plan", dense: "DenseFolder") -> str:
    """What stays as it is, if that is the greater part of a policy; else nothing."""
    dropped = dense.family.dropped_reasons(dense.tensors.keys())
    kinds: Counter[str] = Counter()  # layers and experts of one kind together
    for name, stored in dense.tensors.items():
        if name not in plan.tensors and name not in dropped:
            kinds[re.sub(r"\d+", "*", name)] += math.prod(stored.shape)
    if kinds.total() < dense.n_weights / 2:
        return ""
    kind, n = kinds.most_common(1)[0]
    share = 100 * n / dense.n_weights
    return f"Most weights stay as they are: {kind} alone has {share:.1f} % of all."


def to_yaml(plan: "Plan") -> str:
    """A plan as text: one line a matrix, so that two plans can be compared line by line."""
    content = plan.as_dict()
    head = yaml.safe_dump({key: content[key] for key in ("codec", "rate_requested")})
    lines = [f"  {name}: {_one_line(entry)}\n" for name, entry in content["tensors"].items()]
    return head + "tensors:\n" + "".join(lines)


def from_yaml(file: Path) -> "Plan":
    """The plan in a file, which may have been edited by hand.

    Raises:
        CheckpointError: it is missing, no YAML, or no plan; the message names line or field.
    """
    from einsort_vla.plan import Plan

    try:
        content = yaml.load(read_text(file), _Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f" (line {mark.line + 1})" if mark else ""
        what = error.problem or error.context
        raise CheckpointError(f"{file} is not valid YAML: {what}{place}.") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        what = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise CheckpointError(f"{file} is not valid YAML: {what}.") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{file} holds no plan; `einsort-vla plan` writes one.")
    return Plan.from_dict(content, str(file))


def _one_line(entry: dict[str, Any]) -> str:
    text = yaml.dump(entry, None, _Dumper, default_flow_style=True, width=10_000, sort_keys=False)
    return text.strip()
