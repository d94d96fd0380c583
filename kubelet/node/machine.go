// Package node keeps the Node object of this machine: it registers it, renews its lease, and reports what the machine has
// and how it is. The kubelet runs it. It owns that one object and its lease; it runs no pods and evicts none.
package node

import (
	"os"
	"runtime"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
)

// Machine is what the machine has, and has left.
type Machine struct {
	CPUs                    int
	Memory, MemoryLeft      int64
	Disk, DiskLeft          int64
	Inodes, InodesLeft      int64
	MachineID, SystemUUID   string
	BootID, Kernel, OSImage string
}

// Read looks at the machine; root is a directory on the disk that pods use.
func Read(root string) Machine {
	m := Machine{CPUs: runtime.NumCPU(), MachineID: line("/etc/machine-id"), BootID: line("/proc/sys/kernel/random/boot_id"), Kernel: line("/proc/sys/kernel/osrelease"),
		SystemUUID: line("/sys/class/dmi/id/product_uuid"), OSImage: osName()}
	if m.SystemUUID == "" {
		m.SystemUUID = m.MachineID
	}
	m.Refresh(root)
	return m
}

// Refresh reads anew what changes.
func (m *Machine) Refresh(root string) {
	m.Memory, m.MemoryLeft = memory()
	var st unix.Statfs_t
	if unix.Statfs(root, &st) == nil {
		m.Disk, m.DiskLeft = int64(st.Blocks)*st.Bsize, int64(st.Bavail)*st.Bsize
		m.Inodes, m.InodesLeft = int64(st.Files), int64(st.Ffree)
	}
}

func line(path string) string {
	b, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}

func osName() string {
	b, err := os.ReadFile("/etc/os-release")
	if err != nil {
		return ""
	}
	for l := range strings.Lines(string(b)) {
		if v, ok := strings.CutPrefix(strings.TrimSpace(l), "PRETTY_NAME="); ok {
			return strings.Trim(v, `"`)
		}
	}
	return ""
}

func memory() (total, left int64) {
	b, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return 0, 0
	}
	for l := range strings.Lines(string(b)) {
		f := strings.Fields(l)
		if len(f) < 2 {
			continue
		}
		n, err := strconv.ParseInt(f[1], 10, 64)
		if err != nil {
			continue
		}
		switch f[0] {
		case "MemTotal:":
			total = n << 10
		case "MemAvailable:":
			left = n << 10
		}
	}
	return total, left
}

// The least that must be left before the node is under pressure.
const (
	MinMemory     = 100 << 20
	minDiskShare  = 10
	minInodeShare = 5
)

// MemoryPressure, DiskPressure report whether the machine runs out.
func (m *Machine) MemoryPressure() bool { return m.Memory > 0 && m.MemoryLeft < MinMemory }

// DiskPressure reports whether the disk runs out of space or inodes.
func (m *Machine) DiskPressure() bool {
	return m.Disk > 0 && m.DiskLeft < m.Disk*minDiskShare/100 || m.Inodes > 0 && m.InodesLeft < m.Inodes*minInodeShare/100
}

// Capacity returns what the machine has.
func (m *Machine) Capacity(pods int) corev1.ResourceList {
	return corev1.ResourceList{
		corev1.ResourceCPU:              *resource.NewQuantity(int64(m.CPUs), resource.DecimalSI),
		corev1.ResourceMemory:           *resource.NewQuantity(m.Memory, resource.BinarySI),
		corev1.ResourceEphemeralStorage: *resource.NewQuantity(m.Disk, resource.BinarySI),
		corev1.ResourcePods:             *resource.NewQuantity(int64(pods), resource.DecimalSI),
		"hugepages-2Mi":                 *resource.NewQuantity(0, resource.BinarySI),
		"hugepages-1Gi":                 *resource.NewQuantity(0, resource.BinarySI),
	}
}

// Allocatable returns what pods may ask for: what the machine has, less what must be left.
func (m *Machine) Allocatable(pods int) corev1.ResourceList {
	out := m.Capacity(pods)
	out[corev1.ResourceMemory] = *resource.NewQuantity(max(m.Memory-MinMemory, 0), resource.BinarySI)
	out[corev1.ResourceEphemeralStorage] = *resource.NewQuantity(m.Disk-m.Disk*minDiskShare/100, resource.DecimalSI)
	return out
}
