package rest

import jsonpatch "gopkg.in/evanphx/json-patch.v4"

// The "copy" of a JSON patch can double what it copies: a few lines would become more than the machine has memory. The
// library bounds what all copies of one patch add, in bytes, only if told to, and only for the whole process; it is told
// here, before there is a request, and to as much as a body may have.
func init() { jsonpatch.AccumulatedCopySizeLimit = maxBody }
