"""The command line of `python -m bench`, which selects cases."""

from __future__ import annotations

from bench.__main__ import arguments, chosen


def test_quick_runs_short_versions_of_the_same_cases_data():
    full, quick = chosen(arguments([])), chosen(arguments(["--quick"]))
    assert [case.name for case in full] == [case.name for case in quick]
    assert all(small.requests < large.requests for small, large in zip(quick, full, strict=True))
    assert all(case.requests >= case.connections for case in quick)


def test_one_case_may_be_chosen():
    assert [case.name for case in chosen(arguments(["--case", "put-chunk-4kib-8"]))] == ["put-chunk-4kib-8"]
