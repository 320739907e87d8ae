package node

import (
	"time"

	"github.com/cairnkv/cairn/backup"
)

// backupHeader says of a backup that is taken now where it comes from.
func (n *Node) backupHeader() backup.Header {
	id := &n.dir.Identity
	return backup.Header{
		ClusterID: id.ClusterID.String(), MemberID: id.MemberID.String(), Member: id.Name,
		TakenAt: time.Now(), Version: n.cfg.Version,
	}
}
