//go:build cgo && linux

package cli

/*
// The allocator of glibc has it. That of musl doesn't, and then this is null: it was never in
// need of it.
extern int mallopt(int, int) __attribute__((weak));

static void keepTogether(int arenas, int mapped) {
	if (mallopt) {
		mallopt(-8, arenas); // M_ARENA_MAX
		mallopt(-3, mapped); // M_MMAP_THRESHOLD
	}
}
*/
import "C"

import "os"

const (
	// mallocArenas is in how many places the allocator of C keeps what was freed.
	mallocArenas = 1
	// mallocMapped is from how many bytes on a piece is mapped by itself, and given back
	// to the kernel when it is freed: memtables are, and blocks are not.
	mallocMapped = 1 << 20
)

// boundMalloc keeps what Pebble takes from the allocator of C, where the binary has cgo,
// near what it asks for: blocks of its cache and memtables, which one thread allocates and
// another one frees. By itself glibc has eight places for each processor, in each of which
// what was freed waits for more of the same, and takes memtables from there, too, once
// one was freed. With 3,000,000 keys a node had 588 MB after a rest, and has 405.
//
// Whoever has set glibc's own knobs wants something else.
func boundMalloc() {
	if os.Getenv("MALLOC_ARENA_MAX") == "" && os.Getenv("MALLOC_MMAP_THRESHOLD_") == "" && os.Getenv("GLIBC_TUNABLES") == "" {
		C.keepTogether(mallocArenas, mallocMapped)
	}
}
