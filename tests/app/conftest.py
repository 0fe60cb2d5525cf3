"""Each app test gets a workspace of its own and an empty queue."""

from __future__ import annotations

import sys

import pytest
import streamlit as st


@pytest.fixture(autouse=True)
def main_module():
    """AppTest leaves its script behind as the main module, which processes that a later test spawns would run."""
    main = sys.modules["__main__"]
    yield
    sys.modules["__main__"] = main


@pytest.fixture(autouse=True)
def workspace_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("LOSS_ATLAS_WORKSPACE", str(tmp_path / "workspace"))
    monkeypatch.setenv("LOSS_ATLAS_RAISE", "1")
    st.cache_resource.clear()
    st.cache_data.clear()
    yield tmp_path / "workspace"
    from app.work import jobs

    for job in jobs.live():  # leave nothing running behind
        job.cancel()
    jobs.get_queue().wait(30)
