"""Generated examples of each GLUE task, in the words of the embedded corpus."""

from collections.abc import Callable, Iterator, Sequence
from functools import wraps
from itertools import count
from random import Random
from typing import Final

from taskrobust.synthetic.text import lexicon
from taskrobust.synthetic.text.events import ASKED, PARTS, Event, draw_event, sentence, with_others
from taskrobust.synthetic.text.grammar import Sentence, detokenize, generate_documents
from taskrobust.synthetic.text.lexicon import Topic

Example = tuple[tuple[str, ...], str]
"""One or two sentences, and the label as the official files spell it."""

Generator = Callable[[int, str, Sequence[Topic]], Iterator[Example]]
"""Generates examples without end from a seed, the name of a split, and the topics to draw from."""


def _stream(draw: Callable[[Random, Sequence[Topic]], Example]) -> Generator:
    """Turns a function that draws one example into a generator whose streams are seeded by the function's name."""

    @wraps(draw)
    def examples(seed: int, split: str, topics: Sequence[Topic]) -> Iterator[Example]:
        for index in count():
            yield draw(Random(f"{seed}/{draw.__name__}/{split}/{index}"), topics)

    return examples


def _other_numbers() -> dict[tuple[str, str], str]:
    """Each verb form and determiner, mapped to the word of the other grammatical number."""
    verbs = [verb for topic in lexicon.TOPICS.values() for verb in topic.verbs] + list(lexicon.CATENATIVES)
    verbs += [verb for verb, _ in (*lexicon.GOVERNED, *lexicon.PARTICLE_VERBS)]
    pairs = [(verb.vbz, verb.vbp) for verb in verbs]
    pairs += [(lexicon.HAVE["present", False], lexicon.HAVE["present", True])]
    pairs += [(lexicon.BE[tense, False][0], lexicon.BE[tense, True][0]) for tense in ("past", "present")]
    pairs += [(("this", "DT"), ("these", "DT")), (("every", "DT"), ("these", "DT")), (("each", "DT"), ("those", "DT"))]
    pairs += [(("that", "DT"), ("those", "DT"))]
    return {one: other[0] for one, other in pairs} | {other: one[0] for one, other in pairs}


_OTHER_NUMBER: Final = _other_numbers()
_NEVER: Final = {True: "never ", False: ""}


def cola(seed: int, split: str, _: Sequence[Topic]) -> Iterator[Example]:
    """Acceptability: sentences of the grammar, half of them with one word of the wrong number."""
    for document in generate_documents(10**9, seed=int.from_bytes(f"{seed}/{split}".encode())):
        for number, words in enumerate(document):
            places = [place for place, token in enumerate(words) if token in _OTHER_NUMBER]
            if places and number % 2 == 0:
                yield (detokenize([words]),), "1"
            elif places:
                place = places[number // 2 % len(places)]
                wrong: Sentence = [*words[:place], (_OTHER_NUMBER[words[place]], words[place][1]), *words[place + 1 :]]
                yield (detokenize([wrong]),), "0"


@_stream
def sst2(rng: Random, topics: Sequence[Topic]) -> Example:
    """Sentiment: an event with a good or bad evaluation, sometimes after a concession of the opposite sentiment."""
    good = rng.random() < 0.5
    topic = rng.choice(topics)
    text = _colored(rng, topic, good)
    if rng.random() < 0.3:
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


@_stream
def mrpc(rng: Random, topics: Sequence[Topic]) -> Example:
    """Paraphrase: two sentences about the same event, or about different ones."""
    event = draw_event(rng, rng.choice(topics))
    same = rng.random() < 0.5
    other = event if same else _changed(rng, event, PARTS[:4], topics)
    return (sentence(event.said(rng)), sentence(other.said(rng))), str(int(same))


@_stream
def qqp(rng: Random, topics: Sequence[Topic]) -> Example:
    """Duplicates: two questions about the same event, or about different ones."""
    event = draw_event(rng, rng.choice(topics))
    same = rng.random() < 0.5
    asked = rng.choice([*ASKED])
    other = event if same else _changed(rng, event, ASKED[asked], topics)
    first, second = (rng.choice(one.questions(asked)) for one in (event, other))
    return (sentence(first, "?"), sentence(second, "?")), str(int(same))


@_stream
def stsb(rng: Random, topics: Sequence[Topic]) -> Example:
    """Similarity: the score is the fraction of parts that two events share, times 5."""
    event = draw_event(rng, rng.choice(topics))
    shared = rng.randint(0, len(PARTS))
    other = with_others(event, rng.sample(PARTS, len(PARTS) - shared), rng, rng.choice(topics))
    return (sentence(event.active()), sentence(other.active())), f"{5 * shared / len(PARTS):.3f}"


@_stream
def mnli(rng: Random, topics: Sequence[Topic]) -> Example:
    """Inference: the hypothesis repeats the premise, denies it, or is about another event."""
    event = draw_event(rng, rng.choice(topics))
    label = rng.choice(("entailment", "neutral", "contradiction"))
    denied = rng.random() < 0.3
    other = _changed(rng, event, PARTS[1:3], topics) if label == "neutral" else event
    premise = f"{event.agent} {_NEVER[denied]}{event.verb.vbd[0]} the {event.thing} {event.place} {event.time}"
    denies = denied if label == "entailment" else not denied if label == "contradiction" else rng.random() < 0.5
    hypothesis = f"{other.agent} {_NEVER[denies]}{other.verb.vbd[0]} the {other.thing}"
    return (sentence(premise), sentence(hypothesis)), label


@_stream
def qnli(rng: Random, topics: Sequence[Topic]) -> Example:
    """Question answering: a question about an event, and a sentence about the same event or another one."""
    event = draw_event(rng, rng.choice(topics))
    answers = rng.random() < 0.5
    asked = rng.choice([*ASKED])
    told = event if answers else _changed(rng, event, ASKED[asked], topics)
    label = "entailment" if answers else "not_entailment"
    return (sentence(rng.choice(event.questions(asked)), "?"), sentence(told.said(rng))), label


@_stream
def rte(rng: Random, topics: Sequence[Topic]) -> Example:
    """Inference from two joined events: the hypothesis is the first one, or another one."""
    topic = rng.choice(topics)
    event, another = draw_event(rng, topic), draw_event(rng, topic)
    follows = rng.random() < 0.5
    other = event if follows else _changed(rng, event, PARTS[:3], topics)
    told = f"{event.said(rng)} , and {another.active()}"
    hypothesis = f"{other.agent} {other.verb.vbd[0]} the {other.thing}"
    return (sentence(told), sentence(hypothesis)), "entailment" if follows else "not_entailment"


def _changed(rng: Random, event: Event, parts: Sequence[str], topics: Sequence[Topic]) -> Event:
    """The event with some of the given parts replaced or, more often, an event of another topic."""
    if rng.random() < 0.7:
        return draw_event(rng, rng.choice([topic for topic in topics if event.verb not in topic.verbs]))
    return with_others(event, rng.sample(parts, rng.randint(1, len(parts))), rng, rng.choice(topics))
