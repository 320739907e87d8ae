package node

import (
	"errors"

	"github.com/cairnkv/cairn/raftsm"
)

// StatusHopeless is the exit status of a node that a restart can't help: what is on
// its disk is damaged or another member's, or the cluster knows another member in
// its place. A supervisor that starts it again only repeats that.
const StatusHopeless = 7

// errDisowned marks what the others say of a member that is not theirs.
var errDisowned = errors.New("this member can't stay")

// Hopeless reports whether a node that ended, or did not start, with err would do
// so again.
func Hopeless(err error) bool { return errors.Is(err, errDisowned) || raftsm.Damaged(err) }
