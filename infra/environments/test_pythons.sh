#!/bin/sh
# Runs the tests, all but the end-to-end ones, under other versions of Python, each in an environment of its own.
#
#   test_pythons.sh 3.12 3.13
set -eu

here=$(dirname "$0")
for version in "$@"; do
    python=$("$here/find_python.sh" "$version")
    if [ -z "$python" ]; then
        echo "Python $version is not installed: the tests do not run under it."
        continue
    fi
    folder=.venv-py$version
    stamp=$folder/.test-$(cat requirements/pip.txt requirements/test.txt pyproject.toml "$here/make_venv.sh" | cksum | tr -d ' ')
    [ -e "$stamp" ] || "$here/make_venv.sh" "$folder" requirements/test.txt "$stamp" "$python"
    echo "Testing under $("$folder/bin/python" -V)"
    "$folder/bin/python" -m pytest -q -p no:cacheprovider --ignore=tests/e2e
done
