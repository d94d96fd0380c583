package queue

// maxHand is the largest hand that is dealt. A valid configuration needs fewer: a hand takes at most 60 bits of the hash.
const maxHand = 64

// deal appends hand different numbers below deck that the hash decides on, every hand being as likely as any other. Two
// flows with different hashes share all their queues only once in a very great number, so that one of them can fill its
// own and leave the other a queue.
func deal(hash uint64, deck, hand int, cards []int) []int {
	var sorted [maxHand]int
	hand = min(hand, deck, maxHand)
	for n := range hand {
		left := uint64(deck - n)
		card := int(hash % left)
		hash /= left
		// card is a place among those not dealt yet: step over the ones that are.
		at := 0
		for ; at < n && sorted[at] <= card; at++ {
			card++
		}
		copy(sorted[at+1:n+1], sorted[at:n])
		sorted[at] = card
		cards = append(cards, card)
	}
	return cards
}
