#!/bin/sh
# Downloads the wheels that the functions' zips are built from, for the Python of an environment and for this machine.
#
#   lambda_wheels.sh FOLDER STAMP REQUIREMENTS...
#
# They come to FOLDER/wheels. REQUIREMENTS pin versions; the hashes are those of requirements/run.txt, where the same
# versions are pinned for the tests.
set -eu

folder=$1 stamp=$2
shift 2

printf 'Downloading what the functions bring along into %s/wheels\n' "$folder" >&2
for file; do set -- "$@" --requirement "$file"; shift; done
rm -rf "$folder/wheels"
PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1 "$folder/bin/python" -m pip download -qq --require-hashes --no-deps \
    --only-binary :all: --dest "$folder/wheels" --constraint requirements/run.txt "$@"
kind=$(basename "$stamp")
rm -f "$folder/${kind%-*}"-*
: >"$stamp"
