package container

import "github.com/opencontainers/runtime-spec/specs-go"

// The third, x32, is left out: next to no kernel has it, and every architecture adds 14 ms to a start while the filter is made.
var architectures = []specs.Arch{specs.ArchX86_64, specs.ArchX86}

const cloneFlagsIndex = 0
