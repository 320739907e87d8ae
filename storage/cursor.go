package storage

import (
	"bytes"
	"errors"
	"math"
	"sort"

	"github.com/cairnkv/cairn/kv"
	"github.com/cockroachdb/pebble/v2"
)

// cursor walks the keys of a range that exist at some revision. Moving methods
// report whether they arrived at a key. key and version are valid until the
// next move.
type cursor interface {
	first() bool
	last() bool
	next() bool
	prev() bool
	// seekGE moves to the first key >= key, seekLT to the last key < key.
	seekGE(key []byte) bool
	seekLT(key []byte) bool
	key() []byte
	// version returns the version; its payload is there if values were asked
	// for.
	version() *version
	err() error
	close()
}

const newestRevision = math.MaxUint64

// newNewestCursor walks the newest versions. Without values it reads space m
// alone.
func newNewestCursor(r pebble.Reader, rng kv.Range, values bool) (cursor, error) {
	if values {
		return newPastCursor(r, rng, newestRevision)
	}
	return newMetaCursor(r, rng)
}

// metaCursor walks space m: one record a key, no values.
type metaCursor struct {
	it  *pebble.Iterator
	buf []byte
	v   version
	bad error
}

func newMetaCursor(r pebble.Reader, rng kv.Range) (*metaCursor, error) {
	opts := &pebble.IterOptions{LowerBound: appendNewestKey(nil, rng.Start), UpperBound: []byte{spaceNewest + 1}}
	if len(rng.End) > 0 {
		opts.UpperBound = appendNewestKey(nil, rng.End)
	}
	if bytes.Compare(opts.LowerBound, opts.UpperBound) > 0 {
		opts.UpperBound = opts.LowerBound
	}
	it, err := r.NewIter(opts)
	if err != nil {
		return nil, err
	}
	return &metaCursor{it: it}, nil
}

func (c *metaCursor) at(valid bool) bool {
	if !valid || c.bad != nil {
		return false
	}
	value, err := c.it.ValueAndErr()
	if err == nil {
		err = decodeNewest(c.it.Key(), value, &c.v)
	}
	c.bad = err
	return err == nil
}

func (c *metaCursor) first() bool { return c.at(c.it.First()) }
func (c *metaCursor) last() bool  { return c.at(c.it.Last()) }
func (c *metaCursor) next() bool  { return c.at(c.it.Next()) }
func (c *metaCursor) prev() bool  { return c.at(c.it.Prev()) }

func (c *metaCursor) seekGE(key []byte) bool {
	c.buf = appendNewestKey(c.buf[:0], key)
	return c.at(c.it.SeekGE(c.buf))
}

func (c *metaCursor) seekLT(key []byte) bool {
	c.buf = appendNewestKey(c.buf[:0], key)
	return c.at(c.it.SeekLT(c.buf))
}

func (c *metaCursor) key() []byte       { return c.it.Key()[1:] }
func (c *metaCursor) version() *version { return &c.v }
func (c *metaCursor) err() error        { return errors.Join(c.bad, c.it.Error()) }
func (c *metaCursor) close()            { _ = c.it.Close() } // its error is err's

// pastCursor walks space v and shows each key as of a revision.
type pastCursor struct {
	it       *pebble.Iterator
	revision uint64
	prefix   []byte // of the current key's versions
	scratch  []byte // unescaped key
	seek     []byte
	user     []byte
	v        version
	bad      error
}

func newPastCursor(r pebble.Reader, rng kv.Range, revision uint64) (*pastCursor, error) {
	opts := &pebble.IterOptions{LowerBound: appendVersionStart(nil, rng.Start), UpperBound: []byte{spaceVersion + 1}}
	if len(rng.End) > 0 {
		opts.UpperBound = appendVersionStart(nil, rng.End)
	}
	if bytes.Compare(opts.LowerBound, opts.UpperBound) > 0 {
		opts.UpperBound = opts.LowerBound
	}
	it, err := r.NewIter(opts)
	if err != nil {
		return nil, err
	}
	return &pastCursor{it: it, revision: revision}, nil
}

// settle looks, from the iterator's place onwards, for the first key that
// exists at the revision. A key costs at most one seek and one step, however
// many versions it has.
func (c *pastCursor) settle(valid bool) bool {
	c.user = nil
	for valid && c.bad == nil {
		k := c.it.Key()
		_, revision, ok := splitVersionKey(k)
		if !ok {
			c.bad = corrupt(k, "version key")
			return false
		}
		if revision > c.revision {
			// Arrives at the version that is sought, or at the next key, if this
			// one is younger.
			c.seek = appendInverted(append(c.seek[:0], k[:versionPrefixLen(k)]...), c.revision)
			valid = c.it.SeekGE(c.seek)
			continue
		}
		if c.decode() {
			return true
		}
		valid = c.bad == nil && c.it.NextPrefix()
	}
	return false
}

// decode reads the record under the iterator and reports whether the key
// exists.
func (c *pastCursor) decode() bool {
	c.v = version{}
	value, err := c.it.ValueAndErr() // may be in a block of its own
	if err == nil {
		_, err = decodeVersion(c.it.Key(), value, &c.v)
	}
	c.bad = err
	return err == nil && c.v.exists
}

// settleBack looks backwards for a key that exists at the revision. The
// iterator is at some version of the first candidate.
func (c *pastCursor) settleBack(valid bool) bool {
	c.user = nil
	for valid && c.bad == nil {
		k := c.it.Key()
		c.prefix = append(c.prefix[:0], k[:versionPrefixLen(k)]...)
		c.seek = appendInverted(append(c.seek[:0], c.prefix...), c.revision)
		if c.it.SeekGE(c.seek) && bytes.HasPrefix(c.it.Key(), c.prefix) && c.decode() {
			return true
		}
		valid = c.it.SeekLT(c.prefix)
	}
	return false
}

func (c *pastCursor) first() bool { return c.settle(c.it.First()) }
func (c *pastCursor) last() bool  { return c.settleBack(c.it.Last()) }
func (c *pastCursor) next() bool  { return c.settle(c.it.NextPrefix()) }

func (c *pastCursor) prev() bool {
	k := c.it.Key()
	c.prefix = append(c.prefix[:0], k[:versionPrefixLen(k)]...)
	return c.settleBack(c.it.SeekLT(c.prefix))
}

func (c *pastCursor) seekGE(key []byte) bool {
	c.seek = appendVersionStart(c.seek[:0], key)
	return c.settle(c.it.SeekGE(c.seek))
}

func (c *pastCursor) seekLT(key []byte) bool {
	c.seek = appendVersionStart(c.seek[:0], key)
	return c.settleBack(c.it.SeekLT(c.seek))
}

func (c *pastCursor) key() []byte {
	if c.user == nil {
		escaped, _, _ := splitVersionKey(c.it.Key())
		c.user = unescape(c.scratch[:0], escaped)
		if len(c.user) > 0 && len(escaped) > 0 && &c.user[0] != &escaped[0] {
			c.scratch = c.user
		}
	}
	return c.user
}

func (c *pastCursor) version() *version { return &c.v }
func (c *pastCursor) err() error        { return errors.Join(c.bad, c.it.Error()) }
func (c *pastCursor) close()            { _ = c.it.Close() } // its error is err's

// overlayCursor shows what a batch has not committed over what the database
// has.
type overlayCursor struct {
	base    cursor
	pending [][]byte // sorted
	state   map[string]*version
	baseOK  bool // base is at a key
	i       int  // place in pending
	back    bool // moving backwards
	current []byte
	v       *version
}

func newOverlayCursor(base cursor, pending [][]byte, state map[string]*version) *overlayCursor {
	return &overlayCursor{base: base, pending: pending, state: state}
}

// settle takes the nearer of the base's and the pending key; a pending one
// hides the base's and may say that the key is gone.
func (c *overlayCursor) settle() bool {
	for {
		havePending := c.i >= 0 && c.i < len(c.pending)
		if !c.baseOK && !havePending {
			return false
		}
		order := -1 // base first
		switch {
		case !c.baseOK:
			order = 1
		case havePending:
			order = bytes.Compare(c.base.key(), c.pending[c.i])
			if c.back {
				order = -order
			}
		}
		if order < 0 {
			c.current, c.v = c.base.key(), c.base.version()
			return true
		}
		c.current = c.pending[c.i]
		c.v = c.state[string(c.current)]
		if order == 0 {
			c.moveBase()
		}
		if c.v.exists {
			return true
		}
		c.movePending()
	}
}

func (c *overlayCursor) moveBase() {
	if c.back {
		c.baseOK = c.base.prev()
	} else {
		c.baseOK = c.base.next()
	}
}

func (c *overlayCursor) movePending() {
	if c.back {
		c.i--
	} else {
		c.i++
	}
}

// advance leaves the current key.
func (c *overlayCursor) advance() {
	if c.i >= 0 && c.i < len(c.pending) && len(c.pending[c.i]) > 0 && len(c.current) > 0 && &c.current[0] == &c.pending[c.i][0] {
		c.movePending()
	} else {
		c.moveBase()
	}
}

func (c *overlayCursor) first() bool {
	c.back, c.i, c.baseOK = false, 0, c.base.first()
	return c.settle()
}

func (c *overlayCursor) last() bool {
	c.back, c.i, c.baseOK = true, len(c.pending)-1, c.base.last()
	return c.settle()
}

// next and prev keep the direction in which the cursor was positioned; a query
// never turns round.
func (c *overlayCursor) next() bool { c.advance(); return c.settle() }
func (c *overlayCursor) prev() bool { c.advance(); return c.settle() }

func (c *overlayCursor) seekGE(key []byte) bool {
	c.back, c.baseOK = false, c.base.seekGE(key)
	c.i = sort.Search(len(c.pending), func(i int) bool { return bytes.Compare(c.pending[i], key) >= 0 })
	return c.settle()
}

func (c *overlayCursor) seekLT(key []byte) bool {
	c.back, c.baseOK = true, c.base.seekLT(key)
	c.i = sort.Search(len(c.pending), func(i int) bool { return bytes.Compare(c.pending[i], key) >= 0 }) - 1
	return c.settle()
}

func (c *overlayCursor) key() []byte       { return c.current }
func (c *overlayCursor) version() *version { return c.v }
func (c *overlayCursor) err() error        { return c.base.err() }
func (c *overlayCursor) close()            { c.base.close() }
