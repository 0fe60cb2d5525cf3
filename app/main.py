"""The frame: navigation, what runs in the background, and a boundary around each page.

Run by ``loss-atlas`` (see ``__main__.py``) or by ``streamlit run app/main.py``.
"""

from __future__ import annotations

import gc
import importlib
import logging
import os
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import streamlit as st

from app import state, widgets, workspace
from app.__main__ import stay_on_this_machine
from app.pages import FOLDERS
from app.texts import follow, from_engine, plain, texts
from app.widgets.boundary import RAISE, boundary
from app.work import jobs
from app.workspace import trainings

# (section, page, icon), in the order of the sidebar; a page appears once its module exists.
PAGES = (
    ("start", "home", ":material/landscape:"),
    ("start", "tour", ":material/tour:"),
    ("start", "known", ":material/fact_check:"),
    ("start", "lecture", ":material/school:"),
    ("start", "workbench", ":material/construction:"),
    ("measure", "surface", ":material/terrain:"),
    ("measure", "stationary", ":material/adjust:"),
    ("measure", "sharpness", ":material/show_chart:"),
    ("measure", "connectivity", ":material/conversion_path:"),
    ("measure", "averaging", ":material/join_inner:"),
    ("measure", "escape", ":material/trending_down:"),
    ("measure", "architectures", ":material/account_tree:"),
    ("keep", "runs", ":material/history:"),
)
MEASURING = {page for section, page, _ in PAGES if section == "measure"}

WARM_UP_AFTER = 4.0  # seconds
LOOK_AGAIN = 20.0  # seconds for which a look at the workspace holds

# Below this width inputs stand above the picture: beside it, both would be a few letters wide.
NARROW = """<style>@media (max-width: 1000px) {
  .st-key-page-columns > [data-testid="stLayoutWrapper"] > [data-testid="stHorizontalBlock"] > [data-testid="stColumn"],
  .st-key-page-columns > [data-testid="stHorizontalBlock"] > [data-testid="stColumn"]
  { min-width: calc(100% - 1.5rem); }
  [data-testid="stLayoutWrapper"]:has(> .st-key-subject-line) { flex: 1 1 100%; }
}</style>"""

# What is chosen is written in the primary colour, on which white is read: on a dark ground it is not, the links' is.
DARK = """<style>
  [data-variant][data-selected] p, [data-testid="stSliderThumbValue"], [data-testid="stSliderThumbValue"] p
  { color: #7ab0ea; }
</style>"""

STATIC = Path(__file__).with_name("static")

logger = logging.getLogger("loss_atlas.app")


def module_of(page: str) -> str:
    """Return the module that draws a page."""
    return f"app.pages.{FOLDERS.get(page, page)}.page"


def exists(page: str) -> bool:
    """Tell whether a page has been written."""
    return (Path(__file__).parent / "pages" / FOLDERS.get(page, page) / "page.py").is_file()


def view(page: str) -> Callable[[], None]:
    """Return what Streamlit calls for a page; it loads the module when the page is opened, not before."""
    module = module_of(page)

    def draw() -> None:
        with boundary(f"page {page}"):
            if module not in sys.modules:
                with widgets.opening():
                    importlib.import_module(module)
            sys.modules[module].render()

    draw.__name__ = page
    return draw


@st.cache_resource(show_spinner=False)
def warm_up() -> threading.Thread:
    """Import torch and timm in the background once, so that the first job does not wait for them.

    It begins a little later, when the page a person has just opened is on screen.
    """

    def load() -> None:
        time.sleep(WARM_UP_AFTER)
        # the package, not a module in it: a page that imports the package meanwhile would see half a module
        importlib.import_module("estimators")
        importlib.import_module("timm")
        gc.collect()
        gc.freeze()  # half a million objects that live as long as the process: no need to walk them again

    thread = threading.Thread(target=load, daemon=True, name="warm-up")
    thread.start()
    return thread


@st.cache_data(ttl=LOOK_AGAIN, show_spinner=False)
def unwritable() -> str | None:
    """Say why nothing can be kept in the workspace; None when it can."""
    return workspace.problem()


@st.cache_resource(show_spinner=False)
def recovered() -> list[str]:
    """Bring interrupted trainings into the library once, and name them."""
    if unwritable():
        return []
    return [checkpoint.name for checkpoint in trainings.recover()]


def say_what_was_left() -> None:
    """Say what goes on, and what was saved, of what the last start of the app has not ended."""
    place = st.container()  # what comes after it keeps its place when it is empty
    going_on = [job.title for job in jobs.get_queue().restored if job.live]
    for what, names in {"restored": going_on, "recovered": recovered()}.items():
        if names:
            place.info(texts("common")(what, names=plain(", ".join(names))), icon=":material/restore:")


def main() -> None:
    """Draw one run of the app."""
    stay_on_this_machine()  # where Streamlit itself was started
    follow(widgets.chosen_language)
    text = texts("common")
    st.set_page_config(page_title=text("app"), page_icon=str(STATIC / "mark.svg"), layout="wide")
    shade = "dark" if st.context.theme.type == "dark" else "light"
    with st.sidebar:
        widgets.language_switch()  # before anything is said
    st.logo(str(STATIC / f"logo-{shade}.svg"), size="large", icon_image=str(STATIC / "mark.svg"))
    sections: dict[str, list[st.Page]] = {}
    pages: dict[str, st.Page] = {}
    for section, page, icon in PAGES:
        if exists(page):
            words = texts(page)
            look = {"title": words("nav"), "help": words("nav.help"), "icon": icon}
            pages[page] = st.Page(view(page), url_path=page, default=page == "home", **look)
            sections.setdefault(text(f"nav.{section}"), []).append(pages[page])
    st.session_state["_pages"] = pages
    chosen = st.navigation(sections, expanded=True)
    page = chosen.url_path or "home"
    widgets.go_on(page)
    with st.sidebar:
        widgets.activity()
    st.html(NARROW + (DARK if shade == "dark" else ""))
    problem = unwritable()
    if problem:
        st.warning(from_engine(problem), title=text("unwritable"), icon=":material/save:")
    if st.session_state.setdefault("_opened_on", page) == page:
        say_what_was_left()
    state.ask(in_frame=True)
    if page in MEASURING:
        with boundary(page):
            widgets.subject_bar()
    chosen.run()
    if not os.environ.get(RAISE):
        warm_up()


if __name__ == "__main__":
    main()
