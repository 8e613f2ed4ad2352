"""The embedded corpus: English-like stories from a small generative grammar, with gold Penn Treebank tags.

A story has a topic, a tense, a named protagonist, a companion, and a small recurring cast of people, things, places,
verbs and adjectives of its topic. So the next sentence can be distinguished from a sentence of another story, and
masked words of the nine classes can be recovered from different cues:

- determiners, prepositions and conjunctions mostly from adjacent words (number, government, ``both … and``),
- pronouns from the protagonist, some adverbs from tense and degree,
- verbs, nouns and adjectives from cast, agreement and tense, up to two sentences away,
- manner adverbs, and interjections, which are rare, from the mood of the clause, with little better than a guess.
"""

from collections.abc import Iterator
from random import Random
from typing import Final

from taskrobust.synthetic.text import lexicon
from taskrobust.synthetic.text.lexicon import Noun, Token, Verb

Sentence = list[Token]
Document = list[Sentence]

_TOPICS: Final = tuple(lexicon.TOPICS.values())
_CLOSING_MARKS: Final = frozenset({",", ".", "!", "'s"})


def generate_documents(count: int, seed: int) -> Iterator[Document]:
    """Generate documents 0 to ``count - 1`` of a stream.

    Document ``i`` depends on the seed and ``i`` only, so a longer corpus starts with the shorter one.

    Args:
        count: Number of documents.
        seed: Seed of the stream. Use different seeds for training and held-out documents.
    """
    for index in range(count):
        yield _Story(Random(f"{seed}/{index}")).document()


def detokenize(document: Document) -> str:
    """Convert a document to a line of plain text that Penn Treebank tokenization splits into the same words.

    >>> detokenize([[("Wow", "UH"), (",", ","), ("Anna", "NNP"), ("'s", "POS"), ("hen", "NN"), ("!", ".")]])
    "Wow, Anna's hen!"
    """
    words = (word for sentence in document for word, _ in sentence)
    return "".join(word if word in _CLOSING_MARKS else " " + word for word in words).lstrip()


class _Story:
    """State of one document. A method named after a phrase returns a random one."""

    def __init__(self, rng: Random) -> None:
        self.rng = rng
        topic = rng.choice(_TOPICS)
        self.people = rng.sample(topic.people, 3)
        self.things = rng.sample(topic.things, 4)
        self.places = rng.sample(topic.places, 2)
        self.verbs = rng.sample(topic.verbs, 3)
        self.adjectives = rng.sample(topic.adjectives, 3)
        self.protagonist, self.companion = rng.sample(lexicon.PEOPLE, 2)
        self.tense = rng.choice(lexicon.TENSES)
        self.good_mood = True

    def document(self) -> Document:
        sentences = self.rng.randint(4, 9)
        return [self.sentence(self.opening_clause())] + [self.sentence(self.clause()) for _ in range(sentences - 1)]

    # Sentences and clauses

    def sentence(self, clause: Sentence) -> Sentence:
        interjections = lexicon.INTERJECTIONS[self.good_mood]
        sentence = self.with_second_clause(clause) if self.chance(0.35) else clause
        mark = "."
        if self.chance(0.12):
            sentence = [self.rng.choice(interjections), (",", ","), *sentence]
            mark = "!"
        word, tag = sentence[0]
        return [(word[0].upper() + word[1:], tag), *sentence[1:], (mark, ".")]

    def with_second_clause(self, clause: Sentence) -> Sentence:
        """Keeps the mood after "and" and "because", reverses it after "but" and "although"."""
        keeps_mood = self.chance(0.5)
        self.good_mood ^= not keeps_mood
        second_clause = self.clause(in_new_mood=False)
        if self.chance(0.6):
            return [*clause, lexicon.AND if keeps_mood else lexicon.BUT, *second_clause]
        return [*clause, self.rng.choice(lexicon.SUBORDINATORS[keeps_mood]), *second_clause]

    def opening_clause(self) -> Sentence:
        """Names the protagonist."""
        self.good_mood = self.chance(0.5)
        return [self.protagonist.name, *self.predicate(plural=False)]

    def clause(self, in_new_mood: bool = True) -> Sentence:
        if in_new_mood:
            self.good_mood = self.chance(0.5)
        if self.chance(0.06):
            return self.existential_clause()
        if self.chance(0.08):
            return self.passive_clause()
        subject, plural = self.subject()
        return [*subject, *self.predicate(plural)]

    def existential_clause(self) -> Sentence:
        """Such as "there was a cow near the barn"."""
        thing, plural = self.noun_phrase(self.rng.choice(self.things), definite=False)
        return [("there", "EX"), *lexicon.BE[self.tense, plural], *thing, *self.place_phrase()]

    def passive_clause(self) -> Sentence:
        """Such as "the cow was fed by the farmer"."""
        thing, plural = self.noun_phrase(self.rng.choice(self.things))
        agent, _ = self.subject_noun_phrase()
        verb = self.rng.choice(self.verbs)
        return [*thing, *lexicon.BE[self.tense, plural], verb.vbn, ("by", "IN"), *agent]

    # Subjects and objects. ``plural`` is the grammatical number.

    def subject(self) -> tuple[Sentence, bool]:
        draw = self.rng.random()
        if draw < 0.3:
            return [self.protagonist.name], False
        if draw < 0.5:
            return [self.protagonist.subject], False
        if draw < 0.56:
            return [("they", "PRP")], True
        if draw < 0.66:
            return [self.protagonist.possessive, self.rng.choice(lexicon.RELATIONS).singular], False
        return self.subject_noun_phrase()

    def subject_noun_phrase(self) -> tuple[Sentence, bool]:
        draw = self.rng.random()
        if draw < 0.25:
            return [self.companion.name], False
        if draw < 0.35:
            return self.coordinated_people()
        person, plural = self.noun_phrase(self.rng.choice(self.people))
        if self.chance(0.12):
            person += [("who", "WP"), *self.verb_group(self.rng.choice(self.verbs), plural), *self.thing()]
        return person, plural

    def coordinated_people(self) -> tuple[Sentence, bool]:
        """Such as "both Anna and the farmer", "neither Anna nor the farmer"."""
        opening, conjunction = self.rng.choice(lexicon.CORRELATIVES)
        person = self.rng.choice(self.people)
        pair = [self.protagonist.name, conjunction, lexicon.THE, person.singular]
        return [opening, *pair], opening[0] == "both"

    def object(self) -> Sentence:
        draw = self.rng.random()
        if draw < 0.1:
            return [self.companion.object]
        if draw < 0.18:
            return [
                lexicon.THE,
                self.rng.choice(self.people).singular,
                ("'s", "POS"),
                self.rng.choice(self.things).singular,
            ]
        if draw < 0.26:
            return [self.companion.name, ("'s", "POS"), self.rng.choice(self.things).singular]
        return self.thing()

    def thing(self) -> Sentence:
        thing, _ = self.noun_phrase(self.rng.choice(self.things))
        return thing

    def noun_phrase(self, noun: Noun, definite: bool = True) -> tuple[Sentence, bool]:
        plural = self.chance(0.35)
        modifiers = self.modifiers()
        head = noun.plural if plural else noun.singular
        following = modifiers[0] if modifiers else head
        if not definite:
            determiners = [] if plural else [self.article(following)]
        elif plural:
            determiners = self.plural_determiners()
        else:
            determiners = [self.singular_determiner(following)]
        return [*determiners, *modifiers, head], plural

    def modifiers(self) -> Sentence:
        if self.chance(0.55):
            return []
        adjective = self.rng.choice(self.adjectives)
        return [self.rng.choice(lexicon.DEGREES), adjective] if self.chance(0.2) else [adjective]

    def singular_determiner(self, following: Token) -> Token:
        draw = self.rng.random()
        if draw < 0.45:
            return lexicon.THE
        if draw < 0.75:
            return self.article(following)
        return self.rng.choice(lexicon.SINGULAR_DETERMINERS if draw < 0.9 else lexicon.POSSESSIVES)

    def plural_determiners(self) -> Sentence:
        draw = self.rng.random()
        if draw < 0.45:
            return [lexicon.THE]
        if draw < 0.85:
            return [self.rng.choice(lexicon.PLURAL_DETERMINERS)]
        return [self.rng.choice(lexicon.PREDETERMINERS), lexicon.THE]

    def article(self, following: Token) -> Token:
        return lexicon.ARTICLES[following[0][0] in "aeiou"]

    # Predicates

    def predicate(self, plural: bool) -> Sentence:
        draw = self.rng.random()
        if draw < 0.15:
            return self.copular_predicate(plural)
        if draw < 0.25:
            return self.comparison(plural)
        return [*self.verb_phrase(plural), *self.adverbials()]

    def copular_predicate(self, plural: bool) -> Sentence:
        evaluation = self.rng.choice(lexicon.EVALUATIONS[self.good_mood]).positive
        degree = [self.rng.choice(lexicon.DEGREES)] if self.chance(0.4) else []
        return [*lexicon.BE[self.tense, plural], *degree, evaluation]

    def comparison(self, plural: bool) -> Sentence:
        """Such as "was braver than the farmer", "was the bravest of the farmers"."""
        evaluation = self.rng.choice(lexicon.EVALUATIONS[self.good_mood])
        person = self.rng.choice(self.people)
        copula = lexicon.BE[self.tense, plural]
        if self.chance(0.5):
            return [*copula, evaluation.comparative, ("than", "IN"), lexicon.THE, person.singular]
        return [*copula, lexicon.THE, evaluation.superlative, ("of", "IN"), lexicon.THE, person.plural]

    def verb_phrase(self, plural: bool) -> Sentence:
        draw = self.rng.random()
        if draw < 0.55:
            return [*self.verb_group(self.rng.choice(self.verbs), plural), *self.object()]
        if draw < 0.75:
            verb, preposition = self.rng.choice(lexicon.GOVERNED)
            return [*self.verb_group(verb, plural), preposition, *self.object()]
        if draw < 0.85:
            verb, particle = self.rng.choice(lexicon.PARTICLE_VERBS)
            return [*self.verb_group(verb, plural), particle, *self.thing()]
        catenative, verb = self.rng.choice(lexicon.CATENATIVES), self.rng.choice(self.verbs)
        return [*self.verb_group(catenative, plural), ("to", "TO"), verb.vb, *self.object()]

    def verb_group(self, verb: Verb, plural: bool) -> Sentence:
        """The finite verb with its auxiliaries, in the tense of the story."""
        draw = self.rng.random()
        if draw < 0.15:
            return [*lexicon.BE[self.tense, plural], verb.vbg]
        if self.tense == "future":
            return [self.rng.choice(lexicon.MODALS), verb.vb]
        if draw < 0.3:
            return [lexicon.HAVE[self.tense, plural], *([("already", "RB")] if self.chance(0.5) else []), verb.vbn]
        if self.tense == "past":
            return [verb.vbd]
        frequency = [self.rng.choice(lexicon.FREQUENCIES)] if self.chance(0.4) else []
        return [*frequency, verb.vbp if plural else verb.vbz]

    def adverbials(self) -> Sentence:
        """Where, how and when."""
        adverbials = self.place_phrase() if self.chance(0.35) else []
        if self.chance(0.35):
            adverbials.append(self.rng.choice(lexicon.MANNERS[self.good_mood]))
        if self.chance(0.3):
            adverbials.append(self.rng.choice(lexicon.TIMES[self.tense]))
        return adverbials

    def place_phrase(self) -> Sentence:
        return [self.rng.choice(lexicon.PLACING), lexicon.THE, self.rng.choice(self.places).singular]

    def chance(self, probability: float) -> bool:
        return self.rng.random() < probability
