"""The boundary around a page and around its picture: a sentence on screen, the traceback in the log."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager

import streamlit as st

from app import workspace
from app.texts import plain, texts

# Set in tests: an exception then reaches the test instead of the sentence a person would see.
RAISE = "LOSS_ATLAS_RAISE"

logger = logging.getLogger("loss_atlas.app")


@contextmanager
def boundary(what: str) -> Iterator[None]:
    """Let nothing that is raised inside end more than what is drawn there.

    Parameters
    ----------
    what : str
        What it is, for the log.
    """
    try:
        yield
    except Exception as error:
        if os.environ.get(RAISE):
            raise
        logger.exception("%s failed", what)
        text = texts("common")
        st.error(
            text("page_failed.help", error=plain(str(error) or type(error).__name__), log=plain(workspace.log_path())),
            title=text("page_failed"),
            icon=":material/error:",
        )
