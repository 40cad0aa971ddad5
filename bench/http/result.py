"""Results of a benchmark: medians, ratios, and wanted figures reached or missed."""

from __future__ import annotations

from dataclasses import dataclass, field
from statistics import median
from typing import Any

from bench.http.cases import Case, Wanted
from bench.http.floor import Floor
from bench.load.plan import LoadResult

OURS = "cryo"


@dataclass(frozen=True)
class Round:
    """One measurement of one server under one load. `load` is None for fio, which has only a rate."""

    megabytes_per_second: float
    load: LoadResult | None = None
    server_cpu_seconds: float = 0.0


@dataclass
class Row:
    """One server under the load of one case, in every round."""

    case: Case
    server: str
    rounds: list[Round] = field(default_factory=list)
    note: str = ""  # the reason if there are no figures

    @property
    def failures(self) -> int:
        """Return the number of requests without a correct response, in all rounds."""
        return sum(each.load.failures for each in self.rounds if each.load)

    def figures(self) -> dict[str, float]:
        """Return the median of each figure over the rounds, without figures that this server does not have."""
        result = (
            {"megabytes_per_second": median(each.megabytes_per_second for each in self.rounds)} if self.rounds else {}
        )
        loads = [(each.load, each.server_cpu_seconds) for each in self.rounds if each.load and each.load.requests]
        if loads:
            result |= {
                "requests_per_second": median(load.requests_per_second for load, _ in loads),
                "latency_p50_ms": median(load.latency_p50_seconds for load, _ in loads) * 1e3,
                "latency_p99_ms": median(load.latency_p99_seconds for load, _ in loads) * 1e3,
                "cpu_seconds_per_gigabyte": median(cpu / load.payload_bytes for load, cpu in loads) * 1e9,
                "cpu_us_per_request": median(cpu / load.requests for load, cpu in loads) * 1e6,
                "client_cpu_us_per_request": median(load.client_cpu_seconds / load.requests for load, _ in loads) * 1e6,
            }
        return result


@dataclass
class BenchmarkResult:
    """All measurements of one run."""

    machine: dict[str, str]
    floor: Floor
    rows: list[Row] = field(default_factory=list)
    memory_peak_bytes: dict[str, int] = field(default_factory=dict)  # of the largest process, for each server and place

    def row(self, case: str, server: str) -> Row | None:
        """Return the row of a case and a server, if it was measured."""
        return next((row for row in self.rows if row.case.name == case and row.server == server), None)

    def ratio(self, case: str, peer: str) -> float | None:
        """Return our rate over that of a peer: the median over the rounds, which measure both in turn."""
        ours, theirs = self.row(case, OURS), self.row(case, peer)
        if not ours or not theirs:
            return None
        pairs = zip(ours.rounds, theirs.rounds, strict=False)
        ratios = [
            our.megabytes_per_second / their.megabytes_per_second for our, their in pairs if their.megabytes_per_second
        ]
        return median(ratios) if ratios else None

    def ours_failed(self) -> bool:
        """Return whether a request to Cryostore failed, or a case of it was not measured."""
        ours = [row for row in self.rows if row.server == OURS]
        return not ours or any(row.failures or not row.rounds for row in ours)

    def value(self, wanted: Wanted) -> float | None:
        """Return the measured value of a wanted figure; None if it was not measured."""
        metric, _, detail = wanted.metric.partition(":")
        if metric == "ratio":
            return self.ratio(wanted.case, detail)
        if metric == "memory":
            peaks = [peak for name, peak in self.memory_peak_bytes.items() if name.startswith(OURS)]
            return max(peaks) / 1e6 if peaks else None
        row = self.row(wanted.case, OURS)
        cpu = row.figures().get("cpu_seconds_per_gigabyte") if row else None
        return cpu / (self.floor.put if detail == "put" else self.floor.get) if cpu is not None else None

    def document(self) -> dict[str, Any]:
        """Return the run as a JSON document."""
        return {
            "machine": self.machine,
            "floor_cpu_seconds_per_gigabyte": {
                "sha256": self.floor.sha256,
                "encrypt": self.floor.encrypt,
                "decrypt": self.floor.decrypt,
            },
            "memory_peak_bytes": self.memory_peak_bytes,
            "rows": [
                {
                    "case": row.case.name,
                    "server": row.server,
                    "note": row.note,
                    "failures": row.failures,
                    "figures": row.figures(),
                    "rounds_megabytes_per_second": [each.megabytes_per_second for each in row.rounds],
                    "cryo_ratio": None if row.server == OURS else self.ratio(row.case.name, row.server),
                }
                for row in self.rows
            ],
        }
