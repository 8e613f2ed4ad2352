import json
import os
from pathlib import Path

import numpy as np
import pytest

from taskrobust.nlp.glue.files import read_split, write_predictions
from taskrobust.nlp.glue.scores import METRICS
from taskrobust.nlp.glue.tasks import GLUE, GlueTask, glue_tasks

MNLI = (
    "index\tpromptID\tpairID\tgenre\tsentence1_binary_parse\tsentence2_binary_parse\tsentence1_parse\tsentence2_parse\t"
    "sentence1\tsentence2"
)
FILES = {
    "CoLA/train.tsv": 'gj04\t1\t\tShe "sang.\nc-05\t0\t*\tHim sang NA.\n',
    "CoLA/test.tsv": "index\tsentence\n0\tHe slept.\n",
    "SST-2/train.tsv": "sentence\tlabel\na fine film \t1\nnull\t0\n",
    "MRPC/train.tsv": "\ufeffQuality\t#1 ID\t#2 ID\t#1 String\t#2 String\n1\t70\t71\tOne .\tThe one .\n",
    "MRPC/test.tsv": "index\t#1 ID\t#2 ID\t#1 String\t#2 String\n0\t8\t9\tA .\tB .\n",
    "QQP/train.tsv": (
        "id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate\n13\t1\t2\tWho?\tWhose?\t0\n15\t5\t6\tWhy?\tWhat for?\t1\n"
    ),
    "STS-B/train.tsv": (
        "index\tgenre\tfilename\tyear\told_index\tsource1\tsource2\tsentence1\tsentence2\tscore\n"
        "0\tnews\tf\t2012\t1\tnone\tnone\tA plane.\tAn air plane.\t3.800\n"
    ),
    "MNLI/train.tsv": f"{MNLI}\tlabel1\tgold_label\n0\t1\t1n\tuk\t(\t(\t(\t(\tIt is.\tIt is not.\tx\tcontradiction\n",
    "MNLI/dev_mismatched.tsv": (
        f"{MNLI}\tlabel1\tlabel2\tlabel3\tlabel4\tlabel5\tgold_label\n"
        "0\t1\t1n\toup\t(\t(\t(\t(\tIt was.\tIt may be.\ta\tb\tc\td\te\tneutral\n"
    ),
    "MNLI/test_matched.tsv": f"{MNLI}\n9\t1\t1n\toup\t(\t(\t(\t(\tYes.\tNo.\n",
    "QNLI/train.tsv": "index\tquestion\tsentence\tlabel\n4\tWho?\tAnna.\tentailment\n",
    "RTE/train.tsv": "index\tsentence1\tsentence2\tlabel\n0\tA.\tB.\tnot_entailment\n",
}
EXPECTED = {
    ("cola", "train"): [('She "sang.', 1), ("Him sang NA.", 0)],
    ("cola", "test"): [("He slept.", "0")],
    ("sst2", "train"): [("a fine film ", 1), ("null", 0)],
    ("mrpc", "train"): [("One .", "The one .", 1)],
    ("mrpc", "test"): [("A .", "B .", "0")],
    ("qqp", "train"): [("Who?", "Whose?", 0), ("Why?", "What for?", 1)],
    ("stsb", "train"): [("A plane.", "An air plane.", np.float32(3.8))],
    ("mnli", "train"): [("It is.", "It is not.", 2)],
    ("mnli", "dev_mismatched"): [("It was.", "It may be.", 1)],
    ("mnli", "test_matched"): [("Yes.", "No.", "9")],
    ("qnli", "train"): [("Who?", "Anna.", 0)],
    ("rte", "train"): [("A.", "B.", 1)],
}


@pytest.fixture
def glue(tmp_path: Path) -> Path:
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


@pytest.mark.parametrize(("task", "split"), EXPECTED, ids=["-".join(key) for key in EXPECTED])
def test_official_files_are_read(glue: Path, task: str, split: str) -> None:
    examples = read_split(str(glue), GLUE[task], split)
    labels = examples.ids if examples.labels is None else examples.labels.tolist()
    assert list(zip(*examples.texts, labels, strict=True)) == EXPECTED[task, split]


def test_all_eight_tasks_are_read() -> None:
    assert {task for task, _ in EXPECTED} == set(GLUE)


def test_task_is_one_row_of_the_table(glue: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    row = GlueTask(
        name="wnli", folder="WNLI", texts=("sentence1", "sentence2"), label="label", labels=("0", "1"), metrics=("f1",)
    )
    monkeypatch.setitem(GLUE, "wnli", row)
    (glue / "WNLI").mkdir()
    (glue / "WNLI/train.tsv").write_text("index\tsentence1\tsentence2\tlabel\n0\tA.\tB.\t1\n")
    (task,) = glue_tasks(["wnli"])
    examples = read_split(str(glue), task, "train")
    assert examples.labels is not None
    assert (examples.texts, examples.labels.tolist()) == ((["A."], ["B."]), [1])
    assert repr(examples) == "Examples(1 examples, 2 text columns, labels)"
    assert task in glue_tasks(["all"])
    assert (task.dev, task.test) == ({"wnli": "dev"}, {"WNLI": "test"})
    assert set(task.metrics) <= METRICS.keys()


@pytest.mark.parametrize(
    ("file", "text", "task", "message"),
    [
        (
            "SST-2/train.tsv",
            "text\tlabel\nfine\t1\n",
            "sst2",
            r"Expected the columns \['sentence', 'label'\] in line 1 of .*SST-2/train.tsv, got \['text', 'label'\]",
        ),
        (
            "RTE/train.tsv",
            "index\tsentence1\tsentence2\tlabel\n0\tA.\tB.\tneutral\n",
            "rte",
            r"Expected a label among \['entailment', 'not_entailment'\] in column 'label' of line 2 of "
            r".*RTE/train.tsv, got 'neutral'",
        ),
        (
            "STS-B/train.tsv",
            FILES["STS-B/train.tsv"].replace("3.800", "5.5"),
            "stsb",
            r"Expected a score from 0 to 5 in column 'score' of line 2 of .*STS-B/train.tsv, got '5.5'",
        ),
        (
            "STS-B/train.tsv",
            FILES["STS-B/train.tsv"].replace("3.800", "high"),
            "stsb",
            r"Expected a score from 0 to 5 in column 'score' of line 2 .*, got 'high'",
        ),
        (
            "CoLA/train.tsv",
            "gj04\t1\t\tOne.\ngj04\tTwo.\n",
            "cola",
            r"Expected 4 columns in line 2 of .*CoLA/train.tsv, got 2: \['source', 'label', 'mark', 'sentence'\]",
        ),
        ("SST-2/train.tsv", "sentence\tlabel\n", "sst2", r"Expected rows of sst2 in .*SST-2/train.tsv, got none"),
        ("SST-2/train.tsv", "", "sst2", r"Expected the columns .* in line 1 of .*, got \[\]"),
    ],
)
def test_error_names_file_line_and_column(glue: Path, file: str, text: str, task: str, message: str) -> None:
    (glue / file).write_text(text)
    with pytest.raises(ValueError, match=message):
        read_split(str(glue), GLUE[task], "train")


def write_qqp(glue: Path, split: str, whole: int) -> None:
    """Write a file with the row of line 12 split in two."""
    rows = ["1\t2\t3\tWho?\tWhose?\t1"] * whole
    rows[10:10] = ["14\t3\t4\tCut in", "two?\tIs it?\t1"]
    header = FILES["QQP/train.tsv"].partition("\n")[0]
    if split == "test":
        header, rows = header.removesuffix("\tis_duplicate"), [row.removesuffix("\t1") for row in rows]
    (glue / f"QQP/{split}.tsv").write_text("\n".join([header, *rows]) + "\n")


@pytest.mark.parametrize("split", ["train", "dev"])
def test_a_few_split_rows_are_left_out_and_reported(glue: Path, split: str) -> None:
    write_qqp(glue, split, whole=2000)
    examples = read_split(str(glue), GLUE["qqp"], split)
    assert len(examples) == 2000
    path = glue / f"QQP/{split}.tsv"
    assert examples.left_out == f"2 lines of {path} have too few columns, the first is line 12: left out."
    assert not read_split(str(glue), GLUE["mnli"], "train").left_out


def test_many_split_rows_are_an_error(glue: Path) -> None:
    write_qqp(glue, "train", whole=1000)
    message = (
        r"Expected 6 columns in at least 99.9% of the lines, as in the official file. 2 lines of .*QQP/train.tsv have "
        r"too few columns, the first is line 12. Download the file again."
    )
    with pytest.raises(ValueError, match=message):
        read_split(str(glue), GLUE["qqp"], "train")


def test_no_row_of_a_test_file_is_left_out(glue: Path) -> None:
    write_qqp(glue, "test", whole=2000)
    with pytest.raises(ValueError, match=r"Expected 5 columns in line 12 of .*QQP/test.tsv, got 4"):
        read_split(str(glue), GLUE["qqp"], "test")


def test_missing_file_is_named(glue: Path) -> None:
    with pytest.raises(ValueError, match=r"Expected the file .*QNLI/dev.tsv, got no such file. Point --glue"):
        read_split(str(glue), GLUE["qnli"], "dev")


def test_other_bytes_than_utf8_are_named(glue: Path) -> None:
    (glue / "SST-2/train.tsv").write_bytes(b"sentence\tlabel\nfine\t1\nna\xefve\t1\n")
    with pytest.raises(ValueError, match=r"Expected UTF-8 text in .*SST-2/train.tsv, got other bytes after line \d"):
        read_split(str(glue), GLUE["sst2"], "train")


def test_unknown_task_is_named() -> None:
    with pytest.raises(ValueError, match=r"Expected GLUE tasks among \['cola', .*\], or all, got \['wnli'\]"):
        glue_tasks(["cola", "wnli"])


def test_all_gives_all_tasks() -> None:
    assert glue_tasks(["all"]) == list(GLUE.values())
    assert glue_tasks(["rte", "cola", "rte"]) == [GLUE["rte"], GLUE["cola"]]


@pytest.fixture
def dataset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A folder that `datasets` loads, like a clone of nyu-mll/glue."""
    rows = {
        "mnli": ("validation_matched", {"premise": "It is.", "hypothesis": "It is not.", "label": 2, "idx": 0}),
        "qqp": ("test", {"question1": "Who?", "question2": "Whose?", "label": -1, "idx": 7}),
        "stsb": ("train", {"sentence1": "A.", "sentence2": "B.", "label": 5.5, "idx": 0}),
        "rte": ("train", {"sentence": "A.", "label": 0, "idx": 0}),
    }
    configs = []
    for name, (split, row) in rows.items():
        (tmp_path / "glue" / name).mkdir(parents=True)
        (tmp_path / "glue" / name / f"{split}.jsonl").write_text(json.dumps(row) + "\n")
        configs.append({"config_name": name, "data_files": [{"split": split, "path": f"{name}/{split}.jsonl"}]})
    (tmp_path / "glue/README.md").write_text(f"---\nconfigs: {json.dumps(configs)}\n---\n")
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    return str(tmp_path / "glue")


def test_data_sets_are_read(dataset: str) -> None:
    examples = read_split(dataset, GLUE["mnli"], "dev_matched")
    assert examples.texts == (["It is."], ["It is not."])
    assert examples.labels is not None
    assert examples.labels.tolist() == [2]


def test_test_split_of_a_data_set_has_indices_instead_of_labels(dataset: str) -> None:
    examples = read_split(dataset, GLUE["qqp"], "test")
    assert (examples.labels, examples.ids) == (None, ["7"])


def test_label_out_of_range_in_a_data_set_is_named(dataset: str) -> None:
    with pytest.raises(
        ValueError, match=r"Expected a label from 0 to 5 in column 'label' of row 0 of the split 'train' of 'stsb'"
    ):
        read_split(dataset, GLUE["stsb"], "train")


def test_missing_column_of_a_data_set_is_named(dataset: str) -> None:
    with pytest.raises(ValueError, match=r"Expected the columns \['sentence1', 'sentence2', 'label'\] in the split"):
        read_split(dataset, GLUE["rte"], "train")


def test_missing_data_set_is_named(dataset: str) -> None:
    with pytest.raises(
        ValueError, match=r"Expected a folder of GLUE's TSV files or a data set with the configuration 'cola' and"
    ):
        read_split(dataset, GLUE["cola"], "train")


@pytest.mark.parametrize(
    ("task", "predictions", "lines"),
    [
        ("cola", [1, 0], ["1", "0"]),
        ("mnli", [2, 0], ["contradiction", "entailment"]),
        ("rte", [1, 0], ["not_entailment", "entailment"]),
        ("stsb", [5.25, -0.1, 2.4564], ["5.000", "0.000", "2.456"]),
    ],
)
def test_submissions_have_the_format_of_the_leaderboard(
    tmp_path: Path, task: str, predictions: list[float], lines: list[str]
) -> None:
    ids = [str(10 + number) for number in range(len(lines))]
    write_predictions(tmp_path / "new/file.tsv", GLUE[task], ids, np.array(predictions))
    rows = [row.split("\t") for row in (tmp_path / "new/file.tsv").read_text().splitlines()]
    assert rows == [["index", "prediction"], *([a, b] for a, b in zip(ids, lines, strict=True))]


def test_files_of_a_submission_have_the_names_of_the_leaderboard() -> None:
    assert [name for task in GLUE.values() for name in task.test] == [
        "CoLA",
        "SST-2",
        "MRPC",
        "QQP",
        "STS-B",
        "MNLI-m",
        "MNLI-mm",
        "QNLI",
        "RTE",
    ]


REAL = {
    "cola": (8551, 1043),
    "sst2": (67349, 872),
    "mrpc": (3667, 408),
    "stsb": (5749, 1500),
    "qnli": (4000, 1463),
    "rte": (2490, 277),
}


@pytest.mark.realdata
@pytest.mark.skipif("TASKROBUST_DATA" not in os.environ, reason="TASKROBUST_DATA does not name a folder of real data")
@pytest.mark.parametrize("task", REAL)
def test_real_files_have_the_known_numbers_of_examples(task: str) -> None:
    source = os.path.join(os.environ["TASKROBUST_DATA"], "glue")
    assert tuple(len(read_split(source, GLUE[task], split)) for split in ("train", "dev")) == REAL[task]
