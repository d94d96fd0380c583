package nft

import (
	"encoding/binary"
	"fmt"
	"io"
	"net/netip"
	"sort"
	"strings"
)

// Dump writes the table's elements as text, for people: one line each, sorted.
func (t *Table) Dump(w io.Writer) error {
	chains, elements, ok, err := t.Load()
	if err != nil {
		return err
	}
	if !ok {
		_, err := fmt.Fprintf(w, "table %s: not there\n", t.name)
		return err
	}
	sort.Strings(chains)
	lines := []string{}
	for _, e := range elements {
		kind := t.kinds[e.Set]
		line := e.Set + "  " + t.text(kind.Key, e.Key)
		switch {
		case kind.Verdict:
			line += " : " + e.Value
		case len(kind.Data) > 0:
			line += " : " + t.text(kind.Data, e.Value)
		}
		lines = append(lines, line)
	}
	sort.Strings(lines)
	_, err = fmt.Fprintf(w, "table %s\nchains %s\n%s\n", t.name, strings.Join(chains, " "), strings.Join(lines, "\n"))
	return err
}

func (t *Table) text(fields []Field, key string) string {
	var parts []string
	width := map[Field]int{Addr: int(t.concat([]Field{Addr}).Bytes), Proto: 4, Port: 4, Mark: 4, Interface: 16}
	b := []byte(key)
	for _, f := range fields {
		if len(b) < width[f] {
			return fmt.Sprintf("%x", key)
		}
		part := b[:width[f]]
		b = b[width[f]:]
		switch f {
		case Addr:
			a, _ := netip.AddrFromSlice(part)
			parts = append(parts, a.String())
		case Proto:
			parts = append(parts, fmt.Sprint(part[0]))
		case Port:
			parts = append(parts, fmt.Sprint(binary.BigEndian.Uint16(part)))
		case Interface:
			parts = append(parts, strings.TrimRight(string(part), "\x00"))
		case Mark:
			parts = append(parts, fmt.Sprint(binary.NativeEndian.Uint32(part)))
		}
	}
	return strings.Join(parts, ".")
}
