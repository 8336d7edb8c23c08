"""Bad rows: counted all, kept with file, line and reason, and a limit to their share."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import orjson

from bioelx_ray.errors import TooManyRejects

SHOWN_BYTES = 200
REJECTS = "rejects.jsonl"


@dataclass(frozen=True, slots=True, kw_only=True)
class Reject:
    """A row that could not be used; `row` is the start of its bytes.

    It is found by `line`, which counts from 1, or in a file too large to count lines in by
    `offset`, in bytes of the unpacked file.
    """

    file: str
    line: int | None
    reason: str
    row: str
    offset: int | None = None

    @property
    def where(self) -> str:
        """The place in words."""
        return f"line {self.line:,}" if self.line else f"byte {self.offset:,}"


class Rejects:
    """The bad rows of a build: all are counted, the first `keep` of them are kept.

    A reason is a fixed phrase without the row's values, so that equal faults count together.
    """

    def __init__(self, *, keep: int = 10_000) -> None:
        self._keep = keep
        self._kept: list[Reject] = []
        self._first: dict[str, Reject] = {}
        self._counts: Counter[tuple[str, str]] = Counter()

    def add(
        self, file: str, line: int | None, *, reason: str, row: bytes, offset: int | None = None
    ) -> None:
        """Count a bad row, and keep it while there is room."""
        self._counts[file, reason] += 1
        if len(self._kept) >= self._keep and file in self._first:
            return
        shown = row[:SHOWN_BYTES].decode("utf-8", "backslashreplace")
        reject = Reject(file=file, line=line, reason=reason, row=shown, offset=offset)
        self._first.setdefault(file, reject)
        if len(self._kept) < self._keep:
            self._kept.append(reject)

    def take_over(self, file: str, kept: Iterable[Reject], counts: Mapping[str, int]) -> None:
        """Count the bad rows of a part of a file that was read before, of which some were kept."""
        self._counts.update({(file, reason): n for reason, n in counts.items()})
        for reject in kept:
            self._first.setdefault(file, reject)
            if len(self._kept) < self._keep:
                self._kept.append(reject)

    def __len__(self) -> int:
        """All bad rows, kept or not."""
        return self._counts.total()

    @property
    def kept(self) -> tuple[Reject, ...]:
        """The rows that were kept, in the order in which they came."""
        return tuple(self._kept)

    def count(self, file: str) -> int:
        """The bad rows of one file."""
        return sum(n for (name, _), n in self._counts.items() if name == file)

    def by_reason(self, file: str | None = None) -> dict[str, int]:
        """The number of bad rows of a file, or of all, for each reason, in alphabetical order."""
        reasons: Counter[str] = Counter()
        for (name, reason), n in self._counts.items():
            if file in (None, name):
                reasons[reason] += n
        return dict(sorted(reasons.items()))

    def write(self, directory: Path) -> Path:
        """Write the kept rows to ``rejects.jsonl`` in a directory; see `write_file`."""
        return self.write_file(directory / REJECTS)

    def write_file(self, path: Path) -> Path:
        """Write the kept rows as JSON lines; a last line ``{"not_kept": n}`` counts the others."""
        lines = [orjson.dumps(reject) for reject in self._kept]
        if (missing := len(self) - len(self._kept)) > 0:
            lines.append(orjson.dumps({"not_kept": missing}))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"".join(line + b"\n" for line in lines))
        return path

    def check(self, file: str, *, total: int, max_share: float, aside: Path) -> None:
        """Refuse a file of which too large a share is bad. `total` counts good and bad rows.

        Raises:
            TooManyRejects: after the rejects were written to the file `aside`, which it names.
        """
        bad = self.count(file)
        if not bad or bad <= max_share * total:
            return
        self.write_file(aside)
        first = self._first[file]
        raise TooManyRejects(
            f"{file}: {bad:,} of {total:,} rows are bad ({bad / total:.2%}; at most "
            f"{max_share:.2%} may be). The first is {first.where}: {first.reason}. See {aside} "
            "for the others. Correct the file, or allow a larger share of rejects"
        )


def load_rejects(directory: Path) -> list[Reject]:
    """The rows that `Rejects.write` has kept in a directory; none where it was not called."""
    path = directory / REJECTS
    if not path.exists():
        return []
    rows = [orjson.loads(line) for line in path.read_bytes().splitlines()]
    return [Reject(**row) for row in rows if "not_kept" not in row]
