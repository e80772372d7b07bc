"""Runs a command that the kernel kills when the process that asked for it dies, however that dies.

    python -I -S tether.py PARENT_PID COMMAND...

PR_SET_PDEATHSIG survives execve (prctl(2)), so it is set here and not between fork and exec of a process full of
threads. SIGKILL, because what is orphaned has lost its cloud: there is nothing left to drain to, and the spool
survives.
"""

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def main(arguments: list[str]) -> None:
    """Tie this process to its parent and become the command.

    Args:
        arguments: the parent's process id, then the command.

    Raises:
        SystemExit: if the parent died before it could be tied to, or the kernel refuses.
    """
    parent, command = int(arguments[0]), arguments[1:]
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
        raise SystemExit(os.strerror(ctypes.get_errno()))
    if os.getppid() != parent:
        raise SystemExit("the process that started this one is gone")
    os.execv(command[0], command)  # noqa: S606 - a command line of our own making, no shell


if __name__ == "__main__":
    main(sys.argv[1:])
