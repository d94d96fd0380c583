package metrics

import (
	"context"
	"strconv"
	"time"

	"karve/apiserver/admission"
)

// Admission counts how long the plugins of an admission chain take. Safe for concurrent use once Chain has been called.
type Admission struct {
	start time.Time
	chain admission.Chain
	// plugins are the members of the chain, in its order, and the steps are the chain as a whole: what mutates comes first.
	plugins [2][]times
	steps   [2]times
}

// times are the durations of one plugin or step, by what became of the request and what it wanted to do.
type times [2][len(operations)]histogram

var (
	steps      = [2]string{"admit", "validate"}
	operations = [...]admission.Operation{admission.Create, admission.Update, admission.Delete, admission.Connect}
)

// NewAdmission returns counters that are all zero.
func NewAdmission() *Admission { return &Admission{start: time.Now()} }

// Chain returns a chain that does what c does and counts it; it is called once.
func (m *Admission) Chain(c admission.Chain) admission.Chain {
	m.chain = c
	for step := range steps {
		m.plugins[step] = make([]times, len(c))
		for i := range c {
			m.plugins[step][i].init()
		}
		m.steps[step].init()
	}
	return admission.Chain{{Name: "metered", Mutate: meteredAdmit{m}, Validate: meteredValidate{m}}}
}

func (t *times) init() {
	for rejected := range t {
		for o := range t[rejected] {
			t[rejected][o].init(admitting)
		}
	}
}

func (t *times) observe(o admission.Operation, err error, took time.Duration) {
	rejected := 0
	if err != nil {
		rejected = 1
	}
	for i := range operations {
		if operations[i] == o {
			t[rejected][i].observe(admitting, int64(took))
			return
		}
	}
}

type meteredAdmit struct{ *Admission }

func (m meteredAdmit) Admit(ctx context.Context, a *admission.Attributes) error {
	began := time.Since(m.start)
	last := began
	var err error
	for i := range m.chain {
		if m.chain[i].Mutate == nil {
			continue
		}
		err = m.chain[i].Mutate.Admit(ctx, a)
		now := time.Since(m.start)
		m.plugins[0][i].observe(a.Operation, err, now-last)
		if last = now; err != nil {
			break
		}
	}
	m.steps[0].observe(a.Operation, err, last-began)
	return err
}

type meteredValidate struct{ *Admission }

func (m meteredValidate) Validate(ctx context.Context, a *admission.Attributes) error {
	began := time.Since(m.start)
	last := began
	var err error
	for i := range m.chain {
		if m.chain[i].Validate == nil {
			continue
		}
		err = m.chain[i].Validate.Validate(ctx, a)
		now := time.Since(m.start)
		m.plugins[1][i].observe(a.Operation, err, now-last)
		if last = now; err != nil {
			break
		}
	}
	m.steps[1].observe(a.Operation, err, last-began)
	return err
}

// WriteTo adds what was counted to a page.
func (m *Admission) WriteTo(p *Page) {
	p.Family("apiserver_admission_step_admission_duration_seconds", "histogram", Stable,
		"Seconds that all admission controllers of a step (admit or validate) took together, by operation.")
	for step, kind := range steps {
		m.steps[step].write(p, kind)
	}
	p.Family("apiserver_admission_controller_admission_duration_seconds", "histogram", Stable,
		"Seconds that one admission controller took in a step (admit or validate), by operation.")
	for step, kind := range steps {
		for i := range m.plugins[step] {
			m.plugins[step][i].write(p, kind, "name", m.chain[i].Name)
		}
	}
}

func (t *times) write(p *Page, kind string, name ...string) {
	for rejected := range t {
		for o := range t[rejected] {
			labels := append(name[:len(name):len(name)], "operation", string(operations[o]), "rejected", strconv.FormatBool(rejected == 1), "type", kind)
			p.histogram(&t[rejected][o], admitting, labels...)
		}
	}
}
