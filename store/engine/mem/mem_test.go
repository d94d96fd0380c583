package mem_test

import (
	"math/rand/v2"
	"testing"

	"karve/store"
	"karve/store/engine/mem"
	"karve/store/storetest"
)

// place keeps one engine; a crash loses nothing that was applied, but a copy is needed, as the old store may go on.
type place struct{ engine *mem.Engine }

func (p *place) Open(*testing.T) store.Engine { return p.engine }

func (p *place) Crash(*testing.T, *rand.Rand) { p.engine = p.engine.Clone() }

func TestEngine(t *testing.T) {
	storetest.Run(t, func(*testing.T) storetest.Backend { return &place{mem.New()} })
}
