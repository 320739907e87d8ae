package httpapi

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"

	"github.com/cairnkv/cairn/api"
	"github.com/cairnkv/cairn/kv"
)

// A cursor says where a list or a history goes on, and of which state. A client
// can't make one: it is bound to the cluster by its key, and to the question by a
// digest of it. It is no secret, and holds nothing that the client has not seen.
//
//	byte     0       format
//	bytes    1..8    revision of the list, big endian
//	bytes    9..24   digest of the question
//	bytes   25..-16  where it goes on
//	last 16          HMAC-SHA-256 of all before, cut
type cursor struct {
	revision uint64
	question [16]byte
	after    []byte
}

const (
	cursorFormat = 1
	cursorHead   = 1 + 8 + 16
	cursorSeal   = 16
)

func (s *Server) encodeCursor(c cursor) string {
	b := make([]byte, 0, cursorHead+len(c.after)+cursorSeal)
	b = append(b, cursorFormat)
	b = binary.BigEndian.AppendUint64(b, c.revision)
	b = append(b, c.question[:]...)
	b = append(b, c.after...)
	b = append(b, s.sealCursor(b)...)
	return base64.RawURLEncoding.EncodeToString(b)
}

func (s *Server) decodeCursor(text string) (c cursor, ok bool) {
	b, err := base64.RawURLEncoding.Strict().DecodeString(text)
	if err != nil || len(b) < cursorHead+cursorSeal || b[0] != cursorFormat {
		return c, false
	}
	content, seal := b[:len(b)-cursorSeal], b[len(b)-cursorSeal:]
	if !hmac.Equal(seal, s.sealCursor(content)) {
		return c, false
	}
	c.revision = binary.BigEndian.Uint64(content[1:9])
	copy(c.question[:], content[9:cursorHead])
	c.after = content[cursorHead:]
	return c, c.revision > 0 && c.revision <= kv.MaxRevision
}

func (s *Server) sealCursor(content []byte) []byte {
	mac := hmac.New(sha256.New, s.cfg.CursorKey[:])
	_, _ = mac.Write(content)
	return mac.Sum(nil)[:cursorSeal]
}

// question digests what a cursor continues. Parts are told apart by their
// length.
func question(parts ...[]byte) (q [16]byte) {
	h := sha256.New()
	var n [8]byte
	for _, p := range parts {
		binary.BigEndian.PutUint64(n[:], uint64(len(p)))
		_, _ = h.Write(n[:])
		_, _ = h.Write(p)
	}
	copy(q[:], h.Sum(nil))
	return q
}

// cursorParam reads the cursor of a request that asks q and sets the mode to its
// revision. It returns false if there is none.
func (x *exchange) cursorParam(q [16]byte, mode *readMode) (cursor, bool) {
	if !x.q.present.has(pCursor) {
		return cursor{}, false
	}
	c, ok := x.s.decodeCursor(x.q.values[pCursor])
	switch {
	case !ok:
		x.fail(api.CodeBadCursor, "the cursor was not made by this cluster")
	case c.question != q:
		x.fail(api.CodeBadCursor, "the cursor continues another request: only limit, count, keys_only and encoding may differ")
	case mode.revision != 0 && mode.revision != c.revision:
		x.fail(api.CodeBadCursor, "the cursor continues a list at revision %d", c.revision)
	default:
		mode.revision, mode.cursor = c.revision, true
		return c, true
	}
	return cursor{}, false
}

// placeParam reads the cursor of a list that has no history: it says where the
// list goes on, in a state that is not older than the one of the page before. It
// returns false if there is none.
func (x *exchange) placeParam(q [16]byte, mode *readMode) (cursor, bool) {
	var past readMode
	c, ok := x.cursorParam(q, &past)
	if ok && (mode.stale || mode.minRevision != 0 || mode.maxStaleness != 0) {
		mode.minRevision = max(mode.minRevision, c.revision)
	}
	return c, ok
}

// nextPlace ends a page of such a list with where it goes on.
func (x *exchange) nextPlace(q [16]byte, v View, after []byte) {
	next := x.s.encodeCursor(cursor{v.Revision(), q, after})
	x.setHeader("Link", "<"+x.nextTarget(next)+`>; rel="next"`)
	x.out = appendQuoted(append(x.out, `,"next_cursor":`...), next)
}
