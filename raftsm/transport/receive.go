package transport

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"slices"
	"strings"

	"github.com/lni/dragonboat/v4/client"
	pb "github.com/lni/dragonboat/v4/raftpb"
)

const (
	// maxMessages bounds the messages of a frame. Few bytes make a message, which
	// takes ten times as much memory.
	maxMessages = 16 << 10
	// maxSmallEntries is how many entries of a frame may be smaller than a
	// command's.
	maxSmallEntries = 16 << 10
	// leastEntryBytes is the size of the least entry with a command in it.
	leastEntryBytes = 32
	// maxNoSnapshot bounds the snapshot in a message, which is none: they go by chunks.
	maxNoSnapshot = 64
	// maxNumber bounds terms and indexes. A term goes up by one with an election;
	// one at the end of its range would go round to 0 with the next.
	maxNumber = 1 << 56
	// maxChunkBytes bounds the data of a chunk: Dragonboat's are 2 MiB, and the
	// first one has a header before it.
	maxChunkBytes = 2<<20 + 64<<10
	// leastFirstChunk is the size of the header that a snapshot begins with.
	leastFirstChunk = 1024
	// blockVersion is the version of a snapshot whose blocks have checksums.
	blockVersion = 2
)

// wireTypes are the messages that members send each other. All others are what a
// process tells itself, and some of them would be obeyed from anybody: that a
// member was added, that a snapshot has arrived.
var wireTypes = func() (ok [32]bool) {
	for _, t := range []pb.MessageType{
		pb.NoOP, pb.Propose, pb.Replicate, pb.ReplicateResp, pb.RequestVote, pb.RequestVoteResp, pb.Heartbeat,
		pb.HeartbeatResp, pb.ReadIndex, pb.ReadIndexResp, pb.SnapshotReceived, pb.LeaderTransfer, pb.TimeoutNow,
		pb.RequestPreVote, pb.RequestPreVoteResp,
	} {
		ok[t] = true
	}
	return ok
}()

// isOfNoTerm reports whether messages of a type carry no term: what a member asks its
// leader for, which it passes on if it leads no longer, and that a snapshot has come. All
// others have that of their sender, which Dragonboat takes for granted: it obeys one
// without a term in any, or panics, as at one with a term that it is to pass on.
func isOfNoTerm(t pb.MessageType) bool {
	return t == pb.Propose || t == pb.ReadIndex || t == pb.LeaderTransfer || t == pb.SnapshotReceived
}

// decodeBatch decodes a frame of messages.
func decodeBatch(b []byte) (batch pb.MessageBatch, err error) {
	if err := countBatch(b); err != nil {
		return batch, err
	}
	defer recovered(&err)
	if err := batch.Unmarshal(b); err != nil {
		return batch, fmt.Errorf("%w: %w", errFrame, err)
	}
	return batch, nil
}

// decodeChunk decodes a frame with a chunk of a snapshot.
func decodeChunk(b []byte) (c pb.Chunk, err error) {
	defer recovered(&err)
	if err := c.Unmarshal(b); err != nil {
		return c, fmt.Errorf("%w: %w", errFrame, err)
	}
	return c, nil
}

// recovered makes an error of a panic in Dragonboat's decoders, which were not
// written for what an enemy sends.
func recovered(err *error) {
	if p := recover(); p != nil {
		*err = fmt.Errorf("%w: %v", errFrame, p)
	}
}

// countBatch walks the fields of an encoded batch, down to the entries and the files of a
// snapshot, and refuses one that would become much larger in memory.
func countBatch(b []byte) error {
	messages, entries := 0, 0
	err := walkFields(b, func(field uint64, message []byte) error {
		if field != 1 {
			return nil
		}
		if messages++; messages > maxMessages {
			return fmt.Errorf("%w: more than %d messages", errFrame, maxMessages)
		}
		snapshots := 0
		return walkFields(message, func(field uint64, value []byte) error {
			switch field {
			case 11:
				entries++
			case 12: // what comes once more is added to it
				if snapshots++; snapshots > 1 || len(value) > maxNoSnapshot {
					return fmt.Errorf("%w: a snapshot in a message", errFrame)
				}
				return walkFields(value, func(field uint64, _ []byte) error {
					if field == 7 {
						return fmt.Errorf("%w: files of a snapshot in a message", errFrame)
					}
					return nil
				})
			}
			return nil
		})
	})
	if err == nil && entries > maxSmallEntries+len(b)/leastEntryBytes {
		err = fmt.Errorf("%w: %d entries in %d bytes", errFrame, entries, len(b))
	}
	return err
}

// walkFields calls fn with the number of each field of an encoded protocol
// buffer, and with its bytes if it is made of bytes.
func walkFields(b []byte, fn func(field uint64, value []byte) error) error {
	for len(b) > 0 {
		tag, n := binary.Uvarint(b)
		if n <= 0 {
			return errFrame
		}
		b = b[n:]
		var value []byte
		switch tag & 7 {
		case 0:
			if _, n = binary.Uvarint(b); n <= 0 {
				return errFrame
			}
			b = b[n:]
		case 2:
			size, n := binary.Uvarint(b)
			if n <= 0 || size > uint64(len(b)-n) {
				return errFrame
			}
			value, b = b[n:n+int(size)], b[n+int(size):]
		default:
			return errFrame // no message of Dragonboat has another type
		}
		// Dragonboat's decoders look at 32 bits of a field's number.
		if err := fn(uint64(uint32(tag>>3)), value); err != nil {
			return err
		}
	}
	return nil
}

// filter keeps the messages of a batch that the other end may send to this one, of shards
// that this one has: Dragonboat would remember the sender's address for each number.
// It returns how many it dropped.
func filter(batch *pb.MessageBatch, from *Identity, to uint64, quarantined bool, has func(shard uint64) bool) (dropped int) {
	kept, ignored := batch.Requests[:0], 0
	var confirmed []uint64 // the shards of which snapshots have come
	for _, m := range batch.Requests {
		switch {
		case m.Type == pb.RateLimit: // of a member that still sends them; see backlog
			ignored++
		case !mayReceive(&m, from.Replica, to) || !has(m.ShardID) || quarantined && m.Type == pb.TimeoutNow:
		case m.Type == pb.SnapshotReceived && slices.Contains(confirmed, m.ShardID):
			// It says the same again, and Dragonboat's queue of these has no bound.
		default:
			if m.Type == pb.SnapshotReceived {
				confirmed = append(confirmed, m.ShardID)
			}
			kept = append(kept, m)
		}
	}
	dropped = len(batch.Requests) - len(kept) - ignored
	batch.Requests = kept
	// Dragonboat learns addresses from here. It panics where it knows another
	// one, and the handshake has compared this one with what is known.
	batch.SourceAddress = from.Address
	return dropped
}

func mayReceive(m *pb.Message, from, to uint64) bool {
	if m.Type < 0 || int(m.Type) >= len(wireTypes) || !wireTypes[m.Type] {
		return false
	}
	if m.From != from || m.To != to || m.ShardID == 0 {
		return false
	}
	if m.Term > maxNumber || m.LogTerm > maxNumber || m.LogIndex > maxNumber || m.Commit > maxNumber {
		return false
	}
	if (m.Term == 0) != isOfNoTerm(m.Type) || m.Type == pb.LeaderTransfer && m.Hint == 0 {
		return false
	}
	for i := range m.Entries {
		if e := &m.Entries[i]; e.Term > maxNumber || e.Index > maxNumber || !isMade(e) {
			return false
		}
	}
	return m.Type != pb.Replicate || isPiece(m)
}

// isPiece reports whether a message with entries is a piece of a log: they follow the place
// that it names, where nothing lies but before the first one, and terms only go up.
// Dragonboat looks at one place for each of them and puts them where they say.
func isPiece(m *pb.Message) bool {
	if (m.LogIndex == 0) != (m.LogTerm == 0) {
		return false
	}
	index, term := m.LogIndex, max(m.LogTerm, 1)
	for i := range m.Entries {
		e := &m.Entries[i]
		if index++; e.Index != index || e.Term < term {
			return false
		}
		term = e.Term
	}
	return term <= m.Term
}

// plainHeader is what the command of a proposal begins with: it is not compressed, and of
// the first version.
const plainHeader = 0

// isMade reports whether an entry is of a kind that members make. Once another one is
// committed, Dragonboat panics on each member that applies it, at each start.
func isMade(e *pb.Entry) bool {
	switch e.Type {
	case pb.EncodedEntry: // what a member proposes, outside of Dragonboat's sessions
		return e.Key != 0 && e.ClientID != client.NotSessionManagedClientID && e.SeriesID == client.NoOPSeriesID &&
			len(e.Cmd) > 0 && e.Cmd[0] == plainHeader
	case pb.ApplicationEntry: // a leader's first one, or in the place of a change that had to wait
		return len(e.Cmd) == 0 && e.ClientID == client.NotSessionManagedClientID
	case pb.ConfigChangeEntry:
		return isChange(e.Cmd)
	}
	return false
}

// isChange reports whether an encoded change of the Raft configuration is one that members
// make. There are no witnesses.
func isChange(b []byte) bool {
	var c pb.ConfigChange
	decode := func() (err error) {
		defer recovered(&err)
		return c.Unmarshal(b)
	}
	if err := decode(); err != nil || c.ReplicaID == 0 {
		return false
	}
	switch c.Type {
	case pb.AddNode, pb.AddNonVoting:
		return ValidAddress(c.Address)
	case pb.RemoveNode:
		return true
	}
	return false
}

// chunkOrder holds the chunks of one connection to what a stream of one snapshot
// is. Dragonboat panics at files that it can't make or find.
type chunkOrder struct {
	next  uint64
	first pb.Chunk // without data
}

func (o *chunkOrder) check(c *pb.Chunk, from *Identity, to uint64) error {
	bad := func(format string, args ...any) error {
		return fmt.Errorf("%w: a chunk %s", errFrame, fmt.Sprintf(format, args...))
	}
	switch {
	case c.From != from.Replica || c.ReplicaID != to || c.ShardID == 0:
		return bad("of replica %d for replica %d", c.From, c.ReplicaID)
	case c.DeploymentId != from.Deployment:
		return bad("of deployment %d", c.DeploymentId)
	case c.HasFileInfo || c.Witness:
		return bad("of a kind that is not used")
	case c.ChunkId != o.next || c.FileChunkId != c.ChunkId:
		return bad("number %d, %d of its file; the next one is %d", c.ChunkId, c.FileChunkId, o.next)
	case len(c.Data) > maxChunkBytes || c.ChunkId == 0 && len(c.Data) < leastFirstChunk:
		return bad("of %d bytes", len(c.Data))
	case c.Index == 0 || c.Index > maxNumber || c.Term == 0 || c.Term > maxNumber || c.OnDiskIndex > maxNumber:
		return bad("at index %d of term %d", c.Index, c.Term)
	case lastName(c.Filepath) != fmt.Sprintf("snapshot-%016X.gbsnap", c.Index):
		// Dragonboat knows a snapshot by its index: with two names it would look for the
		// file of one under the other.
		return bad("for the file %.100q", c.Filepath)
	case o.next == 0 && !isHeaded(c.Data):
		return bad("without the header of a snapshot")
	case o.next == 0 && !isConfiguration(&c.Membership, c.Index): // that of the first one counts
		return bad("with members that can't be")
	}
	if o.next == 0 {
		o.first = *c
		o.first.Data = nil
	} else if f := &o.first; c.ShardID != f.ShardID || c.Index != f.Index || c.Term != f.Term || c.Filepath != f.Filepath {
		return bad("of another snapshot")
	}
	o.next++
	return nil
}

// isConfiguration reports whether members can be those of a snapshot at an index: there are
// voters since the first entry, of which each change has its number. There are no witnesses.
func isConfiguration(m *pb.Membership, index uint64) bool {
	if m.ConfigChangeId == 0 || m.ConfigChangeId > index || len(m.Addresses) == 0 || len(m.Witnesses) > 0 {
		return false
	}
	for _, of := range []map[uint64]string{m.Addresses, m.NonVotings} {
		for replica, address := range of {
			if replica == 0 || !ValidAddress(address) {
				return false
			}
		}
	}
	for replica := range m.NonVotings {
		if _, votes := m.Addresses[replica]; votes {
			return false
		}
	}
	return true
}

// brokenTail is what a file of a snapshot can't end in, which has a magic number there. It
// is not empty: a chunk without data is how a whole snapshot ends, and what came before
// may look whole, since a sender that fails closes the file before it hangs up.
var brokenTail = make([]byte, 16)

// ending is a last chunk with which the snapshot is none: Dragonboat finds that out, removes
// what it has of it, and forgets it. It does so under its own lock for the snapshot. A
// chunk that comes on another connection, of the same snapshot, it then does not know.
func (o *chunkOrder) ending() pb.Chunk {
	c := o.first
	c.ChunkId, c.FileChunkId = o.next, o.next
	c.ChunkCount, c.FileChunkCount = pb.LastChunkCount, pb.LastChunkCount
	c.Data, c.ChunkSize = brokenTail, uint64(len(brokenTail))
	return c
}

// lastName is the last element of a path, which Dragonboat takes.
func lastName(path string) string { return path[strings.LastIndexByte(path, '/')+1:] }

// isHeaded reports whether the data of a snapshot's first chunk, which is large enough,
// begins with a header as members write it: its length, itself, and its checksum or zeros.
// Dragonboat panics at one that it can't decode or of a checksum that it doesn't know, and
// at others once it begins to read the snapshot. Where it refuses one it has already removed
// what is there of the snapshot, and panics at the next chunk of that, whoever sends it.
func isHeaded(data []byte) bool {
	size := binary.LittleEndian.Uint64(data)
	if size > leastFirstChunk-8-4 {
		return false
	}
	encoded, sum := data[8:8+size], binary.BigEndian.Uint32(data[8+size:])
	var h pb.SnapshotHeader
	decode := func() (err error) {
		defer recovered(&err)
		return h.Unmarshal(encoded)
	}
	if err := decode(); err != nil {
		return false
	}
	return (sum == 0 || sum == crc32.ChecksumIEEE(encoded)) &&
		h.Version == blockVersion && h.ChecksumType == pb.CRC32IEEE && h.CompressionType == pb.NoCompression
}
