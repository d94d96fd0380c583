package engine

import (
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// podRecord is what is on disk of a sandbox. Fields may be added, never renamed.
type podRecord struct {
	ID        string
	Config    json.RawMessage // runtimeapi.PodSandboxConfig
	Handler   string          `json:",omitempty"`
	CreatedAt int64           // nanoseconds since 1970
	Ready     bool
	IPs       []string `json:",omitempty"`
	ShimPid   int      `json:",omitempty"`
	PauseNS   bool     `json:",omitempty"` // a shared PID namespace is pinned
	Programs  string   // directory of the shim and runc in use
	OwnCgroup bool     `json:",omitempty"` // the pod's cgroup is ours to remove
	Attached  bool     `json:",omitempty"` // the network may know the pod
}

// ctrRecord is what is on disk of a container. How it ended is in a file of the shim next to it.
type ctrRecord struct {
	ID         string
	SandboxID  string
	Config     json.RawMessage // runtimeapi.ContainerConfig
	CreatedAt  int64           // nanoseconds since 1970
	ImageID    string
	ImageRef   string
	ImageName  string
	Chains     []string // layers that must stay
	LogPath    string
	Cgroup     string
	StopSignal string
	SharedPID  bool `json:",omitempty"`
	UID, GID   int64
	Groups     []int64 `json:",omitempty"`
	ImageViews int     `json:",omitempty"` // images mounted as volumes
	Failed     string  `json:",omitempty"` // why it could not be started
}

// newID is 64 hexadecimal digits, as tools that read CRI expect.
func newID() string {
	var b [32]byte
	_, _ = rand.Read(b[:])
	return hex.EncodeToString(b[:])
}

// short is used where a path must stay below a limit of the kernel.
func short(id string) string { return id[:20] }

// save writes a record so that a reader finds the old or the new one. It does not flush: the state describes processes,
// and after a loss of power there are none.
func save(path string, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	tmp := path + ".tmp"
	if err := os.WriteFile(tmp, b, 0o600); err != nil {
		return err
	}
	return os.Rename(tmp, path)
}

func load(path string, v any) error {
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	return json.Unmarshal(b, v)
}

// loadAll reads the record in every directory below dir, calling keep with each that can be read.
func loadAll[T any](e *Engine, dir, file string, keep func(name string, rec *T) error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		e.log.Error("cannot read engine state", "dir", dir, "err", err)
		return
	}
	for _, d := range entries {
		rec := new(T)
		path := filepath.Join(dir, d.Name(), file)
		err := load(path, rec)
		if err == nil {
			err = keep(d.Name(), rec)
		}
		if err != nil {
			e.log.Error("engine state is damaged and left out", "path", path, "err", err)
		}
	}
}

func encode(m proto.Message) (json.RawMessage, error) {
	b, err := protojson.Marshal(m)
	if err != nil {
		return nil, fmt.Errorf("encode configuration: %w", err)
	}
	return b, nil
}

func decodePod(raw json.RawMessage) (*runtimeapi.PodSandboxConfig, error) {
	c := &runtimeapi.PodSandboxConfig{}
	if err := (protojson.UnmarshalOptions{DiscardUnknown: true}).Unmarshal(raw, c); err != nil {
		return nil, fmt.Errorf("decode configuration: %w", err)
	}
	if c.Metadata == nil {
		return nil, fmt.Errorf("decode configuration: no metadata")
	}
	return c, nil
}

func decodeContainer(raw json.RawMessage) (*runtimeapi.ContainerConfig, error) {
	c := &runtimeapi.ContainerConfig{}
	if err := (protojson.UnmarshalOptions{DiscardUnknown: true}).Unmarshal(raw, c); err != nil {
		return nil, fmt.Errorf("decode configuration: %w", err)
	}
	if c.Metadata == nil {
		return nil, fmt.Errorf("decode configuration: no metadata")
	}
	return c, nil
}
