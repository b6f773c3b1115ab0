#!/usr/bin/env bash
# Installs what a build needs on Debian 12 or Ubuntu 24.04: system packages (root or sudo) and a Python
# environment under the project (.venv). Takes what exists: a second run is a matter of seconds.
#
#   scripts/setup.sh           what the build, the model import and the quickstart need (no PyTorch, no CUDA)
#   scripts/setup.sh --test    also the oracles and linters of the tests (PyTorch's full set, about 5 GB)
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

WITH_TESTS=0
for arg in "$@"; do
  case $arg in
    --test) WITH_TESTS=1 ;;
    -h | --help) usage; exit 0 ;;
    *) die "unknown argument '$arg' (see --help)" ;;
  esac
done

PACKAGES=(build-essential cmake ninja-build ccache pkg-config git ca-certificates jq
  python3 python3-venv
  libgrpc++-dev libgrpc-dev protobuf-compiler protobuf-compiler-grpc libprotobuf-dev libabsl-dev
  libspdlog-dev libfmt-dev nlohmann-json3-dev libcli11-dev prometheus-cpp-dev libcurl4-openssl-dev
  zlib1g-dev libpcre2-dev libicu-dev libsqlite3-dev libssl-dev libgtest-dev libgmock-dev)
# clang's runtime (libFuzzer, sanitizers) carries its version in its name.
OS_RELEASE=${PLUMB_OS_RELEASE:-/etc/os-release}
SYSTEM=$(. "$OS_RELEASE" 2>/dev/null && echo "${ID:-} ${VERSION_ID:-}") || SYSTEM="an unknown system"
case $SYSTEM in
  "debian 12") CLANG_RT=libclang-rt-14-dev ;;
  "ubuntu 24.04") CLANG_RT=libclang-rt-18-dev ;;
  *)
    say "note: Plumbline is set up on Debian 12 and Ubuntu 24.04; this is '$SYSTEM', where packages may differ"
    CLANG_RT=libclang-rt-14-dev
    ;;
esac
TEST_PACKAGES=(clang clang-format clang-tidy "$CLANG_RT" prometheus)

missing_packages() {
  local package
  for package in "$@"; do
    dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || echo "$package"
  done
}

install_packages() {
  local missing
  mapfile -t missing < <(missing_packages "$@")
  if [ ${#missing[@]} -eq 0 ]; then
    say "system packages: all there"
    return
  fi
  command -v apt-get >/dev/null || die "no apt-get: Plumbline's setup knows Debian 12 and Ubuntu 24.04"
  # RUNLEVEL=1 below: no package may start a server (promtool comes with Prometheus).
  local sudo=()
  if [ "$(id -u)" -ne 0 ]; then
    command -v sudo >/dev/null || die "not root and no sudo: install these packages, then run again: ${missing[*]}"
    sudo=(sudo)
  fi
  say "system packages: installing ${#missing[@]}"
  quietly "$PLUMB_DATA/logs/apt.log" "${sudo[@]}" apt-get update
  local unknown=() package
  for package in "${missing[@]}"; do
    apt-cache show "$package" >/dev/null 2>&1 || unknown+=("$package")
  done
  [ ${#unknown[@]} -eq 0 ] || die "no such package here: ${unknown[*]}. On Ubuntu most of them are in" \
    "'universe' (add-apt-repository universe); this is '$SYSTEM', Plumbline's setup knows Debian 12 and Ubuntu 24.04"
  # Ubuntu's needrestart would ask about services in the middle.
  quietly "$PLUMB_DATA/logs/apt.log" "${sudo[@]}" env DEBIAN_FRONTEND=noninteractive NEEDRESTART_SUSPEND=1 \
    RUNLEVEL=1 apt-get install -y --no-install-recommends "${missing[@]}"
}

install_python() {
  local stamp wanted
  wanted=$(cat "$PLUMB_ROOT"/scripts/requirements*.txt | sha256sum | cut -d' ' -f1)-$1
  stamp=$PLUMB_VENV/.plumb-$1
  if [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$wanted" ]; then
    say "Python environment ($1): there"
    return
  fi
  if [ ! -x "$PLUMB_VENV/bin/python" ]; then
    # The system's Python, since a version manager's may lack what a venv needs.
    local python=/usr/bin/python3
    [ -x $python ] || python=python3
    $python -m venv "$PLUMB_VENV"
  fi
  say "Python environment ($1): installing into $PLUMB_VENV"
  local pip=("$PLUMB_VENV/bin/python" -m pip install --disable-pip-version-check -q)
  quietly "$PLUMB_DATA/logs/pip.log" "${pip[@]}" -r "$PLUMB_ROOT/scripts/requirements.txt"
  quietly "$PLUMB_DATA/logs/pip.log" "${pip[@]}" --no-deps -r "$PLUMB_ROOT/scripts/requirements-nodeps.txt"
  if [ "$1" = test ]; then
    quietly "$PLUMB_DATA/logs/pip.log" "${pip[@]}" -r "$PLUMB_ROOT/scripts/requirements-test.txt"
  fi
  echo "$wanted" >"$stamp"
}

if [ $WITH_TESTS = 1 ]; then
  install_packages "${PACKAGES[@]}" "${TEST_PACKAGES[@]}"
  install_python test
else
  install_packages "${PACKAGES[@]}"
  install_python base
fi
say "set-up done"
