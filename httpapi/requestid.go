package httpapi

import (
	"encoding/binary"
	"math/rand/v2"
	"time"

	"github.com/oklog/ulid/v2"
)

// validRequestID reports whether a client's request id can go into logs and
// headers as it is: 1 to 64 letters, digits, dots, underscores and hyphens.
func validRequestID(s string) bool {
	if len(s) == 0 || len(s) > 64 {
		return false
	}
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '.', c == '_', c == '-':
		default:
			return false
		}
	}
	return true
}

// newULID makes an identity. The random half comes from the runtime's generator,
// which is seeded by the system and takes no lock.
func newULID(now time.Time) (id ulid.ULID) {
	var random [16]byte
	binary.LittleEndian.PutUint64(random[:8], rand.Uint64())
	binary.LittleEndian.PutUint64(random[8:], rand.Uint64())
	copy(id[6:], random[:10])
	// Fails only for years after 10889.
	_ = id.SetTime(ulid.Timestamp(now))
	return id
}
