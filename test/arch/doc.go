// Package arch holds the rules of the house, docs/rules.md, as tests: who may import whom, what is pure, how large things
// may grow, what the documents must say. `go test` and `make test` run it; nothing imports it. It reads source text and
// go.mod alone: it builds nothing, needs no root and no network, and takes a second.
//
// A rule is a value of type rule: a check, the reason for it, and a bait, a small tree of files that breaks it. TestRulesBite
// runs every check on its bait, so that no rule can quietly stop biting.
package arch
