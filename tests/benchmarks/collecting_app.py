"""The app, collecting its garbage when it is told to: what is in memory after that is kept, not only waiting to go.

``python -m tests.benchmarks.collecting_app --headless --port 8600``, then ``kill -USR1 PROCESS``.
"""

from __future__ import annotations

import gc
import signal

from app.__main__ import main

if __name__ == "__main__":
    signal.signal(signal.SIGUSR1, lambda *_: gc.collect())
    raise SystemExit(main())
