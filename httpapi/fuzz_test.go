package httpapi

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"net/url"
	"reflect"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/cairnkv/cairn/kv"
)

// Every decoder of what a client sends: none panics, and what one accepts a
// simpler twin accepts too, with the same meaning.

func FuzzTxn(f *testing.F) {
	for _, s := range []string{
		`{}`, `{"if":[],"then":[],"else":[]}`,
		`{"if":[{"key":"a","mod_revision":{"eq":9}},{"key":"b","exists":false},{"prefix":"c/","version":{"gt":0}},{"key":"d","value":{"ne":"x"}}],"then":[{"put":{"key":"a","value":"y","lease":"01KB0000000000000000000000"}},{"increment":{"key":"n","by":2}},{"delete":{"prefix":"tmp/"}}],"else":[{"get":{"key":"a"}},{"txn":{}}]}`,
		`{"then":[{"put":{"key_base64":"_w==","value_base64":"AA","ttl_seconds":1.5}}]}`,
		`{"then":[{"put":{"key":"\ud83d\ude00\u0000\n","value":"\\\/\b\f\r\t"}}]}`,
		`{"then":[{"put":{"key":"\ud83d","value":""}}]}`, `null`, `[]`, `"x"`, `{} {}`, `{"then":[{}],}`, `{"then":[01]}`, `{"a":1e400}`,
		`{"then":[{"get":{"start":"a","end":"b","limit":5,"sort":"mod","order":"desc"}}]}`,
		strings.Repeat(`{"then":[{"txn":`, 10) + `{}` + strings.Repeat(`}]}`, 10),
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		x := &exchange{}
		txn := x.parseTxn(body)
		if x.fault.code != "" {
			if _, ok := x.fault.code.Info(); !ok || !utf8.ValidString(x.fault.detail) {
				t.Errorf("fault %+v", x.fault)
			}
			return
		}
		if !json.Valid(body) || !utf8.Valid(body) {
			t.Errorf("%q is accepted and isn't JSON", body)
		}
		if txn.Ops() > kv.MaxTxnOps {
			t.Errorf("%d operations", txn.Ops())
		}
		// What is accepted travels through the log.
		c := &kv.Command{Kind: kv.KindTxn, Txn: txn}
		back, err := kv.DecodeCommand(kv.AppendCommand(nil, c))
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(c, back, cmpopts.EquateEmpty()); diff != "" {
			t.Errorf("through the log (-sent +arrived)\n%s", diff)
		}
	})
}

func FuzzBulkLine(f *testing.F) {
	for _, s := range []string{
		`{"put":{"key":"a","value":"x"}}`, `{"delete":{"key":"a"}}`, `{"delete":{"prefix":"a"}}`, `{"put":{}}`, ``, ` `,
		`{"put":{"key":"a","value":"x"},"delete":{"key":"a"}}`, `{"put":{"key":"a","ignore_value":true,"ignore_lease":true}}`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, line []byte) {
		b := &bulkWrite{x: &exchange{}}
		op, ok := b.parse(line)
		if !ok {
			return
		}
		if !json.Valid(line) {
			t.Errorf("%q is accepted and isn't JSON", line)
		}
		key := op.Key
		if op.Type == kv.OpDelete {
			key, _ = op.Range.Single()
		}
		if kv.CheckKey(key) != nil || bytes.HasPrefix(key, []byte(kv.ReservedPrefix)) || len(op.Value) > kv.MaxValueBytes {
			t.Errorf("%q is accepted: %+v", line, op)
		}
	})
}

func FuzzCursor(f *testing.F) {
	s := &Server{cfg: Config{CursorKey: [32]byte{1}}}
	good := s.encodeCursor(cursor{revision: 7, question: question([]byte("q")), after: []byte("key")})
	f.Add(good, []byte("key"), uint64(7))
	f.Add("", []byte{}, uint64(1))
	f.Add("AQ", []byte{0xff}, uint64(kv.MaxRevision))
	f.Fuzz(func(t *testing.T, text string, after []byte, revision uint64) {
		// What wasn't made here is refused.
		if _, ok := s.decodeCursor(text); ok && text != good {
			t.Errorf("%q is accepted", text)
		}
		if revision == 0 || revision > kv.MaxRevision {
			return
		}
		want := cursor{revision, question(after), after}
		made := s.encodeCursor(want)
		got, ok := s.decodeCursor(made)
		if !ok || got.revision != want.revision || got.question != want.question || !bytes.Equal(got.after, want.after) {
			t.Errorf("%+v comes back as %+v, %v", want, got, ok)
		}
		// Another cluster, and a changed bit, are noticed.
		if _, ok := (&Server{cfg: Config{CursorKey: [32]byte{2}}}).decodeCursor(made); ok {
			t.Error("another cluster accepts the cursor")
		}
		changed := []byte(made)
		changed[len(text)%len(changed)] ^= 1
		if _, ok := s.decodeCursor(string(changed)); ok {
			t.Errorf("%q is accepted, changed from %q", changed, made)
		}
	})
}

func FuzzPathKey(f *testing.F) {
	for _, s := range []string{"a", "a%20b", "a%2Fb", "a%2520b", "100%25", "%41", "%zz", "%", "a//b/", "..", "a?b", "a;b", "%ff%00", "|", "é"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, tail string) {
		u, err := url.ParseRequestURI(keyPath + tail)
		if err != nil {
			return
		}
		got, ok := pathKey(u, keyPath)
		path, _, _ := strings.Cut(tail, "?")
		want, err := url.PathUnescape(path)
		escaped, twinErr := url.PathUnescape(strings.TrimPrefix(u.EscapedPath(), keyPath))
		if !ok || err != nil || twinErr != nil || got != want || got != escaped {
			t.Errorf("%q: got %q %v, want %q %v", tail, got, ok, want, err)
		}
	})
}

func FuzzQuery(f *testing.F) {
	for _, s := range []string{"key=a", "prefix=a%2Fb&limit=3", "prev", "prev=", "key=a+b", "key=a;b", "&&", "=", "key=%zz", "key=a&key=b", "nope=1", "k%65y=x"} {
		f.Add(s)
	}
	all := ^paramSet(0)
	f.Fuzz(func(t *testing.T, raw string) {
		x := &exchange{}
		x.parseQuery(raw, all, 0)
		if x.fault.code != "" {
			return
		}
		want, err := url.ParseQuery(raw)
		if err != nil {
			t.Fatalf("%q is accepted: %v", raw, err)
		}
		n := 0
		for p := range numParams {
			if x.q.present.has(p) {
				n++
				if values := want[paramNames[p]]; len(values) != 1 || values[0] != x.q.values[p] {
					t.Errorf("%q: %s is %q, want %q", raw, paramNames[p], x.q.values[p], values)
				}
			}
		}
		if n != len(want) {
			t.Errorf("%q: %d parameters, want %v", raw, n, want)
		}
		x.q.reset()
		if !reflect.DeepEqual(x.q, paramValues{more: x.q.more[:0]}) {
			t.Errorf("%q: left over: %+v", raw, x.q)
		}
	})
}

func FuzzTags(f *testing.F) {
	for _, s := range []string{`*`, `"1"`, `"42-json"`, `W/"7"`, `"1", "2"`, `"1`, `1`, `"", "x"`, ` "1" ,, "2" `, `*, "1"`, `"01"`, `"9007199254740992"`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, header string) {
		got, ok := parseTags([]string{header})
		if !ok {
			return
		}
		if got.any == (len(got.list) > 0) || strings.Count(header, `"`)/2 != len(got.list) && !got.any || len(got.list) > maxConditionTags {
			t.Errorf("%q: %+v", header, got)
		}
		for _, tag := range got.list {
			if r := tag.revision; r == 0 || r > kv.MaxRevision && r != never {
				t.Errorf("%q: revision %d", header, tag.revision)
			}
		}
	})
}

func FuzzDuration(f *testing.F) {
	for _, s := range []string{"30s", "5m", "168h", "1.5", "250ms", "0", "", "s", "-1s", "1h30m", "9000000000", "1e3", "99999999999999999999h", "0.0001", "1.s", ".5s"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		got, ok := parseDuration(s)
		if !ok {
			return
		}
		text := s
		if text[len(text)-1] <= '9' {
			text += "s"
		}
		if got > 1<<33 {
			return // more than the twin holds
		}
		if want, err := time.ParseDuration(text); err != nil || want.Milliseconds() != got || want%time.Millisecond != 0 {
			t.Errorf("%q: got %d ms, want %v, %v", s, got, want, err)
		}
	})
}

func FuzzBase64(f *testing.F) {
	for _, s := range []string{"", "YQ", "YQ==", "YQ=", "_-8", "/+8=", "_+8=", "Y\nQ", "YR"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		got, ok := decodeBase64(s)
		if !ok {
			return
		}
		bare := strings.TrimRight(s, "=")
		if base64.RawStdEncoding.EncodeToString(got) != bare && base64.RawURLEncoding.EncodeToString(got) != bare {
			t.Errorf("%q decodes to %q", s, got)
		}
	})
}

func FuzzAccept(f *testing.F) {
	for _, s := range []string{"*/*", "application/json", "application/*;q=0.5, text/plain", "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", ";", ",", "a/b;q=2", "application/json;q=0"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, header string) {
		q1, _ := quality([]string{header}, "application/json")
		q2, _ := quality([]string{header}, "text/plain")
		if q1 < 0 || q1 > 1000 || q2 < 0 || q2 > 1000 {
			t.Errorf("%q: qualities %d and %d", header, q1, q2)
		}
		if got := negotiate([]string{header}, "text/plain", "application/json"); (got == wantsNeither) != (q1 == 0 && q2 == 0) {
			t.Errorf("%q: %d with qualities %d and %d", header, got, q2, q1)
		}
	})
}
