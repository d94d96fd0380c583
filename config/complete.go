package config

import (
	"errors"
	"fmt"
	"net"
	"os"
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
	if c.Node.IP == "" && (c.Components.OnNode() || c.Components.APIServer) {
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
