//go:build !amd64

package container

import (
	"runtime"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// An empty list means the machine's own architecture.
var architectures = map[string][]specs.Arch{"arm64": {specs.ArchAARCH64, specs.ArchARM}}[runtime.GOARCH]

const cloneFlagsIndex = 0
