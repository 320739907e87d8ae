package backup

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"time"

	"github.com/cairnkv/cairn/kv"
)

// magic begins a file and names the version of its form.
const magic = "cairn-backup 1\n"

// Extension is that of a file.
const Extension = ".cairn-backup"

const (
	frameHeader  = 'H'
	frameBlock   = 'B'
	frameTrailer = 'T'
	// frameHeadBytes is kind, length and checksum.
	frameHeadBytes = 1 + 4 + 4
	sumBytes       = 32
)

const (
	// blockBytes is where a block is closed; one record more may be in it. A
	// restore puts a block into the log as one command.
	blockBytes = 512 << 10
	// maxBlockBytes bounds a block: what is closed at blockBytes, and the largest
	// record.
	maxBlockBytes = blockBytes + kv.MaxKeyBytes + kv.MaxValueBytes + kv.MaxContentTypeBytes + 256
	// maxStoredBytes bounds a block as it is stored; zstd adds little to what it
	// can't compress.
	maxStoredBytes = maxBlockBytes + 64<<10
	// maxTextBytes bounds a header and a trailer.
	maxTextBytes = 64 << 10
)

// A block and what a command adds to it fit a command.
var _ [kv.MaxCommandBytes - maxBlockBytes - 1024]struct{}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Header says what a backup is of.
type Header struct {
	// ClusterID and MemberID are the ULIDs of whom the backup was taken from,
	// Member the member's name.
	ClusterID string `json:"cluster_id"`
	MemberID  string `json:"member_id"`
	Member    string `json:"member"`
	// Revision is the store's revision whose state is in the backup.
	Revision uint64 `json:"revision"`
	// TakenAt is the clock of the member when the state was pinned.
	TakenAt time.Time `json:"taken_at"`
	// LastTime is the newest time of a change, in milliseconds since the epoch.
	LastTime int64 `json:"last_time"`
	// Version is that of the binary that wrote it.
	Version string `json:"version"`
}

// Trailer says what must have come before it.
type Trailer struct {
	Blocks uint64 `json:"blocks"`
	Keys   uint64 `json:"keys"`
	Leases uint64 `json:"leases"`
	// Bytes is the size of keys, values and content types.
	Bytes uint64 `json:"bytes"`
	// ContentHash is the SHA-256 of the entries, in hexadecimal. Stores with the
	// same keys have the same.
	ContentHash string `json:"content_hash"`
}

// Info is what is to be known of a whole backup.
type Info struct {
	Header
	Trailer
	// SHA256 is the final sum, in hexadecimal, Size the bytes of the file.
	SHA256 string `json:"sha256"`
	Size   int64  `json:"size"`
}

// DamagedError says that a file is not the backup that was written.
type DamagedError struct {
	// Offset is where in the file that was seen, in bytes, Block the number of the
	// block, from 1, or 0 outside of blocks.
	Offset int64
	Block  uint64
	Reason string
}

// Error says where and what.
func (e *DamagedError) Error() string {
	if e.Block > 0 {
		return fmt.Sprintf("the backup is damaged at byte %d, in block %d: %s", e.Offset, e.Block, e.Reason)
	}
	return fmt.Sprintf("the backup is damaged at byte %d: %s", e.Offset, e.Reason)
}

// appendFrameHead appends what comes before a payload.
func appendFrameHead(b []byte, kind byte, payload []byte) []byte {
	start := len(b)
	b = binary.BigEndian.AppendUint32(append(b, kind), uint32(len(payload)))
	return binary.BigEndian.AppendUint32(b, frameSum(b[start:], payload))
}

// frameSum is the checksum of kind and length, and of the payload.
func frameSum(head, payload []byte) uint32 {
	return crc32.Update(crc32.Checksum(head, castagnoli), castagnoli, payload)
}
