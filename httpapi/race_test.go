//go:build race

package httpapi

// Under the race detector sync.Pool drops what it is given at random.
const raceEnabled = true
