"""Events in the words of the embedded corpus, with several phrasings as statements and questions."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from random import Random
from typing import Final

from taskrobust.synthetic.text import lexicon
from taskrobust.synthetic.text.lexicon import Topic, Verb

PARTS: Final = ("agent", "verb", "thing", "place", "time")

ASKED: Final = {
    "agent": ("verb", "thing", "place"),
    "place": ("agent", "verb", "thing"),
    "time": ("agent", "verb", "thing", "place"),
}
"""The parts that a question can ask for, and the parts that it mentions."""

_TIMES: Final = ("yesterday", "once", "recently")
_PREPOSITIONS: Final = tuple(word for word, _ in lexicon.PLACING)


@dataclass(frozen=True)
class Event:
    """An event in the past.

    Args:
        agent: The agent, such as "Anna" or "the farmer".
        verb: The action.
        thing: The object, such as "muddy cow".
        place: The place, such as "near the barn".
        time: The time, such as "yesterday".
    """

    agent: str
    verb: Verb
    thing: str
    place: str
    time: str

    def active(self) -> str:
        """Such as "Anna fed the muddy cow near the barn yesterday"."""
        return f"{self.agent} {self.verb.vbd[0]} the {self.thing} {self.place} {self.time}"

    def passive(self) -> str:
        """Such as "the muddy cow was fed by Anna near the barn yesterday"."""
        return f"the {self.thing} was {self.verb.vbn[0]} by {self.agent} {self.place} {self.time}"

    def fronted(self) -> str:
        """Such as "yesterday Anna fed the muddy cow near the barn"."""
        return f"{self.time} {self.agent} {self.verb.vbd[0]} the {self.thing} {self.place}"

    def said(self, rng: Random) -> str:
        """One of the three statements at random."""
        return rng.choice((self.active, self.passive, self.fronted))()

    def questions(self, part: str) -> tuple[str, str]:
        """Two questions for a part in ``ASKED``."""
        done = f"was the {self.thing} {self.verb.vbn[0]}"
        if part == "agent":
            return f"who {self.verb.vbd[0]} the {self.thing} {self.place}", f"by whom {done} {self.place}"
        word, place = {"place": ("where", ""), "time": ("when", self.place)}[part]
        active = f"did {self.agent} {self.verb.vb[0]} the {self.thing}"
        return f"{word} {active} {place}", f"{word} {done} by {self.agent} {place}"


def draw_event(rng: Random, topic: Topic) -> Event:
    """Draw an event of a topic."""
    person = rng.choice(topic.people).singular[0]
    thing, adjective = rng.choice(topic.things).singular[0], rng.choice(topic.adjectives)[0]
    return Event(
        agent=rng.choice((rng.choice(lexicon.PEOPLE).name[0], f"the {person}")),
        verb=rng.choice(topic.verbs),
        thing=rng.choice((thing, f"{adjective} {thing}")),
        place=f"{rng.choice(_PREPOSITIONS)} the {rng.choice(topic.places).singular[0]}",
        time=rng.choice(_TIMES),
    )


def with_others(event: Event, parts: Sequence[str], rng: Random, topic: Topic) -> Event:
    """Replace some parts of an event by different ones of a topic."""
    while True:
        other = draw_event(rng, topic)
        if all(_head(other, part) != _head(event, part) for part in parts):
            return replace(event, **{part: getattr(other, part) for part in parts})


def _head(event: Event, part: str) -> str:
    phrase: str = event.verb.vb[0] if part == "verb" else getattr(event, part)
    return phrase.split()[-1]


def sentence(text: str, mark: str = ".") -> str:
    """Capitalize a text and append a punctuation mark."""
    words = f"{text} {mark}".split()  # a single blank at an omitted word
    return f"{text[0].upper()}{' '.join(words)[1:]}"
