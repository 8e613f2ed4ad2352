import json
import random
from pathlib import Path
from typing import Any

import nltk
import pytest

from taskrobust.nlp.corpus.wordpiece import train_wordpiece

TAGGED_SENTENCES = [
    [(pair.rsplit("/", 1)[0], pair.rsplit("/", 1)[1]) for pair in line.split()]
    for line in (
        "The/DT old/JJ cat/NN slept/VBD quietly/RB on/IN the/DT mat/NN ./.",
        "She/PRP can/MD not/RB see/VB the/DT dogs/NNS and/CC they/PRP run/VBP fast/RB ./.",
        "``/`` Oh/UH ,/, well/UH ,/, ''/'' said/VBD Mr./NNP Brown/NNP in/IN 1984/CD ./.",
        "A/DT well-known/JJ writer/NN sold/VBD 25/CD books/NNS to/TO his/PRP$ friends/NNS !/.",
        "Did/VBD the/DT run/NN end/VB there/RB ?/.",
        "They/PRP saw/VBD her/PRP$ fast/JJ run/NN ,/, but/CC it/PRP was/VBD old/JJ ./.",
    )
]


@pytest.fixture(scope="session")
def small_tagger() -> Any:
    """NLTK's tagger, trained on six sentences. It has all the features of the large one."""
    tagger = nltk.tag.PerceptronTagger(load=False)
    random.seed(0)  # training shuffles
    tagger.train([list(sentence) for sentence in TAGGED_SENTENCES], nr_iter=8)
    return tagger


@pytest.fixture(scope="session")
def documents() -> list[str]:
    """Documents of paragraphs of random sentences of the words above."""
    rng = random.Random(0)
    words = [word for sentence in TAGGED_SENTENCES for word, _ in sentence if word[0].isalnum()]

    def sentence() -> str:
        text = " ".join(rng.choices(words, k=rng.randint(2, 12)))
        return text[0].upper() + text[1:] + rng.choice([".", "!", "?", '."'])

    def paragraph() -> str:
        return " ".join(sentence() for _ in range(rng.randint(1, 5)))

    return ["\n".join(paragraph() for _ in range(rng.randint(1, 4))) for _ in range(41)]


@pytest.fixture(scope="session")
def small_wordpiece(documents: list[str]) -> Any:
    return train_wordpiece([*documents, 'abc xyz 0123 , . : ; ! ? ( ) [ ] " cannot gonna'], vocab_size=160)


@pytest.fixture
def nltk_data(small_tagger: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the small tagger and a small Punkt model, for NLTK in this process and in worker processes."""
    folder = tmp_path / "nltk_data"
    tagger = folder / "taggers/averaged_perceptron_tagger_eng"
    punkt = folder / "tokenizers/punkt_tab/english"
    tagger.mkdir(parents=True)
    punkt.mkdir(parents=True)
    contents = (small_tagger.model.weights, small_tagger.tagdict, sorted(small_tagger.classes))
    for name, content in zip(("weights", "tagdict", "classes"), contents, strict=True):
        (tagger / f"averaged_perceptron_tagger_eng.{name}.json").write_text(json.dumps(content))
    (punkt / "abbrev_types.txt").write_text("mr\ndr\n")
    for name in ("collocations.tab", "sent_starters.txt", "ortho_context.tab"):
        (punkt / name).write_text("")
    monkeypatch.setattr(nltk.data, "path", [str(folder)])
    monkeypatch.setenv("NLTK_DATA", str(folder))
    return folder
