"""Exit codes of every command, and the line of each help text that lists them."""

from __future__ import annotations

OK = 0
WITH_ISSUES = 1
FAILED = 2
INTERRUPTED = 130

MEANINGS = {
    OK: "success",
    WITH_ISSUES: "completed with issues",
    FAILED: "failure or usage error",
    INTERRUPTED: "interrupted",
}
EPILOGUE = f"Exit codes: {', '.join(f'{code} {meaning}' for code, meaning in MEANINGS.items())}."
