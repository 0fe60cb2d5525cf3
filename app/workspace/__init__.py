"""What is kept on disk: the folder itself, checkpoints, runs and unfinished trainings."""

from app.workspace._entries import Entry
from app.workspace._files import (
    check_id,
    discard,
    entries,
    folder,
    log_path,
    new_folder,
    new_id,
    read_json,
    restore,
    root,
    start_log,
    sweep,
    write_json,
)

__all__ = [
    "Entry",
    "check_id",
    "discard",
    "entries",
    "folder",
    "log_path",
    "new_folder",
    "new_id",
    "read_json",
    "restore",
    "root",
    "start_log",
    "sweep",
    "write_json",
]
