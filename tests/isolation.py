"""The tests' cache and workspace lie in temporary folders of their own, which go with the process that made them."""

import atexit
import os
import shutil
import tempfile

for _name in ("LOSS_ATLAS_CACHE", "LOSS_ATLAS_WORKSPACE"):
    if _name not in os.environ:  # a worker process inherits its parent's
        os.environ[_name] = tempfile.mkdtemp(prefix=f"{_name.lower().replace('_', '-')}-test-")
        atexit.register(shutil.rmtree, os.environ[_name], ignore_errors=True)
