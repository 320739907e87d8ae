package node

import (
	"github.com/cairnkv/cairn/kv"
	"github.com/cairnkv/cairn/raftsm"
)

// quarantined is nil, or says that this member's content can't be trusted.
func (n *Node) quarantined() error {
	switch n.shard.Quarantine() {
	case raftsm.Corrupt:
		return kv.Errorf(kv.CorruptContent, "what this member has stored differs from what the majority has; ask another one, and replace this one")
	case raftsm.Doubtful:
		return kv.Errorf(kv.CorruptContent, "the members have stored different contents, and no majority is of one mind; an operator has to find out which is right")
	}
	return nil
}

// mayPropose lets alarms through whatever the content is: they are how an
// operator ends a quarantine. While nobody's content can be trusted, members may be
// replaced, which is the other way; and clients may keep their leases: that these end
// would change more.
func (n *Node) mayPropose(c *kv.Command) error {
	err := n.quarantined()
	if err == nil || c.Kind == kv.KindAlarm {
		return nil
	}
	if n.shard.Quarantine() == raftsm.Doubtful && (c.Kind == kv.KindLeaseRenew || c.Kind == kv.KindMembership) {
		return nil
	}
	return err
}
