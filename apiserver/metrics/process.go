package metrics

import (
	"bytes"
	"os"
	"runtime"
	"strconv"
	"strings"
	"time"
)

// WriteProcess adds what Go and the operating system say of this process. What cannot be read is left out.
func WriteProcess(p *Page) {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	gauge := func(name, help string, v float64) { p.Family(name, "gauge", none, help); p.Sample(v) }
	counter := func(name, help string, v float64) { p.Family(name, "counter", none, help); p.Sample(v) }
	gauge("go_goroutines", "Goroutines that exist now.", float64(runtime.NumGoroutine()))
	p.Family("go_info", "gauge", none, "The version of Go the program was built with.")
	p.Sample(1, "version", runtime.Version())
	gauge("go_memstats_alloc_bytes", "Bytes of the heap in use.", float64(m.Alloc))
	counter("go_memstats_alloc_bytes_total", "Bytes of the heap given out since the start.", float64(m.TotalAlloc))
	gauge("go_memstats_heap_inuse_bytes", "Bytes of heap spans in use.", float64(m.HeapInuse))
	gauge("go_memstats_heap_objects", "Objects in the heap.", float64(m.HeapObjects))
	gauge("go_memstats_sys_bytes", "Bytes taken from the system.", float64(m.Sys))
	counter("go_memstats_mallocs_total", "Objects given out since the start.", float64(m.Mallocs))
	gauge("go_memstats_next_gc_bytes", "Bytes of heap at which the next collection begins.", float64(m.NextGC))
	if s, ok := readStat(); ok {
		counter("process_cpu_seconds_total", "Seconds of processor time used, user and system.", s.cpu)
		gauge("process_resident_memory_bytes", "Resident memory size in bytes.", s.resident)
		gauge("process_virtual_memory_bytes", "Virtual memory size in bytes.", s.virtual)
		if s.started > 0 {
			gauge("process_start_time_seconds", "When the process began, in Unix seconds.", s.started)
		}
	}
	if open, err := os.ReadDir("/proc/self/fd"); err == nil {
		gauge("process_open_fds", "File descriptors that are open.", float64(len(open)-1)) // reading opened one
	}
}

type stat struct{ cpu, resident, virtual, started float64 }

// ticks is how many clock ticks of /proc there are in a second, on every architecture that Go runs on.
const ticks = 100

// readStat reads /proc/self/stat, whose fields from the third on follow the name in parentheses.
func readStat() (stat, bool) {
	text, err := os.ReadFile("/proc/self/stat")
	if err != nil {
		return stat{}, false
	}
	boot := 0.0
	if up, err := os.ReadFile("/proc/uptime"); err == nil {
		if first, _, ok := strings.Cut(string(up), " "); ok {
			if seconds, err := strconv.ParseFloat(first, 64); err == nil {
				boot = float64(time.Now().UnixNano())/1e9 - seconds
			}
		}
	}
	return parseStat(text, boot)
}

func parseStat(text []byte, boot float64) (stat, bool) {
	end := bytes.LastIndexByte(text, ')')
	if end < 0 {
		return stat{}, false
	}
	fields := strings.Fields(string(text[end+1:]))
	field := func(number int) float64 { // as proc(5) counts
		if i := number - 3; i < len(fields) {
			v, _ := strconv.ParseFloat(fields[i], 64)
			return v
		}
		return 0
	}
	if len(fields) < 22 {
		return stat{}, false
	}
	s := stat{cpu: (field(14) + field(15)) / ticks, virtual: field(23), resident: field(24) * float64(os.Getpagesize())}
	if boot > 0 {
		s.started = boot + field(22)/ticks
	}
	return s, true
}
