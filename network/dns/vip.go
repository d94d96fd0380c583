package dns

import (
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// BindVIP gives this network namespace the address, on lo and for it alone, so that a server can listen there. It may be
// repeated.
func BindVIP(addr netip.Addr) error {
	if err := netlink.AddrReplace(lo(), vip(addr)); err != nil {
		return fmt.Errorf("bind DNS address %s: %w", addr, err)
	}
	return nil
}

// UnbindVIP undoes BindVIP; that there is nothing to undo is no error.
func UnbindVIP(addr netip.Addr) error {
	if err := netlink.AddrDel(lo(), vip(addr)); err != nil && !errors.Is(err, unix.EADDRNOTAVAIL) {
		return fmt.Errorf("unbind DNS address %s: %w", addr, err)
	}
	return nil
}

func lo() netlink.Link {
	return &netlink.Device{LinkAttrs: netlink.LinkAttrs{Index: 1, Name: "lo"}}
}

// vip has host scope: the kernel never takes it as the source of a connection by itself.
func vip(a netip.Addr) *netlink.Addr {
	return &netlink.Addr{IPNet: &net.IPNet{IP: a.AsSlice(), Mask: net.CIDRMask(a.BitLen(), a.BitLen())}, Scope: unix.RT_SCOPE_HOST}
}
