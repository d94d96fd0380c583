// Package advice finds what to tell a person beyond an error's own sentence: the field that was probably meant, where in a
// body the mistake is, the rule that would allow a request, who changed an object in between. It is called by the API
// server where an error is about to be written, never on the way of a request that succeeds, and puts what it finds behind
// the sentence that clients know. It decides nothing: codes, reasons and the fields of causes stay what they are.
//
// Errors reach people who may know little, so these rules hold. What is said follows from the request itself, from the
// types that are compiled in, and from what the caller hands over after having asked whether this user may read it. The
// rule that would allow a forbidden request is the request, written down as a rule: it says nothing about what exists, so
// that everybody may be told; which roles hold such a rule is for those who may list roles, and the caller asks for that.
// Names of built-in resources are public; those of others are not suggested. Of a Secret no value is repeated, and no line
// of its text. A command is only offered if every word in it is harmless to a shell.
//
// Whoever sends wrong requests on purpose must not gain from it: bodies beyond maxText are not searched, words and lists
// are cut, and each search looks at a bounded number of things.
package advice

import (
	"fmt"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
)

const (
	// maxText is the longest body, in bytes, that is searched for a mistake, and maxJSON the longest JSON for its end alone,
	// which costs a fraction of that.
	maxText = 64 << 10
	maxJSON = 1 << 20
	// maxWord is the longest name that others are compared with.
	maxWord = 64
	// maxQuote is how many bytes of a value or line are repeated.
	maxQuote = 80
	// maxNames is how many names a message lists.
	maxNames = 12
)

// Add puts text behind the message of a status error; other errors, and those there is nothing to add to, come back as they
// are.
func Add(err error, text string) error {
	st, ok := err.(*apierrors.StatusError)
	if !ok || text == "" {
		return err
	}
	out := &apierrors.StatusError{ErrStatus: *st.ErrStatus.DeepCopy()}
	out.ErrStatus.Message += "; " + text
	return out
}

// quote repeats text, cut to maxQuote bytes.
func quote(text string) string {
	if len(text) > maxQuote {
		return fmt.Sprintf("%q...", strings.ToValidUTF8(text[:maxQuote], ""))
	}
	return fmt.Sprintf("%q", text)
}

// listed writes names as "a", "b" and 3 more.
func listed(names []string) string {
	out := make([]string, 0, maxNames+1)
	for i, n := range names {
		if i == maxNames {
			return strings.Join(out, ", ") + fmt.Sprintf(" and %d more", len(names)-i)
		}
		out = append(out, quote(n))
	}
	return strings.Join(out, ", ")
}
