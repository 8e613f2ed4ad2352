"""The words of the generated corpus (``grammar.py``), with their Penn Treebank tags.

Nouns are written ``singular`` or ``singular/plural``, verbs ``base`` or ``base/past/participle``, and adjectives
``positive`` or ``positive/comparative/superlative``. Omitted forms are regular, by the few spelling rules below. Topics
share no nouns, verbs and adjectives.
"""

from typing import Final, NamedTuple

Token = tuple[str, str]
"""A word and its Penn Treebank tag."""


class Noun(NamedTuple):
    """The two forms of a noun."""

    singular: Token
    plural: Token


class Verb(NamedTuple):
    """The six forms of a verb, named by their tags."""

    vb: Token
    vbp: Token
    vbz: Token
    vbd: Token
    vbn: Token
    vbg: Token


class Adjective(NamedTuple):
    """The three degrees of an adjective."""

    positive: Token
    comparative: Token
    superlative: Token


class Person(NamedTuple):
    """A named protagonist and the matching pronouns."""

    name: Token
    subject: Token
    object: Token
    possessive: Token


class Topic(NamedTuple):
    """The content words that the documents of one topic share."""

    people: tuple[Noun, ...]
    things: tuple[Noun, ...]
    places: tuple[Noun, ...]
    verbs: tuple[Verb, ...]
    adjectives: tuple[Token, ...]


def _tagged(tag: str, words: str) -> tuple[Token, ...]:
    return tuple((word, tag) for word in words.split())


def _ends_in_consonant_and_y(word: str) -> bool:
    return word[-1] == "y" and word[-2] not in "aeiou"


def _with_s(word: str) -> str:
    if _ends_in_consonant_and_y(word):
        return word[:-1] + "ies"
    return word + ("es" if word.endswith(("s", "x", "ch", "sh")) else "s")


def _with_e(word: str, ending: str) -> str:
    if _ends_in_consonant_and_y(word):
        return word[:-1] + "i" + ending
    return word + (ending[1:] if word.endswith("e") else ending)


def _with_ing(word: str) -> str:
    return (word[:-1] if word.endswith("e") else word) + "ing"


def _nouns(entries: str) -> tuple[Noun, ...]:
    forms = (entry.partition("/") for entry in entries.split())
    return tuple(Noun((noun, "NN"), (plural or _with_s(noun), "NNS")) for noun, _, plural in forms)


def _verb(entry: str) -> Verb:
    base, *irregular = entry.split("/")
    past, participle = irregular or [_with_e(base, "ed")] * 2
    return Verb(
        vb=(base, "VB"),
        vbp=(base, "VBP"),
        vbz=(_with_s(base), "VBZ"),
        vbd=(past, "VBD"),
        vbn=(participle, "VBN"),
        vbg=(_with_ing(base), "VBG"),
    )


def _verbs(entries: str) -> tuple[Verb, ...]:
    return tuple(_verb(entry) for entry in entries.split())


def _adjectives(entries: str) -> tuple[Adjective, ...]:
    adjectives = []
    for entry in entries.split():
        positive, *irregular = entry.split("/")
        comparative, superlative = irregular or [_with_e(positive, "er"), _with_e(positive, "est")]
        adjectives.append(Adjective((positive, "JJ"), (comparative, "JJR"), (superlative, "JJS")))
    return tuple(adjectives)


def _people(names: str, subject: str, object_: str, possessive: str) -> tuple[Person, ...]:
    pronouns = ((subject, "PRP"), (object_, "PRP"), (possessive, "PRP$"))
    return tuple(Person(name, *pronouns) for name in _tagged("NNP", names))


def _topic(*, people: str, things: str, places: str, verbs: str, adjectives: str) -> Topic:
    return Topic(_nouns(people), _nouns(things), _nouns(places), _verbs(verbs), _tagged("JJ", adjectives))


TOPICS: Final = {
    "farm": _topic(
        people="farmer shepherd rider milkmaid gardener",
        things="cow horse goat hen pig tractor bucket fence",
        places="barn field orchard stable",
        verbs="feed/fed/fed herd milk brush chase",
        adjectives="muddy woolly fertile ripe dusty",
    ),
    "sea": _topic(
        people="sailor captain diver pirate fisherman/fishermen",
        things="ship wave anchor net gull shark oyster rope",
        places="harbour island deck lighthouse",
        verbs="steer haul moor hoist sink/sank/sunk",
        adjectives="salty stormy deep wet blue",
    ),
    "school": _topic(
        people="teacher pupil student tutor headmaster",
        things="book lesson pencil essay ruler answer desk riddle",
        places="classroom library corridor playground",
        verbs="teach/taught/taught study write/wrote/written explain solve",
        adjectives="clever difficult strict curious lazy",
    ),
    "kitchen": _topic(
        people="cook baker waiter butcher guest",
        things="cake spoon bowl pie onion kettle plate loaf/loaves",
        places="pantry oven table cellar",
        verbs="bake boil slice taste serve",
        adjectives="sweet burnt spicy crisp tasty",
    ),
    "railway": _topic(
        people="driver conductor passenger porter tourist",
        things="train ticket engine wagon whistle signal suitcase timetable",
        places="station platform tunnel bridge",
        verbs="board inspect load repair announce",
        adjectives="busy crowded noisy punctual late",
    ),
    "forest": _topic(
        people="ranger hunter hiker scout woodcutter",
        things="wolf/wolves fox owl bear deer/deer squirrel mushroom nest",
        places="cave river clearing path",
        verbs="hunt climb track hide/hid/hidden follow",
        adjectives="wild dark silent ancient mossy",
    ),
    "hospital": _topic(
        people="doctor nurse patient surgeon dentist",
        things="bandage pill needle wound bone tooth/teeth syringe crutch",
        places="ward clinic ambulance pharmacy",
        verbs="examine treat cure weigh test",
        adjectives="sick healthy pale sterile painful",
    ),
    "theatre": _topic(
        people="actor singer dancer violinist composer",
        things="song costume mask violin drum curtain melody trumpet",
        places="stage balcony cloakroom foyer",
        verbs="sing/sang/sung perform rehearse play applaud",
        adjectives="loud famous graceful dramatic elegant",
    ),
}

PEOPLE: Final = (
    *_people("Anna Clara Emma Greta Ida Julia Laura Maria Nora Olga Rosa Vera", "she", "her", "her"),
    *_people("Adam Boris David Felix Henry Hugo Jacob Karl Leo Martin Otto Paul", "he", "him", "his"),
)
RELATIONS: Final = _nouns("friend neighbour cousin")

# The mood of a clause selects its evaluating words: True is the good mood.
EVALUATIONS: Final = {
    True: _adjectives("good/better/best kind brave happy nice"),
    False: _adjectives("bad/worse/worst mean rude poor angry"),
}
MANNERS: Final = {
    True: _tagged("RB", "gladly happily kindly gently bravely"),
    False: _tagged("RB", "badly angrily sadly rudely clumsily"),
}
INTERJECTIONS: Final = {True: _tagged("UH", "wow hooray bravo yay"), False: _tagged("UH", "alas ouch ugh oops")}
DEGREES: Final = _tagged("RB", "very quite rather extremely")

TENSES: Final = ("past", "present", "future")
TIMES: Final = {
    "past": (*_tagged("RB", "once recently"), ("yesterday", "NN")),
    "present": (*_tagged("RB", "now again"), ("today", "NN")),
    "future": (*_tagged("RB", "soon eventually"), ("tomorrow", "NN")),
}
FREQUENCIES: Final = _tagged("RB", "usually often always never sometimes")
MODALS: Final = _tagged("MD", "will can must should could")
BE: Final = {
    # (tense, plural): the copula
    ("past", False): [("was", "VBD")],
    ("past", True): [("were", "VBD")],
    ("present", False): [("is", "VBZ")],
    ("present", True): [("are", "VBP")],
    ("future", False): [("will", "MD"), ("be", "VB")],
    ("future", True): [("will", "MD"), ("be", "VB")],
}
HAVE: Final = {
    ("past", False): ("had", "VBD"),
    ("past", True): ("had", "VBD"),
    ("present", False): ("has", "VBZ"),
    ("present", True): ("have", "VBP"),
}

# Verbs of all topics, with the words that follow them.
GOVERNED: Final = tuple(
    (_verb(verb), (preposition, "TO" if preposition == "to" else "IN"))
    for verb, preposition in (
        ("look", "at"),
        ("wait", "for"),
        ("depend", "on"),
        ("belong", "to"),
        ("come/came/come", "from"),
        ("work", "with"),
        ("think/thought/thought", "about"),
    )
)
PARTICLE_VERBS: Final = tuple(
    (_verb(verb), (particle, "RP"))
    for verb, particle in (("pick", "up"), ("throw/threw/thrown", "away"), ("point", "out"))
)
CATENATIVES: Final = _verbs("want learn try refuse hope")  # "want to feed the cow"

ARTICLES: Final = {True: ("an", "DT"), False: ("a", "DT")}  # before a vowel or not
THE: Final = ("the", "DT")
SINGULAR_DETERMINERS: Final = _tagged("DT", "this that every each")
PLURAL_DETERMINERS: Final = (*_tagged("DT", "these those some"), *_tagged("CD", "two three seven"))
PREDETERMINERS: Final = _tagged("PDT", "all both")
POSSESSIVES: Final = _tagged("PRP$", "my our your")
PLACING: Final = _tagged("IN", "in near behind beside outside")
# "and" and the first subordinators keep the mood of the sentence, "but" and the second ones reverse it.
AND: Final = ("and", "CC")
BUT: Final = ("but", "CC")
CORRELATIVES: Final = ((("both", "CC"), AND), (("either", "CC"), ("or", "CC")), (("neither", "CC"), ("nor", "CC")))
SUBORDINATORS: Final = {
    True: (*_tagged("IN", "because after"), ("when", "WRB")),
    False: _tagged("IN", "although unless"),
}
