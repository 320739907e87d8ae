// Package backup is the file of a backup: how it is written, read and checked,
// where scheduled ones are kept, and which of them is the newest.
//
// # What a backup is
//
// The store at one revision: each key with its value, content type, revisions,
// version, time and lease, and each lease with what was left of it. History,
// remembered answers, members and alarms are not in it; docs/decisions.md says
// why.
//
// # The file
//
//	magic     "cairn-backup 1\n"
//	frame*    kind u8 · length u32 · CRC-32C u32 · payload; the sum is that of
//	          kind, length and payload
//	sum       SHA-256 of everything before it
//
// Frames are one header ('H', JSON, see [Header]), blocks ('B') and one trailer
// ('T', JSON, see [Trailer]). The payload of a block is a piece of content, as
// kv.WalkBackup reads it, compressed by zstd. Numbers are big-endian. The header
// says what the file is before anything is unpacked; the trailer says how much
// must have come, and what the hash of the content is.
//
// The final sum names the backup: a restore that was interrupted goes on with
// the file of the same sum and with no other.
//
// # What is checked
//
// [Reader] hands out a block once its checksum, its encoding and its order are
// right, and io.EOF once all of the file was: the counts, the hash, the final
// sum, that keys name leases that are there and leases hold as many keys as they
// say, and that nothing follows. Whatever is wrong is a [DamagedError], which
// says where. Memory is bounded by a block and by the number of leases.
//
// # What a crash leaves
//
// A file is written under a name that nobody takes for a backup, synced, and
// renamed. What a crash leaves of it is removed by the next backup of the same
// member. In a bucket an upload that was not completed is no object; the next backup
// removes it once it is a day old.
package backup
