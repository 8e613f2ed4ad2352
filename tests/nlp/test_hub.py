from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import HfApi

from taskrobust.nlp.classifier import load_tokenizer
from taskrobust.nlp.corpus.wordpiece import SPECIAL_TOKENS, load_wordpiece
from taskrobust.nlp.hub import check_on_hub


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names that the hub was asked for, which cannot be reached."""
    names: list[str] = []

    def model_info(self: Any, name: str, **_: Any) -> None:
        names.append(name)
        raise ConnectionError("Name or service not known")

    monkeypatch.setattr(HfApi, "model_info", model_info)
    return names


@pytest.mark.parametrize("load", [load_wordpiece, load_tokenizer, check_on_hub])
def test_a_name_that_is_not_there_is_one_sentence_after_one_request(load: Any, asked: list[str]) -> None:
    message = (
        r"^Expected a folder or a name on the Hugging Face Hub, got 'nosuch/name': it is no folder, and the hub says: "
        r"Name or service not known\.$"
    )
    with pytest.raises(ValueError, match=message):
        load("nosuch/name")
    assert asked == ["nosuch/name"]


def test_a_name_that_cannot_be_one_is_not_asked_for(asked: list[str]) -> None:
    with pytest.raises(ValueError, match=r"^Expected a folder or a name on the Hugging Face Hub, got 'no such:x', "):
        check_on_hub("no such:x")
    assert asked == []


def test_a_folder_is_not_asked_for(asked: list[str], tmp_path: Path) -> None:
    check_on_hub(tmp_path)
    assert asked == []


def test_a_vocabulary_of_special_tokens_is_refused(tmp_path: Path) -> None:
    (tmp_path / "vocab.txt").write_text("\n".join(SPECIAL_TOKENS) + "\n")
    with pytest.raises(ValueError, match=r"^Expected a vocabulary with words, got .* with special tokens only\.$"):
        load_wordpiece(tmp_path / "vocab.txt")
