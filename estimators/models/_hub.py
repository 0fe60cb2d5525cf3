"""The hub that timm's weights come from: asked for where it answers, its cache alone where it does not."""

from __future__ import annotations

import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager

from huggingface_hub import constants

ANSWERS_WITHIN = 3.0  # seconds


@contextmanager
def hub_or_cache(wanted: bool) -> Iterator[None]:
    """Switch `huggingface_hub` to its cache while the block runs, where the hub is wanted and does not answer.

    Left to itself it would try five times for each file, a minute and a half in silence. What is in the cache is found
    all the same.
    """
    if not wanted or constants.HF_HUB_OFFLINE or reachable(constants.ENDPOINT):
        yield
        return
    constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = False


def reachable(address: str, seconds: float = ANSWERS_WITHIN) -> bool:
    """Tell whether a server answers in time, through the proxy where the environment names one."""
    answered = threading.Event()

    def ask() -> None:
        try:
            with urllib.request.urlopen(urllib.request.Request(address, method="HEAD"), timeout=seconds):
                answered.set()
        except urllib.error.HTTPError:  # an answer too
            answered.set()
        except OSError:
            pass
        finally:
            done.set()

    done = threading.Event()  # looking up a name has no time limit of its own
    threading.Thread(target=ask, daemon=True).start()
    done.wait(seconds)
    return answered.is_set()
