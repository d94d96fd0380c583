// Package store tries the store as a whole, where tests of one package cannot: processes that are killed at any moment, under
// load, with the store alone and with the API server above it; data directories that grow, are big, or are damaged. Seeds are
// printed and set with STORETEST_SEED; STORETEST_LONG=1 runs the many rounds that a build cannot wait for. It holds tests only.
package store
