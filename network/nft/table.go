// Package nft is the one place of karve that speaks nftables: a Table is declared whole (sets, base chains, rules), filled
// with elements, and changed by small transactions. The Service proxy and the pod network each own one Table per address
// family. It talks netlink to the network namespace of the calling thread, runs no program, and knows nothing of Services.
package nft

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

const (
	// layoutMark begins the name of an empty chain that says which Layout a table was made from.
	layoutMark = "layout-"
	// perMessage bounds the elements of one message: its attribute length is a 16-bit number.
	perMessage = 256
	// socketBuffer is the limit (not an allocation) of the netlink socket in each direction, in bytes.
	socketBuffer = 64 << 20
)

// Field is the type of one part of a key or value. Each takes a whole number of 32-bit registers.
type Field int

// The fields that sets are made of. Addr has the width of the table's family.
const (
	Addr Field = iota
	Proto
	Port
	Mark
	Interface // a name, padded with zeros to 16 bytes
)

// Set declares a set, a map (Data given) or a verdict map (Verdict).
type Set struct {
	Name    string
	Key     []Field
	Data    []Field
	Verdict bool
	// Dynamic sets are filled by packets; their elements time out, there are at most Size of them, and Elements and Load
	// leave them alone.
	Dynamic bool
	Size    uint32
}

// Hook attaches a chain to a point of the packet path.
type Hook struct {
	Type     nftables.ChainType
	At       *nftables.ChainHook
	Priority int32
}

// Chain is a list of rules; with a Hook it is a base chain whose policy is to accept.
type Chain struct {
	Name  string
	Hook  *Hook
	Rules [][]expr.Any
}

// Layout is everything of a table that does not change while it is used.
type Layout struct {
	Sets   []Set
	Chains []Chain
}

// Element is one member of a set. Value is empty for a set, the name of a chain (or "drop") for a verdict map.
type Element struct {
	Set, Key, Value string
}

// Change is one transaction: chains to add first, then elements to delete, then elements to add.
type Change struct {
	Chains   []Chain
	Del, Add []Element
}

// Table is one nftables table. It is for one goroutine at a time.
type Table struct {
	name   string
	family nftables.TableFamily
	layout Layout
	conn   *nftables.Conn
	sets   map[string]*nftables.Set
	kinds  map[string]Set
}

// Open returns a handle on a table, which need not exist yet. v6 chooses family ip6, otherwise it is family ip.
func Open(name string, v6 bool, layout Layout) (*Table, error) {
	t := &Table{name: name, family: nftables.TableFamilyIPv4, layout: layout, sets: map[string]*nftables.Set{}, kinds: map[string]Set{}}
	if v6 {
		t.family = nftables.TableFamilyIPv6
	}
	for i, s := range layout.Sets {
		t.sets[s.Name] = t.declare(s, uint32(i+1))
		t.kinds[s.Name] = s
	}
	return t, t.dial()
}

func (t *Table) dial() error {
	t.Close()
	conn, err := nftables.New(nftables.AsLasting(), nftables.WithSockOptions(func(c *netlink.Conn) error {
		return errors.Join(c.SetReadBuffer(socketBuffer), c.SetWriteBuffer(socketBuffer))
	}))
	if err != nil {
		return fmt.Errorf("open nftables: %w", err)
	}
	t.conn = conn
	return nil
}

// Close closes the handle; the table stays.
func (t *Table) Close() {
	if t.conn != nil {
		t.conn.CloseLasting() //nolint:errcheck // only a socket
		t.conn = nil
	}
}

func (t *Table) ref() *nftables.Table { return &nftables.Table{Name: t.name, Family: t.family} }

func (t *Table) concat(fields []Field) nftables.SetDatatype {
	addr := nftables.TypeIPAddr
	if t.family == nftables.TableFamilyIPv6 {
		addr = nftables.TypeIP6Addr
	}
	of := map[Field]nftables.SetDatatype{Addr: addr, Proto: nftables.TypeInetProto, Port: nftables.TypeInetService, Mark: nftables.TypeMark, Interface: nftables.TypeIFName}
	var types []nftables.SetDatatype
	for _, f := range fields {
		types = append(types, of[f])
	}
	if len(types) == 1 {
		return types[0]
	}
	return nftables.MustConcatSetType(types...)
}

func (t *Table) declare(s Set, id uint32) *nftables.Set {
	out := &nftables.Set{Table: t.ref(), ID: id, Name: s.Name, KeyType: t.concat(s.Key), Concatenation: len(s.Key) > 1,
		Dynamic: s.Dynamic, HasTimeout: s.Dynamic, Size: s.Size}
	switch {
	case s.Verdict:
		out.IsMap, out.DataType = true, nftables.TypeVerdict
	case len(s.Data) > 0:
		out.IsMap, out.DataType = true, t.concat(s.Data)
	}
	return out
}

// Replace makes the table anew with these chains and elements, in one transaction: packets see the old one or the new.
func (t *Table) Replace(chains []Chain, elements []Element) error {
	t.conn.AddTable(t.ref())
	t.conn.DelTable(t.ref())
	t.conn.AddTable(t.ref())
	t.addChain(Chain{Name: layoutMark + t.hash()})
	for _, s := range t.layout.Sets {
		if err := t.conn.AddSet(t.sets[s.Name], nil); err != nil {
			return t.failed("declare set "+s.Name, err)
		}
	}
	all := slices.Concat(t.layout.Chains, chains)
	for _, c := range all {
		t.addChain(c)
	}
	for _, c := range all {
		t.addRules(c)
	}
	return t.apply("replace", nil, elements)
}

// Apply carries out one transaction. After an error nothing of it has happened.
func (t *Table) Apply(c Change) error {
	for _, ch := range c.Chains {
		t.addChain(ch)
	}
	for _, ch := range c.Chains {
		t.addRules(ch)
	}
	return t.apply("change", c.Del, c.Add)
}

func (t *Table) apply(what string, del, add []Element) error {
	keys := make([]Element, len(del)) // a deletion names the key only
	for i, e := range del {
		keys[i] = Element{Set: e.Set, Key: e.Key}
	}
	if err := t.each(keys, t.conn.SetDeleteElements); err != nil {
		return t.failed(what, err)
	}
	if err := t.each(add, t.conn.SetAddElements); err != nil {
		return t.failed(what, err)
	}
	if err := t.conn.Flush(); err != nil {
		return t.failed(what, err)
	}
	return nil
}

// failed starts over with a new socket, so that no buffered message or late answer of the failed transaction is left.
func (t *Table) failed(what string, err error) error {
	return errors.Join(fmt.Errorf("%s nftables table %s: %w", what, t.name, err), t.dial())
}

func (t *Table) each(elements []Element, do func(*nftables.Set, []nftables.SetElement) error) error {
	bySet := map[string][]nftables.SetElement{}
	for _, e := range elements {
		kind, ok := t.kinds[e.Set]
		if !ok {
			return fmt.Errorf("no set %q", e.Set)
		}
		item := nftables.SetElement{Key: []byte(e.Key)}
		switch {
		case e.Value == "":
		case kind.Verdict && e.Value == "drop":
			item.VerdictData = &expr.Verdict{Kind: expr.VerdictDrop}
		case kind.Verdict:
			item.VerdictData = &expr.Verdict{Kind: expr.VerdictGoto, Chain: e.Value}
		case len(kind.Data) > 0:
			item.Val = []byte(e.Value)
		}
		bySet[e.Set] = append(bySet[e.Set], item)
	}
	for _, s := range t.layout.Sets { // in a fixed order
		for part := range slices.Chunk(bySet[s.Name], perMessage) {
			if err := do(t.sets[s.Name], part); err != nil {
				return err
			}
		}
	}
	return nil
}

func (t *Table) addChain(c Chain) {
	out := &nftables.Chain{Name: c.Name, Table: t.ref()}
	if c.Hook != nil {
		accept := nftables.ChainPolicyAccept
		out.Type, out.Hooknum, out.Policy = c.Hook.Type, c.Hook.At, &accept
		out.Priority = nftables.ChainPriorityRef(nftables.ChainPriority(c.Hook.Priority))
	}
	t.conn.AddChain(out)
}

func (t *Table) addRules(c Chain) {
	for _, r := range c.Rules {
		t.conn.AddRule(&nftables.Rule{Table: t.ref(), Chain: &nftables.Chain{Name: c.Name, Table: t.ref()}, Exprs: r})
	}
}

// hash names the layout by content, so that a table made by another version is told apart.
func (t *Table) hash() string {
	h := sha256.New()
	for _, s := range t.layout.Sets {
		fmt.Fprintf(h, "%+v\n", s)
	}
	for _, c := range t.layout.Chains {
		fmt.Fprintln(h, c.Name)
		if c.Hook != nil {
			fmt.Fprintln(h, c.Hook.Type, *c.Hook.At, c.Hook.Priority)
		}
		for _, r := range c.Rules {
			for _, e := range r {
				b, err := expr.Marshal(byte(t.family), e)
				fmt.Fprintln(h, b, err)
			}
			fmt.Fprintln(h)
		}
	}
	return hex.EncodeToString(h.Sum(nil)[:8])
}

// Delete removes the table if it is there.
func (t *Table) Delete() error {
	t.conn.AddTable(t.ref())
	t.conn.DelTable(t.ref())
	if err := t.conn.Flush(); err != nil {
		return t.failed("delete", err)
	}
	return nil
}

// chains returns the names of the table's chains.
func (t *Table) chains() ([]string, error) {
	all, err := t.conn.ListChainsOfTableFamily(t.family)
	if err != nil {
		return nil, t.failed("read chains of", err)
	}
	var names []string
	for _, c := range all {
		if c.Table.Name == t.name {
			names = append(names, c.Name)
		}
	}
	return names, nil
}

// Intact reports whether the table is there and made from this handle's layout.
func (t *Table) Intact() (bool, error) {
	names, err := t.chains()
	return slices.Contains(names, layoutMark+t.hash()), err
}

// Load returns the chains beyond the layout and the elements of a table that is Intact, and ok false when it is not.
func (t *Table) Load() (chains []string, elements []Element, ok bool, err error) {
	names, err := t.chains()
	if err != nil || !slices.Contains(names, layoutMark+t.hash()) {
		return nil, nil, false, err
	}
	own := map[string]bool{}
	for _, c := range t.layout.Chains {
		own[c.Name] = true
	}
	for _, n := range names {
		if !own[n] && !strings.HasPrefix(n, layoutMark) {
			chains = append(chains, n)
		}
	}
	for _, s := range t.layout.Sets {
		if s.Dynamic {
			continue
		}
		items, err := t.conn.GetSetElements(t.sets[s.Name])
		if err != nil {
			return nil, nil, false, t.failed("read set "+s.Name+" of", err)
		}
		for _, it := range items {
			e := Element{Set: s.Name, Key: string(it.Key)}
			switch {
			case s.Verdict:
				e.Value = verdict(it.Val)
			case len(s.Data) > 0:
				e.Value = string(it.Val)
			}
			elements = append(elements, e)
		}
	}
	return chains, elements, true, nil
}

// verdict reads the attributes of a verdict: the chain it goes to, "drop", or "?" for anything else.
func verdict(b []byte) string {
	ad, err := netlink.NewAttributeDecoder(b)
	if err != nil {
		return "?"
	}
	out := "?"
	for ad.Next() {
		switch ad.Type() {
		case unix.NFTA_VERDICT_CODE:
			if code := ad.Bytes(); len(code) == 4 && code[0]|code[1]|code[2]|code[3] == 0 {
				out = "drop"
			}
		case unix.NFTA_VERDICT_CHAIN:
			out = ad.String()
		}
	}
	return out
}
