"""Report of an HTTP benchmark as Markdown tables."""

from __future__ import annotations

from bench.http.cases import WANTED
from bench.http.result import OURS, BenchmarkResult, Row
from bench.table import table

COLUMNS = (
    "case",
    "server",
    "requests/s",
    "MB/s",
    "p50 ms",
    "p99 ms",
    "CPU s/GB",
    "CPU us/request",
    "cryo/peer",
    "failed",
)
FIGURES = (
    ("requests_per_second", "{:,.0f}"),
    ("megabytes_per_second", "{:,.1f}"),
    ("latency_p50_ms", "{:.2f}"),
    ("latency_p99_ms", "{:.2f}"),
    ("cpu_seconds_per_gigabyte", "{:.2f}"),
    ("cpu_us_per_request", "{:,.0f}"),
)
LEGEND = (
    "cryo answers signed requests, once the bytes are hashed, encrypted and durable. fio syncs once, at the end.",
    "nginx and rclone neither check signatures nor hash, encrypt or sync. The page cache is warm for all.",
    "MB = 10^6 bytes, GB = 10^9 bytes; cryo/peer is the median of the rounds' ratios of MB/s.",
)


def text(result: BenchmarkResult) -> str:
    """Return the whole report."""
    floor = result.floor
    parts = [
        table(("machine", ""), sorted(result.machine.items())),
        table(COLUMNS, (_cells(result, row) for row in result.rows)),
        "\n".join(LEGEND),
        table(
            ("floor, one core", "CPU s/GB"),
            [
                ("SHA-256", f"{floor.sha256:.2f}"),
                ("AES-256-GCM, sealing", f"{floor.encrypt:.2f}"),
                ("AES-256-GCM, opening", f"{floor.decrypt:.2f}"),
            ],
        ),
        table(
            ("largest process", "peak MB"),
            [(name, f"{peak / 1e6:.0f}") for name, peak in result.memory_peak_bytes.items()],
        ),
        table(("wanted", "limit", "measured", ""), wanted(result)),
        notes(result),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def wanted(result: BenchmarkResult) -> list[tuple[str, str, str, str]]:
    """Return each wanted figure with the measured value."""
    rows = []
    for each in WANTED:
        value = result.value(each)
        limit = f"{'<=' if each.at_most else '>='} {each.limit:g}{each.unit}"
        measured = "-" if value is None else f"{value:.2f}{each.unit}"
        verdict = "not measured" if value is None else "holds" if each.holds(value) else "MISSED"
        rows.append((each.title, limit, measured, verdict))
    return rows


def notes(result: BenchmarkResult) -> str:
    """Return why figures are missing or requests failed."""
    cases: dict[tuple[str, str], list[str]] = {}
    for row in result.rows:
        if row.note:
            cases.setdefault((row.server, row.note), []).append(row.case.name)
    lines = [f"- {server} ({', '.join(names)}): {note}" for (server, note), names in cases.items()]
    return "\n".join(["Notes", *lines]) if lines else ""


def _cells(result: BenchmarkResult, row: Row) -> list[str]:
    figures = row.figures()
    cells = [form.format(figures[name]) if name in figures else "-" for name, form in FIGURES]
    if not figures:
        cells[0] = row.note if row.note == "not installed" else "-"
    ratio = None if row.server == OURS else result.ratio(row.case.name, row.server)
    return [row.case.title, row.server, *cells, "-" if ratio is None else f"{ratio:.2f}", str(row.failures or "")]
