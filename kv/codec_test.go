package kv

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

// What is decoded is what was encoded; where a field is empty, nil and empty
// are the same.
func TestRoundTrip(t *testing.T) {
	for _, s := range commandSamples() {
		got, err := DecodeCommand(AppendCommand(nil, &s.command))
		if err != nil {
			t.Errorf("%s: %v", s.name, err)
		} else if d := cmp.Diff(&s.command, got, cmpopts.EquateEmpty()); d != "" {
			t.Errorf("%s:\n%s", s.name, d)
		}
	}
	for _, s := range resultSamples() {
		got, err := DecodeResult(AppendResult(nil, &s.result))
		if err != nil {
			t.Errorf("%s: %v", s.name, err)
		} else if d := cmp.Diff(&s.result, got, cmpopts.EquateEmpty()); d != "" {
			t.Errorf("%s:\n%s", s.name, d)
		}
	}
}

// Bytes that the encoder can't have written are refused; what is accepted is
// encoded again to the same bytes.
func checkCommand(t *testing.T, b []byte) {
	c, err := DecodeCommand(b)
	var unknown *UnknownKindError
	switch {
	case err == nil:
		if again := AppendCommand(nil, c); !bytes.Equal(again, b) {
			t.Fatalf("%x\nwas decoded, and encoded again as\n%x\n%+v", b, again, c)
		}
	case !errors.Is(err, ErrMalformed) && !errors.As(err, &unknown):
		t.Fatalf("%x: %v", b, err)
	}
}

func checkResult(t *testing.T, b []byte) {
	r, err := DecodeResult(b)
	switch {
	case err == nil:
		if again := AppendResult(nil, r); !bytes.Equal(again, b) {
			t.Fatalf("%x\nwas decoded, and encoded again as\n%x\n%+v", b, again, r)
		}
	case !errors.Is(err, ErrMalformed):
		t.Fatalf("%x: %v", b, err)
	}
}

// bend calls fn with every cut of b, every byte of it changed in every way, and
// a byte more at every place.
func bend(b []byte, fn func([]byte)) {
	for i := range b {
		fn(b[:i])
		for v := range 256 {
			changed := bytes.Clone(b)
			changed[i] = byte(v)
			fn(changed)
		}
	}
	for i := range len(b) + 1 {
		for _, v := range []byte{0, 1, 0x7f, 0x80, 0xff} {
			fn(bytes.Join([][]byte{b[:i], b[i:]}, []byte{v}))
		}
	}
}

func TestBentEncodings(t *testing.T) {
	for _, s := range commandSamples() {
		bend(AppendCommand(nil, &s.command), func(b []byte) { checkCommand(t, b) })
	}
	for _, s := range resultSamples() {
		bend(AppendResult(nil, &s.result), func(b []byte) { checkResult(t, b) })
	}
}

func FuzzDecodeCommand(f *testing.F) {
	for _, s := range commandSamples() {
		f.Add(AppendCommand(nil, &s.command))
	}
	f.Fuzz(func(t *testing.T, b []byte) { checkCommand(t, b) })
}

func FuzzDecodeResult(f *testing.F) {
	for _, s := range resultSamples() {
		f.Add(AppendResult(nil, &s.result))
	}
	f.Fuzz(func(t *testing.T, b []byte) { checkResult(t, b) })
}

var rewriteGolden = flag.Bool("rewrite-golden", false, "write the golden encodings anew")

// The bytes of commands and results are in logs and in stores: they never
// change. A new field is a new kind or a new format.
func TestGoldenEncodings(t *testing.T) {
	var commands, results strings.Builder
	for _, s := range commandSamples() {
		golden(&commands, s.name, AppendCommand(nil, &s.command))
	}
	for _, s := range resultSamples() {
		golden(&results, s.name, AppendResult(nil, &s.result))
	}
	for name, got := range map[string]string{"commands.txt": commands.String(), "results.txt": results.String()} {
		path := filepath.Join("testdata", "golden", name)
		if *rewriteGolden {
			if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(string(want), got); d != "" {
			t.Errorf("%s: the encoding of what is in logs already has changed:\n%s", path, d)
		}
	}
}

// golden writes bytes in hex, sixteen a line, under a comment.
func golden(b *strings.Builder, name string, encoded []byte) {
	fmt.Fprintf(b, "# %s\n", name)
	for len(encoded) > 0 {
		n := min(16, len(encoded))
		fmt.Fprintf(b, "% x\n", encoded[:n])
		encoded = encoded[n:]
	}
	b.WriteString("\n")
}

// A kind of a newer version is told apart from garbage: the member has to stop,
// and to say why.
func TestUnknownKind(t *testing.T) {
	b := AppendCommand(nil, &Command{Kind: KindCompact, Compact: 5})
	b[1] = byte(kindEnd)
	_, err := DecodeCommand(b)
	var unknown *UnknownKindError
	if !errors.As(err, &unknown) || unknown.Kind != kindEnd || !strings.Contains(err.Error(), "newer version") {
		t.Fatal(err)
	}
}

// Flags of one operation that belong to another are not encoded: a log never
// holds what decoding refuses.
func TestStrayFields(t *testing.T) {
	for _, typ := range []OpType{OpDelete, OpIncrement, OpGet, OpTxn} {
		op := Op{
			Type: typ, Key: []byte("k"), Lease: id("lease"), OwnTTLMillis: 5, ContentType: "x", Prev: true, IgnoreValue: true, IgnoreLease: true,
			Query: &Query{}, Txn: &Txn{},
		}
		if _, err := DecodeCommand(AppendCommand(nil, &Command{Kind: KindTxn, Txn: &Txn{Then: []Op{op}}})); err != nil {
			t.Errorf("operation type %d: %v", typ, err)
		}
	}
}

// A transaction may be nested so deep and no deeper, and so may a result.
func TestNesting(t *testing.T) {
	txn, result := &Txn{}, &Result{}
	for depth := 1; depth <= MaxTxnDepth+1; depth++ {
		txn = &Txn{Then: []Op{{Type: OpTxn, Txn: txn}}}
		result = &Result{Ops: []OpResult{{Type: OpTxn, Txn: result}}}
		_, err := DecodeCommand(AppendCommand(nil, &Command{Kind: KindTxn, Txn: txn}))
		if (err == nil) != (depth <= MaxTxnDepth) {
			t.Errorf("depth %d: %v", depth, err)
		}
		if _, err = DecodeResult(AppendResult(nil, result)); (err == nil) != (depth <= MaxTxnDepth) {
			t.Errorf("depth %d: %v", depth, err)
		}
	}
}

// A forged count doesn't make a decoder allocate: the elements have to be there.
func TestForgedCounts(t *testing.T) {
	forged := [][]byte{
		{commandFormat, byte(KindLeaseRenew), 0, 0, 0xff, 0xff, 0xff, 0xff, 0x0f},
		{commandFormat, byte(KindTxn), 0, 0, 0xff, 0xff, 0xff, 0xff, 0x0f},
		{commandFormat, byte(KindTxn), 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0x0f},
		{commandFormat, byte(KindTxn), 0, 0, 0, 1, byte(OpPut), 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f},
	}
	for _, b := range forged {
		allocated := testing.AllocsPerRun(1, func() {
			if _, err := DecodeCommand(b); !errors.Is(err, ErrMalformed) {
				t.Errorf("%x: %v", b, err)
			}
		})
		if allocated > 20 {
			t.Errorf("%x: %v allocations", b, allocated)
		}
	}
}
