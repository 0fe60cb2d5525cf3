"""The frame: navigation, what runs in the background, and a boundary around each page.

Run by ``loss-atlas`` (see ``__main__.py``) or by ``streamlit run app/main.py``.
"""

from __future__ import annotations

import importlib
import importlib.util
import logging
import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import streamlit as st

from app import jobs, widgets, workspace
from app.texts import texts

# (section, page, icon, whether it needs torch before it can be drawn). The order is the order of the sidebar;
# a page appears once its module exists.
PAGES = (
    ("start", "home", ":material/landscape:", False),
    ("start", "workbench", ":material/construction:", True),
    ("measure", "surface", ":material/terrain:", True),
    ("measure", "stationary", ":material/adjust:", True),
    ("measure", "sharpness", ":material/show_chart:", True),
    ("measure", "connectivity", ":material/conversion_path:", True),
    ("measure", "averaging", ":material/join_inner:", True),
    ("measure", "escape", ":material/trending_down:", True),
    ("measure", "architectures", ":material/account_tree:", True),
    ("keep", "runs", ":material/history:", False),
)
# Set in tests: a page's exception then reaches the test instead of the sentence a person would see.
RAISE = "LOSS_ATLAS_RAISE"

STATIC = Path(__file__).with_name("static")

logger = logging.getLogger("loss_atlas.app")


def exists(page: str) -> bool:
    """Tell whether a page has been written."""
    return importlib.util.find_spec(f"app.pages.{page}") is not None


def view(page: str, needs_engine: bool) -> Callable[[], None]:
    """Return what Streamlit calls for a page; it loads the module when the page is opened, not before."""

    def draw() -> None:
        if needs_engine and "estimators.landscape" not in sys.modules:
            with st.spinner(texts("common")("starting_engine")):
                importlib.import_module("estimators")
        try:
            importlib.import_module(f"app.pages.{page}").render()
        except (
            Exception
        ) as error:  # the boundary of a page: a sentence for the person, the traceback for the log
            if os.environ.get(RAISE):
                raise
            logger.exception("page %s failed", page)
            st.error(
                texts("common")(
                    "page_failed.help", error=str(error) or type(error).__name__, log=workspace.log_path()
                ),
                title=texts("common")("page_failed"),
                icon=":material/error:",
            )

    draw.__name__ = page
    return draw


@st.cache_resource(show_spinner=False)
def warm_up() -> threading.Thread:
    """Import torch and timm in the background once, so that the first page that needs them does not wait."""
    thread = threading.Thread(
        target=importlib.import_module, args=("estimators",), daemon=True, name="warm-up"
    )
    thread.start()
    return thread


def main() -> None:
    """Draw one run of the app."""
    text, names = texts("common"), texts("navigation")
    st.set_page_config(page_title=text("app"), page_icon=str(STATIC / "mark.svg"), layout="wide")
    shade = "dark" if st.context.theme.type == "dark" else "light"
    st.logo(str(STATIC / f"logo-{shade}.svg"), size="large", icon_image=str(STATIC / "mark.svg"))
    jobs.get_queue()
    sections: dict[str, list[st.Page]] = {}
    pages: dict[str, st.Page] = {}
    for section, page, icon, needs_engine in PAGES:
        if exists(page):
            pages[page] = st.Page(
                view(page, needs_engine),
                title=names(page),
                icon=icon,
                url_path=page,
                default=page == "home",
                help=names(f"{page}.help"),
            )
            sections.setdefault(text(f"nav.{section}"), []).append(pages[page])
    st.session_state["_pages"] = pages
    chosen = st.navigation(sections)
    with st.sidebar:
        widgets.activity()
    chosen.run()
    if not os.environ.get(RAISE):
        warm_up()


if __name__ == "__main__":
    main()
