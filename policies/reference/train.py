"""Training of the reference policy: resumable, on one GPU or on several CPU processes."""

import copy
import math
import os
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.multiprocessing.spawn import spawn

from einsort_vla.atomic import atomic_file
from einsort_vla.families import BACKBONE_FOLDER
from einsort_vla.lerobot import load_policy
from policies.reference.data import Batch, Demonstrations, augment, tokenize
from policies.reference.model import Shape, build_policy, build_vlm_folder
from policies.reference.objective import PlaceHead, flow_loss

STATE_FILE = "train_state.pt"
STATEFUL = ("policy", "head", "ema", "optimizer")  # of a trainer, kept in the file


@dataclass(frozen=True)
class TrainSettings:
    """Recipe; `batch` is per process, `steps` the length of the whole schedule."""

    steps: int = 3000
    batch: int = 32
    n_draws: int = 3
    learning_rate: float = 1e-3
    final_share: float = 0.02  # of the learning rate, at the last step
    warmup_steps: int = 60
    weight_decay: float = 0.02
    ema_decay: float = 0.998
    place_weight: float = 0.3
    state_noise: float = 0.02
    max_shift_px: int = 1
    autocast: bool = True  # forward pass in bfloat16; 1.6 times as fast on a CPU that has it
    save_every: int = 100
    seed: int = 0


def train(
    work: Path,
    shape: Shape,
    settings: TrainSettings,
    until: int,
    n_processes: int,
    start: Path | None = None,
) -> None:
    """Go on with the schedule up to step `until`; state is kept in `work`.

    A schedule begins with the weights and statistics of the checkpoint `start`, if there is one.
    """
    if not (work / BACKBONE_FOLDER / "config.json").exists():
        if start is None:
            build_vlm_folder(work / BACKBONE_FOLDER, shape)
        else:
            shutil.copytree(start / BACKBONE_FOLDER, work / BACKBONE_FOLDER, dirs_exist_ok=True)
    task = (work, shape, settings, start)
    if n_processes == 1:
        _Trainer(*task).run(until)
    else:
        address = f"tcp://127.0.0.1:{29500 + os.getpid() % 1000}"
        spawn(_worker, (n_processes, address, until, task), n_processes)


def _worker(rank: int, world: int, address: str, until: int, task: tuple[Any, ...]) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=address, rank=rank, world_size=world)
    _Trainer(*task, rank=rank, world=world).run(until)
    dist.barrier()
    dist.destroy_process_group()


class _Trainer:
    def __init__(
        self, work: Path, shape: Shape, settings: TrainSettings, start: Path | None, rank: int = 0,
        world: int = 1,
    ) -> None:  # fmt: skip
        from transformers import AutoTokenizer

        self.work, self.settings, self.rank, self.world = work, settings, rank, world
        self.device = torch.device("cuda" if torch.cuda.is_available() and world == 1 else "cpu")
        self.data = Demonstrations(work / "demos", shape, self.device)
        torch.manual_seed(settings.seed)
        self.policy = build_policy(work / BACKBONE_FOLDER, shape).to(self.device).train()
        self.statistics = self.data.statistics()
        if start is not None:
            self._begin_with(start)
        self.head = PlaceHead(self.policy).to(self.device)
        self.ema = copy.deepcopy(self.policy).requires_grad_(False)
        modules = (self.policy, self.head)
        self.parameters = [p for m in modules for p in m.parameters() if p.requires_grad]
        self.optimizer = _optimizer(self.parameters, settings)
        self.step = 0
        self._resume()
        tokenizer = AutoTokenizer.from_pretrained(work / BACKBONE_FOLDER)
        tokens = tokenize(tokenizer, self.data.tasks, shape)
        self.tokens, self.mask = (part.to(self.device) for part in tokens)

    def run(self, until: int) -> None:
        """Train up to step `until`, saving on the way and at the end."""
        torch.manual_seed(self.settings.seed + 1000 * self.step + self.rank)
        rng = np.random.default_rng([self.settings.seed, self.step, self.rank])
        started, first, losses = time.monotonic(), self.step, []
        while self.step < until:
            losses.append(self._update(self.data.draw(rng, self.settings.batch, self.statistics)))
            self.step += 1
            if self.step % 20 == 0 and self.rank == 0:
                pace = (time.monotonic() - started) / (self.step - first)
                flow, place = np.mean(losses[-100:], axis=0)
                print(
                    f"step {self.step}/{self.settings.steps}  flow {flow:.4f}  place {place:.4f}  "
                    f"{self.data.n_files} demonstrations, {len(self.data)} looks  "
                    f"{self.settings.batch * self.world / pace:.0f} samples/s  "
                    f"to step {until}: {pace * (until - self.step) / 60:.0f} min",
                    flush=True,
                )
            if self.rank == 0 and (self.step % self.settings.save_every == 0 or self.step == until):
                self._save()

    def _update(self, batch: Batch) -> tuple[float, float]:
        s, device = self.settings, self.device
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.step, s)
        pictures = augment(batch.pictures, s.max_shift_px)
        state = batch.state + torch.randn_like(batch.state) * s.state_noise
        with torch.autocast(device.type, torch.bfloat16, enabled=s.autocast):
            tokens, mask = self.tokens[batch.task], self.mask[batch.task]
            errors = flow_loss(
                self.policy.model, pictures, tokens, mask, state, batch.actions, s.n_draws
            )
            places = self.head.loss(batch.places)
        flow, place = errors.float().mean(), places.float().mean()
        self.optimizer.zero_grad()
        (flow + s.place_weight * place).backward()
        self._average_gradients()
        torch.nn.utils.clip_grad_norm_(self.parameters, 1.0)
        self.optimizer.step()
        decay = min(s.ema_decay, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            for kept, now in zip(self.ema.parameters(), self.policy.parameters(), strict=True):
                kept.lerp_(now, 1 - decay)
        return flow.item(), place.item()

    def _average_gradients(self) -> None:
        if self.world == 1:
            return
        flat = torch.cat([_gradient(p).flatten() for p in self.parameters])
        dist.all_reduce(flat)
        flat /= self.world
        parts = flat.split([p.numel() for p in self.parameters])
        for parameter, part in zip(self.parameters, parts, strict=True):
            parameter.grad = part.view_as(parameter)

    def _save(self) -> None:
        state = {name: getattr(self, name).state_dict() for name in STATEFUL}
        state |= {"statistics": self.statistics, "step": self.step}
        with atomic_file(self.work / STATE_FILE) as partial:
            torch.save(state, partial)

    def _begin_with(self, checkpoint: Path) -> None:
        start = load_policy(str(checkpoint), str(self.device))
        self.policy.load_state_dict(start.module.state_dict())
        self.statistics = {
            name: {key: torch.as_tensor(value) for key, value in numbers.items()}
            for name, numbers in start.statistics.items()
        }

    def _resume(self) -> None:
        file = self.work / STATE_FILE
        if not file.exists():
            return
        state = torch.load(file, weights_only=True, map_location=self.device)
        for name in STATEFUL:
            getattr(self, name).load_state_dict(state[name])
        # Those of the first stage stay: weights are trained to them.
        self.statistics, self.step = state["statistics"], state["step"]


def _gradient(parameter: nn.Parameter) -> Tensor:
    """Zeros for the few weights whose output nobody reads."""
    return torch.zeros_like(parameter) if parameter.grad is None else parameter.grad


def learning_rate(step: int, settings: TrainSettings) -> float:
    """Warm-up, then a cosine to `final_share`."""
    share = 0.5 * (1 + math.cos(math.pi * min(1.0, step / settings.steps)))
    warm = min(1.0, (step + 1) / settings.warmup_steps)
    final = settings.final_share
    return settings.learning_rate * warm * (final + (1 - final) * share)


def _optimizer(parameters: list[nn.Parameter], settings: TrainSettings) -> torch.optim.Optimizer:
    groups: list[dict[str, Any]] = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": settings.weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=settings.learning_rate, betas=(0.9, 0.98))


def export(
    work: Path, destination: Path, shape: Shape, start: Path | None = None, start_share: float = 0.0
) -> None:
    """Write the averaged weights as an ordinary LeRobot checkpoint folder, in bfloat16.

    With `start_share`, they are averaged once more with that share of the weights that training
    began with: what it forgot of them comes back (Wortsman et al. 2022, arXiv:2109.01903).
    """
    from lerobot.policies.factory import make_pre_post_processors
    from lerobot.processor import TokenizerProcessorStep

    state = torch.load(work / STATE_FILE, weights_only=True, map_location="cpu")
    policy = build_policy(work / BACKBONE_FOLDER, shape)
    policy.load_state_dict(_mixed(state["ema"], start, start_share))
    destination.mkdir(parents=True, exist_ok=True)
    shutil.copytree(work / BACKBONE_FOLDER, destination / BACKBONE_FOLDER, dirs_exist_ok=True)
    # As given: a relative path lets LeRobot's own commands load the folder from that place.
    backbone = str(destination / BACKBONE_FOLDER)
    policy.config.vlm_model_name = backbone
    located = copy.deepcopy(policy.config)
    located.vlm_model_name = str(work / BACKBONE_FOLDER)
    pre, post = make_pre_post_processors(located, dataset_stats=state["statistics"])
    steps: list[Any] = list(pre.steps)
    for step in steps:
        if isinstance(step, TokenizerProcessorStep):
            step.tokenizer_name = backbone
    policy.to(torch.bfloat16).save_pretrained(destination)
    pre.save_pretrained(destination)
    post.save_pretrained(destination)


def _mixed(weights: dict[str, Tensor], start: Path | None, share: float) -> dict[str, Tensor]:
    if start is None or not share:
        return weights
    before = load_policy(str(start)).module.state_dict()
    return {name: weight.lerp(before[name].to(weight), share) for name, weight in weights.items()}
