package httpapi

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/cairnkv/cairn/api"
	"github.com/cairnkv/cairn/kv"
)

// A spoiler puts one fault into a request that is otherwise good.
type spoiler struct {
	code  api.Code
	spoil func(*spoiled)
	// content says that the fault shows once the body is read.
	content bool
}

// A spoiled request is put together from what spoilers add to it.
type spoiled struct {
	key     string // in the query, percent-encoded
	query   []string
	headers []string
	body    []byte
	ops     []string // of a transaction
	tail    string   // after its JSON
}

// precedes checks that of any two faults the one that stands first in the table is
// answered, but for one of the head, which comes before one of the content.
func precedes(t *testing.T, spoilers []spoiler, send func(s *spoiled) *answer) {
	t.Helper()
	for i, a := range spoilers {
		for _, b := range spoilers[i:] {
			for _, order := range [][2]spoiler{{a, b}, {b, a}} {
				s := &spoiled{key: "a"}
				order[0].spoil(s)
				order[1].spoil(s)
				want := order[0].code
				if first, second := order[0], order[1]; first.content && !second.content ||
					first.content == second.content && second.code.Rank() < want.Rank() {
					want = second.code
				}
				got := send(s)
				if p := got.problem(t); p.Code != want {
					t.Errorf("%s and %s: got %d %q (%s), want %q", order[0].code, order[1].code, got.StatusCode, p.Code, p.Detail, want)
				}
			}
		}
	}
}

func TestPrecedenceOfFaultsOfAPut(t *testing.T) {
	k := newKit(t)
	header := func(code api.Code, h string) spoiler {
		return spoiler{code: code, spoil: func(s *spoiled) { s.headers = append(s.headers, h) }}
	}
	key := func(code api.Code, key string) spoiler {
		return spoiler{code: code, spoil: func(s *spoiled) { s.key = key }}
	}
	query := func(code api.Code, q string) spoiler {
		return spoiler{code: code, spoil: func(s *spoiled) {
			if !slices.Contains(s.query, q) {
				s.query = append(s.query, q)
			}
		}}
	}
	body := func(code api.Code, n int) spoiler {
		return spoiler{code: code, spoil: func(s *spoiled) { s.body = make([]byte, max(n, len(s.body))) }}
	}
	send := func(s *spoiled) *answer {
		return k.do("PUT", "/v1/key?"+strings.Join(append([]string{"key=" + s.key}, s.query...), "&"), s.body, s.headers...)
	}
	common := []spoiler{
		header(api.CodeHostNotAllowed, "Host: evil.example"),
		header(api.CodeOriginNotAllowed, "Origin: https://evil.example"),
		header(api.CodeUnsupportedMediaType, "Content-Encoding: gzip"),
		header(api.CodeNotAcceptable, "Accept: image/png"),
		body(api.CodeRequestTooLarge, maxBodyBytes+1),
		query(api.CodeInvalidArgument, "limit=3"),
		query(api.CodeInvalidArgument, "prev=maybe"),
		query(api.CodeInvalidArgument, "ttl=x"),
		query(api.CodeInvalidArgument, "if_revision=x"),
		header(api.CodeInvalidArgument, "If-Match: x"),
		header(api.CodeInvalidArgument, "Idempotency-Key: a b"),
	}
	// Faults of the key exclude each other: there is one key.
	for _, k := range []spoiler{
		key(api.CodeBadKeyEncoding, "%zz"),
		key(api.CodeKeyEmpty, ""),
		key(api.CodeKeyTooLarge, strings.Repeat("k", kv.MaxKeyBytes+1)),
		key(api.CodeReserved, kv.ReservedPrefix+"a"),
	} {
		precedes(t, append(slices.Clone(common), k), send)
	}
	// So do the two faults of a body that is too large.
	precedes(t, append(slices.Clone(common[:4]), append(slices.Clone(common[5:]), body(api.CodeValueTooLarge, kv.MaxValueBytes+1))...), send)
}

func TestPrecedenceOfFaultsOfATransaction(t *testing.T) {
	k := newKit(t)
	n := 0
	op := func(code api.Code, ops ...string) spoiler {
		return spoiler{code: code, content: true, spoil: func(s *spoiled) {
			for _, o := range ops {
				n++
				s.ops = append(s.ops, strings.ReplaceAll(o, "N", fmt.Sprint(n)))
			}
		}}
	}
	many := make([]string, kv.MaxTxnOps+1)
	for i := range many {
		many[i] = `{"put":{"key":"mN","value":""}}`
	}
	precedes(t, []spoiler{
		{code: api.CodeRequestTooLarge, spoil: func(s *spoiled) { s.tail += strings.Repeat(" ", maxBodyBytes) }},
		op(api.CodeTooDeep, strings.Repeat("[", maxJSONDepth)+strings.Repeat("]", maxJSONDepth)),
		{code: api.CodeBadJSON, content: true, spoil: func(s *spoiled) { s.tail += "{}" }},
		op(api.CodeDuplicateField, `{"put":{"key":"dN","value":"","value":""}}`),
		op(api.CodeUnknownField, `{"put":{"key":"uN","value":"","Value":""}}`),
		op(api.CodeBadKeyEncoding, `{"put":{"key_base64":"*","value":""}}`),
		op(api.CodeKeyEmpty, `{"put":{"key":"","value":""}}`),
		op(api.CodeKeyTooLarge, `{"put":{"key":"N`+strings.Repeat("k", kv.MaxKeyBytes)+`","value":""}}`),
		{code: api.CodeValueTooLarge, content: true, spoil: func(s *spoiled) {
			// Once: two of them are too large for a body.
			if large := `{"put":{"key":"large","value":"` + strings.Repeat("v", kv.MaxValueBytes+1) + `"}}`; !slices.Contains(s.ops, large) {
				s.ops = append(s.ops, large)
			}
		}},
		op(api.CodeInvalidArgument, `{"increment":{"key":"iN","by":1.5}}`),
		op(api.CodeInvalidArgument, `{}`),
		{code: api.CodeInvalidArgument, spoil: func(s *spoiled) { s.query = []string{"prefix=a"} }},
		op(api.CodeRangeInvalid, `{"get":{"start":"b","end":"a"}}`),
		op(api.CodeTooManyOps, many...),
		op(api.CodeDuplicateKey, `{"put":{"key":"pN","value":""}}`, `{"delete":{"prefix":"p"}}`),
		op(api.CodeReserved, `{"put":{"key":"_cairn/N","value":""}}`),
		op(api.CodeFutureRevision, `{"get":{"key":"a","revision":99}}`),
	}, func(s *spoiled) *answer {
		body := `{"then":[` + strings.Join(s.ops, ",") + `]}` + s.tail
		return k.do("POST", "/v1/txn?"+strings.Join(s.query, "&"), []byte(body), "Content-Type: application/json")
	})
}

// What the operating system refuses this node is no mistake in it: another node may have
// what was asked for.
func TestReadThatTheSystemRefuses(t *testing.T) {
	err := fmt.Errorf("pebble: backing file 000209 error: %w", &fs.PathError{Op: "open", Path: "000209.sst", Err: syscall.EMFILE})
	f := readFault(err)
	if f.code != api.CodeUnavailable || f.retryAfter == 0 || !strings.Contains(f.detail, "too many open files") {
		t.Errorf("%+v", f)
	}
	if f := readFault(errors.New("a mistake")); f.code != api.CodeInternal {
		t.Errorf("%+v", f)
	}
}
