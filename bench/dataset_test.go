package main

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
)

func TestKeys(t *testing.T) {
	seen := map[string]bool{}
	for _, i := range []int{0, 1, groupSize - 1, groupSize, 42*groupSize + 7, keysMax - 1} {
		key := keyName(i)
		if len(key) != keySize || seen[key] || !strings.HasPrefix(key, fmt.Sprintf("bench/%04x/", i/groupSize)) {
			t.Errorf("key %d is %q", i, key)
		}
		seen[key] = true
	}
	for i := range 3 * groupSize {
		seen[keyName(i)] = true
	}
	if len(seen) != 3*groupSize+2 { // two of the six above are beyond
		t.Errorf("%d different keys", len(seen))
	}
}

// putKey writes into a request and must leave what is behind it alone.
func TestPutKeyStaysWithinItsSize(t *testing.T) {
	b := bytes.Repeat([]byte{'!'}, keySize+5)
	putKey(b, keysMax-1)
	if got := string(b[keySize:]); got != "!!!!!" {
		t.Errorf("behind the key: %q", got)
	}
}

func TestScatterReachesEveryKeyOnce(t *testing.T) {
	for _, n := range []int{1, 1000, 1024, 99_991} {
		seen := make([]bool, n)
		for i := range n {
			at := scatter(i, n)
			if seen[at] {
				t.Fatalf("of %d, number %d comes twice", n, at)
			}
			seen[at] = true
		}
	}
}

func TestValues(t *testing.T) {
	d := newDataset()
	if !bytes.Equal(d.loaded(5), newDataset().loaded(5)) {
		t.Error("values differ from run to run")
	}
	if bytes.Equal(d.loaded(5), d.loaded(6)) {
		t.Error("values don't differ from key to key")
	}
	for seed := range uint64(1000) {
		v := d.value(seed)
		if len(v) != valueSize || bytes.ContainsAny(v, "\"\\\n") {
			t.Fatalf("value %q needs escaping in JSON", v)
		}
	}
}
