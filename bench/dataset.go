package main

import "math/rand/v2"

const (
	valueSize = 256

	// Keys are "bench/002a/0123456789abcdef": a group of a thousand, as four hex
	// digits, that a list can ask for by prefix, then a name that spreads the
	// group's keys. All have
	// the same size, so that a request can be built once and have its key
	// replaced in place; and it is a multiple of three, so that the base64 form
	// has no padding.
	keySize   = len("bench/002a/0123456789abcdef")
	groupSize = 1000
	keysMax   = (1 << 16) * groupSize

	prefixSize = len("bench/002a/")
)

const hexDigits = "0123456789abcdef"

// putKey writes key number i, 0 <= i < keysMax, over the first keySize bytes of b.
func putKey(b []byte, i int) {
	putPrefix(b, i/groupSize)
	name := mix(uint64(i))
	for at := keySize - 1; at >= prefixSize; at-- {
		b[at] = hexDigits[name&15]
		name >>= 4
	}
}

// putPrefix writes what the keys of a group have in common.
func putPrefix(b []byte, group int) {
	copy(b, "bench/0000/")
	for at := prefixSize - 2; group > 0; at-- {
		b[at] = hexDigits[group&15]
		group >>= 4
	}
}

// mix spreads numbers over all 64 bits, two never to the same one.
func mix(x uint64) uint64 {
	x += 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

// scatter is the order in which n keys are loaded: each number below n once,
// far from its neighbours, the same on every run.
func scatter(i, n int) int {
	const step = 2_654_435_761 // a prime, so that it has no factor in common with any n below it
	return i * step % n
}

// A dataset holds the values. They are slices of one text of random characters,
// so that a value costs the load generator nothing and can still be told from
// every other when it is read back. The text is long enough that no compressor
// sees the same part twice within its window; a character carries six bits, as
// in most text something can be saved on it, but not by finding repetitions.
type dataset struct {
	text []byte
}

const textSize = 16 << 20

func newDataset() *dataset {
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	rng := rand.New(rand.NewPCG(3, 5))
	d := &dataset{text: make([]byte, textSize)}
	for i := 0; i < len(d.text); i += 8 {
		for j, bits := i, rng.Uint64(); j < i+8; j++ {
			d.text[j] = alphabet[bits&63]
			bits >>= 6
		}
	}
	return d
}

// value is the value that a seed stands for. It must not be changed.
func (d *dataset) value(seed uint64) []byte {
	at := mix(seed) % uint64(len(d.text)-valueSize)
	return d.text[at : at+valueSize : at+valueSize]
}

// loaded is the value that key number i has after it was loaded, which reads
// compare with what they get.
func (d *dataset) loaded(i int) []byte { return d.value(uint64(i)) }
