#!/bin/sh
# Prints the path of a Python of the version asked for (3.13), from PATH or from pyenv; prints nothing when there is none.
set -eu

for candidate in "$(command -v "python$1" 2>/dev/null || true)" "${PYENV_ROOT:-$HOME/.pyenv}"/versions/"$1".*/bin/"python$1"; do
    # A pyenv shim is there for every version ever installed, and fails for the ones that are not selected.
    if [ -n "$candidate" ] && "$candidate" -c 'import venv' >/dev/null 2>&1; then
        echo "$candidate"
        exit 0
    fi
done
