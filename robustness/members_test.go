package robustness

import (
	"os"
	"strconv"
	"testing"
)

// cycles is CAIRN_CYCLES, or the number of rounds of the suite that was asked for.
func cycles(t *testing.T, few, many int) int {
	given := os.Getenv("CAIRN_CYCLES")
	if given == "" {
		return rounds(few, many)
	}
	n, err := strconv.Atoi(given)
	if err != nil || n < 1 {
		t.Fatalf("CAIRN_CYCLES=%s is not a number of rounds", given)
	}
	return n
}

// TestMembers replaces members under traffic and faults (F-27). There are three
// voters, and four in between.
func TestMembers(t *testing.T) {
	beside(t)
	const size = 4
	m := NewMembers(size)
	defer m.Close()
	Judge(t, Scenario{
		Layout: Layout{Size: size, Binary: ShortLogBinary(t), Relayed: true},
		Rounds: cycles(t, 2, 200), Fault: m.Replace, Seed: Seed(t), Alive: true,
	}.Run(t))
}
