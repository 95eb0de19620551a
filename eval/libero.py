"""Closed-loop LIBERO evaluation of a policy, dense and compressed, on the same initial states."""

import sys
from pathlib import Path

if not __package__:  # run as a script: the root, not eval/, else `import libero` finds this file
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import json

from rich.console import Console

from einsort_vla.checkpoint import plan_folder, write_results
from einsort_vla.cli.calibration import calibration_of
from einsort_vla.cli.run import run_command
from einsort_vla.kernels import device_of
from envs.protocol import load_protocol
from eval.baseline import read_dense
from eval.output import BUNDLE, LOG, REPORT, VIDEOS, compress_once, export_once, prepare
from eval.progress import EpisodeProgress
from eval.report import COMPRESSED, DENSE, build_report, card_text, print_summary
from eval.request import Settings, check_runtime, find_policy, list_scenes
from eval.schedule import Arm, begin_log, read_log, run_all

CALIBRATE_BELOW_BITS = 2.4  # closed loop, docs/codec.md: 11/100 at 1.6 bits, 96/100 calibrated


def main(settings: Settings, console: Console) -> int:
    """Run the evaluation; 0 if every episode ended in success or failure."""
    scenes, folder = list_scenes(settings), find_policy(settings.policy)
    check_runtime(settings, folder)
    calibration = calibration_of(settings.calibrate, folder, console)
    plan = None
    if settings.rate:
        plan = plan_folder(folder, settings.rate, settings.codec, calibration)
        if calibration is None and plan.bits_per_weight < CALIBRATE_BELOW_BITS:
            console.print(
                f"Note: {plan.bits_per_weight:.1f} bits a weight without --calibrate. On the "
                "reference policy, calibration makes the difference below 2.4 bits: "
                "python eval/calibrate.py --output DIR",
                highlight=False,
            )
    dense = read_dense(settings.baseline, folder, scenes) if settings.baseline else []
    output = prepare(settings, folder)
    begin_log(output / LOG, dense)
    device = device_of(settings.backend)  # of both: noise is drawn there
    arms = [Arm(DENSE, str(folder), device=device)]
    compression = None
    if plan:
        with console.status(f"Compressing {folder} to rate {settings.rate}"):
            compression = compress_once(plan, folder, output / COMPRESSED, calibration)
        bundle = None
        if settings.runtime == "onnx":
            with console.status("Exporting it to ONNX"):
                bundle = export_once(output / COMPRESSED, output / BUNDLE)
        arms.append(Arm(COMPRESSED, str(output / COMPRESSED), settings.backend, bundle, device))
    n_total = len(scenes) * len(arms)
    with EpisodeProgress(n_total, read_log(output / LOG), console) as progress:
        videos = output / VIDEOS if settings.video else None
        try:
            run_all(scenes, arms, settings.workers, output / LOG, progress.add, videos)
        except KeyboardInterrupt:
            kept = len(read_log(output / LOG))
            console.print(
                f"Stopped: {kept} of {n_total} episodes are kept in {output}. "
                "The same command with --resume goes on."
            )
            return 1
    names = [arm.name for arm in arms]
    report = build_report(
        progress.records, scenes, names, load_protocol(), settings.rate, compression
    )
    (output / REPORT).write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    if plan and report["complete"]:
        write_results(output / COMPRESSED, card_text(report))
    print_summary(report, console)
    console.print(f"Report: {output / REPORT}", highlight=False, soft_wrap=True)
    return 0 if report["complete"] else 1


if __name__ == "__main__":
    run_command(Settings, main, "eval/libero.py")
