"""A small GLUE in the words of the embedded corpus: all eight tasks, in the official layouts, generated."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import count
from pathlib import Path
from random import Random
from typing import Final

from taskrobust._io.atomic import replacing
from taskrobust._io.locks import locked
from taskrobust.nlp.glue.tasks import GLUE, GlueTask
from taskrobust.synthetic.text import lexicon
from taskrobust.synthetic.text.events import ASKED, PARTS, Event, draw_event, sentence, with_others
from taskrobust.synthetic.text.grammar import Sentence, detokenize, generate_documents
from taskrobust.synthetic.text.lexicon import Topic

Example = tuple[tuple[str, ...], str]
"""The sentences and the label, as the files spell it."""

_TOPICS: Final = tuple(lexicon.TOPICS.values())
_MATCHED: Final = 6
"""So many topics MNLI's training and matched splits have. The mismatched splits are of the others."""

_MNLI_COLUMNS: Final = (
    "index promptID pairID genre sentence1_binary_parse sentence2_binary_parse sentence1_parse sentence2_parse "
    "sentence1 sentence2"
)
_COLUMNS: Final = {
    "sst2": "sentence label",
    "qqp": "id qid1 qid2 question1 question2 is_duplicate",
    "stsb": "index genre filename year old_index source1 source2 sentence1 sentence2 score",
    "mnli": f"{_MNLI_COLUMNS} label1 gold_label",
    "qnli": "index question sentence label",
    "rte": "index sentence1 sentence2 label",
}
_TEST_COLUMNS: Final = {
    "cola": "index sentence",
    "sst2": "index sentence",
    "qqp": "id question1 question2",
    "stsb": "index genre filename year old_index source1 source2 sentence1 sentence2",
    "mnli": _MNLI_COLUMNS,
    "qnli": "index question sentence",
    "rte": "index sentence1 sentence2",
}
_MRPC_COLUMNS: Final = ("Quality", "#1 ID", "#2 ID", "#1 String", "#2 String")


def write_miniature_glue(folder: Path, seed: int = 0, train: int = 2000, dev: int = 400, test: int = 200) -> None:
    """Writes the files of all tasks, or leaves them as they are if the folder is there.

    No example of a task is in two of its splits. In MNLI the mismatched splits are of topics that the others lack.

    Args:
        folder: Where to write.
        seed: Names the draw.
        train: Examples of each training split.
        dev: Examples of each dev split.
        test: Examples of each test split.
    """
    with locked(folder):
        if folder.exists():
            return
        with replacing(folder) as unfinished:
            for task in GLUE.values():
                counts = {"train": train} | dict.fromkeys(task.dev.values(), dev)
                _write(unfinished / task.folder, task, counts | dict.fromkeys(task.test.values(), test), seed)


def _write(folder: Path, task: GlueTask, counts: Mapping[str, int], seed: int) -> None:
    """Writes as many examples of each split, none of which is in another one."""
    folder.mkdir(parents=True)
    seen: set[tuple[str, ...]] = set()
    for split, number in counts.items():
        examples: list[Example] = []
        for texts, label in _stream(task, split, seed):
            if len(examples) == number:
                break
            if texts not in seen:
                seen.add(texts)
                examples.append((texts, label))
        lines = _lines(task, examples, has_labels=split not in task.test.values())
        (folder / f"{split}.tsv").write_text("\n".join(lines) + "\n")


def _lines(task: GlueTask, examples: list[Example], has_labels: bool) -> Iterator[str]:
    columns = _columns(task, has_labels)
    if columns != task.columns:
        yield "\t".join(columns)
    for number, (texts, label) in enumerate(examples):
        row = dict.fromkeys(columns, "-") | {columns[0]: str(number)}
        row |= dict(zip(task.texts, texts, strict=True)) | ({task.label: label} if has_labels else {})
        yield "\t".join(row.values())


def _columns(task: GlueTask, has_labels: bool) -> tuple[str, ...]:
    if task.name == "mrpc":  # whose names have blanks
        return _MRPC_COLUMNS if has_labels else ("index", *_MRPC_COLUMNS[1:])
    if has_labels and task.columns:
        return task.columns
    return tuple((_COLUMNS if has_labels else _TEST_COLUMNS)[task.name].split())


def _stream(task: GlueTask, split: str, seed: int) -> Iterator[Example]:
    if task.name == "cola":
        yield from _acceptability(f"{seed}/{split}")
    topics = _topics(task, split)
    for index in count():
        rng = Random(f"{seed}/{task.name}/{split}/{index}")
        yield _MAKERS[task.name](rng, topics)


def _topics(task: GlueTask, split: str) -> Sequence[Topic]:
    if not task.has_mismatched:
        return _TOPICS
    return _TOPICS[_MATCHED:] if split.endswith("mismatched") else _TOPICS[:_MATCHED]


# Acceptability: sentences of the grammar, of which half have one word of the wrong number.


def _other_numbers() -> dict[tuple[str, str], str]:
    verbs = [verb for topic in _TOPICS for verb in topic.verbs] + list(lexicon.CATENATIVES)
    verbs += [verb for verb, _ in (*lexicon.GOVERNED, *lexicon.PARTICLE_VERBS)]
    pairs = [(verb.vbz, verb.vbp) for verb in verbs]
    pairs += [(lexicon.HAVE["present", False], lexicon.HAVE["present", True])]
    pairs += [(lexicon.BE[tense, False][0], lexicon.BE[tense, True][0]) for tense in ("past", "present")]
    pairs += [(("this", "DT"), ("these", "DT")), (("every", "DT"), ("these", "DT")), (("each", "DT"), ("those", "DT"))]
    pairs += [(("that", "DT"), ("those", "DT"))]
    return {one: other[0] for one, other in pairs} | {other: one[0] for one, other in pairs}


_OTHER_NUMBER: Final = _other_numbers()


def _acceptability(seed: str) -> Iterator[Example]:
    for document in generate_documents(10**9, seed=int.from_bytes(seed.encode())):
        for number, words in enumerate(document):
            places = [place for place, token in enumerate(words) if token in _OTHER_NUMBER]
            if places and number % 2 == 0:
                yield (detokenize([words]),), "1"
            elif places:
                place = places[number // 2 % len(places)]
                wrong: Sentence = [*words[:place], (_OTHER_NUMBER[words[place]], words[place][1]), *words[place + 1 :]]
                yield (detokenize([wrong]),), "0"


# The other tasks: one example


def _polarity(rng: Random, topics: Sequence[Topic]) -> Example:
    good = rng.random() < 0.5
    topic = rng.choice(topics)
    text = _colored(rng, topic, good)
    if rng.random() < 0.3:  # another mood in a clause of concession
        text = f"although {_colored(rng, topic, not good)} , {text}"
    if rng.random() < 0.2:
        text = f"{rng.choice(lexicon.INTERJECTIONS[good])[0]} , {text}"
    return (sentence(text),), str(int(good))


def _colored(rng: Random, topic: Topic, good: bool) -> str:
    event = draw_event(rng, topic)
    if rng.random() < 0.5:
        negated = rng.random() < 0.3
        degree = "never" if negated else rng.choice(("", *(word for word, _ in lexicon.DEGREES)))
        return f"{event.agent} was {degree} {rng.choice(lexicon.EVALUATIONS[good ^ negated]).positive[0]}"
    return f"{event.agent} {event.verb.vbd[0]} the {event.thing} {rng.choice(lexicon.MANNERS[good])[0]}"


def _changed(rng: Random, event: Event, parts: Sequence[str], topics: Sequence[Topic]) -> Event:
    """An event in which some of the parts are others, or, more often, one of another topic altogether."""
    if rng.random() < 0.7:
        return draw_event(rng, rng.choice([topic for topic in topics if event.verb not in topic.verbs]))
    return with_others(event, rng.sample(parts, rng.randint(1, len(parts))), rng, rng.choice(topics))


def _paraphrase(rng: Random, topics: Sequence[Topic]) -> Example:
    event = draw_event(rng, rng.choice(topics))
    same = rng.random() < 0.5
    other = event if same else _changed(rng, event, PARTS[:4], topics)
    return (sentence(event.said(rng)), sentence(other.said(rng))), str(int(same))


def _duplicate(rng: Random, topics: Sequence[Topic]) -> Example:
    event = draw_event(rng, rng.choice(topics))
    same = rng.random() < 0.5
    asked = rng.choice([*ASKED])
    other = event if same else _changed(rng, event, ASKED[asked], topics)
    first, second = (rng.choice(one.questions(asked)) for one in (event, other))
    return (sentence(first, "?"), sentence(second, "?")), str(int(same))


def _similarity(rng: Random, topics: Sequence[Topic]) -> Example:
    """The score is the share of the parts that both have."""
    event = draw_event(rng, rng.choice(topics))
    shared = rng.randint(0, len(PARTS))
    other = with_others(event, rng.sample(PARTS, len(PARTS) - shared), rng, rng.choice(topics))
    return (sentence(event.active()), sentence(other.active())), f"{5 * shared / len(PARTS):.3f}"


def _inference(rng: Random, topics: Sequence[Topic]) -> Example:
    event = draw_event(rng, rng.choice(topics))
    label = rng.choice(("entailment", "neutral", "contradiction"))
    denied = rng.random() < 0.3
    other = _changed(rng, event, PARTS[1:3], topics) if label == "neutral" else event
    premise = f"{event.agent} {_NEVER[denied]}{event.verb.vbd[0]} the {event.thing} {event.place} {event.time}"
    denies = denied if label == "entailment" else not denied if label == "contradiction" else rng.random() < 0.5
    hypothesis = f"{other.agent} {_NEVER[denies]}{other.verb.vbd[0]} the {other.thing}"
    return (sentence(premise), sentence(hypothesis)), label


_NEVER: Final = {True: "never ", False: ""}


def _answer(rng: Random, topics: Sequence[Topic]) -> Example:
    event = draw_event(rng, rng.choice(topics))
    answers = rng.random() < 0.5
    asked = rng.choice([*ASKED])
    told = event if answers else _changed(rng, event, ASKED[asked], topics)
    label = "entailment" if answers else "not_entailment"
    return (sentence(rng.choice(event.questions(asked)), "?"), sentence(told.said(rng))), label


def _entailment(rng: Random, topics: Sequence[Topic]) -> Example:
    topic = rng.choice(topics)
    event, another = draw_event(rng, topic), draw_event(rng, topic)
    follows = rng.random() < 0.5
    other = event if follows else _changed(rng, event, PARTS[:3], topics)
    told = f"{event.said(rng)} , and {another.active()}"
    hypothesis = f"{other.agent} {other.verb.vbd[0]} the {other.thing}"
    return (sentence(told), sentence(hypothesis)), "entailment" if follows else "not_entailment"


_MAKERS: Final[Mapping[str, Callable[[Random, Sequence[Topic]], Example]]] = {
    "sst2": _polarity,
    "mrpc": _paraphrase,
    "qqp": _duplicate,
    "stsb": _similarity,
    "mnli": _inference,
    "qnli": _answer,
    "rte": _entailment,
}
