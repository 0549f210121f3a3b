# Read by `run` and `full`: an environment that has the package as users install it, checks, tests, and how long it took.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# A caller's search path could put the checkout before the installed package.
unset PYTHONPATH

scratch=$(mktemp -d)
times="" phase_began=0
trap 'rm -rf "$scratch"; echo "time: ${times}total $SECONDS s"' EXIT

phase_ends() {
  times+="$1 $((SECONDS - phase_began)) s, "
  phase_began=$SECONDS
}

# All that follows sees one copy: building leaves folders behind, and edits made meanwhile would mix two versions. Files
# that git ignores stay out, above all an old `build`, whose forgotten modules would end up in the wheel.
copy_source() {
  mkdir "$scratch/source"
  tar --create --exclude=.git --exclude-from=<(sed 's,/$,,' .gitignore) . | tar --extract --directory="$scratch/source"
  cd "$scratch/source"
}

# Open3D is an extra, but what needs it is tested here; its wheel wants libraries that a bare machine lacks.
install_libraries() {
  command -v apt-get >/dev/null || return 0
  local root libraries="libusb-1.0-0 libegl1 libgl1 libx11-6 libidn2-0 libgomp1"
  root=$([ "$(id -u)" = 0 ] || echo sudo)
  dpkg -s $libraries >/dev/null 2>&1 || {
    $root apt-get update -qq
    DEBIAN_FRONTEND=noninteractive $root apt-get install -qq -y --no-install-recommends $libraries >/dev/null
  }
  # The report page is tested in a browser, which takes half a minute; where no package is called so, those tests skip.
  command -v chromium-headless-shell chromium google-chrome >/dev/null || {
    $root apt-get update -qq &&
      DEBIAN_FRONTEND=noninteractive $root apt-get install -qq -y --no-install-recommends chromium-headless-shell >/dev/null
  } || echo "no browser: the report page's tests in one are skipped"
}

# make_environment PYTHON FOLDER [EXTRAS]: sets `bin`.
make_environment() {
  bin="$2/bin"
  # Debian packages pip without what `venv` installs it from; then the machine's own pip does.
  "$1" -m venv "$2" >/dev/null 2>&1 || {
    "$1" -m venv --clear --without-pip "$2"
    "$1" -m pip --python "$bin/python" install --quiet pip
  }
  "$bin/pip" install --quiet --upgrade pip
  # Most of what is installed is never imported here; what is, compiles itself.
  "$bin/pip" install --quiet --no-compile ".[${3:-test,open3d,docs}]"
  rm -rf build ./*.egg-info  # left by the build; not for ruff to look at
}

# The oracles of the parity tests. This PyTorch build exists for Python 3.11; elsewhere those tests skip.
install_oracles() {
  "$bin/python" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' || return 0
  "$bin/pip" install --quiet --no-compile torch==2.13.0
  "$bin/pip" install --quiet --no-compile transformers
}

check_source() {
  "$bin/ruff" check . && "$bin/ruff" format --check . && "$bin/mypy"
}

# run_tests [OPTIONS OF PYTEST]: from inside tests/ nothing of the source is importable but the tests: what runs is the
# wheel.
run_tests() {
  (
    cd tests
    "$bin/python" -c 'import musc_jax, weights, launch, sys
for m in (musc_jax, weights, launch):
    print(m.__file__)
    if not m.__file__.startswith(sys.prefix): sys.exit("this is not the installed package")'
    "$bin/pytest" -n 2 -q -p no:cacheprovider --durations=40 "$@"
  )
}
