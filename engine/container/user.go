package container

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// User is who a container's process runs as.
type User struct {
	UID, GID uint32
	Groups   []uint32 // supplemental
}

// maxAccountFile bounds how much of a container's passwd or group file is read, in bytes.
const maxAccountFile = 4 << 20

// ResolveUser finds out who a container runs as: the configuration's number or name, else the image's user, else root.
// Names and groups come from the files below rootfs, which are opened so that links cannot lead out of it.
func ResolveUser(rootfs, imageUser string, sc *runtimeapi.LinuxContainerSecurityContext) (User, error) {
	user, group, _ := strings.Cut(imageUser, ":")
	switch {
	case sc.GetRunAsUser() != nil:
		user, group = strconv.FormatInt(sc.RunAsUser.Value, 10), ""
	case sc.GetRunAsUsername() != "":
		user, group = sc.RunAsUsername, ""
	}
	if sc.GetRunAsGroup() != nil {
		if sc.GetRunAsUser() == nil && sc.GetRunAsUsername() == "" && imageUser == "" {
			return User{}, errors.New("a group was given without a user")
		}
		group = strconv.FormatInt(sc.RunAsGroup.Value, 10)
	}
	if user == "" {
		user = "0"
	}
	var u User
	name := ""
	uid, number, err := accountNumber(user)
	if err != nil {
		return u, fmt.Errorf("look up user %q: %w", user, err)
	}
	u.UID = uid
	found := false
	err = scan(rootfs, "etc/passwd", func(f []string) bool {
		if len(f) < 4 {
			return false
		}
		id, err1 := strconv.ParseUint(f[2], 10, 31)
		gid, err2 := strconv.ParseUint(f[3], 10, 31)
		if err1 != nil || err2 != nil {
			return false
		}
		// A number means that number: an image may call root "1000".
		if number && uint32(id) != uid || !number && f[0] != user {
			return false
		}
		name, u.UID, u.GID, found = f[0], uint32(id), uint32(gid), true
		return true
	})
	if err != nil {
		return u, fmt.Errorf("look up user %q: %w", user, err)
	}
	if !found && !number {
		return u, fmt.Errorf("unable to find user %s: no matching entries in passwd file", user)
	}
	if err := resolveGroups(rootfs, name, group, sc, &u); err != nil {
		return u, err
	}
	return u, nil
}

// accountNumber tells a number from a name. What has digits only and is no id is neither: taken for a name, it could be
// found in the image's files as somebody else.
func accountNumber(s string) (id uint32, number bool, err error) {
	if s == "" || strings.Trim(s, "0123456789") != "" {
		return 0, false, nil
	}
	n, err := strconv.ParseUint(s, 10, 31)
	if err != nil {
		return 0, false, errors.New("the number is out of range")
	}
	return uint32(n), true, nil
}

func resolveGroups(rootfs, userName, group string, sc *runtimeapi.LinuxContainerSecurityContext, u *User) error {
	gid, number, err := accountNumber(group)
	if err != nil {
		return fmt.Errorf("look up group %q: %w", group, err)
	}
	if number {
		u.GID = gid
	}
	found := group == "" || number
	merge := sc.GetSupplementalGroupsPolicy() == runtimeapi.SupplementalGroupsPolicy_Merge
	err = scan(rootfs, "etc/group", func(f []string) bool {
		if len(f) < 4 {
			return false
		}
		id, err := strconv.ParseUint(f[2], 10, 31)
		if err != nil {
			return false
		}
		if !found && f[0] == group {
			u.GID, found = uint32(id), true
		}
		if merge && userName != "" && slices.Contains(strings.Split(f[3], ","), userName) {
			u.addGroup(uint32(id))
		}
		return false
	})
	if err != nil {
		return fmt.Errorf("look up group %q: %w", group, err)
	}
	if !found {
		return fmt.Errorf("unable to find group %s: no matching entries in group file", group)
	}
	for _, g := range sc.GetSupplementalGroups() {
		if g < 0 || g > 1<<31-1 {
			return fmt.Errorf("supplemental group %d is out of range", g)
		}
		u.addGroup(uint32(g))
	}
	// The primary group is listed too, as login programs do, so that dropping it needs a privilege.
	u.Groups = slices.DeleteFunc(u.Groups, func(g uint32) bool { return g == u.GID })
	u.Groups = append([]uint32{u.GID}, u.Groups...)
	return nil
}

func (u *User) addGroup(g uint32) {
	if !slices.Contains(u.Groups, g) {
		u.Groups = append(u.Groups, g)
	}
}

// scan calls visit with the fields of each line until it returns true. A file that is absent is empty.
func scan(rootfs, path string, visit func([]string) bool) error {
	f, err := OpenInRoot(rootfs, path)
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ENOTDIR) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	if fi, err := f.Stat(); err != nil || !fi.Mode().IsRegular() {
		return nil
	}
	sc := bufio.NewScanner(io.LimitReader(f, maxAccountFile))
	sc.Buffer(make([]byte, 4096), 1<<20)
	for sc.Scan() {
		if visit(strings.Split(strings.TrimSpace(sc.Text()), ":")) {
			return nil
		}
	}
	return sc.Err()
}

// OpenInRoot opens a file for reading as a process confined to root would see it.
func OpenInRoot(root, path string) (*os.File, error) {
	dir, err := unix.Open(root, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: root, Err: err}
	}
	defer unix.Close(dir)
	// Non-blocking, because the name may be a fifo somebody put there.
	fd, err := unix.Openat2(dir, path, &unix.OpenHow{Flags: unix.O_RDONLY | unix.O_CLOEXEC | unix.O_NONBLOCK,
		Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS})
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: path, Err: err}
	}
	return os.NewFile(uintptr(fd), path), nil
}
