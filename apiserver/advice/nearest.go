package advice

import "strings"

// nearest returns the name that word was probably meant to be, "" if none is near. Case, hyphens and underscores count for
// nothing; otherwise a third of the letters, three at most, may be wrong, missing, too many or swapped.
func nearest(word string, names []string) string {
	if word == "" || len(word) > maxWord {
		return ""
	}
	plain := fold(word)
	best, least := "", min(3, max(1, len(plain)/3))+1
	for _, n := range names {
		if len(n) > maxWord || n == word {
			continue
		}
		if d := distance(plain, fold(n), least); d < least {
			best, least = n, d
		}
	}
	return best
}

func fold(s string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == '-' || r == '_':
			return -1
		case 'A' <= r && r <= 'Z':
			return r + 'a' - 'A'
		}
		return r
	}, s)
}

// distance counts the edits (insert, delete, replace, swap neighbours) from a to b; limit stands for all from there on.
func distance(a, b string, limit int) int {
	if len(a)-len(b) >= limit || len(b)-len(a) >= limit {
		return limit
	}
	var rows [3][maxWord + 1]int
	before, last, now := &rows[0], &rows[1], &rows[2]
	for j := range len(b) + 1 {
		last[j] = j
	}
	for i := 1; i <= len(a); i++ {
		now[0] = i
		smallest := i
		for j := 1; j <= len(b); j++ {
			same := 1
			if a[i-1] == b[j-1] {
				same = 0
			}
			now[j] = min(last[j]+1, now[j-1]+1, last[j-1]+same)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				now[j] = min(now[j], before[j-2]+1)
			}
			smallest = min(smallest, now[j])
		}
		if smallest >= limit {
			return limit
		}
		before, last, now = last, now, before
	}
	return min(last[len(b)], limit)
}
