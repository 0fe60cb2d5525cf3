"""Errors in sentences for a person."""

from __future__ import annotations

from app import workspace


def said(error: OSError) -> str:
    """Say in a sentence what the system answered to a read or a write."""
    if not words(error).startswith("[Errno"):
        return words(error) or type(error).__name__
    what = repr(str(error.filename)) if error.filename else "a file"
    return f"{what} must be readable and have room, got {error.strerror}. Free some space, or choose another place."


def words(error: BaseException) -> str:
    """Return an error's own words; an error whose words fail has none."""
    try:
        return str(error).strip()
    except Exception:
        return ""


def in_a_line(error: BaseException) -> str:
    """Return one line for a person: the kind of an error and the first line of its words."""
    return f"{type(error).__name__}: {(words(error) or 'no message').splitlines()[0]}"


def where_to_look() -> str | None:
    """Return where the details are; None when the workspace cannot be written to, so that there is no log."""
    try:
        log = workspace.log_path()
        return f"The details are in {log}." if log.parent.is_dir() else None
    except OSError:
        return None
