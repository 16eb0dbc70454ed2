#!/usr/bin/env bash
# What does this machine still lack to build, test and show Quern? Installs it and says so; quick when nothing is missing.
#
# Needs cargo and Python 3.10 or later. System packages come from apt, Python packages from pip, into
# ${QUERN_CACHE:-~/.cache/quern}: outside of the checkout, so that several checkouts share one.
set -euo pipefail
cd "$(dirname "$0")"

cache=${QUERN_CACHE:-$HOME/.cache/quern}
venv=$cache/venv
python=${PYTHON:-python3}
say() { printf 'setup: %s\n' "$*"; }
fail() { printf 'setup: %s\n' "$*" >&2; exit 1; }

# --- system packages ---------------------------------------------------------------------------------------------
missing=()
need() { local package=$1; shift; "$@" >/dev/null 2>&1 || missing+=("$package"); }
has_libclang() { compgen -G '/usr/lib/llvm-*/lib/libclang*.so*' || compgen -G '/usr/lib/*/libclang*.so*' || [ -n "${LIBCLANG_PATH:-}" ]; }
has_postgresql() { compgen -G '/usr/lib/postgresql/*/bin/initdb' || { command -v initdb && command -v postgres; }; }
has_libgomp() { compgen -G '/usr/lib/*/libgomp.so.1' || compgen -G '/usr/lib*/libgomp.so.1'; }

need build-essential command -v c++           # RocksDB is C++
need clang command -v clang                   # bindgen reads RocksDB's headers with libclang ...
need libclang-dev has_libclang                # ... which is this library
need libgomp1 has_libgomp                     # LightGBM's threads
need postgresql has_postgresql                # the tests start one of their own where they need it
need redis-server command -v redis-server     # the tests of the shared online store ...
need openssl command -v openssl               # ... and the certificate of one that speaks TLS
need python3 command -v "$python"
need python3-venv "$python" -c 'import ensurepip, venv'

if [ ${#missing[@]} -gt 0 ]; then
  say "installing system packages: ${missing[*]}"
  command -v apt-get >/dev/null || fail "no apt-get here; install these by hand, then run again: ${missing[*]}"
  as_root=()
  if [ "$(id -u)" -ne 0 ]; then
    command -v sudo >/dev/null || fail "not root and no sudo; as root run: apt-get install ${missing[*]}"
    as_root=(sudo)
  fi
  # PostgreSQL's programs, and no database of the system's: with none there is no service to run.
  no_cluster=/etc/postgresql-common/createcluster.d/quern-setup.conf
  if [[ " ${missing[*]} " == *" postgresql "* ]]; then
    echo 'create_main_cluster = false' | "${as_root[@]}" install -D --mode=644 /dev/stdin "$no_cluster"
  fi
  "${as_root[@]}" apt-get update -qq
  "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
  "${as_root[@]}" rm -f "$no_cluster"
fi

command -v cargo >/dev/null || fail "cargo is missing; install Rust with rustup, then run again"
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 10))' || fail "$python is older than 3.10; set PYTHON to a later one"

# --- promtool ----------------------------------------------------------------------------------------------------
# It checks deploy/prometheus. It is taken out of its package: installing that would start a server.
promtool=$cache/tools/bin/promtool
if ! command -v promtool >/dev/null && [ ! -x "$promtool" ]; then
  say "fetching promtool"
  command -v apt-get >/dev/null || fail "no apt-get here; put promtool, of Prometheus 2.42 or later, into your PATH"
  folder=$(mktemp -d)
  (
    cd "$folder"
    download() { apt-get download -qq prometheus >/dev/null 2>&1; }
    download || { [ "$(id -u)" -eq 0 ] && apt-get update -qq && download; } ||
      fail "apt-get does not find the package prometheus; run apt-get update, then this again"
    dpkg-deb --fsys-tarfile prometheus_*.deb | tar -x ./usr/bin/promtool
  )
  mkdir -p "$cache/tools/bin"
  mv "$folder/usr/bin/promtool" "$promtool"
  rm -r "$folder"
fi

# --- Python packages ---------------------------------------------------------------------------------------------
mkdir -p "$cache"
exec 9>"$cache/setup.lock"                     # two makes at once would install into one environment
if command -v flock >/dev/null; then flock 9; fi

stamp() { cat "$cache/$1.stamp" 2>/dev/null || true; }
digest() { cat "$@" | sha256sum | cut -d' ' -f1; }

# An environment in the cache, named $1, with the packages of the file $2, which are $3: made anew where they changed.
environment() {
  local name=$1 requirements=$2 what=$3 wanted
  wanted="$("$python" -c 'import platform; print(platform.python_version())') $(digest "$requirements")"
  if [ "$(stamp "$name")" = "$wanted" ] && "$cache/$name/bin/python" -c '' 2>/dev/null; then return; fi
  say "installing $what into $cache/$name (a minute or two)"
  rm -f "$cache/$name.stamp"
  "$python" -m venv --clear "$cache/$name"
  "$cache/$name/bin/python" -m pip install --quiet --disable-pip-version-check -r "$requirements"
  printf '%s\n' "$wanted" >"$cache/$name.stamp"
}

environment venv sdk/python/requirements-dev.txt "Python packages"
environment feast sdk/python/requirements-feast.txt "Feast's own SDK (about 600 MB)"
environment triton sdk/python/requirements-triton.txt "Triton's own client (about 190 MB)"
environment mlflow sdk/python/requirements-mlflow.txt "MLflow and a stand-in for S3 (about 500 MB)"

# Its stamp lies in the environment, so that one made anew lacks it.
wanted="$PWD/sdk/python $(digest sdk/python/pyproject.toml)"   # an editable install points at one checkout
if [ "$(stamp venv/sdk)" != "$wanted" ]; then
  say "installing the Python client from sdk/python"
  "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-build-isolation --no-deps --editable sdk/python
  printf '%s\n' "$wanted" >"$venv/sdk.stamp"
fi
