# Sourced by the scripts: makes the project's virtual environment, once, and installs the project into it.
#
# W8A8SC_VENV names the environment (default: .venv in the repository), PYTHON the interpreter (default: python3).

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
venv=${W8A8SC_VENV:-$root/.venv}
python=${PYTHON:-python3}

say() { printf '\n== %s\n' "$*" >&2; }

# has_extras EXTRAS VERSION: whether what was installed, perhaps for another script, has all of them.
has_extras() {
    local marker extra
    for marker in "$venv"/installed-*; do
        [ "$(cat "$marker" 2>/dev/null)" = "$2" ] || continue
        for extra in ${1//,/ }; do
            [[ ",${marker##*/installed-}," == *",$extra,"* ]] || continue 2
        done
        return 0
    done
    return 1
}

# prepare EXTRAS: the environment with the project and these extras ("" for none), and bin set to its programs.
prepare() {
    local extras=${1:-} wanted
    "$python" -c 'import sys; sys.exit(sys.version_info < (3, 10))' || {
        echo "error: $("$python" --version) is too old: set PYTHON to Python 3.10 or newer" >&2
        exit 4
    }
    bin=$venv/bin
    wanted=$(cat "$root/pyproject.toml" "$root/constraints.txt" | cksum)
    if ! has_extras "$extras" "$wanted"; then
        say "installing into $venv"
        "$python" -m venv "$venv"
        "$bin/python" -m pip install --quiet --disable-pip-version-check \
            -c "$root/constraints.txt" -e "$root${extras:+[$extras]}"
        echo "$wanted" > "$venv/installed-$extras"
    fi
}

# run COMMAND...: show a command, then run it.
run() {
    say "$*"
    "$@"
}
