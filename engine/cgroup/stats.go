package cgroup

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// Stats is what a group has used. Absent measures are zero; limits that are not set are zero too.
type Stats struct {
	CPUNanos        uint64 // total time on a processor
	MemoryUsage     uint64 // bytes, page cache included
	MemoryWorking   uint64 // bytes the kernel cannot easily take back
	MemoryRSS       uint64 // bytes of anonymous memory
	MemoryLimit     uint64 // bytes
	PageFaults      uint64
	MajorPageFaults uint64
	SwapUsage       uint64 // bytes
	SwapLimit       uint64 // bytes
	Pids            uint64
	PSI             map[string]Pressure // "cpu", "memory", "io"; version 2 only
}

// Pressure is how long tasks waited for a resource.
type Pressure struct{ Some, Full PressureLine }

// PressureLine holds averages in percent and a total in nanoseconds.
type PressureLine struct {
	Avg10, Avg60, Avg300 float64
	Total                uint64
}

// ErrGone means the group does not exist.
var ErrGone = errors.New("cgroup does not exist")

// unlimited is above every real limit: version 1 says "none" with the largest multiple of a page.
const unlimited = 1 << 62

// Read measures a group.
func (t Tree) Read(path string) (Stats, error) {
	if t.Unified() {
		return readV2(filepath.Join(t.v2, path))
	}
	return t.readV1(path)
}

func readV2(dir string) (Stats, error) {
	var s Stats
	cpu, err := keyed(filepath.Join(dir, "cpu.stat"))
	if err != nil {
		if errors.Is(err, os.ErrNotExist) {
			return s, ErrGone
		}
		return s, fmt.Errorf("read cgroup: %w", err)
	}
	s.CPUNanos = cpu["usage_usec"] * 1000
	mem, _ := keyed(filepath.Join(dir, "memory.stat"))
	s.MemoryUsage = number(filepath.Join(dir, "memory.current"))
	s.MemoryWorking = minus(s.MemoryUsage, mem["inactive_file"])
	s.MemoryRSS = mem["anon"]
	s.MemoryLimit = number(filepath.Join(dir, "memory.max"))
	s.PageFaults, s.MajorPageFaults = mem["pgfault"], mem["pgmajfault"]
	s.SwapUsage = number(filepath.Join(dir, "memory.swap.current"))
	s.SwapLimit = number(filepath.Join(dir, "memory.swap.max"))
	s.Pids = number(filepath.Join(dir, "pids.current"))
	s.PSI = map[string]Pressure{}
	for _, r := range []string{"cpu", "memory", "io"} {
		if b, err := os.ReadFile(filepath.Join(dir, r+".pressure")); err == nil {
			s.PSI[r] = parsePressure(string(b))
		}
	}
	return s, nil
}

func (t Tree) readV1(path string) (Stats, error) {
	var s Stats
	acct := t.dir("cpuacct", path)
	if _, err := os.Stat(acct); err != nil {
		return s, ErrGone
	}
	s.CPUNanos = number(filepath.Join(acct, "cpuacct.usage"))
	dir := t.dir("memory", path)
	mem, _ := keyed(filepath.Join(dir, "memory.stat"))
	s.MemoryUsage = number(filepath.Join(dir, "memory.usage_in_bytes"))
	s.MemoryWorking = minus(s.MemoryUsage, mem["total_inactive_file"])
	s.MemoryRSS = mem["total_rss"]
	s.MemoryLimit = number(filepath.Join(dir, "memory.limit_in_bytes"))
	s.PageFaults, s.MajorPageFaults = mem["total_pgfault"], mem["total_pgmajfault"]
	s.SwapUsage = mem["total_swap"]
	s.SwapLimit = minus(number(filepath.Join(dir, "memory.memsw.limit_in_bytes")), s.MemoryLimit)
	s.Pids = number(filepath.Join(t.dir("pids", path), "pids.current"))
	return s, nil
}

func minus(a, b uint64) uint64 {
	if b > a {
		return 0
	}
	return a - b
}

// number reads a file with one number. "max" and anything as large count as no limit, which is 0.
func number(path string) uint64 {
	b, err := os.ReadFile(path)
	if err != nil {
		return 0
	}
	n, err := strconv.ParseUint(strings.TrimSpace(string(b)), 10, 64)
	if err != nil || n >= unlimited {
		return 0
	}
	return n
}

func keyed(path string) (map[string]uint64, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	return parseKeyed(string(b)), nil
}

func parseKeyed(s string) map[string]uint64 {
	out := map[string]uint64{}
	for line := range strings.Lines(s) {
		k, v, ok := strings.Cut(strings.TrimSpace(line), " ")
		if !ok {
			continue
		}
		if n, err := strconv.ParseUint(v, 10, 64); err == nil {
			out[k] = n
		}
	}
	return out
}

func parsePressure(s string) Pressure {
	var p Pressure
	for line := range strings.Lines(s) {
		f := strings.Fields(line)
		if len(f) < 5 {
			continue
		}
		dst := &p.Some
		if f[0] == "full" {
			dst = &p.Full
		}
		for _, kv := range f[1:] {
			k, v, _ := strings.Cut(kv, "=")
			x, _ := strconv.ParseFloat(v, 64)
			switch k {
			case "avg10":
				dst.Avg10 = x
			case "avg60":
				dst.Avg60 = x
			case "avg300":
				dst.Avg300 = x
			case "total":
				n, _ := strconv.ParseUint(v, 10, 64)
				dst.Total = n * 1000
			}
		}
	}
	return p
}
