#!/usr/bin/env bash
# Makes .venv ready: setup.sh run|dev|fuzz STAMP. Called by make, which skips it while STAMP is newer than its inputs.
#
# Every step looks at what is there, so that an interrupted set-up resumes. The one thing that cannot be looked at is a
# package whose unpacking was cut short; .venv/.unpacking marks that time, and a venv that still bears it is made afresh.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

readonly KIND=${1:?usage: setup.sh run|dev|fuzz STAMP}
readonly STAMP=${2:?usage: setup.sh run|dev|fuzz STAMP}
readonly TORCH=2.13.0
# torch-2.13.0-cp311-manylinux_2_28_x86_64 (527 MB) and the CUDA 13.0 libraries it requires, summed in November 2026
readonly CUDA_DOWNLOAD="about 2.7 GB (torch 0.5 GB, CUDA libraries 2.2 GB)"
readonly VENV_PYTHON=.venv/bin/python
readonly UNPACKING=.venv/.unpacking

say() { printf '  %s\n' "$*"; }
fail() { printf 'set-up: %s\n' "$@" >&2; exit 1; }

LOG=$(mktemp "${TMPDIR:-/tmp}/quorate-setup.XXXXXX")
trap 'rm -f "$LOG"' EXIT

# logged WHAT COMMAND…: runs it quietly; its output is shown only if it fails
logged() {
  local what=$1 started=$SECONDS; shift
  if "$@" >"$LOG" 2>&1 </dev/null; then say "$what: $((SECONDS - started)) s"; return; fi
  tail -n 60 "$LOG" >&2
  fail "$what failed after $((SECONDS - started)) s; the command was: $*" "nothing is lost: mend the cause and type make again"
}

# unpacks COMMAND…: marks the time in which a kill would leave half a package behind
unpacks() {
  local status=0
  touch "$UNPACKING"
  "$@" || status=$?
  rm -f "$UNPACKING"
  return "$status"
}

is_python_311() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; }

find_python() {
  local candidate
  for candidate in ${PYTHON:-python3.11 python3 python3.12 python3.13}; do
    if is_python_311 "$candidate"; then "$candidate" -c 'import sys; print(sys.executable)'; return; fi
  done
}

# Prints the Debian packages whose content is missing. Judged by content: not every Python comes from the distribution.
missing_packages() {
  local python=$1 prefix=python3
  if [ -z "$python" ]; then echo "python3 python3-venv python3-dev gcc libc6-dev libgmp-dev"; return; fi
  is_python_311 /usr/bin/python3 || prefix=$("$python" -c 'import sys; print("python%d.%d" % sys.version_info[:2])')
  "$python" -c 'import venv, ensurepip' >/dev/null 2>&1 || echo "$prefix-venv"
  [ -e "$("$python" -c 'import sysconfig; print(sysconfig.get_path("include"))')/Python.h" ] || echo "$prefix-dev"
  if ! command -v gcc >/dev/null; then echo "gcc libc6-dev libgmp-dev"; return; fi
  echo '#include <stdio.h>' | gcc -E - >/dev/null 2>&1 || echo libc6-dev
  echo '#include <gmp.h>' | gcc -E - >/dev/null 2>&1 || echo libgmp-dev
}

install_packages() {
  local -a packages=("$@") as_root=()
  if ! command -v apt-get >/dev/null; then
    fail "these are missing, by their Debian names: ${packages[*]}" \
      "install what your system calls them (Python 3.11 or newer with venv and headers, a C compiler, the headers of GMP), then type make again"
  fi
  if [ "$(id -u)" -ne 0 ]; then
    if ! sudo -n true 2>/dev/null; then
      fail "system packages are missing; run this, then type make again:" \
        "  sudo apt-get update && sudo apt-get install --no-install-recommends ${packages[*]}"
    fi
    as_root=(sudo -n)
  fi
  logged "apt-get update" "${as_root[@]}" apt-get update
  logged "installing ${packages[*]}" "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive \
    apt-get install -y --no-install-recommends "${packages[@]}"
}

prepare_system() {
  local -a packages
  PYTHON_FOUND=$(find_python)
  if [ -z "$PYTHON_FOUND" ] && { [ -n "${PYTHON:-}" ] || command -v python3 >/dev/null; }; then
    fail "Python 3.11 or newer is needed; ${PYTHON:-python3} is $("${PYTHON:-python3}" --version 2>&1 || true)" \
      "install one (python3.11 python3.11-venv python3.11-dev), then type make again, or make PYTHON=/path/to/python3.11"
  fi
  read -r -a packages <<<"$(missing_packages "$PYTHON_FOUND" | tr '\n' ' ')"
  if [ "${#packages[@]}" -gt 0 ]; then
    install_packages "${packages[@]}"
    PYTHON_FOUND=$(find_python)
  fi
  [ -n "$PYTHON_FOUND" ] || fail "Python 3.11 or newer is needed; the system's package is $(python3 --version 2>&1 || true)" \
    "type make PYTHON=/path/to/python3.11 once you have one"
}

prepare_venv() {
  if [ -e "$UNPACKING" ] || ! is_python_311 "$VENV_PYTHON" || ! "$VENV_PYTHON" -m pip --version >/dev/null 2>&1; then
    find .venv -mindepth 1 -maxdepth 1 ! -name .setup-lock -exec rm -rf {} +
    logged "virtual environment from $PYTHON_FOUND" "$PYTHON_FOUND" -m venv .venv
  fi
}

has_nvidia_driver() { [ -e /proc/driver/nvidia/version ] || nvidia-smi -L >/dev/null 2>&1; }

has_torch() {
  "$VENV_PYTHON" -c "import sys; from importlib.metadata import version; sys.exit(version('torch').split('+')[0] != '$TORCH')" 2>/dev/null
}

pip_install() { "$VENV_PYTHON" -m pip --disable-pip-version-check --no-input install -c constraints.txt "$@"; }

install_cpu_torch() {
  pip_install "torch==$TORCH+cpu" || { pip_install uv && .venv/bin/uv pip install --python "$VENV_PYTHON" --torch-backend=cpu "torch==$TORCH"; }
}

# torch has a step of its own, because a bare pin does not choose: on Linux the index's own build is the CUDA one.
install_torch() {
  if has_torch; then return; fi
  if [ "$(uname -s)" != Linux ] || has_nvidia_driver; then
    logged "torch $TORCH" unpacks pip_install "torch==$TORCH"
  elif [ "${ALLOW_CUDA:-}" = 1 ]; then
    logged "torch $TORCH, CPU build or else the CUDA build" unpacks eval 'install_cpu_torch || pip_install "torch==$TORCH"'
  else
    local started=$SECONDS
    if unpacks install_cpu_torch >"$LOG" 2>&1 </dev/null; then say "torch $TORCH, CPU build: $((SECONDS - started)) s"; return; fi
    tail -n 30 "$LOG" >&2
    fail "no CPU build of torch $TORCH could be had, neither from pip nor through uv." \
      "The build with CUDA would be a download of $CUDA_DOWNLOAD." \
      "To take it: make ALLOW_CUDA=1 …; to bring a CPU build yourself: $VENV_PYTHON -m pip install /path/to/torch-$TORCH+cpu-….whl"
  fi
}

install_quorate() {
  local target=.
  [ "$KIND" = run ] || target=".[$KIND]"
  logged "quorate and its dependencies ($KIND)" unpacks pip_install -e "$target"
}

# One set-up at a time: a second make waits here, then finds everything in place.
mkdir -p .venv
if command -v flock >/dev/null; then exec 9>.venv/.setup-lock; flock 9; fi

echo "set-up ($KIND), only once; a few minutes, depending on the network:"
prepare_system
prepare_venv
install_torch
install_quorate
touch "$STAMP"
