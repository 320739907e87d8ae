package node

import "github.com/cairnkv/cairn/kv"

// serving is nil, or says that the store is being filled from a backup.
func (n *Node) serving() error {
	if restoring, _ := n.shard.Store().Restoring(); !restoring {
		return nil
	}
	return &kv.Error{Code: kv.Restoring, Detail: "the store is being filled from a backup", RetryAfterSeconds: 1}
}
