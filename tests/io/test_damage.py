import json
import re
from pathlib import Path

import pytest

from taskrobust._io.damage import damage_named


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (KeyError("split"), "Expected the metrics in {file}: 'split'."),
        (AssertionError(), "Expected the metrics in {file}: AssertionError."),
        (ValueError("first line\nsecond line"), "Expected the metrics in {file}: first line."),
        (
            UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte"),
            "Expected the metrics in {file}: 'utf-8' codec",
        ),
    ],
)
def test_an_error_becomes_one_line_that_names_the_file(error: Exception, message: str, tmp_path: Path) -> None:
    file = tmp_path / "metrics.jsonl"
    expected = re.escape(message.format(file=file))
    with pytest.raises(ValueError, match=expected) as raised, damage_named(file, "the metrics"):
        raise error
    assert "\n" not in str(raised.value)
    assert raised.value.__cause__ is error


def test_an_error_that_names_the_file_is_passed_on(tmp_path: Path) -> None:
    error = ValueError(f"Expected a column 'text' in {tmp_path / 'a.parquet'}, got none.")
    place = tmp_path / "a.parquet"
    with pytest.raises(ValueError, match=r"^Expected a column") as raised, damage_named(place, "a parquet file"):
        raise error
    assert raised.value is error


def test_what_is_fine_is_read(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("[1]")
    with damage_named(tmp_path / "a.json", "JSON"):
        assert json.loads((tmp_path / "a.json").read_text()) == [1]
