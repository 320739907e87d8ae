package storage

import (
	"context"
	"errors"
	"fmt"

	"github.com/cairnkv/cairn/kv"
	"github.com/cockroachdb/pebble/v2"
)

// Get reads the newest version of key. The revision is one at which the answer
// was true. The entry's value is the caller's; its key is the argument.
func (s *Store) Get(key []byte) (e kv.Entry, found bool, revision uint64, err error) {
	h, err := s.acquire()
	if err != nil {
		return kv.Entry{}, false, 0, err
	}
	defer h.release()
	for {
		// The state comes first: what is read after it is as new or newer, and
		// says by its own revision how new.
		st := h.published.Load()
		if record := h.rows.get(key); record != nil {
			var v version
			if _, err = decodeVersion(key, record, &v); err != nil {
				return kv.Entry{}, false, 0, err
			}
			return v.entry(key), true, max(v.mod, st.revision), nil
		}
		e, found, revision, err = h.newest(key, st.revision)
		if err != nil || revision != 0 || h.published.Load().compact <= st.revision {
			return e, found, max(revision, st.revision), err
		}
		// There was no record, and since the state was looked at history was
		// compacted beyond it: a deletion may have come and been swept away.
	}
}

// newest returns the newest version of key and its revision, that of its
// deletion if it was deleted, and 0 if there is no record of it. The caller saw a
// published revision before.
func (h *handle) newest(key []byte, seen uint64) (e kv.Entry, found bool, revision uint64, err error) {
	// The newest version is the first under the key's prefix, and the filter
	// knows prefixes, so this is one lookup whatever the number of versions.
	it, err := h.db.NewIter(nil)
	if err != nil {
		return kv.Entry{}, false, 0, fmt.Errorf("storage: read: %w", err)
	}
	defer func() { err = errors.Join(err, it.Error(), it.Close()) }()
	var scratch [128]byte
	if !it.SeekPrefixGE(appendVersionKey(scratch[:0], key, newestRevision)) {
		return kv.Entry{}, false, 0, nil
	}
	value, err := it.ValueAndErr()
	if err != nil {
		return kv.Entry{}, false, 0, err
	}
	var v version
	if _, err = decodeVersion(it.Key(), value, &v); err != nil {
		return kv.Entry{}, false, 0, err
	}
	_, revision, _ = splitVersionKey(it.Key())
	if v.exists {
		h.rows.put(seen, key, value)
		v.payload = append(make([]byte, 0, len(v.payload)), v.payload...)
		e = v.entry(key)
	}
	return e, v.exists, revision, nil
}

// View is the store at one moment. It holds on to what compaction would remove,
// so it is closed as soon as the answer is read.
type View struct {
	h    *handle
	snap *pebble.Snapshot
	st   state
}

// View pins the store as it is now.
func (s *Store) View() (*View, error) {
	h, err := s.acquire()
	if err != nil {
		return nil, err
	}
	v := &View{h: h, snap: h.db.NewSnapshot()}
	if v.st, err = readState(v.snap); err != nil {
		v.Close()
		return nil, err
	}
	return v, nil
}

func readState(r pebble.Reader) (state, error) {
	value, closer, err := r.Get(keyState)
	if err != nil {
		return state{}, fmt.Errorf("storage: read state: %w", err)
	}
	st, err := decodeState(value)
	return st, errors.Join(err, closer.Close())
}

// Close releases the view.
func (v *View) Close() {
	if v.h == nil {
		return
	}
	if err := v.snap.Close(); err != nil {
		v.h.opts.Logger.Error("closing a view", "err", err)
	}
	v.h.release()
	v.h = nil
}

// Revision returns the newest revision of the view, Compacted where its history
// begins.
func (v *View) Revision() uint64  { return v.st.revision }
func (v *View) Compacted() uint64 { return v.st.compact }

// Applied returns the index of the log up to which the view has applied it.
func (v *View) Applied() uint64 { return v.st.applied }

// check returns the revision to read at, or why it can't be read.
func (v *View) check(revision uint64) (uint64, error) {
	switch {
	case revision == 0:
		return v.st.revision, nil
	case revision > v.st.revision:
		return 0, &kv.Error{
			Code: kv.FutureRevision, Detail: fmt.Sprintf("revision %d does not exist yet; the newest is %d", revision, v.st.revision),
			CurrentRevision: v.st.revision, CompactRevision: v.st.compact,
		}
	case revision < v.st.compact:
		return 0, compactedError(revision, &v.st)
	}
	return revision, nil
}

func compactedError(revision uint64, st *state) error {
	return &kv.Error{
		Code: kv.Compacted, Detail: fmt.Sprintf("revision %d is compacted; history begins at %d", revision, st.compact),
		CurrentRevision: st.revision, CompactRevision: st.compact,
	}
}

// cursor opens a cursor over the state at a revision that check returned. visit is
// told of keys that the cursor passes, which don't exist then.
func (v *View) cursor(r kv.Range, revision uint64, values bool, visit func(int) error) (cursor, error) {
	if revision == v.st.revision {
		return newNewestCursor(v.snap, r, values)
	}
	return newPastCursor(v.snap, r, revision, passing(visit))
}

// passing makes visits of what a cursor passes.
func passing(visit func(int) error) func(uint64, int) error {
	return func(_ uint64, keys int) error { return visit(keys) }
}

// Get reads key as of revision; 0 means the view's newest. The entry is the
// caller's.
func (v *View) Get(key []byte, revision uint64) (kv.Entry, bool, error) {
	revision, err := v.check(revision)
	if err != nil {
		return kv.Entry{}, false, err
	}
	cur, err := v.cursor(kv.SingleKey(key), revision, true, unbounded)
	if err != nil {
		return kv.Entry{}, false, err
	}
	defer cur.close()
	if !cur.first() {
		return kv.Entry{}, false, cur.err()
	}
	e := cur.version().entry(cur.key())
	return cloneEntry(&e), true, cur.err()
}

// visitsPerCheck is how many keys a read looks at, counted as keysRead does, between two
// looks at its context.
const visitsPerCheck = 1024

// visitor returns a function that counts keys and ends a read whose context is
// done.
func visitor(ctx context.Context) func(int) error {
	n := 0
	return func(more int) error {
		before := n / visitsPerCheck
		if n += more; n/visitsPerCheck != before && ctx.Err() != nil {
			return kv.Errorf(kv.ReadTimeout, "the read was not finished in time; it had come through %d keys, of which large values count as more", n)
		}
		return nil
	}
}

func unbounded(int) error { return nil }

// List answers a query.
func (v *View) List(ctx context.Context, q *kv.Query) (*kv.List, error) {
	revision, err := v.check(q.Revision)
	if err != nil {
		return nil, err
	}
	asked := *q
	if revision == v.st.revision {
		asked.Revision = 0 // what is the newest is no past, and keys alone need no values
	}
	visit := visitor(ctx)
	open := func(values bool) (cursor, error) { return v.cursor(q.Range, revision, values, visit) }
	list, err := runQuery(&asked, open, visit, unbounded)
	if err != nil {
		if r, ok := err.(*refusal); ok {
			err = kv.Errorf(r.code, "%s", r.detail)
		}
		return nil, err
	}
	list.Revision = revision
	return list, nil
}

// Scan calls fn for each entry of a query in order, without holding more than
// one. The entry is valid during the call only. Sort, Delimiter and MaxBytes
// are not looked at.
func (v *View) Scan(ctx context.Context, q *kv.Query, fn func(*kv.Entry) error) error {
	revision, err := v.check(q.Revision)
	if err != nil {
		return err
	}
	visit := visitor(ctx)
	cur, err := v.cursor(q.Range, revision, !q.KeysOnly, visit)
	if err != nil {
		return err
	}
	defer cur.close()
	n := 0
	for ok := begin(q, cur); ok; ok = advance(q, cur) {
		if err := visit(1); err != nil {
			return err
		}
		e := entryOf(q, cur.key(), cur.version())
		if !q.Passes(&e) {
			continue
		}
		if q.Limit > 0 && n == q.Limit {
			break
		}
		n++
		if err := fn(&e); err != nil {
			return err
		}
	}
	return cur.err()
}

// Members returns what members have said of themselves.
func (v *View) Members() ([]kv.Member, error) { return readMembers(v.snap) }

// Memberships returns each member's place in the cluster, those that were removed
// included, by replica id. A first member has one as soon as it has announced
// itself.
func (v *View) Memberships() ([]kv.Membership, error) { return readMemberships(v.snap) }

// Alarms returns the alarms that are active.
func (v *View) Alarms() ([]kv.Alarm, error) { return readAlarms(v.snap) }
