"""Makes plans: what each stage of a recipe asks of a machine, of a pack's own documents or without a pack.

Refuses what cannot work or cannot fit, and says what would.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, replace

import torch

from manifests.console import volume
from manifests.errors import RequestError
from tokenization.interleave import Ratio
from tokenization.vocabulary import Vocabulary
from training.augmentation import MELS_PER_S
from training.config import QWEN2_AUDIO, model_config
from training.cost import Work, stage_flops
from training.encoder_recipe import AugmentRecipe
from training.figures import Plan, StagePlan, TaskPlan
from training.held_out import held_out_splits
from training.inputs import Inputs, check_curriculum, growing_stage, mix_of, swap_splits
from training.machines import Machine, this_machine
from training.memory import Placement, StepMemory, step_memory
from training.model import StepAudio2
from training.recipe import CtcStage, Group, Stage, Task, TrainingRecipe
from training.start import loaded_groups
from training.trainer import masked_ids, trained_names
from training.workload import Assumptions, assumed_work, measured_work

MOST_DEVICES = 4096  # that a remedy proposes


@dataclass(frozen=True)
class TaskDraft:
    """A task's place in the mix, and the mean work of an example of it."""

    plan: TaskPlan
    work: Work


def make_plan(inputs: Inputs, machine: Machine | None = None) -> Plan:
    """The plan of checked inputs on a machine; on this one where none is given.

    Raises RequestError as ``swap_splits`` and ``held_out_splits``, and where a stage does not fit the machine, with what
    would make it fit.
    """
    swap_splits(inputs)
    held_out_splits(inputs.recipe, inputs.pack, inputs.layouts)
    drafts = [_drafts_of_pack(inputs, stage) for stage in inputs.recipe.stages]
    planner = Planner(inputs.recipe, inputs.tokenizer.vocabulary, machine or this_machine(inputs.recipe.threads))
    return planner.plan(drafts, growing_stage(inputs.recipe, inputs.start.loaded), None)


def make_plan_without_pack(recipe: TrainingRecipe, machine: Machine, assumed: Assumptions) -> Plan:
    """What needs no pack: tokens, steps, operations, memory and hours, with assumed documents and tokenizer.

    The vocabulary is the published one where the size is one of Qwen2.5's. Weights that the recipe starts from are taken to
    be there. Raises RequestError for a curriculum that cannot work, and where a stage does not fit the machine.
    """
    loaded = loaded_groups(recipe.start)
    check_curriculum(recipe, loaded)
    drafts = []
    for stage in recipe.stages:
        total = sum(given.share for given in stage.tasks.values())
        drafts.append(
            {
                task: TaskDraft(TaskPlan(share=given.share / total), assumed_work(task, Ratio(), assumed))
                for task, given in stage.tasks.items()
            }
        )
    is_small = model_config(recipe.model).encoder != QWEN2_AUDIO
    vocabulary = Vocabulary.small(assumed.text_ids) if is_small else Vocabulary.published()
    return Planner(recipe, vocabulary, machine).plan(drafts, growing_stage(recipe, loaded), assumed)


def _drafts_of_pack(inputs: Inputs, stage: Stage) -> dict[Task, TaskDraft]:
    split = inputs.split(stage)
    shares = mix_of(stage, split)
    return {
        task: TaskDraft(
            TaskPlan(
                share=part / sum(shares.values()),
                documents=len(split.eligible[task]),
                available_tokens=int(split.num_tokens[task].sum()),
                refused=dict(split.refused[task]),
                tails=split.tails[task],
            ),
            measured_work(task, split, inputs.layouts),
        )
        for task, part in shares.items()
    }


class Planner:
    """One recipe on one machine. Builds the model without memory, to count it."""

    def __init__(self, recipe: TrainingRecipe, vocabulary: Vocabulary, machine: Machine) -> None:
        self.recipe, self.vocabulary, self.machine = recipe, vocabulary, machine
        self.config = model_config(recipe.model)
        with torch.device("meta"):
            model = StepAudio2(self.config, vocabulary.num_rows, vocabulary.text_size, recipe.num_tag_labels)
        self._weights = {group: {name: p.numel() for name, p in found} for group, found in model.groups().items()}
        self.sizes = {Group(group): sum(found.values()) for group, found in self._weights.items()}

    def plan(self, drafts: list[dict[Task, TaskDraft]], grows_at: int | None, assumed: Assumptions | None) -> Plan:
        """The plan of all stages. Raises RequestError for the first that does not fit."""
        stages = [
            self.stage(stage, tasks, is_growing=number == grows_at)
            for number, (stage, tasks) in enumerate(zip(self.recipe.stages, drafts, strict=True))
        ]
        return Plan(self.recipe.model, sum(self.sizes.values()), self.machine, assumed, tuple(stages))

    def stage(self, stage: Stage, drafts: Mapping[Task, TaskDraft], *, is_growing: bool) -> StagePlan:
        """One stage in figures. Raises RequestError as ``trained_names``, and where it does not fit."""
        trained = trained_names({group: list(found) for group, found in self._weights.items()}, stage)
        tokens = 0 if isinstance(stage, CtcStage) else stage.num_steps * stage.tokens_per_step
        work, tasks = Work(), {}
        for task, draft in drafts.items():
            drawn = tokens * draft.plan.share
            examples = stage.num_steps * stage.batch_documents if isinstance(stage, CtcStage) else drawn / draft.work.positions
            work += mean_work([draft.work.stretched(times) for times in stretches_of(stage, draft.work)]) * examples
            tasks[task.value] = replace(draft.plan, examples=examples, tokens=drawn, mean_tokens=draft.work.positions)
        masked = masked_ids(stage, self.vocabulary)
        flops = stage_flops(
            self.config,
            self.vocabulary.num_rows if masked is None else masked.start,
            self.vocabulary.text_size + 1,
            work,
            stage.train,
            is_ctc=isinstance(stage, CtcStage),
            recomputes=self.recipe.recompute,
        )
        total = sum(part.total for part in flops.values())
        wall_hours = self.machine.hours(total)
        return StagePlan(
            name=stage.name,
            steps=stage.num_steps,
            tokens=tokens,
            trainable_parameters=sum(self._weights[group][name] for group, names in trained.items() for name in names),
            rates={g.value: (r.lr, r.lr if r.lr_end is None else r.lr_end) for g, r in stage.train.items()},
            tasks=tasks,
            skipped=tuple(task.value for task in stage.tasks if task not in drafts),
            new_rows=int((~self.vocabulary.known_rows(wrappers=True)).sum()) if is_growing else 0,
            flops={part: found.total for part, found in flops.items()},
            memory=self._fitting_memory(stage, [draft.work for draft in drafts.values()]),
            device_hours=wall_hours * self.machine.num_devices,
            wall_hours=wall_hours,
        )

    def _fitting_memory(self, stage: Stage, works: list[Work]) -> StepMemory:
        """Memory of a step on a device. Raises RequestError where it does not fit, with what would."""
        devices, parts = self.machine.num_devices, stage.micro_batches
        key = "batch_documents" if isinstance(stage, CtcStage) else "sequences_per_step"
        size = getattr(stage, key)
        if size % (devices * parts):
            raise RequestError(
                f"stage {stage.name!r}: {key} {size} cannot be dealt to {devices} devices in {parts} micro-batches; "
                f"change {key} or micro_batches so that it divides, or choose another machine"
            )
        memory = self._memory(stage, works, devices, parts, recomputes=self.recipe.recompute)
        if memory.peak <= self.machine.memory_bytes:
            return memory
        remedy = next(
            self._remedies(stage, works, size), "choose a smaller model, shorter sequences or a machine with more memory"
        )
        raise RequestError(
            f"stage {stage.name!r} needs {volume(memory.peak)} on a device, and machine {self.machine.name!r} has "
            f"{volume(self.machine.memory_bytes)}: {remedy}"
        )

    def _remedies(self, stage: Stage, works: list[Work], size: int) -> Iterator[str]:
        """What would make the stage fit, the cheapest first."""
        devices = self.machine.num_devices
        most = min(size, MOST_DEVICES) if self.machine.kind == "cuda" else devices
        while devices <= most:
            for recomputes in sorted({self.recipe.recompute, True}):
                for parts in range(stage.micro_batches, size // devices + 1):
                    if size % (devices * parts):
                        continue
                    found = self._memory(stage, works, devices, parts, recomputes=recomputes)
                    if found.peak <= self.machine.memory_bytes:
                        changes = [
                            "recompute: true" if recomputes and not self.recipe.recompute else "",
                            f"micro_batches: {parts}" if parts != stage.micro_batches else "",
                        ]
                        asked = " and ".join(change for change in changes if change)
                        more = f"take {devices} devices" if devices != self.machine.num_devices else ""
                        yield ", ".join(part for part in (more, f"say {asked}" if asked else "") if part)
            devices *= 2

    def _memory(self, stage: Stage, works: list[Work], devices: int, parts: int, *, recomputes: bool) -> StepMemory:
        is_ctc = isinstance(stage, CtcStage)
        if isinstance(stage, CtcStage):
            longest = works[0].stretched(max(stretches_of(stage, works[0], ends_share=1.0)))
            batch = longest * (stage.batch_documents / (devices * parts))
        else:
            positions = stage.sequence_length * stage.sequences_per_step / (devices * parts)
            batch = widest([work * (positions / work.positions) for work in works])
        return step_memory(
            self.config,
            self.sizes,
            self.vocabulary.num_rows,
            batch,
            stage.train,
            Placement(
                devices, self.recipe.precision.activation_bytes, is_cuda=self.machine.kind == "cuda", recomputes=recomputes
            ),
            is_ctc=is_ctc,
            is_accumulating=parts > 1,
        )


def stretches_of(stage: Stage, work: Work, ends_share: float = 0.5) -> list[float]:
    """How many times as long audio is heard as it is, each equally often: slow speech lasts longer, and quiet ends are heard too.

    ``work``: of a piece as it is. ``ends_share``: of the longest ends, which are half as long on average.
    """
    augment = stage.augment if isinstance(stage, CtcStage) else AugmentRecipe()
    ends_s = 2 * ends_share * augment.ends.longest_s if augment.ends else 0.0
    ends = ends_s * MELS_PER_S / work.mel_frames if ends_s else 0.0
    return [1.0 / factor + ends for factor in (augment.speed.factors if augment.speed else (1.0,))]


def mean_work(works: list[Work]) -> Work:
    """Of every quantity the mean."""
    return sum(works, Work()) * (1.0 / len(works))


def widest(works: list[Work]) -> Work:
    """Of every quantity the largest: a micro-batch may hold documents of one task alone."""
    return Work(*(max(getattr(work, entry.name) for work in works) for entry in fields(Work)))
