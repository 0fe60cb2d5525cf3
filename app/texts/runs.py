"""Texts of the page Runs."""

EN = {
    "title": "Runs",
    "question": "Everything computed here so far, with what made it. Reopen one to see its picture again, or take it along.",
    "empty": "No run yet. Every finished job is kept here.",
    "page": "Page",
    "name": "Title",
    "when": "When",
    "seconds": "Seconds",
    "pick": "Select a row to reopen, rename, export or delete it.",
    "open": "Reopen",
    "rename": "Rename",
    "rename.label": "Title",
    "pin": "Pin",
    "unpin": "Unpin",
    "pinned": "Pinned",
    "delete": "Delete",
    "export": "Export",
    "made_by": "How it was made",
    "search": "Search",
    "workspace": "Kept in {path}",
}
