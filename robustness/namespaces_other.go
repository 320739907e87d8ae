//go:build !linux

package robustness

// Namespaces are Linux's.
type Namespaces struct{}

func (*Namespaces) listen(int) string { return "" }
func (*Namespaces) peer(int) string   { return "" }
func (*Namespaces) in(int) []string   { return nil }
