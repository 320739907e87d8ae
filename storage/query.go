package storage

import (
	"bytes"
	"cmp"
	"container/heap"
	"slices"

	"github.com/cairnkv/cairn/kv"
)

// maxSortBytes bounds what a list that is sorted by something else than the
// key holds in memory.
const maxSortBytes = 64 << 20

// runQuery answers q from cursors that open gives. visit is told of each key
// that is looked at and spend of each byte of the answer; either may refuse.
// The list shares no memory with the database.
func runQuery(q *kv.Query, open func(values bool) (cursor, error), visit, spend func(int) error) (*kv.List, error) {
	list := &kv.List{}
	if q.Count || q.CountOnly {
		n, err := countKeys(q, open, visit)
		if err != nil {
			return nil, err
		}
		list.Count = n
		if q.CountOnly {
			return list, nil
		}
	}
	values := !q.KeysOnly || q.Sort == kv.SortByValue || ofThePast(q)
	cur, err := open(values)
	if err != nil {
		return nil, err
	}
	defer cur.close()
	if values {
		look := visit
		visit = func(n int) error { return look(n - 1 + keysRead(cur.version())) }
	}
	if q.Sort != kv.SortByKey {
		err = listSorted(q, cur, list, visit, spend)
	} else {
		err = listInOrder(q, cur, list, visit, spend)
	}
	if err != nil {
		return nil, err
	}
	return list, nil
}

// keysRead is how many keys a key counts as whose value was read. It goes by what is
// known of the value without it, which is the same on every member.
func keysRead(v *version) int {
	return 1 + v.size()/kv.ReadBytesAKey
}

// ofThePast reports whether q is about a revision. Those are read where the values are,
// whether it asks for them or not.
func ofThePast(q *kv.Query) bool { return q.Revision != 0 }

func countKeys(q *kv.Query, open func(values bool) (cursor, error), visit func(int) error) (uint64, error) {
	cur, err := open(false)
	if err != nil {
		return 0, err
	}
	defer cur.close()
	n := uint64(0)
	for ok := cur.first(); ok; ok = cur.next() {
		looked := 1
		if ofThePast(q) {
			looked = keysRead(cur.version())
		}
		if err := visit(looked); err != nil {
			return 0, err
		}
		n++
	}
	return n, cur.err()
}

// begin moves cur to the first key of the list, in list order.
func begin(q *kv.Query, cur cursor) bool {
	switch {
	case q.After == nil && q.Descending:
		return cur.last()
	case q.After == nil:
		return cur.first()
	case q.Descending:
		return cur.seekLT(q.After)
	}
	after := q.After
	if prefix := commonPrefix(q, after); prefix != nil && bytes.Equal(prefix, after) {
		// The list goes on after a common prefix and all that is under it.
		end := kv.PrefixEnd(prefix)
		if end == nil {
			return false
		}
		return cur.seekGE(end)
	}
	if !cur.seekGE(after) {
		return false
	}
	if bytes.Equal(cur.key(), after) {
		return cur.next()
	}
	return true
}

func advance(q *kv.Query, cur cursor) bool {
	if q.Descending {
		return cur.prev()
	}
	return cur.next()
}

// commonPrefix returns the prefix into which key is folded, or nil.
func commonPrefix(q *kv.Query, key []byte) []byte {
	if len(q.Delimiter) == 0 || len(key) < q.PrefixLen {
		return nil
	}
	i := bytes.Index(key[q.PrefixLen:], q.Delimiter)
	if i < 0 {
		return nil
	}
	return key[:q.PrefixLen+i+len(q.Delimiter)]
}

// listInOrder lists by key. With a delimiter it seeks past each common prefix,
// so that the cost follows the answer and not what is under the prefixes.
func listInOrder(q *kv.Query, cur cursor, list *kv.List, visit, spend func(int) error) error {
	bytesUsed := 0
	var memory arena
	var last []byte
	full := func(size int) bool {
		n := len(list.Entries) + len(list.CommonPrefixes)
		if q.Limit > 0 && n >= q.Limit || q.MaxBytes > 0 && n > 0 && bytesUsed+size > q.MaxBytes {
			list.More, list.Next = true, last
			return true
		}
		bytesUsed += size
		return false
	}
	for ok := begin(q, cur); ok; {
		if err := visit(1); err != nil {
			return err
		}
		if prefix := commonPrefix(q, cur.key()); prefix != nil {
			if full(len(prefix)) {
				break
			}
			prefix = memory.copy(prefix)
			if err := spend(kv.ResultEntryBytes + len(prefix)); err != nil {
				return err
			}
			list.CommonPrefixes = append(list.CommonPrefixes, prefix)
			last = prefix
			if q.Descending {
				ok = cur.seekLT(prefix)
			} else if end := kv.PrefixEnd(prefix); end != nil {
				ok = cur.seekGE(end)
			} else {
				ok = false
			}
			continue
		}
		v := cur.version()
		e := entryOf(q, cur.key(), v)
		if q.Passes(&e) {
			if full(e.Size()) {
				break
			}
			if err := spend(kv.ResultEntryBytes + e.Size()); err != nil {
				return err
			}
			e.Key = memory.copy(e.Key)
			if e.Value != nil {
				e.Value = memory.copy(e.Value)
			}
			list.Entries = append(list.Entries, e)
			last = e.Key
		}
		ok = advance(q, cur)
	}
	return cur.err()
}

// arena holds the keys and values of one answer, which live as long as it does,
// in few pieces of memory.
type arena struct {
	free []byte
	size int // of the last piece
}

const maxArenaBytes = 64 << 10

// copy returns a copy of b with no room behind it.
func (a *arena) copy(b []byte) []byte {
	if len(b) > len(a.free) {
		a.size = min(max(2*a.size, 256), maxArenaBytes)
		a.free = make([]byte, max(a.size, len(b)))
	}
	n := copy(a.free, b)
	c := a.free[:n:n]
	a.free = a.free[n:]
	return c
}

func entryOf(q *kv.Query, key []byte, v *version) kv.Entry {
	e := v.entry(key)
	withoutValue(q, &e)
	return e
}

// withoutValue takes the value out of an entry of a query for keys alone.
func withoutValue(q *kv.Query, e *kv.Entry) {
	if q.KeysOnly {
		e.Value, e.ContentType = nil, ""
	}
}

// cloneEntry copies key and value in one allocation and keeps a nil value nil.
func cloneEntry(e *kv.Entry) kv.Entry {
	c := *e
	buf := make([]byte, 0, len(e.Key)+len(e.Value))
	buf = append(append(buf, e.Key...), e.Value...)
	n := len(e.Key)
	c.Key = buf[:n:n]
	if e.Value != nil {
		c.Value = buf[n:len(buf):len(buf)]
	}
	return c
}

// listSorted lists by something else than the key. With a limit it holds that
// many entries and no more.
func listSorted(q *kv.Query, cur cursor, list *kv.List, visit, spend func(int) error) error {
	s := &sorted{q: q}
	held := 0
	for ok := cur.first(); ok; ok = cur.next() {
		if err := visit(1); err != nil {
			return err
		}
		e := cur.version().entry(cur.key())
		if q.Sort != kv.SortByValue {
			withoutValue(q, &e)
		}
		if !q.Passes(&e) {
			continue
		}
		if q.Limit > 0 && len(s.entries) == q.Limit {
			list.More = true
			if !s.before(&e, &s.entries[0]) {
				continue
			}
			held -= s.entries[0].Size()
			heap.Pop(s)
		}
		if held += e.Size(); held > maxSortBytes {
			return refuse(kv.TransactionTooLarge, "sorting these entries takes more than %d bytes; list by key, keys only, or a smaller range", maxSortBytes)
		}
		heap.Push(s, cloneEntry(&e))
	}
	if err := cur.err(); err != nil {
		return err
	}
	slices.SortFunc(s.entries, func(a, b kv.Entry) int { return s.order(&a, &b) })
	used := 0
	for i := range s.entries {
		withoutValue(q, &s.entries[i])
		size := s.entries[i].Size()
		if used += size; q.MaxBytes > 0 && i > 0 && used > q.MaxBytes {
			s.entries = s.entries[:i]
			list.More = true
			break
		}
		if err := spend(kv.ResultEntryBytes + size); err != nil {
			return err
		}
	}
	list.Entries = s.entries
	return nil
}

// sorted is a heap whose top is the entry that comes last in list order.
type sorted struct {
	q       *kv.Query
	entries []kv.Entry
}

// order compares in list order. Ties go by key, ascending, so that the order
// is total.
func (s *sorted) order(a, b *kv.Entry) int {
	order := 0
	switch s.q.Sort {
	case kv.SortByVersion:
		order = cmp.Compare(a.Version, b.Version)
	case kv.SortByCreate:
		order = cmp.Compare(a.CreateRevision, b.CreateRevision)
	case kv.SortByMod:
		order = cmp.Compare(a.ModRevision, b.ModRevision)
	case kv.SortByValue:
		order = bytes.Compare(a.Value, b.Value)
	}
	if s.q.Descending {
		order = -order
	}
	if order == 0 {
		order = bytes.Compare(a.Key, b.Key)
	}
	return order
}

func (s *sorted) before(a, b *kv.Entry) bool { return s.order(a, b) < 0 }

func (s *sorted) Len() int           { return len(s.entries) }
func (s *sorted) Less(i, j int) bool { return s.order(&s.entries[i], &s.entries[j]) > 0 }
func (s *sorted) Swap(i, j int)      { s.entries[i], s.entries[j] = s.entries[j], s.entries[i] }
func (s *sorted) Push(x any)         { s.entries = append(s.entries, x.(kv.Entry)) }
func (s *sorted) Pop() any {
	last := s.entries[len(s.entries)-1]
	s.entries = s.entries[:len(s.entries)-1]
	return last
}
