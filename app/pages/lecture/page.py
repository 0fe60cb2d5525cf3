"""The lecture: every claim with its design, its verdict here, and a button that runs it on a network of one's own."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
import streamlit as st

from app import widgets
from app.catalog import DataSpec
from app.state import key
from app.texts import said, texts
from app.widgets import Form
from app.widgets.pickers import architecture_picker
from app.work import jobs
from app.work.work import Work, restartable

PAGE, CLAIMS = "lecture", "lecture.claims"
DESIGN = ("contrast", "equal", "controls", "unit", "test", "smallest", "against")
NOT_TESTED = "not tested"


@dataclass(frozen=True)
class Choice:
    """What an experiment is run on; ``ready`` is False while something is missing or wrong."""

    architecture: str | None
    data: DataSpec | None
    seeds: int

    @property
    def ready(self) -> bool:
        """Whether a network and examples are chosen."""
        return self.architecture is not None and self.data is not None


def render() -> None:
    """Draw the page."""
    import estimators  # noqa: F401  the package first: half a module is seen while the warm-up imports it
    from estimators import experiments

    text, sections = texts(PAGE), experiments.SECTIONS
    left, right = widgets.page_header(PAGE, text)
    with left:
        widgets.heading(text("run_on"))
        st.caption(text("run_on.help"))
        data = widgets.data_picker(PAGE)
        if data is not None and data.split == "all":
            st.error(texts("architectures")("split.all"))
            data = None
        architecture = architecture_picker(PAGE)
        choice = Choice(architecture, data, Form(PAGE).integer("seeds", 5, 1, 50))
    with right:
        if jobs.latest(PAGE) is not None:
            widgets.job_panel(PAGE, draw)
        st.caption(overview())
        section = Form(PAGE).choice("section", sections, words=lambda number: f"{number}. {text(f'section.{number}')}")
        for claim in experiments.CLAIMS.values():
            if claim.section == section:
                show_claim(claim, choice)


def overview() -> str:
    """Say how many claims have which verdict."""
    from estimators import experiments

    text, common = texts(PAGE), texts("common")
    counts = Counter(verdict_here(claim) for claim in experiments.CLAIMS.values())
    words = ", ".join(f"{n} {common('verdict.' + verdict)}" for verdict, n in counts.most_common())
    return text("overview", tested=counts.total() - counts[NOT_TESTED], count=counts.total(), words=words)


def record_of(claim: Any) -> Any:
    """Return the record that holds a claim; None where it was not measured."""
    from estimators.experiments import read_records

    record = read_records().get(claim.experiment)
    return record if record is not None and claim.key in record.claims else None


def verdict_here(claim: Any) -> str:
    """Return the verdict on a claim from what was measured."""
    record = record_of(claim)
    return NOT_TESTED if record is None else record.verdict(claim.key)


def show_claim(claim: Any, choice: Choice) -> None:
    """Write a claim and its verdict, and in a fold its design, its numbers and the button."""
    from estimators.experiments import STUDIES

    text, record, study = texts(PAGE), record_of(claim), STUDIES.get(claim.experiment)
    widgets.verdict(verdict_here(claim), texts(CLAIMS)(claim.key))
    with st.expander(text("claim.more"), icon=":material/science:"):
        st.markdown("\n".join(f"- **{text('design.' + name)}.** {design(claim, name)}" for name in DESIGN))
        if record is not None:
            widgets.show_table(numbers(record.claims[claim.key]))
            facts = {"setting": said(record.setting), "date": record.date, "minutes": record.minutes}
            st.caption(text("claim.record", torch=record.versions["torch"], **facts))
            widgets.notes(record.notes)
        elif study is not None:
            st.caption(text("claim.not_run", title=said(study.title)))
        if study is None:
            st.caption(text("claim.no_experiment", reason=said(claim.untested)))
        else:
            run_here(claim, study, choice)


def design(claim: Any, name: str) -> str:
    """Return one line of a design; the unit with their number."""
    words = said(str(getattr(claim, name)))
    return texts(PAGE)("design.unit.count", n=f"{claim.n:,}", unit=words) if name == "unit" and claim.n else words


def run_here(claim: Any, study: Any, choice: Choice) -> None:
    """Write the button that runs a claim's experiment."""
    text = texts(PAGE)
    label = text("claim.run" if study.own_network else "claim.run_own", title=said(study.title))
    hint = None if study.own_network else text("claim.run_own.help")
    ready = choice.ready or not study.own_network
    icon = ":material/play_arrow:"
    if st.button(label, key=key(PAGE, f"run.{claim.key}"), disabled=not ready, icon=icon, help=hint):
        start(claim.experiment, choice)
        st.rerun()  # the panel above has been drawn already


def start(name: str, choice: Choice) -> None:
    """Queue an experiment."""
    from estimators.experiments import STUDIES

    study, text = STUDIES[name], texts(PAGE)
    architecture = choice.architecture if study.own_network and choice.architecture else study.architecture
    data = choice.data if study.own_network and choice.data else DataSpec()
    held_out = data.held_out(None)

    words = {"title": said(study.title), "architecture": architecture, "seeds": choice.seeds}
    config = {
        "estimator": "STUDIES",
        "experiment": name,
        "params": {"n_seeds": choice.seeds, "architecture": architecture},
        "data": data.as_dict(),
        "script": script(name, architecture, data, held_out, choice.seeds),
    }
    work = Work.of(run_study, name=name, architecture=architecture, data=data, held_out=held_out, n_seeds=choice.seeds)
    jobs.submit(PAGE, text("job" if study.own_network else "job.own", **words), work, config=config)


@restartable
def run_study(
    handle: jobs.Handle, name: str, architecture: str, data: DataSpec, held_out: DataSpec, n_seeds: int
) -> Any:
    """Run the experiment behind a claim; runs in the worker thread."""
    from estimators.experiments import STUDIES, Subject

    subject = Subject(architecture, data.load(), held_out.load())
    return STUDIES[name].run(subject, n_seeds=n_seeds, memory="default", **handle.reports)


def script(name: str, architecture: str, data: DataSpec, held_out: DataSpec, seeds: int) -> str:
    """Return the Python program that reproduces a run."""
    return f"""from estimators import load_data
from estimators.experiments import STUDIES, Subject

{data.code("data")}
{held_out.code("held_out")}
study = STUDIES[{name!r}]
result = study.run(Subject({architecture!r}, data, held_out), n_seeds={seeds}, memory="default")
for claim, rows in study.judge(result).items():
    for row in rows:
        print(claim, row.what, row.said(), row.verdict)
"""


def draw(result: Any) -> None:
    """Draw what the newest run says of each claim it tests; runs in a fragment."""
    from estimators.experiments import STUDIES, common_verdict

    text = texts(PAGE)
    job = jobs.shown(PAGE)
    study = STUDIES[job.config["experiment"]] if job is not None else None
    if study is None:
        return
    judged = study.judge(result)
    if not judged:
        st.caption(text("first"))
        return
    widgets.heading(text("heading.here", title=said(study.title)))
    for claim, rows in judged.items():
        widgets.verdict(common_verdict(rows), texts(CLAIMS)(claim))
        widgets.show_table(numbers(rows))
    widgets.notes(getattr(result, "notes", ()))
    widgets.settings_line(result)
    table = pd.DataFrame(getattr(result, "rows", None) or [vars(row) for rows in judged.values() for row in rows])
    widgets.take_along(PAGE, result, None, table=table, name=f"claims-{job.config['experiment']}")


def numbers(rows: Sequence[Any]) -> pd.DataFrame:
    """Return the rows behind a verdict as a person reads them."""
    text, common = texts(PAGE), texts("common")
    return pd.DataFrame(
        {
            text("col.what"): [said(row.what) for row in rows],
            text("col.claimed"): [said(row.claimed) for row in rows],
            text("col.n"): [f"{row.n:,}" for row in rows],
            text("col.effect"): [said(row.said()) for row in rows],
            text("col.verdict"): [common("verdict." + row.verdict) for row in rows],
            text("col.reason"): [said(row.reason) for row in rows],
        }
    )
