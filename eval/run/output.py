"""The folder of one run: what it holds, and that no two runs are mixed in it."""

import fcntl
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from einsort_vla.errors import UsageError
from einsort_vla.results.run import RUN, read_run
from eval.run.provenance import ROOT

POLICIES = "policies"


def prepare_folder(
    kind: str,
    output: Path | None,
    config: Mapping[str, Any],
    resume: bool,
) -> Path:
    """The output folder, new or of the run to go on with; a folder of another run is refused.

    Args:
        kind: of the evaluation; where no folder is named, it is outputs/KIND-TIME.
        output: that was named.
        config: the settings that decide results, as run.json will have them.
        resume: whether a run in it is to go on.

    Raises:
        UsageError: it holds something else, or there is nothing to resume.
    """
    output = output or ROOT / "outputs" / time.strftime(f"{kind}-%Y%m%d-%H%M%S")
    if (output / RUN).exists():
        earlier = read_run(output).config
        if not resume:
            raise UsageError(f"{output} holds a run already. Use --resume, or another --output.")
        if changed := sorted(k for k in {*config, *earlier} if config.get(k) != earlier.get(k)):
            names = ", ".join(f"--{key.replace('_', '-')}" for key in changed)
            raise UsageError(
                f"{output} holds another run: {names} differ. "
                "Resume with the same settings, or use another --output."
            )
        return output
    if resume:
        raise UsageError(f"there is no run to resume in {output}.")
    if output.exists() and any(output.iterdir()):
        raise UsageError(f"{output} is not empty and holds no run. Use another --output.")
    output.mkdir(parents=True, exist_ok=True)
    return output


@contextmanager
def alone_in(output: Path) -> Iterator[None]:
    """Keep other processes out of a run folder; the system lets go of it however this one ends.

    Raises:
        UsageError: another process is at work in it.
    """
    folder = os.open(output, os.O_RDONLY)
    try:
        try:
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UsageError(
                f"another process is at work in {output}. Wait for it, stop it, or use another "
                "--output."
            ) from None
        yield
    finally:
        os.close(folder)
