package api

import "strings"

// Level is the Kubernetes release whose API karve serves.
const Level = "1.36.6"

// Version returns what servers and nodes report as their version: the API level, with karve's own as build metadata, so
// that clients which compare versions see the level.
func Version(karve string) string { return "v" + Level + "+karve." + strings.TrimPrefix(karve, "v") }
