"""``python -m sbc_agent.media FD``: the media process, started by ``MediaClient``."""

from __future__ import annotations

import gc
import os
import sys

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # matrices are small: no threads that spin for them

gc.disable()  # while it loads there is no garbage, and much to look through

from sbc_agent.media.process import main  # noqa: E402 - see above

gc.enable()
sys.exit(main(sys.argv[1:]))
