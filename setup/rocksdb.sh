#!/usr/bin/env bash
# Where is RocksDB, built? Prints the folder of `librocksdb.a`, building it first where the cache does not hold it yet.
#
# The crate librocksdb-sys compiles RocksDB as 343 files, each of which reads the same headers again: over 20 minutes of
# CPU. Here the same sources, with the same defines, become a few translation units that include them (a unity build,
# which RocksDB's own Makefile knows as well): under five. The crate links what it finds at ROCKSDB_LIB_DIR; without
# that it compiles its own as ever, so that this script may always be left out.
#
# usage: setup/rocksdb.sh [CACHE]    ends with 3 where it leaves RocksDB to cargo, and says why
set -euo pipefail
cd "$(dirname "$0")/.."

cache=$(realpath -m "${1:-${QUERN_CACHE:-$HOME/.cache/quern}}")/rocksdb
say() { printf 'setup: %s\n' "$*" >&2; }

# The crate's build script, whose defines stand below. A new one is read before its digest is put here.
known=2dbb97b102a2c13f0192ee75a49d4fc0f84fa0692ac9ffc84d364a7a28b472a3

# Cargo's own build of RocksDB takes longer and always works.
leave_to_cargo() { say "$*: cargo builds RocksDB, which takes longer"; exit 3; }
if [ -n "${ROCKSDB_LIB_DIR:-}${ROCKSDB_COMPILE:-}" ]; then exit 3; fi          # whoever sets these knows better

package() { printf '%s' "$metadata" | grep -o "\"manifest_path\":\"[^\"]*/$1-[0-9][^\"/]*/Cargo.toml\"" | head -n 1 | cut -d'"' -f4 || true; }
metadata=$(cargo metadata --format-version 1)
crate=$(package librocksdb-sys) lz4=$(package lz4-sys)
if [ -z "$crate" ] || [ -z "$lz4" ]; then leave_to_cargo "librocksdb-sys is not where cargo puts crates"; fi
crate=${crate%/*} lz4=${lz4%/*}/liblz4/lib
found=$(sha256sum <"$crate/build.rs" | cut -d' ' -f1)
if [ "$found" != "$known" ]; then
  leave_to_cargo "${crate##*/} has a build script that setup/rocksdb.sh does not know ($found)"
fi

read -r -a compiler <<<"${CXX:-c++}"             # which may be "ccache c++"
"${compiler[@]}" --version >/dev/null || leave_to_cargo "${compiler[*]} does not run"
standard=${ROCKSDB_CXX_STD:-c++20}
flags=(-O2 -w -fPIC -ffunction-sections -fdata-sections -std="${standard#-std=}" -include cstdint
  -DNDEBUG=1 -DLZ4=1 -DHAVE_ALIGNED_NEW -DHAVE_UINT128_EXTENSION
  -DOS_LINUX -DROCKSDB_PLATFORM_POSIX -DROCKSDB_LIB_IO_POSIX -DROCKSDB_SCHED_GETCPU_PRESENT
  -DROCKSDB_AUXV_GETAUXVAL_PRESENT -DROCKSDB_FALLOCATE_PRESENT -DROCKSDB_RANGESYNC_PRESENT)
# What the crate takes from rustc's defaults: no SSE 4.2 on x86-64, no CRC instruction on arm64.
read -r -a extra <<<"${CXXFLAGS:-}"
flags+=("${extra[@]}")

key=$( { echo "${crate##*/}" "$(basename "${lz4%/liblz4/lib}")"; "${compiler[@]}" -dumpmachine; "${compiler[@]}" --version; echo "${flags[@]}"; sha256sum <setup/rocksdb.sh; } |
  sha256sum | cut -c1-16)
out=$cache/${crate##*/}-$key
if [ -f "$out/librocksdb.a" ]; then echo "$out"; exit; fi

mkdir -p "$cache"
exec 8>"$cache/lock"
if command -v flock >/dev/null; then flock --nonblock 8 || { say "waiting for another build of RocksDB"; flock 8; }; fi
if [ -f "$out/librocksdb.a" ]; then echo "$out"; exit; fi

jobs=${CARGO_BUILD_JOBS:-}
if ! [[ $jobs =~ ^[1-9][0-9]*$ ]]; then jobs=$(nproc 2>/dev/null || echo 2); fi
say "building RocksDB, once for this machine: 3 minutes on two cores ($jobs jobs)"
work=$out.building
rm -rf "$work"
mkdir -p "$work"
# Round robin over the list, so that the units are of one size. Two sources whose names meet are put into units apart.
grep -v '^util/build_version.cc$' "$crate/rocksdb_lib_sources.txt" | tr -d ' \t\r' | grep . |
  split -n r/14 -d --additional-suffix=.cc --filter="sed 's|.*|#include \"rocksdb/&\"|' >\"\$FILE\"" - "$work/unit"
cp "$crate/build_version.cc" "$work/unit_version.cc"
# One call of the compiler for each part, so many at a time; xargs fails where one of them does.
part='unit=$1; shift; "$@" -c "$unit" -o "$unit.o" && echo "setup: RocksDB: $(ls "${unit%/*}"/*.o | wc -l) of 15 parts" >&2'
(cd "$crate" && printf '%s\0' "$work"/unit*.cc | xargs -0 -P "$jobs" -I '{}' sh -c "$part" sh '{}' \
  "${compiler[@]}" "${flags[@]}" -I rocksdb/include -I rocksdb -I . -I "$lz4") ||
  leave_to_cargo "RocksDB did not compile with ${compiler[*]}"
ar crs "$work/librocksdb.a" "$work"/*.o
rm "$work"/*.o "$work"/*.cc
rm -rf "$out"
mv "$work" "$out"
echo "$out"
