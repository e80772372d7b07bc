#!/bin/sh
# Makes or upgrades a virtual environment from one hashed requirements file.
#
#   make_venv.sh FOLDER REQUIREMENTS STAMP [PYTHON]
#
# Needs Python 3.11 to 3.13 and nothing else; takes PYTHON if given, else the newest that runs. STAMP is a file in FOLDER
# whose name carries a digest of what it was made from: it is written last, so an interrupted run is simply repeated, and
# older stamps of the same kind go, so a changed file upgrades in place.
set -eu

folder=$1 requirements=$2 stamp=$3 python=${4:-}

say() { printf '%s\n' "$*" >&2; }

runs() { "$1" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' >/dev/null 2>&1; }

find_python() {
    for candidate in python3.13 python3.12 python3.11 python3; do
        if runs "$candidate"; then echo "$candidate"; return; fi
    done
    say "Dualtone needs Python 3.11, 3.12 or 3.13 and finds none of them on PATH."
    if command -v apt-get >/dev/null 2>&1; then say "On Debian 12 or later, as root: apt-get install python3 python3-venv"; fi
    exit 1
}

make_venv() {
    [ -n "$python" ] || python=$(find_python)
    "$python" -m venv "$folder" >"$folder.log" 2>&1 && rm -f "$folder.log" && return
    # Debian's Python leaves venv to a package of its own.
    package=$("$python" -c 'import sys; print("python3.%d-venv" % sys.version_info[1])')
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
        say "Installing $package"
        { apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "$package"; } >>"$folder.log" 2>&1 &&
            "$python" -m venv --clear "$folder" >>"$folder.log" 2>&1 && rm -f "$folder.log" && return
    fi
    say "$python cannot make a virtual environment:"
    cat "$folder.log" >&2
    say "On Debian and Ubuntu: sudo apt-get install $package, then run make again."
    rm -rf "$folder" "$folder.log"
    exit 1
}

# What is there but does not run (its Python was removed or upgraded) is made anew.
if [ -e "$folder" ] && ! { runs "$folder/bin/python" && "$folder/bin/python" -m pip --version >/dev/null 2>&1; }; then
    rm -rf "$folder"
fi
[ -e "$folder" ] || make_venv

say "Installing $requirements into $folder ($("$folder/bin/python" -V))"
export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1
"$folder/bin/python" -m pip install -qq --require-hashes --requirement "$(dirname "$requirements")/pip.txt"
"$folder/bin/python" -m pip install -qq --require-hashes --requirement "$requirements"
case $requirements in
*/run.txt | */test.txt) # the product itself, with its two commands
    "$folder/bin/python" -m pip install -qq --no-deps --no-build-isolation --editable . ;;
esac
kind=$(basename "$stamp")
rm -f "$folder/${kind%-*}"-*
: >"$stamp"
