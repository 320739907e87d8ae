package kv

// Scrub begins one step of the comparison of what the members have stored: each
// of them adds up the same part of its store, as it is at this entry of the log.
type Scrub struct {
	// Members are the replicas that vote, in ascending order: the majority of
	// them is right.
	Members []uint64
	// Bytes is how much of the store the step covers.
	Bytes uint64
}

// Scrubbed is what one member found in a step.
type Scrubbed struct {
	// Step is the number of the step, Replica whose find it is.
	Step, Replica uint64
	// Sum is the hash of the part, Next the record with which the next part
	// begins; empty if there is none.
	Sum  [32]byte
	Next []byte
}

// Limits of a step.
const (
	MaxScrubMembers   = 64
	MaxScrubBytes     = 1 << 30
	MaxScrubNextBytes = 32 << 10
)

func (c *Command) checkScrub() error {
	s := &c.Scrub
	if len(s.Members) == 0 || len(s.Members) > MaxScrubMembers || s.Bytes == 0 || s.Bytes > MaxScrubBytes {
		return malformed("a scrub of %d bytes by %d members", s.Bytes, len(s.Members))
	}
	for i := range s.Members {
		if i > 0 && s.Members[i] <= s.Members[i-1] || s.Members[i] == 0 {
			return malformed("members of a scrub that are not in order")
		}
	}
	return nil
}

func (d *decoder) scrub() (s Scrub) {
	n := d.count(1)
	if n > MaxScrubMembers {
		d.fail("%d members of a scrub", n)
		return s
	}
	for range n {
		s.Members = append(s.Members, d.uvarint())
	}
	s.Bytes = d.uvarint()
	return s
}
