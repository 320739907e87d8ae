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
		return newPastCursor(r, rng, newestRevision, nil)
	}
	return newMetaCursor(r, rng)
}

// iterBounds are the bounds of a range in a space whose keys begin as appendStart
// says.
func iterBounds(space byte, rng kv.Range, appendStart func(b, key []byte) []byte) *pebble.IterOptions {
	opts := &pebble.IterOptions{LowerBound: appendStart(nil, rng.Start), UpperBound: []byte{space + 1}}
	if len(rng.End) > 0 {
		opts.UpperBound = appendStart(nil, rng.End)
	}
	if bytes.Compare(opts.LowerBound, opts.UpperBound) > 0 {
		opts.UpperBound = opts.LowerBound
	}
	return opts
}

// metaCursor walks space m: one record a key, no values.
type metaCursor struct {
	it  *pebble.Iterator
	buf []byte
	v   version
	bad error
}

func newMetaCursor(r pebble.Reader, rng kv.Range) (*metaCursor, error) {
	it, err := r.NewIter(iterBounds(spaceNewest, rng, appendNewestKey))
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
//
// Keys that were deleted stay there as long as history reaches back to their
// deletion, and a queue leaves very many of them. The newest revision has a
// shorter way past them: space m, which has none.
type pastCursor struct {
	r        pebble.Reader
	rng      kv.Range
	it       *pebble.Iterator
	revision uint64
	// pass, if not nil, is told of each key that is not shown, by a revision that
	// changed it: one behind that which is read, if there is one, or that of its
	// deletion. So above the compacted revision it is told the same whether what is
	// superfluous was swept away already or not. It is told as well how many keys it
	// counts as, by the value that was in the way: that of its newest version, also of
	// a key that is shown, where that has another one. It may end the walk.
	pass    func(revision uint64, keys int) error
	passed  int         // keys in a row that were not shown
	live    *metaCursor // nil before it is needed
	prefix  []byte      // of the current key's versions
	scratch []byte      // unescaped key
	seek    []byte
	user    []byte
	v       version
	bad     error
}

func newPastCursor(r pebble.Reader, rng kv.Range, revision uint64, pass func(revision uint64, keys int) error) (*pastCursor, error) {
	it, err := r.NewIter(iterBounds(spaceVersion, rng, appendVersionStart))
	if err != nil {
		return nil, err
	}
	return &pastCursor{r: r, rng: rng, it: it, revision: revision, pass: pass}, nil
}

// settle looks, from the iterator's place onwards, for the first key that
// exists at the revision. A key costs at most one seek and one step, however
// many versions it has.
func (c *pastCursor) settle(valid bool) bool {
	c.user, c.passed = nil, 0
	newer := uint64(0) // a revision of the key behind the one that is read, if any
	inTheWay := 0      // how many keys its value counts as
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
			n := versionPrefixLen(k)
			c.seek = appendInverted(append(c.seek[:0], k[:n]...), c.revision)
			newer, inTheWay = revision, c.sizeInTheWay()/kv.ReadBytesAKey
			if valid = c.it.SeekGE(c.seek); !valid || !bytes.HasPrefix(c.it.Key(), c.seek[:n]) {
				c.passing(newer, 1+inTheWay)
				newer, inTheWay = 0, 0
			}
			continue
		}
		if c.decode() {
			if inTheWay > 0 {
				c.tell(newer, inTheWay)
			}
			return c.bad == nil
		}
		c.passing(max(revision, newer), 1+inTheWay)
		newer, inTheWay = 0, 0
		switch {
		case c.bad != nil:
			return false
		case c.passed > farToWalk && c.revision == newestRevision:
			valid = c.jump(c.openLive() && c.live.seekGE(c.key()))
		default:
			valid = c.it.NextPrefix()
		}
	}
	return false
}

// farToWalk is how many deleted keys in a row are walked past before it is cheaper
// to look for the next one that exists.
const farToWalk = 8

// passing counts a key that is not shown.
func (c *pastCursor) passing(revision uint64, keys int) {
	c.passed++
	c.tell(revision, keys)
}

func (c *pastCursor) tell(revision uint64, keys int) {
	if c.pass != nil && c.bad == nil {
		c.bad = c.pass(revision, keys)
	}
}

// sizeInTheWay is the size of the value under the iterator, which is not the one that is
// sought. The newest of a key lies in the block that had to be read to find it.
func (c *pastCursor) sizeInTheWay() int {
	if c.pass == nil || c.bad != nil {
		return 0
	}
	var v version
	value, err := c.it.ValueAndErr()
	if err == nil {
		_, err = decodeVersion(c.it.Key(), value, &v)
	}
	c.bad = err
	return v.size()
}

// openLive opens the cursor over the keys that exist, once.
func (c *pastCursor) openLive() bool {
	if c.live == nil && c.bad == nil {
		c.live, c.bad = newMetaCursor(c.r, c.rng)
	}
	return c.bad == nil
}

// jump moves to the newest version of the key at which live is.
func (c *pastCursor) jump(found bool) bool {
	c.user, c.passed = nil, 0
	if !found {
		if c.bad == nil {
			c.bad = c.live.err()
		}
		return false
	}
	c.seek = appendVersionKey(c.seek[:0], c.live.key(), newestRevision)
	return c.it.SeekGE(c.seek)
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
	c.user, c.passed = nil, 0
	for valid && c.bad == nil {
		k := c.it.Key()
		_, revision, ok := splitVersionKey(k)
		if !ok {
			c.bad = corrupt(k, "version key")
			return false
		}
		c.prefix = append(c.prefix[:0], k[:versionPrefixLen(k)]...)
		c.seek = appendInverted(append(c.seek[:0], c.prefix...), c.revision)
		if c.it.SeekGE(c.seek) && bytes.HasPrefix(c.it.Key(), c.prefix) {
			if c.decode() {
				return true
			}
			_, revision, _ = splitVersionKey(c.it.Key())
			if c.pass != nil && c.it.Prev() && bytes.HasPrefix(c.it.Key(), c.prefix) {
				_, revision, _ = splitVersionKey(c.it.Key())
			}
		}
		c.passing(revision, 1)
		switch {
		case c.bad != nil:
			return false
		case c.passed > farToWalk && c.revision == newestRevision:
			valid = c.jump(c.openLive() && c.live.seekLT(c.unescaped(c.prefix[1:len(c.prefix)-2])))
		default:
			valid = c.it.SeekLT(c.prefix)
		}
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
		c.user = c.unescaped(escaped)
	}
	return c.user
}

// unescaped returns a key that is valid until the next one is unescaped.
func (c *pastCursor) unescaped(escaped []byte) []byte {
	user := unescape(c.scratch[:0], escaped)
	if len(user) > 0 && len(escaped) > 0 && &user[0] != &escaped[0] {
		c.scratch = user
	}
	return user
}

func (c *pastCursor) version() *version { return &c.v }

func (c *pastCursor) err() error {
	if c.bad != nil {
		return c.bad // as it is, since it may be a refusal
	}
	return c.it.Error()
}

func (c *pastCursor) close() {
	_ = c.it.Close() // its error is err's
	if c.live != nil {
		c.live.close()
	}
}

// overlayCursor shows what a batch has not committed over what the database
// has.
type overlayCursor struct {
	base    cursor
	pending []string // sorted
	state   map[string]*version
	// look is told of each pending key that is come across. It may end the walk.
	look    func(*version) error
	bad     error
	baseOK  bool // base is at a key
	i       int  // place in pending
	back    bool // moving backwards
	ours    bool // the current key is a pending one
	current []byte
	scratch []byte // a pending key
	v       *version
}

func newOverlayCursor(base cursor, pending []string, state map[string]*version, look func(*version) error) *overlayCursor {
	return &overlayCursor{base: base, pending: pending, state: state, look: look}
}

// settle takes the nearer of the base's and the pending key; a pending one
// hides the base's and may say that the key is gone.
func (c *overlayCursor) settle() bool {
	for c.bad == nil {
		havePending := c.i >= 0 && c.i < len(c.pending)
		if !c.baseOK && !havePending {
			return false
		}
		order := -1 // base first
		switch {
		case !c.baseOK:
			order = 1
		case havePending:
			order = compareKeys(c.base.key(), c.pending[c.i])
			if c.back {
				order = -order
			}
		}
		if order < 0 {
			c.current, c.v, c.ours = c.base.key(), c.base.version(), false
			return true
		}
		if order == 0 {
			c.moveBase()
		}
		c.v = c.state[c.pending[c.i]]
		if c.bad = c.look(c.v); c.bad != nil {
			return false
		}
		if c.v.exists {
			c.scratch = append(c.scratch[:0], c.pending[c.i]...)
			c.current, c.ours = c.scratch, true
			return true
		}
		c.movePending()
	}
	return false
}

// compareKeys is bytes.Compare.
func compareKeys(a []byte, b string) int {
	switch { // none of which copies
	case string(a) < b:
		return -1
	case string(a) > b:
		return 1
	}
	return 0
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
	if c.ours {
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
	c.i = sort.Search(len(c.pending), func(i int) bool { return compareKeys(key, c.pending[i]) <= 0 })
	return c.settle()
}

func (c *overlayCursor) seekLT(key []byte) bool {
	c.back, c.baseOK = true, c.base.seekLT(key)
	c.i = sort.Search(len(c.pending), func(i int) bool { return compareKeys(key, c.pending[i]) <= 0 }) - 1
	return c.settle()
}

func (c *overlayCursor) key() []byte       { return c.current }
func (c *overlayCursor) version() *version { return c.v }
func (c *overlayCursor) close()            { c.base.close() }

func (c *overlayCursor) err() error {
	if c.bad != nil {
		return c.bad // as it is, since it may be a refusal
	}
	return c.base.err()
}
