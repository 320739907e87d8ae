package transport

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"strings"
	"unicode/utf8"

	"github.com/oklog/ulid/v2"
)

// The first thing on a connection, behind the TLS handshake if there is one, is
// a hello of who dialled, and the answer to it:
//
//	magic 8 · oldest version u8 · newest version u8 · length u16 · body · CRC-32C u32
//
// The checksum covers all before it; numbers are big-endian. The oldest and the
// newest version are those that the sender speaks; an answer has one version, in
// both places: the newest that both speak, or 0 in a refusal. The body of a
// refusal is its reason u8 and a text. Any other body is
//
//	kind u8 · cluster 16 · deployment u64 · replica u64 · member 16 · incarnation 16 · length u16 · address
//	· last index u64 · term u64
//
// The last two are those of its log when the process began. They came later: who does
// not send them does not look at them either. What follows the term is for later
// versions and not looked at.
const (
	helloMagic = "cairn-p\n"
	// version is the newest version of the protocol that is spoken here,
	// oldestVersion the oldest.
	version       = 1
	oldestVersion = 1

	helloHeadBytes = len(helloMagic) + 4
	// maxHelloBytes bounds the body of a hello and of its answer.
	maxHelloBytes   = 1024
	maxAddressBytes = 512
)

// kind is what a connection is for.
type kind byte

const (
	kindMessages kind = 1
	kindSnapshot kind = 2
)

func (k kind) String() string {
	if k == kindSnapshot {
		return "snapshot"
	}
	return "messages"
}

// Identity is who one end of a connection is.
type Identity struct {
	Cluster    ulid.ULID
	Deployment uint64
	Replica    uint64
	Member     ulid.ULID
	// Address is where the member is reached by the others.
	Address string
}

// hello is one end's part of a handshake.
type hello struct {
	oldest, newest byte
	kind           kind
	Identity
	// incarnation names the process.
	incarnation ulid.ULID
	// began is nil if that was not said.
	began *Start
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

var (
	errNoHello   = errors.New("what it sent is not the handshake of a member")
	errDamaged   = errors.New("a checksum is wrong")
	errMalformed = errors.New("its handshake is malformed")
)

func appendHello(b []byte, h *hello) []byte {
	start := len(b)
	b = append(b, helloMagic...)
	b = append(b, h.oldest, h.newest, 0, 0, byte(h.kind))
	b = append(b, h.Cluster[:]...)
	b = binary.BigEndian.AppendUint64(b, h.Deployment)
	b = binary.BigEndian.AppendUint64(b, h.Replica)
	b = append(b, h.Member[:]...)
	b = append(b, h.incarnation[:]...)
	b = binary.BigEndian.AppendUint16(b, uint16(len(h.Address)))
	b = append(b, h.Address...)
	if h.began != nil {
		b = binary.BigEndian.AppendUint64(b, h.began.Index)
		b = binary.BigEndian.AppendUint64(b, h.began.Term)
	}
	return sealHello(b, start)
}

func appendRefusal(b []byte, r *Refusal) []byte {
	start := len(b)
	b = append(b, helloMagic...)
	b = append(b, 0, 0, 0, 0, byte(r.Reason))
	b = append(b, r.Detail[:min(len(r.Detail), maxHelloBytes-1)]...)
	return sealHello(b, start)
}

// sealHello fills in the length of the body and appends the checksum.
func sealHello(b []byte, start int) []byte {
	body := len(b) - start - helloHeadBytes
	binary.BigEndian.PutUint16(b[start+helloHeadBytes-2:], uint16(body))
	return binary.BigEndian.AppendUint32(b, crc32.Checksum(b[start:], castagnoli))
}

// readHello reads a hello, or the answer to one. A refusal is returned as
// *Refusal.
func readHello(r io.Reader) (*hello, error) {
	// As a whole it has an upper length of little more than 1 KiB.
	var buf [helloHeadBytes + maxHelloBytes + 4]byte
	head := buf[:helloHeadBytes]
	if _, err := io.ReadFull(r, head); err != nil {
		return nil, err
	}
	if string(head[:len(helloMagic)]) != helloMagic {
		return nil, errNoHello
	}
	n := int(binary.BigEndian.Uint16(head[helloHeadBytes-2:]))
	if n > maxHelloBytes {
		return nil, errMalformed
	}
	rest := buf[helloHeadBytes : helloHeadBytes+n+4]
	if _, err := io.ReadFull(r, rest); err != nil {
		return nil, err
	}
	body, sum := rest[:n], binary.BigEndian.Uint32(rest[n:])
	if crc32.Checksum(buf[:helloHeadBytes+n], castagnoli) != sum {
		return nil, errDamaged
	}
	h := &hello{oldest: head[len(helloMagic)], newest: head[len(helloMagic)+1]}
	if h.newest == 0 {
		return nil, decodeRefusal(body)
	}
	if h.oldest > h.newest || h.oldest == 0 {
		return nil, errMalformed
	}
	if err := h.decode(body); err != nil {
		return nil, err
	}
	return h, nil
}

func (h *hello) decode(b []byte) error {
	const fixed = 1 + 16 + 8 + 8 + 16 + 16 + 2
	if len(b) < fixed {
		return errMalformed
	}
	h.kind = kind(b[0])
	copy(h.Cluster[:], b[1:])
	h.Deployment = binary.BigEndian.Uint64(b[17:])
	h.Replica = binary.BigEndian.Uint64(b[25:])
	copy(h.Member[:], b[33:])
	copy(h.incarnation[:], b[49:])
	n := int(binary.BigEndian.Uint16(b[65:]))
	if n > maxAddressBytes || n > len(b)-fixed {
		return errMalformed
	}
	h.Address = string(b[fixed : fixed+n])
	if rest := b[fixed+n:]; len(rest) >= 16 {
		h.began = &Start{Index: binary.BigEndian.Uint64(rest), Term: binary.BigEndian.Uint64(rest[8:])}
	}
	if h.kind != kindMessages && h.kind != kindSnapshot || h.Replica == 0 || !ValidAddress(h.Address) {
		return errMalformed
	}
	return nil
}

// Reason says why a connection was refused. The numbers are part of the
// protocol, the words are labels of a metric.
type Reason byte

const (
	// ReasonCertificate: no certificate, a wrong one, or one for a name that is
	// not allowed.
	ReasonCertificate Reason = 1
	// ReasonHandshake: it does not speak this protocol.
	ReasonHandshake Reason = 2
	// ReasonVersion: no version is spoken by both.
	ReasonVersion Reason = 3
	// ReasonCluster: a member of another cluster.
	ReasonCluster Reason = 4
	// ReasonMember: the replica id belongs to another member. This is what the
	// replicated state says.
	ReasonMember Reason = 5
	// ReasonAddress: the replica is at another address.
	ReasonAddress Reason = 6
	// ReasonRemoved: the replica was removed from the cluster.
	ReasonRemoved Reason = 7
	// ReasonSelf: the node speaks to itself.
	ReasonSelf Reason = 8
	// ReasonStarting: this node does not know the members yet.
	ReasonStarting Reason = 9
	// ReasonLimit: there are too many connections.
	ReasonLimit Reason = 10
	// ReasonChanged: another member was seen under the replica id, or at another
	// address, since this process began. The replicated state knows neither.
	ReasonChanged Reason = 11
	// ReasonFrame: what came after the handshake was damaged or malformed.
	ReasonFrame Reason = 12
	// ReasonCloned: another process of the same member runs, at the member's
	// address.
	ReasonCloned Reason = 13
	// ReasonRolledBack: the member's log ends before what it has acknowledged.
	ReasonRolledBack Reason = 14
	reasonEnd        Reason = 15
)

var reasonWords = [reasonEnd]string{
	0:                 "unknown",
	ReasonCertificate: "certificate", ReasonHandshake: "handshake", ReasonVersion: "version", ReasonCluster: "cluster",
	ReasonMember: "member", ReasonAddress: "address", ReasonRemoved: "removed", ReasonSelf: "self",
	ReasonStarting: "starting", ReasonLimit: "limit", ReasonChanged: "changed", ReasonFrame: "frame",
	ReasonCloned: "cloned", ReasonRolledBack: "rolled-back",
}

func (r Reason) String() string {
	if r < reasonEnd {
		return reasonWords[r]
	}
	return reasonWords[0]
}

// Refusal is why one end does not speak to the other.
type Refusal struct {
	Reason Reason
	Detail string
}

func (r *Refusal) Error() string { return fmt.Sprintf("refused (%s): %s", r.Reason, r.Detail) }

func refuse(reason Reason, format string, args ...any) *Refusal {
	return &Refusal{reason, fmt.Sprintf(format, args...)}
}

func decodeRefusal(b []byte) error {
	if len(b) == 0 {
		return errMalformed
	}
	// It ends up in a log: nothing in it may begin another line.
	detail := strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r == utf8.RuneError {
			return '?'
		}
		return r
	}, string(b[1:]))
	return &Refusal{Reason(b[0]), detail}
}
