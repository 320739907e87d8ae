//go:build !cgo || !linux

package cli

// boundMalloc has nothing to bound: Pebble takes its memory from Go's heap, or the
// allocator is another one.
func boundMalloc() {}
