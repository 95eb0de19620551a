"""`--calibrate SOURCE`: statistics that are there already, or taken now from observations."""

from pathlib import Path

from rich.console import Console
from rich.progress import Progress

from einsort_vla.checkpoint import DenseFolder
from einsort_vla.cli.console import PlainConsole
from einsort_vla.families import family_of
from einsort_vla.lerobot import check_loads, load_policy, read_frames, watch_layers
from einsort_vla.plan import LayerStatistics, is_statistics

MAX_LOOKS = 128  # beyond, the second moments hardly change


def calibration_of(
    source: str | None, dense: DenseFolder, console: Console
) -> LayerStatistics | None:
    """The statistics that `--calibrate` asks for, of a dense policy.

    Raises:
        CheckpointError: the source is none of these, or was made for another policy.
    """
    if source is None:
        return None
    if is_statistics(Path(source)):
        return LayerStatistics.load(Path(source))
    statistics = LayerStatistics(dense.sha256)
    if not dense.is_lerobot:
        from einsort_vla.huggingface import watch_text

        with console.status(f"Reading {source}"):
            n_tokens = watch_text(dense, Path(source), statistics)
        console.print(f"Watched the dense model read {n_tokens} tokens.")
        return statistics
    looks = read_frames(source, MAX_LOOKS)
    loaded, names = load_policy(str(dense.folder)), list(dense.matrices)
    with Progress(console=console, transient=True) as progress:
        task = progress.add_task("looks", total=len(looks))
        watch_layers(loaded, statistics, names, looks, lambda: progress.advance(task))
    console.print(f"Watched the dense policy at {len(looks)} looks.")
    return statistics


def say_unless_loads(dense: DenseFolder, console: Console) -> None:
    """See `check_loads`; if the names could not be compared, say so and go on.

    Raises:
        CheckpointError: the policy could not be loaded again.
        UsageError: policies of its type are not compressed.
    """
    if not dense.is_lerobot:
        return
    family_of(dense.policy_type)  # nobody can mend what is said of a type that is not taken
    with console.status("Comparing names with the policy class"):
        reason = check_loads(dense)
    if reason:
        aside = PlainConsole(stderr=True)  # a plan may go to the standard output
        aside.print(f"Names were not compared with the policy class: {reason}", soft_wrap=True)
