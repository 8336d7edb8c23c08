"""Files and directories that appear under their names whole, and outlive a power cut."""

from __future__ import annotations

import os
import shutil
from pathlib import Path


def draft_beside(target: Path) -> Path:
    """Where this process writes what becomes `target` by a rename."""
    return target.with_name(f".{target.name}.{os.getpid()}.draft")


def remove_drafts(target: Path) -> None:
    """Remove the drafts of `target` that dead processes left, and this one's own."""
    for stale in target.parent.glob(f".{target.name}.*.draft"):
        pid = stale.suffixes[-2].removeprefix(".") if len(stale.suffixes) > 1 else ""
        if not pid.isdigit() or not Path(f"/proc/{pid}").exists() or int(pid) == os.getpid():
            shutil.rmtree(stale, ignore_errors=True)


def write_durably(path: Path, text: str, *, draft: Path) -> None:
    """Write a file's text under the name `draft`, and give it its own when it is on the disk."""
    with draft.open("w", encoding="utf-8") as handle:
        handle.write(text)
        handle.flush()
        os.fsync(handle.fileno())
    draft.replace(path)


def sync_directory(directory: Path) -> None:
    """Make the renames in a directory outlive a power cut."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
