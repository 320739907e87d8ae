package kv

import (
	"bytes"
	"errors"
	"fmt"
	"testing"
)

// few are the keys over which ranges are compared with their definition.
func few() (keys [][]byte) {
	for _, a := range []string{"", "\x00", "a", "\xff"} {
		for _, b := range []string{"", "\x00", "a", "b", "\xff"} {
			keys = append(keys, []byte(a+b))
		}
	}
	return keys
}

func ranges() (all []Range) {
	for _, start := range few() {
		for _, end := range few() {
			all = append(all, Range{Start: start, End: end})
		}
	}
	return all
}

func inRange(r Range, key []byte) bool {
	return string(key) >= string(r.Start) && (len(r.End) == 0 || string(key) < string(r.End))
}

func TestRanges(t *testing.T) {
	// universe holds a witness for whatever two ranges of few keys differ in.
	universe := [][]byte{}
	for _, k := range few() {
		universe = append(universe, k, append(bytes.Clone(k), 0), append(bytes.Clone(k), 0xff, 0xff))
	}
	for _, r := range ranges() {
		empty := true
		for _, k := range universe {
			if r.Contains(k) != inRange(r, k) {
				t.Errorf("%q contains %q: %v", r, k, r.Contains(k))
			}
			empty = empty && !inRange(r, k)
		}
		if r.Empty() != empty {
			t.Errorf("%q is empty: %v", r, r.Empty())
		}
		for _, o := range ranges() {
			overlaps := false
			for _, k := range universe {
				overlaps = overlaps || inRange(r, k) && inRange(o, k)
			}
			if r.Overlaps(o) != overlaps {
				t.Errorf("%q overlaps %q: %v", r, o, r.Overlaps(o))
			}
		}
	}
}

func TestSingleKeysAndPrefixes(t *testing.T) {
	for _, k := range few() {
		p := Prefix(k)
		for _, o := range few() {
			if p.Contains(o) != bytes.HasPrefix(o, k) {
				t.Errorf("prefix %q contains %q: %v", k, o, p.Contains(o))
			}
		}
		if len(k) == 0 {
			continue
		}
		r := SingleKey(k)
		if got, ok := r.Single(); !ok || !bytes.Equal(got, k) {
			t.Errorf("the range of %q is not single", k)
		}
		for _, o := range few() {
			if r.Contains(o) != bytes.Equal(o, k) {
				t.Errorf("the range of %q contains %q", k, o)
			}
		}
		// Growing the key in place must not reach its end.
		_ = append(r.Start, 'x')
		if r.End[len(k)] != 0 {
			t.Errorf("start and end of the range of %q share memory", k)
		}
	}
	for _, r := range ranges() {
		if key, ok := r.Single(); ok && (len(key) == 0 || !bytes.Equal(append(bytes.Clone(key), 0), r.End)) {
			t.Errorf("%q is taken for one key", r)
		}
	}
	if PrefixEnd([]byte("\xff\xff")) != nil || PrefixEnd(nil) != nil {
		t.Error("a prefix of 0xff bytes has no end")
	}
	if got := PrefixEnd([]byte("a\xff")); string(got) != "b" {
		t.Errorf("%q ends the prefix \"a\\xff\"", got)
	}
}

func TestCheckKey(t *testing.T) {
	for key, ok := range map[string]bool{
		"": false, "a": true, "\x00": true, string(make([]byte, MaxKeyBytes)): true, string(make([]byte, MaxKeyBytes+1)): false,
	} {
		if err := CheckKey([]byte(key)); (err == nil) != ok {
			t.Errorf("a key of %d bytes: %v", len(key), err)
		}
	}
}

func TestTxnShape(t *testing.T) {
	put := func(k string) Op { return Op{Type: OpPut, Key: []byte(k)} }
	increment := func(k string) Op { return Op{Type: OpIncrement, Key: []byte(k)} }
	del := func(start, end string) Op {
		return Op{Type: OpDelete, Range: Range{Start: []byte(start), End: []byte(end)}}
	}
	get := Op{Type: OpGet, Query: &Query{}}
	nested := func(t *Txn) Op { return Op{Type: OpTxn, Txn: t} }
	then := func(ops ...Op) *Txn { return &Txn{Then: ops} }
	for i, c := range []struct {
		txn        *Txn
		ops        int
		duplicates bool
	}{
		{then(), 0, false},
		{then(get, get), 2, false},
		{then(put("a"), put("b")), 2, false},
		{then(put("a"), put("a")), 2, true},
		{then(put("a"), increment("a")), 2, true},
		{then(put("b"), del("a", "c")), 2, true},
		{then(del("a", "c"), put("b")), 2, true},
		{then(del("a", "b"), put("b")), 2, false},
		{then(del("a", ""), put("\xff")), 2, true},
		{then(del("a", "c"), del("b", "d")), 2, false},
		// The branches exclude each other, on every level.
		{&Txn{Then: []Op{put("a")}, Else: []Op{put("a")}}, 2, false},
		{then(nested(&Txn{Then: []Op{put("a")}, Else: []Op{put("a"), put("b")}})), 4, false},
		{then(nested(&Txn{Else: []Op{put("a")}}), put("a")), 3, true},
		{then(put("a"), nested(&Txn{Then: []Op{get}, Else: []Op{del("", "b")}})), 4, true},
		{then(nested(then(put("a"))), nested(then(put("a")))), 4, true},
		{&Txn{Else: []Op{nested(then(nested(then(put("a"), put("a")))))}}, 4, true},
		{then(nested(then(get)), get), 3, false},
		{&Txn{Then: []Op{get}, Else: []Op{nested(&Txn{Else: []Op{increment("n")}})}}, 3, false},
	} {
		if got := c.txn.Ops(); got != c.ops {
			t.Errorf("case %d: %d operations, want %d", i, got, c.ops)
		}
		if err := c.txn.CheckDuplicates(); (err != nil) != c.duplicates {
			t.Errorf("case %d: duplicates: %v", i, err)
		}
	}
}

func TestQueryFilters(t *testing.T) {
	e := &Entry{CreateRevision: 5, ModRevision: 9}
	for _, c := range []struct {
		q      Query
		passes bool
	}{
		{Query{}, true},
		{Query{MinModRevision: 9, MaxModRevision: 9}, true},
		{Query{MinModRevision: 10}, false},
		{Query{MaxModRevision: 8}, false},
		{Query{MinCreateRevision: 5, MaxCreateRevision: 5}, true},
		{Query{MinCreateRevision: 6}, false},
		{Query{MaxCreateRevision: 4}, false},
	} {
		if c.q.Passes(e) != c.passes {
			t.Errorf("%+v", c.q)
		}
	}
}

// Every code has a word of its own, and refusals compare by code.
func TestCodes(t *testing.T) {
	words := map[string]Code{}
	for _, c := range append(Codes(), OK) {
		if other, twice := words[c.String()]; twice || c.String() == "" {
			t.Errorf("codes %d and %d are both %q", c, other, c)
		}
		words[c.String()] = c
	}
	if len(words) != int(codeEnd) || codeEnd.String() != fmt.Sprintf("code-%d", codeEnd) {
		t.Errorf("%d words for %d codes, and one more: %s", len(words), codeEnd, codeEnd)
	}
	refused := &Result{Code: Compacted, Detail: "gone", Revision: 9, CompactRevision: 4}
	err := refused.Err()
	if !errors.Is(err, &Error{Code: Compacted}) || errors.Is(err, &Error{Code: FutureRevision}) || err.Error() != "compacted: gone" {
		t.Error(err)
	}
	if (&Result{}).Err() != nil {
		t.Error("OK is an error")
	}
}

func TestWords(t *testing.T) {
	for got, want := range map[string]string{
		ReasonDeleted.String(): "deleted", ReasonExpired.String(): "expired", ReasonRevoked.String(): "revoked",
		AlarmNoSpace.String(): "no-space", AlarmCorrupt.String(): "corrupt",
	} {
		if got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

// A clone shares no memory with what it was made of.
func TestEntryClone(t *testing.T) {
	e := Entry{Key: []byte("key"), Value: []byte("value"), ContentType: "text/plain", Version: 3}
	c := e.Clone()
	e.Key[0], e.Value[0] = 'x', 'x'
	if string(c.Key) != "key" || string(c.Value) != "value" || c.Version != 3 || c.Size() != len("keyvaluetext/plain") {
		t.Errorf("%+v", c)
	}
}
