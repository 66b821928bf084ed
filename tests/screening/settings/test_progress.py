"""The rate on the board counts from when the work began."""

from __future__ import annotations

import pytest

from assay.screening.settings import progress


def test_the_first_chunk_counts_with_the_time_that_it_took(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = 1000.0
    monkeypatch.setattr(progress.time, "monotonic", lambda: now)
    board = progress.Board(_last=now, _start=now)
    now += 500.0  # other stages
    board.begin("score")
    now += 50.0
    board.begin("score")
    board.advance("score", 500, 2_000)
    assert capsys.readouterr().err == "score 500 of 2,000 (10/s, 150 s left)\n"
    now += 50.0
    board.advance("pull", 300)  # it began with the board
    assert capsys.readouterr().err == "score 500 of 2,000 (5/s, 300 s left) · pull 300 (0/s)\n"
