package raftlog

import (
	"errors"

	"github.com/lni/dragonboat/v4/config"
	"github.com/lni/vfs"
)

// Examine opens the log in a copy of a NodeHost's directory and does what a start
// does before it starts a replica. It writes to the copy, as a start would. has
// says whether there is a log of the replica. The error is that of [Log.Verify].
func Examine(copied string, shardID, replicaID, applied uint64) (has bool, err error) {
	var nhc config.NodeHostConfig
	log := Apply(&nhc, nil, nil, nil)
	nhc.Expert.FS = vfs.Default
	db, err := nhc.Expert.LogDBFactory.Create(nhc, nil, []string{copied}, []string{copied})
	if err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	if has, err = log.Has(shardID, replicaID); err != nil {
		return false, err
	}
	_, err = log.Verify(shardID, replicaID, applied)
	return has, err
}
