package config

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
)

// Complete fills what was left to the machine: the node's name, its address and the address of the API server. Call it
// once, before Validate.
func (c *Config) Complete() error {
	if c.Node.Name == "" {
		host, err := os.Hostname()
		if err != nil {
			return fmt.Errorf("node.name: find the host name: %w", err)
		}
		c.Node.Name = strings.ToLower(strings.TrimSuffix(host, "."))
	}
	if c.Node.IP == "" && c.API.Advertise == "" && !c.Components.OnNode() && c.Components.APIServer { // an API server alone is where it listens
		if host, _, err := net.SplitHostPort(c.API.Listen); err == nil {
			if a, err := netip.ParseAddr(host); err == nil && !a.IsUnspecified() {
				c.API.Advertise = host
			}
		}
	}
	if d := Default(); !c.Components.OnNode() && c.StateDir == d.StateDir && c.DataDir != d.DataDir {
		c.StateDir = filepath.Join(c.DataDir, "run") // several parts beside each other on one machine
	}
	if c.Node.IP == "" && (c.Components.OnNode() || c.Components.APIServer && c.API.Advertise == "") {
		ip, err := ownAddress()
		if err != nil {
			return fmt.Errorf("node.ip: %w: give the address other nodes reach this machine at", err)
		}
		c.Node.IP = ip
	}
	if c.API.Advertise == "" {
		c.API.Advertise = c.Node.IP
	}
	return nil
}

// ownAddress is the address the kernel would send from to the world. Nothing is sent; the destination is one reserved for
// documentation.
func ownAddress() (string, error) {
	conn, err := net.Dial("udp4", "192.0.2.1:9")
	if err != nil {
		return "", errors.New("there is no default route to take it from")
	}
	defer conn.Close()
	return conn.LocalAddr().(*net.UDPAddr).IP.String(), nil
}
