// Package shim is the protocol between the engine and karve-shim: the frames on the unix socket and the requests in them.
//
// Both sides import it, so it stays tiny: no net, no fmt. The engine's side is shim/client, the other side is cmd/karve-shim.
// One connection carries one request. A request that streams (exec, attach, events) keeps its connection.
package shim

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"io"
)

// Kind says what a frame carries.
type Kind byte

// The kinds of frames. Stdin and Resize go to the shim, Stdout, Stderr and Exit come from it.
const (
	KindRequest    Kind = iota + 1 // JSON Request
	KindReply                      // JSON Reply, exactly one per request
	KindStdin                      // bytes for the process
	KindStdinClose                 // no more input
	KindStdout                     // bytes from the process
	KindStderr                     // bytes from the process
	KindResize                     // two uint16, columns and rows
	KindExit                       // JSON Status: the end of an exec, or of an attached container
	KindEvent                      // JSON Status: a container of this shim exited
)

// MaxFrame bounds a frame's payload, in bytes.
const MaxFrame = 4 << 20

// Op is what a request asks for.
type Op string

// The operations.
const (
	OpStart    Op = "start"    // create and start a container
	OpSignal   Op = "signal"   // send Signal to the init process, or with All to every process of the container
	OpExec     Op = "exec"     // run a process in a container; streams
	OpAttach   Op = "attach"   // join the streams of a container; streams
	OpReopen   Op = "reopen"   // reopen the log file
	OpEvents   Op = "events"   // Reply with the state of every container, then one KindEvent per exit
	OpForget   Op = "forget"   // drop an exited container
	OpPause    Op = "pause"    // start the init of a shared PID namespace, once
	OpShutdown Op = "shutdown" // kill what still runs and leave
)

// Request is the first frame on every connection.
type Request struct {
	Op     Op
	ID     string `json:",omitempty"`
	Start  *Start `json:",omitempty"`
	Exec   *Exec  `json:",omitempty"`
	Signal int    `json:",omitempty"`
	All    bool   `json:",omitempty"`
	Stdin  bool   `json:",omitempty"` // attach: the client will send input
}

// Runtime is how the shim calls the OCI runtime.
type Runtime struct {
	Path string // the program
	Root string // its --root
}

// Start describes a container to start. All paths are absolute.
type Start struct {
	Runtime   Runtime
	Bundle    string // holds config.json and rootfs; scratch files go there too
	ExitFile  string // where the Status is written when the container ends
	LogPath   string // CRI log file, "" for none
	Terminal  bool
	Stdin     bool
	StdinOnce bool
	OOMFile   string   // memory.events or memory.oom_control of the container's cgroup
	KillDirs  []string // cgroup directories that list the container's processes, best first
	SharedPID bool     // the PID namespace outlives the container's init
}

// Exec describes a process to run in a container.
type Exec struct {
	Process  json.RawMessage // an OCI process
	Terminal bool
	Stdin    bool
	Timeout  int64 // nanoseconds, 0 for none; then the process is killed
}

// Status is the state of a container or of an exec.
type Status struct {
	ID         string
	Pid        int
	StartedAt  int64 // nanoseconds since 1970
	FinishedAt int64 `json:",omitempty"` // 0 while it runs
	ExitCode   int
	OOM        bool `json:",omitempty"`
	TimedOut   bool `json:",omitempty"`
}

// Reply answers a request. Error is empty on success.
type Reply struct {
	Error  string   `json:",omitempty"`
	Pid    int      `json:",omitempty"` // the shim's own for events, the new process's otherwise
	Status []Status `json:",omitempty"`
}

var errTooBig = errors.New("frame too big")

// WriteFrame writes one frame with a single Write. It does not lock.
func WriteFrame(w io.Writer, k Kind, payload []byte) error {
	b := make([]byte, 5+len(payload))
	b[0] = byte(k)
	binary.BigEndian.PutUint32(b[1:], uint32(len(payload)))
	copy(b[5:], payload)
	_, err := w.Write(b)
	return err
}

// WriteJSON writes v as a frame.
func WriteJSON(w io.Writer, k Kind, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return WriteFrame(w, k, b)
}

// ReadFrame reads one frame. io.EOF means the peer closed between frames.
func ReadFrame(r io.Reader) (Kind, []byte, error) {
	var h [5]byte
	if _, err := io.ReadFull(r, h[:]); err != nil {
		return 0, nil, err
	}
	n := binary.BigEndian.Uint32(h[1:])
	if n > MaxFrame {
		return 0, nil, errTooBig
	}
	p := make([]byte, n)
	if _, err := io.ReadFull(r, p); err != nil {
		return 0, nil, err
	}
	return Kind(h[0]), p, nil
}

// ResizePayload encodes a terminal size.
func ResizePayload(cols, rows uint16) []byte {
	var b [4]byte
	binary.BigEndian.PutUint16(b[:], cols)
	binary.BigEndian.PutUint16(b[2:], rows)
	return b[:]
}

// ParseResize decodes what ResizePayload made; ok is false for a malformed payload.
func ParseResize(b []byte) (cols, rows uint16, ok bool) {
	if len(b) != 4 {
		return 0, 0, false
	}
	return binary.BigEndian.Uint16(b), binary.BigEndian.Uint16(b[2:]), true
}
