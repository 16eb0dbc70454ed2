#!/usr/bin/env bash
# What does this machine still lack? Installs it and says so; quick when nothing is missing.
#
# usage: ./setup.sh [build | demo | test | all]
#
#   build   what compiles Quern: a C++ compiler, libclang, and RocksDB, compiled once for this machine
#   demo    what the flights example needs as well: an environment of Python packages, with ONNX Runtime
#   test    what the tests need as well: PostgreSQL's programs, redis-server, libfiu, promtool; SDKs of Feast, Triton,
#           MLflow; Schemathesis
#   all     what only `make test-all` needs as well: XGBoost and CatBoost, MLServer
#
# Needs cargo, beyond `build` Python 3.10 or later: PYTHON names another one than python3, and is asked for once.
# System packages come from apt; without apt it names what is missing. The rest goes into ${QUERN_CACHE:-~/.cache/quern}:
# outside of the checkout, so that several checkouts share one. `.cargo/config.toml`, which git ignores, then tells cargo,
# and the Makefile, where all of it is.
set -euo pipefail
cd "$(dirname "$0")"

level=${1:-test}
case $level in build) depth=1 ;; demo) depth=2 ;; test) depth=3 ;; all) depth=4 ;;
  *) echo "usage: ./setup.sh [build | demo | test | all]" >&2; exit 2 ;;
esac
for_demo() { [ "$depth" -ge 2 ]; }
for_test() { [ "$depth" -ge 3 ]; }
for_all() { [ "$depth" -ge 4 ]; }

QUERN_CACHE=${QUERN_CACHE:-$HOME/.cache/quern}
mkdir -p "$QUERN_CACHE"
QUERN_CACHE=$(cd "$QUERN_CACHE" && pwd -P)
case $QUERN_CACHE in *[[:space:]]*) echo "setup: QUERN_CACHE has a space in it: $QUERN_CACHE" >&2; exit 2 ;; esac
export QUERN_CACHE
cache=$QUERN_CACHE
venv=$cache/venv
# The environment goes on with the Python that it was made with, unless PYTHON says otherwise.
made_with() { "$venv/bin/python" -c 'import sys; print(sys._base_executable)' 2>/dev/null; }
python=${PYTHON:-$(made_with || echo python3)}
say() { printf 'setup: %s\n' "$*"; }
fail() { printf 'setup: %s\n' "$*" >&2; exit 1; }

exec 9>"$cache/setup.lock"                       # two makes at once would install into one environment
if command -v flock >/dev/null; then
  flock --nonblock 9 || { say "waiting for another setup.sh, which is at work in $cache"; flock 9; }
fi

# --- system packages ---------------------------------------------------------------------------------------------
missing=()
need() { local package=$1; shift; "$@" >/dev/null 2>&1 || missing+=("$package"); }
# Wherever bindgen looks: Debian, Fedora, Arch, Homebrew; LIBCLANG_PATH is where it is otherwise.
has_libclang() {
  local folder
  for folder in "${LIBCLANG_PATH:-}" /usr/lib/llvm-*/lib /usr/lib/llvm*/lib64 /usr/lib /usr/lib64 /usr/lib/*-linux-* \
    /usr/local/lib /opt/homebrew/opt/llvm/lib "$(llvm-config --libdir 2>/dev/null)"; do
    if [ -n "$folder" ] && compgen -G "$folder/libclang*.so*" || compgen -G "$folder/libclang.dylib"; then return 0; fi
  done
  return 1
}
has_postgresql() { compgen -G '/usr/lib/postgresql/*/bin/initdb' || { command -v initdb && command -v postgres; }; }
has_libgomp() { compgen -G '/usr/lib/*/libgomp.so.1' || compgen -G '/usr/lib*/libgomp.so.1' || [ "$(uname)" = Darwin ]; }
has_locale() { locale -a | grep -qi '^en_US\.utf-\?8$' || [ "$(uname)" = Darwin ]; }
# What a package of Debian's brings, for those who have another system.
brings() {
  case $1 in
    build-essential) echo 'a C++ compiler (c++)' ;;
    libclang-dev) echo 'libclang; if it is here, say where by LIBCLANG_PATH' ;;
    libgomp1) echo 'libgomp.so.1, of GCC' ;;
    libssl-dev) echo 'OpenSSL with its headers, as pkg-config finds it' ;;
    postgresql) echo 'the programs of PostgreSQL (initdb and postgres in PATH)' ;;
    fiu-utils) echo 'libfiu, its preload libraries in /usr/lib/fiu and fiu-ctrl' ;;
    locales) echo 'the locale en_US.UTF-8 (localedef -i en_US -f UTF-8 en_US.UTF-8)' ;;
    redis-server) echo 'redis-server, or valkey-server by that name' ;;
    *) echo "$1" ;;
  esac
}

need build-essential command -v c++              # RocksDB is C++
need clang command -v clang                      # bindgen reads RocksDB's headers with libclang ...
need libclang-dev has_libclang                   # ... which is this library
need pkg-config command -v pkg-config            # finds the next:
need libssl-dev pkg-config --exists openssl      # OpenSSL, by which librdkafka speaks TLS
if for_demo; then
  need libgomp1 has_libgomp                      # LightGBM's threads
  if [ -z "${PYTHON:-}" ]; then
    need python3 command -v "$python"
    need python3-venv "$python" -c 'import ensurepip, venv'
  else
    # One that was asked for is not ours to install, and the packages of another do not help it.
    command -v "$python" >/dev/null || fail "PYTHON is $python, and there is no such program"
    "$python" -c 'import ensurepip, venv' 2>/dev/null ||
      fail "PYTHON is $python, which lacks venv or ensurepip; install them for it (on Debian python3.x-venv), or unset PYTHON"
  fi
fi
if for_test; then
  need locales has_locale                        # ONNX Runtime changes the case of texts by it
  need postgresql has_postgresql                 # the tests start one of their own where they need it
  need redis-server command -v redis-server      # the tests of the shared online store ...
  need openssl command -v openssl                # ... and the certificate of one that speaks TLS
  need fiu-utils command -v fiu-ctrl             # disks that fail
fi

if [ ${#missing[@]} -gt 0 ]; then
  if ! command -v apt-get >/dev/null; then
    say "no apt-get here; install these as your system does, then run this again:" >&2
    for package in "${missing[@]}"; do printf '  %s\n' "$(brings "$package")" >&2; done
    exit 1
  fi
  say "installing system packages (a minute): ${missing[*]}"
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
  trap '"${as_root[@]}" rm -f "$no_cluster"' EXIT
  "${as_root[@]}" apt-get update -qq
  "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
  if [[ " ${missing[*]} " == *" locales "* ]]; then
    "${as_root[@]}" localedef -i en_US -f UTF-8 en_US.UTF-8
  fi
  "${as_root[@]}" rm -f "$no_cluster"
fi

command -v cargo >/dev/null || fail "cargo is missing; install Rust with rustup, then run again"

# --- RocksDB -----------------------------------------------------------------------------------------------------
# In the background, since what follows mostly waits for the network. Without it cargo builds RocksDB itself.
found=$(mktemp)
set -m                                            # a process group of its own, so that all of it ends with us
setup/rocksdb.sh >"$found" 9>&- &
rocksdb=$!
set +m
trap 'kill -- "-$rocksdb" 2>/dev/null || true; rm -f "$found"' EXIT

# --- promtool ----------------------------------------------------------------------------------------------------
# It checks deploy/prometheus. It is taken out of its package: installing that would start a server.
fetch_promtool() {
  local promtool=$cache/tools/bin/promtool folder
  if type -P promtool >/dev/null || [ -x "$promtool" ]; then return; fi
  say "fetching promtool, which checks the alerts (100 MB)"
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
}

# --- Python packages ---------------------------------------------------------------------------------------------
stamp() { cat "$cache/$1.stamp" 2>/dev/null || true; }
install() { "$cache/$1/bin/python" -m pip install --quiet --disable-pip-version-check -r "$2"; }

# Packages of the file $2, which are $3, for the environment $1 in the cache, which is made where there is none. The
# stamp $4 lies in it, so that one made anew lacks all of them.
packages() {
  local name=$1 requirements=$2 what=$3 stamp=$1/${4:-packages} wanted
  wanted="$("$python" -c 'import platform; print(platform.python_version())') $(sha256sum <"$requirements")"
  if [ "$(stamp "$stamp")" = "$wanted" ] && "$cache/$name/bin/python" -c '' 2>/dev/null; then return; fi
  say "installing $what into $cache/$name"
  # What came before the demo's own file is made anew; what comes on top of it is added.
  if [ -z "${4:-}" ]; then "$python" -m venv --clear "$cache/$name"; fi
  install "$name" "$requirements"
  printf '%s\n' "$wanted" >"$cache/$stamp.stamp"
}

if for_demo; then
  "$python" -c 'import sys; sys.exit(sys.version_info < (3, 10))' || fail "$python is older than 3.10; set PYTHON to a later one"
  packages venv sdk/python/requirements-demo.txt "what the demo trains a model with (900 MB, a minute)"
fi
if for_test; then
  fetch_promtool
  packages venv sdk/python/requirements-dev.txt "what the tests compare with, and the linters (200 MB)" dev
  packages feast sdk/python/requirements-feast.txt "Feast's own SDK (600 MB, a minute)"
  packages triton sdk/python/requirements-triton.txt "Triton's own client (190 MB)"
  packages mlflow sdk/python/requirements-mlflow.txt "MLflow and a stand-in for S3 (500 MB)"
  packages schemathesis sdk/python/requirements-schemathesis.txt "Schemathesis, which asks what /openapi.json says (70 MB)"
fi
if for_all; then
  packages exporters sdk/python/requirements-exporters.txt "XGBoost and CatBoost, whose models are exported (1 GB)"
  packages mlserver sdk/python/requirements-mlserver.txt "MLServer, which remote steps ask (330 MB)"
fi
if for_demo; then
  wanted="$PWD/sdk/python $(sha256sum <sdk/python/pyproject.toml)"   # an editable install points at one checkout
  if [ "$(stamp venv/sdk)" != "$wanted" ]; then
    say "installing the Python client from sdk/python"
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-build-isolation --no-deps --editable sdk/python
    printf '%s\n' "$wanted" >"$venv/sdk.stamp"
  fi
fi

# --- what cargo must know ----------------------------------------------------------------------------------------
# So that `cargo build` and an editor build the same as `make` does. What the environment says goes before.
wait "$rocksdb" || [ $? -eq 3 ] || fail "RocksDB could not be built; see above"
library=$(cat "$found")
onnxruntime=$(compgen -G "$venv/lib/python3*/site-packages/onnxruntime/capi/libonnxruntime.so.*" | head -n 1 || true)
mkdir -p .cargo
if [ -f .cargo/config.toml ] && [ "$(head -n 1 .cargo/config.toml)" != '# Written by setup.sh.' ]; then
  fail ".cargo/config.toml is yours; move what it says into ~/.cargo/config.toml, remove it, then run again"
fi
{
  echo '# Written by setup.sh.'
  printf '[build]\ntarget-dir = "%s"\n\n[env]\n' "${CARGO_TARGET_DIR:-$cache/target}"
  [ -z "$library" ] || printf 'ROCKSDB_LIB_DIR = "%s"\nROCKSDB_STATIC = "1"\n' "$library"
  [ -z "$onnxruntime" ] || printf 'ORT_DYLIB_PATH = "%s"\n' "$onnxruntime"
  printf 'QUERN_CACHE = "%s"\nQUERN_PYTHON = "%s"\n' "$cache" "$venv/bin/python"
} >.cargo/config.toml.new
if cmp -s .cargo/config.toml.new .cargo/config.toml; then rm .cargo/config.toml.new; else mv .cargo/config.toml.new .cargo/config.toml; fi
