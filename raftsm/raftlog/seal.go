package raftlog

import (
	"encoding/binary"
	"hash/crc32"
)

// SealSize is the room that a seal takes in front of a payload.
const SealSize = 8

// A seal is, in little-endian order:
//
//	0  uint32  CRC-32C of everything after it
//	4  uint8   sealVersion
//	5  3 bytes zero
//
// The checksum covers the version and the zeros, and so each bit of the seal
// is checked. The length of a payload needs no field: the log keeps it, and a
// shorter or longer payload has another checksum.
const sealVersion = 1

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// SealEntry writes the seal into the first SealSize bytes of entry, which the
// caller has left free, for the payload that follows them. It allocates
// nothing. It panics if entry has no room for a seal.
func SealEntry(entry []byte) {
	binary.LittleEndian.PutUint32(entry[4:SealSize], sealVersion)
	binary.LittleEndian.PutUint32(entry, crc32.Checksum(entry[4:], castagnoli))
}

// OpenEntry gives the payload of a sealed entry, which aliases it. index, the
// entry's place in the Raft log, is for the error alone. It allocates nothing
// unless it fails; then the error is an *EntryError.
func OpenEntry(index uint64, entry []byte) ([]byte, error) {
	if len(entry) < SealSize {
		return nil, &EntryError{Index: index, Reason: "too short to hold a seal"}
	}
	if crc32.Checksum(entry[4:], castagnoli) != binary.LittleEndian.Uint32(entry) {
		return nil, &EntryError{Index: index, Reason: "checksum mismatch"}
	}
	if binary.LittleEndian.Uint32(entry[4:]) != sealVersion {
		return nil, &EntryError{Index: index, Reason: "sealed by an unknown version"}
	}
	return entry[SealSize:], nil
}
