package queue

import (
	"fmt"
	"math"
	"slices"
	"testing"
	"time"
)

// Every hand is dealt by exactly one of the hashes below the number of hands, so that hashes spread evenly over hands.
func TestDealIsEvenAndWithoutRepeats(t *testing.T) {
	for _, tt := range []struct{ deck, hand, hands int }{{5, 3, 60}, {4, 4, 24}, {7, 1, 7}, {1, 1, 1}, {6, 2, 30}} {
		seen := map[string]bool{}
		for h := range uint64(tt.hands) {
			cards := deal(h, tt.deck, tt.hand, nil)
			if len(cards) != tt.hand || slices.Min(cards) < 0 || slices.Max(cards) >= tt.deck {
				t.Fatalf("%d of %d: %v", tt.hand, tt.deck, cards)
			}
			if s := slices.Clone(cards); len(slices.Compact(slices.Sorted(slices.Values(s)))) != tt.hand {
				t.Fatalf("%d of %d: %v has a card twice", tt.hand, tt.deck, cards)
			}
			seen[fmt.Sprint(cards)] = true
		}
		if len(seen) != tt.hands {
			t.Errorf("%d of %d: %d different hands, want %d", tt.hand, tt.deck, len(seen), tt.hands)
		}
	}
	if n := len(deal(9, 3, 8, nil)); n != 3 {
		t.Errorf("a hand larger than the deck has %d cards", n)
	}
}

func TestDivide(t *testing.T) {
	half := 50
	tests := []struct {
		name   string
		total  int
		shares []Share
		want   []Bounds
	}{
		{"the defaults", 600, []Share{{Exempt: true}, {Shares: 5}, {Shares: 30, Lendable: 33}, {Shares: 40, Lendable: 25}, {Shares: 10}, {Shares: 40, Lendable: 50}, {Shares: 100, Lendable: 90}, {Shares: 20, Lendable: 50}},
			[]Bounds{{0, 0, 600}, {13, 13, 613}, {74, 50, 674}, {98, 73, 698}, {25, 25, 625}, {98, 49, 698}, {245, 24, 845}, {49, 24, 649}}},
		{"bounded borrowing", 100, []Share{{Shares: 1, Borrow: &half}, {Shares: 1, Lendable: 100}}, []Bounds{{50, 50, 75}, {50, 0, 150}}},
		{"nobody has shares", 10, []Share{{}, {}}, []Bounds{{0, 0, 10}, {0, 0, 10}}},
	}
	for _, tt := range tests {
		if got := Divide(tt.total, tt.shares); !slices.Equal(got, tt.want) {
			t.Errorf("%s: got %v, want %v", tt.name, got, tt.want)
		}
	}
}

func TestAdjust(t *testing.T) {
	tests := []struct {
		name   string
		claims []Claim
		want   []int
	}{
		{"nobody wants any: in proportion to the minimum", []Claim{{Bounds: Bounds{50, 25, 150}}, {Bounds: Bounds{50, 50, 150}}}, []int{33, 67}},
		{"one wants all: it borrows what is lent", []Claim{{Bounds: Bounds{50, 25, 150}}, {Bounds: Bounds{50, 50, 150}, Peak: 200, Smooth: 200}}, []int{25, 75}},
		{"what is used is not lent", []Claim{{Bounds: Bounds{50, 25, 150}, Peak: 40, Smooth: 10}, {Bounds: Bounds{50, 50, 150}, Peak: 200, Smooth: 200}}, []int{40, 60}},
		{"all want more than their own: each keeps it", []Claim{{Bounds: Bounds{50, 0, 150}, Peak: 90, Smooth: 90}, {Bounds: Bounds{50, 0, 150}, Peak: 90, Smooth: 90}}, []int{50, 50}},
		{"borrowing has a bound", []Claim{{Bounds: Bounds{50, 0, 150}}, {Bounds: Bounds{50, 50, 60}, Peak: 200, Smooth: 200}}, []int{40, 60}},
		{"the exempt take from the others", []Claim{{Exempt: true, Peak: 40}, {Bounds: Bounds{50, 25, 150}, Peak: 50, Smooth: 50}, {Bounds: Bounds{50, 25, 150}, Peak: 50, Smooth: 50}}, []int{40, 30, 30}},
		{"and more than there is", []Claim{{Exempt: true, Peak: 400}, {Bounds: Bounds{50, 25, 150}, Peak: 50}, {Bounds: Bounds{50, 0, 150}}}, []int{400, 25, 1}},
		{"a level that lent all can begin", []Claim{{Bounds: Bounds{10, 0, 100}}, {Bounds: Bounds{10, 10, 100}, Peak: 50, Smooth: 50}}, []int{1, 20}},
		{"a level of no seats stays closed", []Claim{{Bounds: Bounds{0, 0, 0}, Peak: 5, Smooth: 5}, {Bounds: Bounds{10, 10, 100}}}, []int{0, 10}},
	}
	for _, tt := range tests {
		if got := Adjust(tt.claims); !slices.Equal(got, tt.want) {
			t.Errorf("%s: got %v, want %v", tt.name, got, tt.want)
		}
	}
}

func TestDemand(t *testing.T) {
	var d Demand
	d.Set(10, 0)
	d.Set(0, 5*time.Second)
	r := d.Reset(10 * time.Second)
	if r.Peak != 10 || math.Abs(r.Average-5) > 1e-9 || math.Abs(r.Deviation-5) > 1e-9 {
		t.Errorf("reading %+v", r)
	}
	if s := Smooth(0, r); math.Abs(s-10) > 1e-9 {
		t.Errorf("the envelope is reached at once: %v", s)
	}
	quiet := d.Reset(20 * time.Second)
	if quiet != (Reading{}) {
		t.Errorf("a quiet period reads %+v", quiet)
	}
	s := 10.0
	for range 30 {
		s = Smooth(s, quiet)
	}
	if s < 4.5 || s > 5.5 {
		t.Errorf("after five quiet minutes %v is left of 10", s)
	}
}
