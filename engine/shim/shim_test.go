package shim

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strconv"
	"syscall"
	"testing"
)

// counted counts the writes: a frame is one, so that two writers of a socket need no more than one lock.
type counted struct {
	bytes.Buffer
	writes int
}

func (c *counted) Write(b []byte) (int, error) { c.writes++; return c.Buffer.Write(b) }

func TestFrames(t *testing.T) {
	frames := []struct {
		kind    Kind
		payload []byte
	}{{KindStdin, []byte("hello\x00")}, {KindStdinClose, []byte{}}, {KindStdout, bytes.Repeat([]byte("x"), MaxFrame)}, {KindResize, ResizePayload(300, 7)}}
	var w counted
	for _, f := range frames {
		if err := WriteFrame(&w, f.kind, f.payload); err != nil {
			t.Fatal(err)
		}
	}
	req := Request{Op: OpStart, ID: "c", Start: &Start{Runtime: Runtime{"/r", "/s"}, KillDirs: []string{"/a", "/b"}, SharedPID: true}}
	if err := WriteJSON(&w, KindRequest, req); err != nil {
		t.Fatal(err)
	}
	if w.writes != len(frames)+1 {
		t.Errorf("%d writes for %d frames", w.writes, len(frames)+1)
	}
	for _, f := range frames {
		kind, payload, err := ReadFrame(&w)
		if err != nil || kind != f.kind || !bytes.Equal(payload, f.payload) {
			t.Fatalf("read %d of %d bytes, %v, want %d of %d bytes", kind, len(payload), err, f.kind, len(f.payload))
		}
	}
	kind, payload, err := ReadFrame(&w)
	var got Request
	if err := errors.Join(err, json.Unmarshal(payload, &got)); err != nil || kind != KindRequest || !reflect.DeepEqual(got, req) {
		t.Errorf("read request %+v, %v, want %+v", got, err, req)
	}
	if _, _, err := ReadFrame(&w); err != io.EOF {
		t.Errorf("after the last frame: %v, want io.EOF", err)
	}
}

func TestBadFrames(t *testing.T) {
	for name, b := range map[string][]byte{"half a head": {1, 0}, "half a payload": {1, 0, 0, 0, 3, 'a'}, "too big": {1, 0, 0x40, 0, 1}} {
		if _, _, err := ReadFrame(bytes.NewReader(b)); err == nil || err == io.EOF {
			t.Errorf("%s: %v", name, err)
		}
	}
	if c, r, ok := ParseResize(ResizePayload(300, 7)); c != 300 || r != 7 || !ok {
		t.Errorf("resize reads as %d, %d, %t", c, r, ok)
	}
	if _, _, ok := ParseResize([]byte{1, 2, 3}); ok {
		t.Error("three bytes read as a size")
	}
}

// process starts something that never ends by itself, and returns a channel that says how it did.
func process(t *testing.T) (pid string, ended chan syscall.Signal) {
	t.Helper()
	cmd := exec.Command("/proc/self/exe", "-test.run=TestSleeper")
	cmd.Env = append(os.Environ(), "KARVE_TEST_SLEEPER=1")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { in.Close() }) // lets it go if nothing else does
	ended = make(chan syscall.Signal, 1)
	go func() {
		cmd.Wait() //nolint:errcheck // the state says it
		ended <- cmd.ProcessState.Sys().(syscall.WaitStatus).Signal()
	}()
	return strconv.Itoa(cmd.Process.Pid), ended
}

func TestSleeper(t *testing.T) {
	if os.Getenv("KARVE_TEST_SLEEPER") == "" {
		t.Skip("a child of TestKillGroup")
	}
	io.Copy(io.Discard, os.Stdin) //nolint:errcheck // until the test ends
}

// The directories stand for cgroups: plain files have what the kernel would list, and take what it would be told.
func TestKillGroup(t *testing.T) {
	at := func(dir, file, text string) {
		t.Helper()
		if err := errors.Join(os.MkdirAll(dir, 0o700), os.WriteFile(filepath.Join(dir, file), []byte(text), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	read := func(dir, file string) string {
		b, _ := os.ReadFile(filepath.Join(dir, file))
		return string(b)
	}
	modern, old := t.TempDir(), t.TempDir()
	at(modern, "cgroup.kill", "")
	spared, end := process(t)
	at(old, "cgroup.procs", spared)
	KillGroup([]string{filepath.Join(old, "none"), old, modern})
	if read(modern, "cgroup.kill") != "1" {
		t.Error("the kernel was not asked to kill the group")
	}
	select {
	case <-end:
		t.Error("killed one by one what the kernel kills at once")
	default:
	}

	below, endBelow := process(t)
	at(old, "cgroup.procs", spared+"\n1\n0\nx\n") // never init, nor whole process groups
	at(filepath.Join(old, "child"), "cgroup.procs", below)
	at(old, "freezer.state", "THAWED")
	KillGroup([]string{filepath.Join(old, "none"), old})
	for _, ch := range []chan syscall.Signal{end, endBelow} {
		if sig := <-ch; sig != syscall.SIGKILL {
			t.Errorf("ended by %v", sig)
		}
	}
	if read(old, "freezer.state") != "THAWED" {
		t.Errorf("the group is left %s", read(old, "freezer.state"))
	}
	KillGroup([]string{filepath.Join(old, "none")})
}
