#!/bin/sh
# Installs the Debian packages that tests use, where that is possible; says what is missing and goes on where it is not.
#
#   debian_packages.sh COMMAND=PACKAGE...
set -eu

missing=
for pair in "$@"; do
    command -v "${pair%%=*}" >/dev/null 2>&1 || missing="$missing ${pair#*=}"
done
[ -n "$missing" ] || exit 0
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
    log=$(mktemp)
    # shellcheck disable=SC2086 - a list of words
    if { apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends $missing; } >"$log" 2>&1; then
        rm -f "$log"
        exit 0
    fi
    tail -n 5 "$log" >&2
    rm -f "$log"
fi
printf 'Missing:%s. The tests that need it are skipped. As root: apt-get install%s\n' "$missing" "$missing" >&2
