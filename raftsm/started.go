package raftsm

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/cairnkv/cairn/raftsm/raftlog"
)

// A directory that has an identity alone is what a first start leaves that was killed
// early, and what is left of a member whose log and store are gone. The former begins;
// the latter may have voted, and would begin again under the same replica id. So a
// replica that runs for the first time leaves a mark beside the identity. It does so
// after its log has begun: with the mark, there is a log.

// startedFile is the mark of a shard's replica. It has the member's id: one that another
// member left says nothing of this one.
func (d *Dir) startedFile(shard uint64) string {
	return filepath.Join(d.Path, fmt.Sprintf("STARTED-%d", shard))
}

// hasStarted reports whether this member's replica of a shard has run.
func (d *Dir) hasStarted(shard uint64) (bool, error) {
	b, err := os.ReadFile(d.startedFile(shard))
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	return strings.TrimSpace(string(b)) == d.Identity.MemberID.String(), err
}

// noteStarted leaves the mark, where it is not there yet.
func (d *Dir) noteStarted(shard uint64) error {
	if started, err := d.hasStarted(shard); err != nil || started {
		return err
	}
	return writeDurably(d.startedFile(shard), []byte(d.Identity.MemberID.String()))
}

// mayBegin refuses a replica without a log that has run before.
func (d *Dir) mayBegin(shard uint64) error {
	started, err := d.hasStarted(shard)
	if err != nil || !started {
		return err
	}
	return marked(fmt.Errorf("%w: this member has run before, says %s, and there is no log of it in %s: start this member anew under a new replica id, in an empty directory",
		raftlog.ErrLogTruncated, d.startedFile(shard), filepath.Join(d.Path, raftDir)))
}
