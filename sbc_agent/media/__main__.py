"""``python -m sbc_agent.media FD``: the media process, started by ``MediaClient``."""

from __future__ import annotations

import os
import sys

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # numpy's linear algebra is not used: no threads that spin for it

from sbc_agent.media.process import main

sys.exit(main(sys.argv[1:]))
