"""What the tasks of a stage ask of the model for each token of theirs: of a pack's own documents, or as assumed without one."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from manifests.contracts import MODEL_RATE_HZ
from tokenization.interleave import Ratio
from tokenization.stretches import Encoded, Fixed, Heard, Spoken
from training.cost import Work
from training.documents import Split
from training.entries import Entry
from training.layouts import Layouts
from training.lengths import num_heard_tokens, pieces
from training.recipe import Task

MOST_EXAMPLES = 5000  # of a task, evenly over its documents: a mean over more moves no figure of a plan


@dataclass(frozen=True)
class Assumptions:
    """What stands for documents where no pack is given. None of it is published."""

    utterance_s: float = 10.0
    codes_hz: float = 25.0  # of the published codec; a pack's own codes are counted
    text_tokens_per_s: float = 3.5
    turns: int = 4  # of a continuation and of a conversation
    text_document_tokens: int = 1000
    text_ids: int = 4000  # of the tokenizer of a model that does not start from Qwen2.5

    def line(self) -> str:
        """For people."""
        return ", ".join(f"{name} {value:g}" for name, value in asdict(self).items())


def measured_work(task: Task, split: Split, layouts: Layouts) -> Work:
    """Mean work of an example of the task, over documents of the split that serve it. There must be one."""
    places = split.eligible[task]
    chosen = places[:: max(1, len(places) // MOST_EXAMPLES)]
    total = sum((example_work(task, split.entries[place], layouts) for place in chosen), Work())
    return total * (1.0 / len(chosen))


def example_work(task: Task, entry: Entry, layouts: Layouts) -> Work:
    """Work of one example; of a repeat, before it is stretched."""
    stretches = layouts.of(task, entry)
    heard = [entry.turn(stretch.turn).num_samples or 0 for stretch in stretches if isinstance(stretch, Heard | Encoded)]
    audio = [stop - start for num_samples in heard for start, stop in pieces(num_samples)]
    if task is Task.CTC:
        return Work.of_example(0, 0, audio)
    targets = sum(
        layouts.num_tokens([stretch], entry) for stretch in stretches if isinstance(stretch, Fixed | Spoken) and stretch.is_target
    )
    # The first token of a document has nothing before it.
    return Work.of_example(layouts.num_tokens(stretches, entry), targets - (task is Task.TEXT), audio)


def assumed_work(task: Task, ratio: Ratio, assumed: Assumptions) -> Work:
    """Work of an example of the task as the assumptions have it; prompts are left out."""
    samples = round(assumed.utterance_s * MODEL_RATE_HZ)
    text = round(assumed.utterance_s * assumed.text_tokens_per_s)
    heard = num_heard_tokens(samples)
    spoken = 2 + ratio.group * ratio.num_groups(text, round(assumed.utterance_s * assumed.codes_hz))  # with its wrappers
    audio = [stop - start for start, stop in pieces(samples)]
    match task:
        case Task.CTC:
            return Work.of_example(0, 0, audio)
        case Task.TEXT:
            return Work.of_example(assumed.text_document_tokens + 1, assumed.text_document_tokens)
        case Task.REPEAT:
            return Work.of_example(2 * text + 3, text + 1)
        case Task.ASR | Task.S2TT | Task.CAPTIONING:
            return Work.of_example(heard + text + 1, text + 1, audio)
        case Task.TTS | Task.T2ST:
            return Work.of_example(text + spoken + 1, spoken, [])
        case Task.S2ST:
            return Work.of_example(heard + spoken + 1, spoken, audio)
        case Task.CONTINUATION_TEXT:
            said = (assumed.turns - 1) * text + 1
            return Work.of_example(heard + said, said, audio)
        case Task.CONTINUATION:
            return Work.of_example(assumed.turns * spoken + 1, (assumed.turns - 1) * spoken + 1)
        case Task.CONVERSATION:
            exchanges = max(1, assumed.turns // 2)
            return Work.of_example(exchanges * (heard + spoken + 1), exchanges * spoken, audio * exchanges)
