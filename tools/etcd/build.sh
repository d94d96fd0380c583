#!/bin/sh
# Builds upstream's etcd server into tools/etcd/bin/, for the tests of the engine that speaks to one. Runs from anywhere.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$here/bin"
cd "$here"
# Several packages' tests may want it at once.
exec 9>"$here/bin/lock"
flock 9
if [ ! -x bin/etcd ] || [ go.mod -nt bin/etcd ]; then
	CGO_ENABLED=0 go build -trimpath -ldflags "-s -w" -o bin/etcd.new go.etcd.io/etcd/server/v3
	mv bin/etcd.new bin/etcd
fi
