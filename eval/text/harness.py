"""Questions that lm-evaluation-harness asks a model; each answer is kept as right or wrong."""

# The harness's decorators declare less than they pass on.
# pyright: reportCallIssue=false

import contextlib
import difflib
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from einsort_vla.errors import CheckpointError, UsageError, importing, reason_of
from einsort_vla.results.record import Record
from eval.text.settings import LOCAL

FOLDER = Path(__file__).parent / "tasks"
SCORES = ("acc", "acc_norm", "exact_match")  # of the harness: those that are 0 or 1 a question
BATCH = 8  # requests at once
SEED = 1234  # of worked examples: the harness's own default


class Answer(Record, frozen=True):
    """One score of one question; a line of answers.jsonl."""

    arm: str
    task: str
    question: int  # its number in the task
    score: str  # "acc", or with the filter: "exact_match strict-match"
    is_right: bool


@dataclass(frozen=True)
class Questions:
    """A task of the harness that can be asked, with its data at hand."""

    name: str
    task: Any  # lm_eval's
    n: int  # questions in all

    def facts(self) -> dict[str, Any]:
        """What run.json and report.json say of it."""
        config = self.task.config
        is_local = self.name in LOCAL
        return {
            "data": f"eval/text/tasks/{LOCAL[self.name]}" if is_local else config.dataset_path,
            "version": (config.metadata or {}).get("version"),
            "n_shots": config.num_fewshot or 0,
            "output_type": config.output_type,
        }


def load_tasks(names: Sequence[str]) -> list[Questions]:
    """Tasks with their questions: local ones, files, or those of the installed harness.

    Args:
        names: of LOCAL, a YAML file, or a name of lm-evaluation-harness, whose groups are taken
            apart.

    Raises:
        MissingDependency: lm-eval is not installed.
        UsageError: there is no such task, or its answers are not simply right or wrong.
        CheckpointError: its questions cannot be had, as without a network.
    """
    if not names:
        return []
    is_own = [name in LOCAL or Path(name).is_file() for name in names]
    manager, found = _manager(with_own_only=all(is_own)), {}
    for name, own in zip(names, is_own, strict=True):
        if not own and name not in manager.all_tasks:
            raise _unknown(name, manager.all_tasks)
        for task_name, task in _load(manager, name).items():
            if not any(metric in SCORES for metric in task.aggregation()):
                raise UsageError(
                    f"the task {task_name} has none of the scores {', '.join(SCORES)}: its answers "
                    "are not right or wrong. For perplexities use --text."
                )
            if task.config.num_fewshot is None:  # as the harness's own command does
                task.set_config("num_fewshot", 0)
            found[task_name] = Questions(task_name, task, len(list(task.eval_docs)))
    return list(found.values())


def _manager(with_own_only: bool) -> Any:
    """The harness's list of tasks; reading its 14,000 files takes it 15 s."""
    fix = "pip install 'einsort-vla[language]', or give --tasks none."
    with importing("--tasks needs lm-evaluation-harness", fix):
        from lm_eval.tasks import TaskManager
    return TaskManager(include_defaults=not with_own_only)


def _load(manager: Any, name: str) -> dict[str, Any]:
    try:
        with quiet():
            return manager.load([_local(name) if name in LOCAL else name])["tasks"]
    except Exception as error:  # whatever a hub, the network or a task's own code raises
        raise CheckpointError(
            f"the questions of the task {name} cannot be had: {reason_of(error)}. Most "
            f"tasks are on the hub and need a network; without one there are {', '.join(LOCAL)}."
        ) from error


def _local(name: str) -> dict[str, Any]:
    """The configuration of a local task, the places of its files absolute."""
    config = yaml.safe_load((FOLDER / LOCAL[name]).read_text(encoding="utf-8"))
    files = config["dataset_kwargs"]["data_files"]
    config["dataset_kwargs"] = {"data_files": {k: str(FOLDER / v) for k, v in files.items()}}
    return config


def _unknown(name: str, known: Sequence[str]) -> UsageError:
    close = difflib.get_close_matches(name, [*LOCAL, *known], n=3)
    hint = f" Did you mean {' or '.join(close)}?" if close else ""
    return UsageError(
        f"unknown task {name!r}.{hint} Valid: {', '.join(LOCAL)} (without a network), a YAML file, "
        f"or one of the {len(known)} of lm-evaluation-harness."
    )


class Examinee:
    """A model that can be asked; needs lm-eval."""

    def __init__(self, arm: str, model: Any, tokenizer: Any) -> None:
        from lm_eval.models.huggingface import HFLM

        self._arm = arm
        with quiet():
            self._model = HFLM(pretrained=model, tokenizer=tokenizer, batch_size=BATCH)

    def ask(self, questions: Questions, numbers: Sequence[int]) -> list[Answer]:
        """Ask some questions of a task.

        Worked examples are drawn by the harness with its fixed seed, anew for each call, so that
        every model has the same before the same question.
        """
        # NOTE: `simple_evaluate` would read the harness's 14,000 task files at every call.
        from lm_eval import evaluate

        questions.task.set_fewshot_seed(SEED)
        with quiet():
            results: Any = evaluate(
                lm=self._model,
                task_dict={"tasks": {questions.name: questions.task}, "groups": {}},
                samples={questions.name: list(numbers)},
                bootstrap_iters=0,
            )
        return [
            Answer(self._arm, questions.name, sample["doc_id"], score, value)
            for sample in results["samples"][questions.name]
            for score, value in _scores(sample)
        ]


def _scores(sample: dict[str, Any]) -> Iterator[tuple[str, bool]]:
    """The scores of a logged sample, with the name of the filter where there is more than none."""
    for metric in sample["metrics"]:
        if metric in SCORES:
            has_filter = sample["filter"] != "none"
            yield f"{metric} {sample['filter']}" if has_filter else metric, bool(sample[metric])


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Hold back notices and bars of the harness and of Transformers; errors are exceptions."""
    with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
        yield
