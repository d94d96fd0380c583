#!/bin/sh
# Builds runc and karve-shim into engine/runtime/bin/, from where the program embeds them.
# Needs gcc, pkg-config and libseccomp-dev. Runs from anywhere.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
out=$here/bin
mkdir -p "$out"

cd "$root/tools/runc"
CGO_ENABLED=1 go build -trimpath -tags "seccomp osusergo netgo" \
	-ldflags "-s -w -linkmode external -extldflags -static" \
	-o "$out/runc.new" github.com/opencontainers/runc
cd "$root"
CGO_ENABLED=0 go build -trimpath -ldflags "-s -w" -o "$out/karve-shim.new" ./cmd/karve-shim

# Renamed only when both are complete; the sums let a start find an unpacked copy without reading 12 MB.
mv "$out/runc.new" "$out/runc"
mv "$out/karve-shim.new" "$out/karve-shim"
cd "$out"
sha256sum runc karve-shim >sums.new
mv sums.new sums
