"""Medians, ratios and verdicts of rounds."""

from __future__ import annotations

import json

import pytest
from bench.http.cases import CASES, WANTED
from bench.http.floor import Floor
from bench.http.result import BenchmarkResult, Round, Row
from bench.load.plan import LoadResult

from bench.http import report

BY_NAME = {case.name: case for case in CASES}


def load(requests=100, payload_bytes=10**9, seconds=1.0, failures=0):
    return LoadResult(requests, payload_bytes, seconds, 0.001, 0.002, 0.1, failures, "status 500" if failures else "")


def result_of(*rows):
    return BenchmarkResult(
        {"processor": "p"}, Floor(sha256=0.6, encrypt=0.4, decrypt=0.3), list(rows), {"cryo disk": 250 * 10**6}
    )


def rounds(*rates):
    return [Round(rate, load(), 2.0) for rate in rates]


def verdict(result, title):
    return next(row for row in report.wanted(result) if row[0] == title)[2:]


def test_a_ratio_is_the_median_of_the_ratios_of_the_rounds():
    case = BY_NAME["put-chunk-4mib-8"]
    result = result_of(Row(case, "cryo", rounds(100, 400, 90)), Row(case, "fio", rounds(200, 500, 100)))
    assert result.ratio(case.name, "fio") == pytest.approx(0.8)
    assert verdict(result, "PutChunk 4 MiB x8, of fio's rate") == ("0.80", "holds")


def test_cpu_is_reported_in_multiples_of_the_floor():
    put, get = BY_NAME["put-chunk-4mib-8"], BY_NAME["get-chunk-4mib-8-disk"]
    result = result_of(Row(put, "cryo", rounds(1)), Row(get, "cryo", rounds(1)))
    values = {wanted.title: result.value(wanted) for wanted in WANTED if wanted.metric.startswith("cpu")}
    assert values["PutChunk 4 MiB x8, CPU over SHA-256 + AES-256-GCM"] == pytest.approx(2.0)
    assert values["GetChunk 4 MiB x8 on disk, CPU over AES-256-GCM"] == pytest.approx(2.0 / 0.3)
    assert verdict(result, "GetChunk 4 MiB x8 on disk, CPU over AES-256-GCM") == ("6.67", "MISSED")
    assert verdict(result, "GetChunk 4 MiB x8 in memory, CPU over AES-256-GCM") == ("-", "not measured")


def test_memory_is_that_of_the_largest_process_of_cryo():
    assert verdict(result_of(), "Memory of one process at its peak") == ("250.00 MB", "holds")


@pytest.mark.parametrize(
    ("row_rounds", "failed"),
    [(rounds(1), False), ([], True), ([Round(1, load(failures=2))], True)],
)
def test_failed_requests_to_cryo_fail_the_run(row_rounds, failed):
    assert result_of(Row(CASES[0], "cryo", row_rounds)).ours_failed() is failed


def test_a_run_without_our_server_fails():
    assert result_of(Row(CASES[0], "fio", rounds(1))).ours_failed()


def test_the_report_has_reasons_for_missing_figures():
    text = report.text(
        result_of(
            Row(CASES[0], "cryo", rounds(100)),
            Row(CASES[0], "nginx", note="not installed"),
            Row(CASES[1], "rclone", [Round(0, load(requests=0, payload_bytes=0, failures=7))], note="status 500: no"),
        )
    )
    assert "not installed" in text
    assert "- rclone (put-chunk-4mib-8): status 500: no" in text
    assert "neither check signatures nor hash, encrypt or sync" in text


def test_the_document_is_json():
    document = result_of(Row(CASES[0], "cryo", rounds(100)), Row(CASES[0], "fio", [Round(50)])).document()
    assert json.loads(json.dumps(document))["rows"][1]["cryo_ratio"] == pytest.approx(2.0)


def test_wanted_figures_name_existing_cases():
    assert {wanted.case for wanted in WANTED} - {""} <= set(BY_NAME)
    assert len(BY_NAME) == len(CASES)
