package snapshot

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// Mount stacks layer directories, lowest first, under a writable directory and mounts the result on target. scratch gets
// the directories upper, which holds what the container writes, and work, which is the kernel's.
//
// The mount is volatile: the kernel does not flush it at unmount nor on sync inside. What a container writes to its root
// lives no longer than the container, and a container does not survive the machine.
func Mount(layers []string, scratch, target string) error {
	upper, work := filepath.Join(scratch, "upper"), filepath.Join(scratch, "work")
	if err := os.Mkdir(work, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
		return fmt.Errorf("mount root: %w", err)
	}
	if err := os.Mkdir(upper, 0o755); err != nil && !errors.Is(err, os.ErrExist) {
		return fmt.Errorf("mount root: %w", err)
	}
	if len(layers) == 0 {
		return bind(upper, target)
	}
	if err := copyOwner(layers[len(layers)-1], upper); err != nil {
		return fmt.Errorf("mount root: %w", err)
	}
	err := mountFd(layers, upper, work, target, true)
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOSYS) {
		err = mountOld(layers, upper, work, target)
	}
	if err != nil {
		return fmt.Errorf("mount root: %w", err)
	}
	return nil
}

// View mounts layers, lowest first, read-only on target.
func View(layers []string, target string) error {
	if len(layers) == 1 {
		if err := bind(layers[0], target); err != nil {
			return err
		}
		if err := unix.Mount("", target, "", unix.MS_REMOUNT|unix.MS_BIND|unix.MS_RDONLY, ""); err != nil {
			_ = unix.Unmount(target, unix.MNT_DETACH)
			return fmt.Errorf("mount image: %w", err)
		}
		return nil
	}
	err := mountFd(layers, "", "", target, false)
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOSYS) {
		err = unix.Mount("overlay", target, "overlay", unix.MS_RDONLY, "lowerdir="+lowerList(layers))
	}
	if err != nil {
		return fmt.Errorf("mount image: %w", err)
	}
	return nil
}

func bind(from, to string) error {
	if err := unix.Mount(from, to, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("mount root: %w", err)
	}
	return nil
}

// mountFd adds layers one by one, which has no limit on their number but needs a recent kernel.
func mountFd(layers []string, upper, work, target string, volatile bool) error {
	fd, err := unix.Fsopen("overlay", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	for i := len(layers) - 1; i >= 0; i-- {
		if err := unix.FsconfigSetString(fd, "lowerdir+", layers[i]); err != nil {
			return err
		}
	}
	if upper != "" {
		for k, v := range map[string]string{"upperdir": upper, "workdir": work, "source": "overlay"} {
			if err := unix.FsconfigSetString(fd, k, v); err != nil {
				return err
			}
		}
	}
	if volatile {
		if err := unix.FsconfigSetFlag(fd, "volatile"); err != nil {
			return err
		}
	}
	if err := unix.FsconfigCreate(fd); err != nil {
		return err
	}
	attr := 0
	if upper == "" {
		attr = unix.MOUNT_ATTR_RDONLY
	}
	mfd, err := unix.Fsmount(fd, unix.FSMOUNT_CLOEXEC, attr)
	if err != nil {
		return err
	}
	defer unix.Close(mfd)
	return unix.MoveMount(mfd, "", unix.AT_FDCWD, target, unix.MOVE_MOUNT_F_EMPTY_PATH)
}

func mountOld(layers []string, upper, work, target string) error {
	opts := "lowerdir=" + lowerList(layers) + ",upperdir=" + upper + ",workdir=" + work
	if len(opts) >= os.Getpagesize()-len(",volatile") {
		return fmt.Errorf("%d layers are too many for this kernel", len(layers))
	}
	err := unix.Mount("overlay", target, "overlay", 0, opts+",volatile")
	if errors.Is(err, unix.EINVAL) {
		err = unix.Mount("overlay", target, "overlay", 0, opts)
	}
	return err
}

func lowerList(layers []string) string {
	top := make([]string, 0, len(layers))
	for i := len(layers) - 1; i >= 0; i-- {
		top = append(top, layers[i])
	}
	return strings.Join(top, ":")
}

// Unmount removes every mount on target. A target without mounts, or that does not exist, is no error.
func Unmount(target string) error {
	for range 8 {
		err := unix.Unmount(target, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
		if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOENT) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("unmount %s: %w", target, err)
		}
	}
	return nil
}
