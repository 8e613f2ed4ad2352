import json
from pathlib import Path

import pytest

from taskrobust.commands.theory_appendix_c import theory_appendix_c as appendix_c
from taskrobust.commands.theory_bound import theory_bound as bound
from taskrobust.commands.theory_excess import theory_excess as excess
from taskrobust.commands.theory_sample_complexity import theory_sample_complexity as sample_complexity


def results(folder: Path, name: str) -> tuple[object, str]:
    assert (folder / f"{name}.png").stat().st_size > 20_000
    return json.loads((folder / f"{name}.json").read_text()), (folder / f"{name}.md").read_text()


def test_bound_writes_gaps_below_the_bound(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bound(tmp_path, most_steps=50)

    values, table = results(tmp_path, "bound")
    assert isinstance(values, dict)
    assert values["steps"] == [10, 32, 50]
    assert len(values["gaps"]) == 8
    for problem, gaps in values["gaps"].items():
        assert all(
            gap < limit
            for name in ("paper", "entropic", "sharp")
            for gap, limit in zip(gaps[name], values["bounds"][problem], strict=True)
        )
    assert "| Chebyshev d=10 |" in table
    assert "…" not in capsys.readouterr().out


def test_steps_and_probabilities_out_of_range_raise(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"^Expected a positive number of steps, got 0\.$"):
        bound(tmp_path, most_steps=0)
    with pytest.raises(ValueError, match=r"^Expected a delta between 0 and 1, got 2\.$"):
        sample_complexity(tmp_path, delta=2)


def test_sample_complexity_writes_both_counts_and_the_price(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sample_complexity(tmp_path, trials=500)

    values, table = results(tmp_path, "sample-complexity")
    assert isinstance(values, dict)
    row = values["eps"].index(2.0)
    assert (values["average"]["worst"][row], values["minimax"]["worst"][row]) == (32, 9)
    assert "| 2 | 32 | 9 |" in table
    row = values["eps"].index(0.5)
    price = values["average"]["mean"][row], values["minimax"]["mean"][row]
    assert price == pytest.approx((2.7, 26.4), abs=0.1)
    assert "…" not in capsys.readouterr().out


def test_appendix_c_writes_the_corrected_ratio(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    appendix_c(tmp_path)

    values, table = results(tmp_path, "appendix-c")
    assert isinstance(values, list)
    assert values[1]["ratio"] == pytest.approx(4)
    assert "| 10 | 2.25 | 0.5625 | 4 | 1 |" in table
    assert "…" not in capsys.readouterr().out


def test_excess_shows_that_minimax_serves_the_noise(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    excess(tmp_path)

    values, table = results(tmp_path, "excess")
    assert isinstance(values, list)
    for row in values:
        assert row["trained on risks"] == pytest.approx(row["minimax"], rel=0.06)
        assert row["trained on excess risks"] == pytest.approx(row["excess minimax"], rel=0.03)
    assert [row["noise"] for row in values if row["minimax"] > row["average"]] == [0.1, 0.2, 0.5, 1.0, 2.0]
    assert "| 2 | 0.160 | 1.000 | 1.000 | 0.111 | 0.113 |" in table
    assert "…" not in capsys.readouterr().out
