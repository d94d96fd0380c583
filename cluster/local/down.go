package local

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// DownOptions say which cluster goes.
type DownOptions struct {
	Name string
	Dir  string // as in UpOptions
	// KeepData leaves the data directory, so that Up brings the same cluster back.
	KeepData bool
	Progress *Progress
}

// Down removes a cluster with everything Up has made, however far Up had come and whoever is still alive. It does as much
// as it can and returns all that failed. It is no error when there is nothing.
func Down(o DownOptions) error {
	if os.Geteuid() != 0 {
		return errors.New("karve down removes namespaces and network devices and must be root: run it with sudo")
	}
	if err := CheckName(o.Name); err != nil {
		return err
	}
	if o.Progress == nil {
		o.Progress = NewProgress(nil)
	}
	dir := findDir(o.Name, o.Dir)
	if _, err := os.Stat(dir); err == nil {
		unlock, err := lock(dir, 0o700)
		if err != nil {
			return fmt.Errorf("take the data directory: %w", err)
		}
		defer unlock()
	}
	s, err := Load(o.Name, dir)
	owned := err == nil
	if errors.Is(err, errNone) {
		s = &State{Name: o.Name, Dir: dir} // what is left can be told by its name
	} else if err != nil {
		return err
	}
	return o.Progress.Step("Removing the cluster "+o.Name, func(func(string)) error { return s.tearDown(o.KeepData, owned) })
}

func (s *State) tearDown(keepData, owned bool) error {
	if keepData {
		s.terminate(10 * time.Second)
	}
	s.killNodes()
	errs := []error{killIn(s.cgroup()), dropPins(s.pinDir()), s.dropHostLink(), s.dropFirewall(), dropCgroups(s.cgroup())}
	if owned {
		errs = append(errs, s.Kubeconfig.remove())
		if keepData {
			for i := range s.Nodes {
				s.Nodes[i].PID, s.Nodes[i].Start = 0, 0
			}
			errs = append(errs, s.save())
		} else {
			errs = append(errs, s.dropData())
		}
	}
	errs = append(errs, s.dropRunDir())
	return errors.Join(errs...)
}

// dropData removes what Up put into the data directory, which may be one the user chose, and the directory if that was all
// and it is not where a disk is mounted.
func (s *State) dropData() error {
	all, err := mounts()
	if err != nil {
		return err
	}
	for i := len(all) - 1; i >= 0; i-- { // nothing of a node is mounted out here; whatever is must not be emptied
		if strings.HasPrefix(all[i].point, s.Dir+"/") {
			if err := unix.Unmount(all[i].point, unix.MNT_DETACH); err != nil {
				return fmt.Errorf("unmount %s: %w", all[i].point, err)
			}
		}
	}
	for _, name := range []string{"nodes", "logs", "cluster.json"} { // the state last: with it Down can be run again
		if err := os.RemoveAll(filepath.Join(s.Dir, name)); err != nil {
			return fmt.Errorf("remove data: %w", err)
		}
	}
	half, _ := filepath.Glob(filepath.Join(s.Dir, stateTemp+"*"))
	for _, f := range half {
		_ = os.Remove(f)
	}
	if err := os.Remove(s.Dir); err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, unix.ENOTEMPTY) && !errors.Is(err, unix.EBUSY) {
		return fmt.Errorf("remove data: %w", err)
	}
	if s.Dir == DefaultDir(s.Name) {
		_ = os.Remove(filepath.Dir(s.Dir)) // stays while another cluster is in it
	}
	return nil
}

func (s *State) dropRunDir() error {
	if _, err := os.Stat(runRoot); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	unlock, err := lock(runRoot, 0o700)
	if err != nil {
		return err
	}
	defer unlock()
	if yes, err := isMount(s.pinDir()); err != nil || yes {
		return errors.Join(err, fmt.Errorf("%s is still mounted", s.pinDir()))
	}
	if err := os.RemoveAll(s.runDir()); err != nil {
		return fmt.Errorf("remove %s: %w", s.runDir(), err)
	}
	_ = os.Remove(runRoot) // stays while another cluster is in it
	return nil
}
