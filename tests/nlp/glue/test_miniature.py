import filecmp
from pathlib import Path

import pytest

from taskrobust.nlp.glue.files import Examples, read_split
from taskrobust.nlp.glue.miniature import write_miniature_glue
from taskrobust.nlp.glue.tasks import GLUE, GlueTask
from taskrobust.synthetic.text import lexicon
from taskrobust.synthetic.text.glue import mrpc

SIZES = {"train": 300, "dev": 100, "test": 40}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("miniature") / "glue"
    write_miniature_glue(path, **SIZES)
    return path


def read(folder: Path, name: str) -> dict[str, Examples]:
    task = GLUE[name]
    return {split: read_split(str(folder), task, split) for split in ("train", *task.dev.values(), *task.test.values())}


@pytest.mark.parametrize("name", GLUE)
def test_reader_of_the_official_files_reads_the_miniature(folder: Path, name: str) -> None:
    splits = read(folder, name)
    assert {len(splits[split]) for split in splits} == set(SIZES.values())
    assert all(len(examples) == SIZES[split.partition("_")[0]] for split, examples in splits.items())


@pytest.mark.parametrize("name", GLUE)
def test_no_example_is_in_two_splits(folder: Path, name: str) -> None:
    splits = read(folder, name)
    texts = [row for examples in splits.values() for row in zip(*examples.texts, strict=True)]
    assert len(set(texts)) == len(texts)


@pytest.mark.parametrize("name", [name for name, task in GLUE.items() if task.labels])
def test_classes_are_balanced(folder: Path, name: str) -> None:
    labels = read(folder, name)["train"].labels
    assert labels is not None
    share = [(labels == number).mean() for number in range(GLUE[name].outputs)]
    assert min(share) > 0.8 / len(share)


def test_score_is_five_only_for_equal_sentences(folder: Path) -> None:
    examples = read(folder, "stsb")["train"]
    assert examples.labels is not None
    assert set(examples.labels.tolist()) == {0, 1, 2, 3, 4, 5}
    for first, second, score in zip(*examples.texts, examples.labels, strict=True):
        assert (first == second) == (score == 5)


def test_mismatched_genres_are_topics_that_training_lacks(folder: Path) -> None:
    splits = read(folder, "mnli")
    things = {name: {thing.singular[0] for thing in topic.things} for name, topic in lexicon.TOPICS.items()}

    def topics(examples: Examples) -> set[str]:
        words = {word for column in examples.texts for text in column for word in text.split()}
        return {name for name, nouns in things.items() if words & nouns}

    assert topics(splits["dev_matched"]) == topics(splits["train"])
    assert topics(splits["dev_mismatched"]) == topics(splits["test_mismatched"])
    assert topics(splits["train"]).isdisjoint(topics(splits["dev_mismatched"]))


def test_unacceptable_sentences_differ_from_acceptable_ones_in_one_word(folder: Path) -> None:
    """Each is a sentence of the grammar except for one word."""
    texts = read(folder, "cola")["train"]
    assert texts.labels is not None
    wrong = [text for text, label in zip(*texts.texts, texts.labels, strict=True) if label == 0]
    assert all(text.endswith((".", "!")) for text in wrong)
    assert any(" these " in f" {text} " for text in wrong)


def test_same_seed_writes_the_same_files(folder: Path, tmp_path: Path) -> None:
    write_miniature_glue(tmp_path / "same", **SIZES)
    write_miniature_glue(tmp_path / "other", seed=1, **SIZES)
    files = [str(path.relative_to(folder)) for path in sorted(folder.rglob("*.tsv"))]
    assert len(files) == 8 * 3 + 2
    assert filecmp.cmpfiles(folder, tmp_path / "same", files, shallow=False) == (files, [], [])
    assert filecmp.cmpfiles(folder, tmp_path / "other", files, shallow=False)[0] == []


def test_task_with_a_generator_alone_has_simple_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    row = GlueTask(name="plain", folder="Plain", texts=("a", "b"), label="y", labels=("0", "1"), generator=mrpc)
    monkeypatch.setitem(GLUE, "plain", row)
    write_miniature_glue(tmp_path / "glue", train=3, dev=2, test=2)
    assert (tmp_path / "glue/Plain/test.tsv").read_text().startswith("index\ta\tb\n0\t")
    assert {len(examples) for examples in read(tmp_path / "glue", "plain").values()} == {2, 3}


def test_existing_folder_is_left_unchanged(folder: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*.tsv")}
    write_miniature_glue(folder, seed=1)
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*.tsv")} == before
