#!/usr/bin/env bash
# Where is RocksDB, built? Prints the folder of `librocksdb.a`, building it first where the cache does not hold it yet.
#
# The crate librocksdb-sys compiles RocksDB as 343 files, each of which reads the same headers again: over 20 minutes of
# CPU. Here the same sources, with the same defines, become a few translation units that include them (a unity build,
# which RocksDB's own Makefile knows as well): under five. The crate links what it finds at ROCKSDB_LIB_DIR; without
# that it compiles its own as ever, so that this script may always be left out.
#
# usage: setup/rocksdb.sh [CACHE]    ends with 3 where the crate is not the one whose defines stand below
set -euo pipefail
cd "$(dirname "$0")/.."

cache=${1:-${QUERN_CACHE:-$HOME/.cache/quern}}/rocksdb
say() { printf 'setup: %s\n' "$*" >&2; }

# The crate's build script, whose defines stand below. A new one is read before its digest is put here.
known=2dbb97b102a2c13f0192ee75a49d4fc0f84fa0692ac9ffc84d364a7a28b472a3

package() { printf '%s' "$metadata" | grep -o "\"manifest_path\":\"[^\"]*/$1-[0-9][^\"/]*/Cargo.toml\"" | head -n 1 | cut -d'"' -f4 | xargs dirname; }
metadata=$(cargo metadata --locked --format-version 1)
crate=$(package librocksdb-sys)
lz4=$(package lz4-sys)/liblz4/lib
found=$(sha256sum <"$crate/build.rs" | cut -d' ' -f1)
if [ "$found" != "$known" ]; then
  say "${crate##*/} has a build script that setup/rocksdb.sh does not know ($found): cargo builds RocksDB, which takes longer"
  exit 3
fi

compiler=${CXX:-c++}
flags=(-O2 -w -fPIC -ffunction-sections -fdata-sections -std="${ROCKSDB_CXX_STD:-c++20}" -include cstdint
  -DNDEBUG=1 -DLZ4=1 -DHAVE_ALIGNED_NEW -DHAVE_UINT128_EXTENSION
  -DOS_LINUX -DROCKSDB_PLATFORM_POSIX -DROCKSDB_LIB_IO_POSIX -DROCKSDB_SCHED_GETCPU_PRESENT
  -DROCKSDB_AUXV_GETAUXVAL_PRESENT -DROCKSDB_FALLOCATE_PRESENT -DROCKSDB_RANGESYNC_PRESENT)
# What the crate takes from rustc's defaults: no SSE 4.2 on x86-64, no CRC instruction on arm64.
read -r -a extra <<<"${CXXFLAGS:-}"
flags+=("${extra[@]}")

key=$( { echo "${crate##*/}" "${lz4%/liblz4/lib}"; "$compiler" -dumpmachine; "$compiler" --version; echo "${flags[@]}"; sha256sum <setup/rocksdb.sh; } |
  sed "s|$HOME||g" | sha256sum | cut -c1-16)
out=$cache/${crate##*/}-$key
if [ -f "$out/librocksdb.a" ]; then echo "$out"; exit; fi

mkdir -p "$cache"
exec 8>"$cache/lock"
if command -v flock >/dev/null; then flock 8; fi
if [ -f "$out/librocksdb.a" ]; then echo "$out"; exit; fi

jobs=${CARGO_BUILD_JOBS:-$(nproc 2>/dev/null || echo 2)}
say "building RocksDB, once for this machine: 3 minutes on two cores ($jobs jobs)"
work=$out.building
rm -rf "$work"
mkdir -p "$work"
# Round robin over the list, so that the units are of one size. Two sources whose names meet are put into units apart.
grep -v '^util/build_version.cc$' "$crate/rocksdb_lib_sources.txt" | tr -d ' \t\r' | grep . |
  split -n r/14 -d --additional-suffix=.cc --filter="sed 's|.*|#include \"rocksdb/&\"|' >\"\$FILE\"" - "$work/unit"
cp "$crate/build_version.cc" "$work/unit_version.cc"
compile() { (cd "$crate" && "$compiler" "${flags[@]}" -I rocksdb/include -I rocksdb -I . -I "$lz4" -c "$1" -o "$1.o") && say "RocksDB: $(ls "$work"/*.o | wc -l) of 15 parts"; }
pids=()
for unit in "$work"/unit*.cc; do
  while [ "$(jobs -rp | wc -l)" -ge "$jobs" ]; do wait -n || { say "RocksDB did not compile"; exit 1; }; done
  compile "$unit" &
done
while [ "$(jobs -rp | wc -l)" -gt 0 ]; do wait -n || { say "RocksDB did not compile"; exit 1; }; done
ar crs "$work/librocksdb.a" "$work"/*.o
rm "$work"/*.o "$work"/*.cc
mv "$work" "$out"
echo "$out"
