"""A log is read on from its last stamp, and never counted twice."""

from __future__ import annotations

from tools.engines.kubernetes.logs import _fold, _Reading


def epoch(number: int) -> str:
    return f'SIGNALBOX {{"event": "epoch", "epoch": {number}, "metrics": {{"loss": 0.5}}}}'


def test_overlapping_readings_count_each_line_once() -> None:
    reading = _Reading()
    one, two, three = (f"2026-11-24T12:00:0{n}.{n}Z {epoch(n)}\n" for n in (1, 2, 3))
    _fold(reading, (one + two).encode())
    _fold(reading, (two + three + "2026-11-24T12:00:04Z half a li").encode())
    assert [row["epoch"] for row in reading.progress.epoch_metrics] == [1, 2, 3]


def test_fractions_are_compared_as_numbers() -> None:
    reading = _Reading()
    _fold(reading, f"2026-11-24T12:00:01.1Z {epoch(1)}\n".encode())
    _fold(reading, f"2026-11-24T12:00:01.1Z {epoch(1)}\n2026-11-24T12:00:01.100000001Z {epoch(2)}\n".encode())
    assert len(reading.progress.epoch_metrics) == 2


def test_without_stamps_all_was_told_anew() -> None:
    reading = _Reading()
    _fold(reading, f"{epoch(1)}\n".encode())
    _fold(reading, f"{epoch(1)}\n{epoch(2)}\n".encode())
    assert len(reading.progress.epoch_metrics) == 2


def test_a_node_writes_its_own_time_zone_and_changes_its_clock() -> None:
    reading = _Reading()
    summer, winter = ("2026-10-25T02:59:59.9+02:00", "2026-10-25T02:00:00.1+01:00")
    _fold(reading, f"{summer} {epoch(1)}\n".encode())
    _fold(reading, f"{summer} {epoch(1)}\n{winter} {epoch(2)}\n".encode())
    assert [row["epoch"] for row in reading.progress.epoch_metrics] == [1, 2]
