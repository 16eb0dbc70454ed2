#!/usr/bin/env bash
# What must lie in an image that has nothing else, no shell and no package manager?
#
# usage: deploy/root.sh BINARY ONNXRUNTIME TO
#
# Makes the folder TO, which must be new: the binary, the library of ONNX Runtime beside it, what both link as `ldd` finds
# it here, the locale by which ONNX Runtime changes the case of texts (of Debian's package `locales`), whom the system
# believes, one user, and empty folders for what is mounted. As root, since folders are that user's. `TO.packages` then
# lists each file with its SHA-256 and the package that it is of, where one is known.
set -euo pipefail
[ $# -eq 3 ] || { echo "usage: $0 BINARY ONNXRUNTIME TO" >&2; exit 2; }
binary=$1 onnxruntime=$2 to=$3
user=10001
[ ! -e "$to" ] || { echo "root: $to is there already" >&2; exit 1; }

put() { install -D --mode="$1" "$2" "$to$3"; }

put 755 "$binary" /usr/local/bin/quern
put 644 "$onnxruntime" "/usr/local/bin/$(basename "$onnxruntime")"
# What is linked, and what links it (`/lib64/ld-linux-…`), each where the loader looks for it.
linked=$(ldd "$binary" "$onnxruntime" | awk '/=> \// { print $3 } /^\t\// { print $1 }' | sort --unique)
for library in $linked; do
  put 755 "$(readlink --canonicalize "$library")" "$library"
done
put 644 /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
mkdir --parents "$to/usr/lib/locale"
localedef --no-archive -i en_US -f UTF-8 "$to/usr/lib/locale/en_US.UTF-8"
printf 'hosts: files dns\n' | install -D --mode=644 /dev/stdin "$to/etc/nsswitch.conf"
printf 'quern:x:%s:%s::/var/lib/quern:/nonexistent\n' $user $user | install --mode=644 /dev/stdin "$to/etc/passwd"
printf 'quern:x:%s:\n' $user | install --mode=644 /dev/stdin "$to/etc/group"
install --directory --mode=1777 "$to/tmp"
install --directory --owner=$user --group=$user "$to/repository" "$to/var/lib/quern" "$to/var/lib/quern-store"

(cd "$to" && find . -type f -printf '/%P\n' | sort) | while read -r file; do
  sum=$(sha256sum <"$to$file")
  # A package knows a file by the path that it brought it at, or by the one that a link leads to.
  of=$(dpkg-query --search "$file" "$(readlink --canonicalize-missing "$file")" 2>/dev/null | head -n 1 | cut -d: -f1 || true)
  version=${of:+$(dpkg-query --show --showformat='${Version}\n' "$of" | head -n 1)}
  printf '%s %s %s %s\n' "${sum%% *}" "$file" "${of:--}" "${version:--}"
done >"$to.packages"
