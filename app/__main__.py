"""The launcher: ``loss-atlas`` or ``python -m app``, and what it does without a browser.

The app itself is Streamlit on 127.0.0.1 only, on a free port, and opens the browser. Nothing leaves the machine: no
usage statistics, no e-mail prompt, no font or script from another host.
"""

from __future__ import annotations

import argparse
import importlib
import logging
import os
import socket
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from app import workspace
from app.own_models import import_models
from app.texts import LANGUAGE, LANGUAGES

HOST = "127.0.0.1"
FIRST_PORT = 8501


def free_port(first: int = FIRST_PORT, tries: int = 50) -> int:
    """Return the first port from ``first`` on that nothing listens on.

    Raises
    ------
    ValueError
        When ``tries`` ports in a row are taken.
    """
    for port in range(first, first + tries):
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
            if os.name != "nt":
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((HOST, port))
            except OSError:
                continue
            return port
    raise ValueError(f"port must be free, got {first} to {first + tries - 1} all taken. Choose another with --port.")


def streamlit_arguments(port: int, headless: bool) -> list[str]:
    """Return the command line given to Streamlit."""
    script = Path(__file__).with_name("main.py")
    return [
        "streamlit",
        "run",
        str(script),
        f"--server.address={HOST}",
        f"--server.port={port}",
        *(f"--server.allowedHosts={host}" for host in (HOST, "localhost")),
        "--server.enableCORS=true",
        "--server.enableXsrfProtection=true",
        f"--server.headless={str(headless).lower()}",
        "--server.showEmailPrompt=false",
        "--server.fileWatcherType=none",
        "--browser.gatherUsageStats=false",
        f"--browser.serverAddress={HOST}",
        "--global.developmentMode=false",
        "--logger.hideWelcomeMessage=true",
        "--runner.postScriptGC=false",
    ]


def stay_on_this_machine() -> None:
    """Let no page of another site make the server ask for this machine's public address.

    To a WebSocket of a foreign origin Streamlit compares the addresses under which the machine might be known, and
    asks a host on the internet for one of them. Here the server is known under its own alone.
    """
    from streamlit import net_util

    net_util.get_external_ip = lambda: None
    net_util.get_internal_ip = lambda: HOST


def cache(clear: bool = False, reduce: str | None = None) -> int:
    """Say what the cache of answers holds, after clearing or reducing it where asked."""
    from estimators import cache_info, clear_cache, reduce_cache

    if clear:
        clear_cache()
    if reduce is not None:
        reduce_cache(size=reduce)
    info = cache_info()
    used = f", the oldest last used on {info.oldest:%Y-%m-%d}" if info.oldest else ""
    print(f"{info.folder}: {info.entries:,} answers, {info.size / 1e6:,.1f} MB{used}")
    print(f"Kept within {info.limit / 2**30:g} GiB and {info.max_age.days} days without use.")
    return 0


def report(words: Sequence[str], output: Path) -> int:
    """Write the saved runs that have some words into one HTML file.

    Raises
    ------
    ValueError
        When there is none.
    """
    from app.pages.runs.report import report as laid_out
    from app.workspace import runs

    found = runs.matching(runs.list_runs(), " ".join(words))
    if not found:
        raise ValueError(
            f"report must find a saved run, got none with the words {list(words)} in {workspace.root()}. The page Runs "
            "lists what is there."
        )
    output.write_text(laid_out(found), encoding="utf-8")
    print(output.resolve())
    return 0


def shared(**options: Any) -> argparse.ArgumentParser:
    """Return what can be said before a command and after it."""
    parser = argparse.ArgumentParser(add_help=False, **options)
    parser.add_argument("--workspace", type=Path, metavar="DIR", help="folder of checkpoints and runs")
    parser.add_argument("--cache-dir", type=Path, metavar="DIR", help="folder of stored answers")
    parser.add_argument("--device", help="where networks run: cpu, cuda, cuda:1 (default: CUDA where there is one)")
    parser.add_argument("--language", choices=sorted(LANGUAGES), help="of all that is said, at first (default: en)")
    parser.add_argument(
        "--import",
        dest="modules",
        action="append",
        metavar="MODULE",
        help="a module or file that registers architectures of your own with timm; may be given again",
    )
    return parser


def command_line() -> argparse.ArgumentParser:
    """Return what can be asked for."""
    about = "Maps the loss landscape of image classifiers."
    parser = argparse.ArgumentParser(prog="loss-atlas", description=about, parents=[shared()])
    parser.add_argument("--version", action="version", version=f"loss-atlas {version('loss-atlas')}")
    parser.add_argument(
        "--port",
        type=int,
        default=None,
        help=f"port on {HOST} (default: the first free one from {FIRST_PORT})",
    )
    parser.add_argument("--no-browser", "--headless", dest="headless", action="store_true", help="don't open a browser")
    commands = parser.add_subparsers(dest="command", metavar="")

    def command(name: str, words: str) -> argparse.ArgumentParser:
        # What is not said after the command leaves what was said before it.
        return commands.add_parser(name, help=words, parents=[shared(argument_default=argparse.SUPPRESS)])

    answers = command("cache", "look at the stored answers, or clear them")
    change = answers.add_mutually_exclusive_group()
    change.add_argument("--clear", action="store_true", help="remove all stored answers")
    change.add_argument("--reduce", metavar="SIZE", help="keep at most SIZE (500M, 2G), what was used last")
    command("check", "measure landscapes whose answers are known; exit code 1 when one is wrong")
    demo = command("demo", "train, measure, map, connect, average on digits, as one HTML file")
    demo.add_argument("--output", type=Path, default=Path("loss-atlas-report.html"), help="the file to write")
    report = command("report", "saved runs as one HTML file that needs no network")
    report.add_argument("words", nargs="*", help="of their titles, pages and tags, as in Runs (default: every run)")
    report.add_argument("--output", type=Path, default=Path("loss-atlas-runs.html"), help="the file to write")
    return parser


def settle(options: argparse.Namespace) -> None:
    """Make folders, device and architectures known to whatever runs later, worker processes too.

    Raises
    ------
    ValueError
        For a device this machine lacks, and a module that cannot be taken.
    """
    for name, folder in (("LOSS_ATLAS_WORKSPACE", options.workspace), ("LOSS_ATLAS_CACHE", options.cache_dir)):
        if folder is not None:
            os.environ[name] = str(folder.expanduser().resolve())
    if options.language is not None:
        os.environ[LANGUAGE] = options.language
    if options.device is not None:
        from estimators import choose_device

        choose_device(options.device)
    for module in options.modules or ():
        names = import_models(module)
        print(f"{module}: {', '.join(names)}", flush=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Start the app; return its exit status."""
    parser = command_line()
    options = parser.parse_args(arguments)
    try:
        settle(options)
    except ValueError as error:
        parser.error(str(error))
    try:
        if options.command == "cache":
            return cache(clear=options.clear, reduce=options.reduce)
        if options.command == "report":
            return report(options.words, options.output)
    except (OSError, ValueError) as error:
        parser.error(str(error))
    if options.command == "check":
        return importlib.import_module("app.check").check()
    if options.command == "demo":
        return importlib.import_module("app.demo").write(options.output)
    if options.port is not None and not 1 <= options.port <= 65535:
        parser.error(f"port must be between 1 and 65535, got {options.port}. Leave it out to take a free one.")
    problem = workspace.problem()
    if problem:  # the app says it too, and works without keeping anything
        print(problem, file=sys.stderr, flush=True)
    try:
        port = options.port or free_port()
    except ValueError as error:
        parser.error(str(error))
    # The theme and the locks are in app/.streamlit; Streamlit also reads a project's own file from the
    # current folder.
    sys.argv = streamlit_arguments(port, options.headless)
    from streamlit.runtime.pages_manager import PagesManager
    from streamlit.web import cli

    # A folder called pages beside the script is Streamlit's older way to several pages: without this line its
    # list would flash in the sidebar of a new session until st.navigation has spoken.
    PagesManager.uses_pages_directory = False
    stay_on_this_machine()
    # What Home needs is loaded before the first page is asked for. Streamlit's caches note that no server runs yet.
    logging.getLogger("streamlit.runtime.caching.cache_data_api").setLevel(logging.ERROR)
    importlib.import_module("app.pages.home.page")

    print(f"Loss Atlas: http://{HOST}:{port}   (stop with Ctrl-C)", flush=True)
    return int(cli.main(standalone_mode=False) or 0)


if __name__ == "__main__":
    raise SystemExit(main())
